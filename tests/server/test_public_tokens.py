"""Public tokens (JWT): which of them are ours, what the server signs, and those that can be used a single time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from clock import Clock
from holdfast.model import limits
from holdfast.model.key import KeyKind
from holdfast.server.tokens import AUDIENCE, ISSUER, MAX_TOKEN
from holdfast.stores import Store
from server.keys import KeyWorld, key_world
from server.world import DEV_KEY, PROD_KEY, ok, refused, trigger

pytestmark = pytest.mark.anyio
CLAIMS, TOKENS = "/api/v1/auth/jwt/claims", "/api/v1/auth/public-tokens"
TRIGGER = "/api/v1/tasks/echo/trigger"
DAY = 86_400


@pytest.fixture
async def keys(store: Store) -> AsyncIterator[KeyWorld]:
    async with key_world(store, {DEV_KEY: "dev", PROD_KEY: "prod"}) as world:
        yield world


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signed(
    now: int,
    key: str = DEV_KEY,
    algorithm: str = "HS256",
    header: Any = None,
    raw: bytes | None = None,
    **changes: Any,
) -> str:
    """A token as the SDK makes it; `changes` are claims that differ, None leaves one out."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "dev",
        "pub": True,
        "iat": now,
        "exp": now + 900,
        "scopes": ["read:runs"],
        **changes,
    }
    body = json.dumps({name: value for name, value in claims.items() if value is not None}).encode()
    head = json.dumps(header or {"alg": algorithm}).encode()
    text = f"{encoded(head)}.{encoded(body if raw is None else raw)}"
    digest = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}.get(algorithm)
    mark = hmac.new(key.encode(), text.encode(), digest).digest() if digest else b""
    return f"{text}.{encoded(mark)}"


async def status(keys: KeyWorld, token: str, path: str = "/api/v1/runs") -> int:
    async with keys.client(token) as client:
        response = await client.get(path)
    if response.status_code != 200:
        assert token not in response.text
        assert set(response.json()) <= {"error", "code", "param", "type"}
    return response.status_code


async def test_what_the_sdk_signs_is_taken(keys: KeyWorld, clock: Clock):
    async with keys.client(DEV_KEY) as client:
        claims = await ok(client.post(CLAIMS))
    assert claims == {"sub": "dev", "pub": True}
    now = clock() // 1_000
    assert await status(keys, signed(now, **claims)) == 200
    assert await status(keys, signed(now, **claims, realtime={"skipColumns": ["payload"]}, otu=False)) == 200
    assert await status(keys, signed(now, scopes=None)) == 403  # it is ours, and grants nothing
    assert await status(keys, signed(now, nbf=now)) == 200
    assert await status(keys, signed(now, exp=now + 3_650 * DAY)) == 200  # a root key says how long
    # What a header says about keys is not looked at.
    header = {"alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}, "kid": "../../x"}
    assert await status(keys, signed(now, header=header)) == 200


FORGED: dict[str, dict[str, Any]] = {
    "expired": {"exp": -1},
    "expires now": {"exp": 0},
    "not yet valid": {"nbf": 60},
    "without an end": {"exp": None},
    "too long": {"exp": 300_000_000_000},
    "wrong audience": {"aud": "https://elsewhere"},
    "a list of audiences": {"aud": [AUDIENCE]},
    "wrong issuer": {"iss": "https://elsewhere"},
    "no issuer": {"iss": None},
    "not public": {"pub": False},
    "public as text": {"pub": "true"},
    "no subject": {"sub": None},
    "subject of another environment": {"sub": "prod"},
    "subject of no environment": {"sub": "nowhere"},
    "subject that is no text": {"sub": 5},
    "subject that is huge": {"sub": "x" * 1_000},
    "key of another environment": {"key": PROD_KEY},
    "key of nobody": {"key": f"{DEV_KEY}x"},
    "empty key": {"key": ""},
    "no algorithm": {"algorithm": "none"},
    "another algorithm": {"algorithm": "HS512"},
    "an algorithm that was not used": {"header": {"alg": "RS256"}},
    "no algorithm, signed": {"header": {"alg": "none"}},
    "no header": {"header": {"typ": "JWT"}},
    "a header that is a list": {"header": ["HS256"]},
    "critical extensions": {"header": {"alg": "HS256", "crit": ["exp"], "exp": 0}},
    "scopes as text": {"scopes": "admin"},
    "an end that is no number": {"exp": "tomorrow"},
    "an end that is true": {"exp": True},
    "a beginning that is no number": {"nbf": "now"},
    "claims that are a list": {"raw": b"[]"},
    "claims that are no JSON": {"raw": b"{"},
    "claims that are no text": {"raw": b"\xff\xfe"},
    "claims without an end": {"raw": b"[" * 4_000},
    "a huge token": {"padding": "x" * MAX_TOKEN},
}


@pytest.mark.parametrize("what", FORGED)
async def test_what_is_not_ours_or_not_now_is_401(keys: KeyWorld, clock: Clock, what: str):
    now = clock() // 1_000
    changes = dict(FORGED[what])
    for name in ("exp", "nbf"):
        if isinstance(changes.get(name), int) and changes[name] is not True:
            changes[name] += now
    assert await status(keys, signed(now)) == 200
    assert await status(keys, signed(now, **changes)) == 401


@pytest.mark.parametrize("token", ["a.b.c", "..", "a.b.", "eyJ9..x", "ä.ö.ü", "." * 2 + "x" * 100_000])
async def test_what_is_no_token_is_401(keys: KeyWorld, token: str):
    async with keys.client("x") as client:
        response = await client.get("/api/v1/runs", headers=[(b"authorization", f"Bearer {token}".encode())])
    assert response.status_code == 401


async def test_a_changed_token_is_401(keys: KeyWorld, clock: Clock):
    head, body, mark = signed(clock() // 1_000).split(".")
    other = encoded(json.dumps({"sub": "dev", "pub": True, "scopes": ["admin"]}).encode())
    for token in (
        f"{head}.{other}.{mark}",
        f"{head}.{body}.{mark[:-2]}",
        f"{head}.{body}.",
        f"{head}x.{body}.{mark}",
    ):
        assert await status(keys, token) == 401


async def test_a_scope_for_another_run_or_tag_is_403(keys: KeyWorld, clock: Clock):
    async with keys.client(DEV_KEY) as client:
        run, other = await trigger(client, tags=["a:b"]), await trigger(client)
    now, path = clock() // 1_000, f"/api/v3/runs/{run}"
    for scope, wanted in {
        f"read:runs:{run}": 200,
        "read:tags:a:b": 200,
        "read:tasks:echo": 200,
        f"read:runs:{other}": 403,
        f"read:runs:{run}x": 403,
        "read:tags:a": 403,
        "read:tags:b": 403,
        "read:tasks:other": 403,
        f"write:runs:{run}": 403,
        f"read:tasks:{run}": 403,
    }.items():
        assert await status(keys, signed(now, scopes=[scope]), path) == wanted, scope


async def mint(keys: KeyWorld, key: str = DEV_KEY, **body: Any) -> str:
    async with keys.client(key) as client:
        token: str = (await ok(client.post(TOKENS, json={"scopes": ["read:runs"], **body})))["token"]
    return token


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


async def test_the_server_signs_what_it_is_asked_for(keys: KeyWorld, clock: Clock):
    now = clock() // 1_000
    token = await mint(
        keys, scopes=["read:runs", "read:runs"], oneTimeUse=True, realtime={"skipColumns": ["payload"]}
    )
    assert claims_of(token) == {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "dev",
        "pub": True,
        "iat": now,
        "exp": now + 900,
        "scopes": ["read:runs"],
        "otu": True,
        "realtime": {"skipColumns": ["payload"]},
    }
    assert await status(keys, await mint(keys)) == 200


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5_400),
        ("2 hours", 7_200),
        ("15 Minutes", 900),
        ("1.5h", 5_400),
        ("30d", 30 * DAY),
        ("1s", 1),
        (60, 60),
        (0.5, 1),
        ("2026-11-24T13:00:00Z", 3_600),
    ],
)
async def test_a_lifetime_is_a_span_or_a_moment(keys: KeyWorld, clock: Clock, asked: Any, seconds: int):
    now = clock() // 1_000
    token = await mint(keys, expirationTime=asked if isinstance(asked, str) else now + asked)
    assert claims_of(token)["exp"] == now + seconds


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["read:runs"] * (limits.MAX_SCOPES + 1)}, "scopes"),
        ({"scopes": ["x" * (limits.MAX_SCOPE_TEXT + 1)]}, "scopes.0"),
        ({"scopes": ["eat:runs"]}, "scopes"),
        ({"scopes": "admin"}, "scopes"),
        ({"expirationTime": "31d"}, "expirationTime"),
        ({"expirationTime": "2100-01-01"}, "expirationTime"),
        ({"expirationTime": 10**11}, "expirationTime"),
        ({"expirationTime": 1}, "expirationTime"),
        ({"expirationTime": "0s"}, "expirationTime"),
        ({"expirationTime": "soon"}, "expirationTime"),
        ({"oneTimeUse": "yes"}, "oneTimeUse"),
        ({"oneTimeUse": 1}, "oneTimeUse"),
        ({"expirationTime": "1999-01-01"}, "expirationTime"),
    ],
)
async def test_what_can_not_be_signed_is_400(keys: KeyWorld, body: dict[str, Any], param: str):
    async with keys.client(DEV_KEY) as client:
        answer = client.post(TOKENS, json={"scopes": ["read:runs"], **body})
        await refused(answer, 400, "invalid_request", param=param)


async def test_a_limited_key_gives_away_what_it_has_and_no_more(keys: KeyWorld):
    key, _ = keys.key(KeyKind.SECRET, scopes=["read:runs", "trigger:tasks:echo"])
    for scopes in (["read:runs"], ["read:runs:run_1", "trigger:tasks:echo"]):
        assert claims_of(await mint(keys, key, scopes=scopes))["scopes"] == scopes
    async with keys.client(key) as client:
        for scope in ("read:all", "write:runs", "trigger:tasks", "trigger:tasks:other", "admin", "*:runs"):
            answer = client.post(TOKENS, json={"scopes": ["read:runs", scope]})
            error = await refused(answer, 403, "scopes_exceed_key_access", param="scopes")
            assert scope in error["error"]


async def test_tokens_make_no_tokens(keys: KeyWorld, clock: Clock):
    token = signed(clock() // 1_000, scopes=["admin"])
    async with keys.client(token) as client:
        for path in (TOKENS, CLAIMS):
            await refused(client.post(path, json={"scopes": ["read:runs"]}), 401, "not_authorised")


async def test_ten_simultaneous_uses_of_a_one_time_token_make_one_run(keys: KeyWorld):
    token = await mint(keys, scopes=["trigger:tasks:echo"], oneTimeUse=True)
    async with keys.client(token) as client, keys.client(DEV_KEY) as owner:
        answers = await asyncio.gather(*(client.post(TRIGGER, json={}) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [200] + [422] * 9
        assert {
            answer.json()["error"].rpartition(" again as ")[2] for answer in answers if not answer.is_success
        } == {"it has already been used."}
        assert len((await ok(owner.get("/api/v1/runs")))["data"]) == 1


async def test_the_retry_of_the_sdk_gets_the_first_answer(keys: KeyWorld):
    token = await mint(keys, scopes=["trigger:tasks:echo"], oneTimeUse=True)
    headers = {"x-trigger-request-idempotency-key": "4ff3f2f6-6b5c-4b1e-9d55-7d5f0f1c2f10"}
    async with keys.client(token) as client:
        first = await ok(client.post(TRIGGER, json={}, headers=headers))
        assert await ok(client.post(TRIGGER, json={}, headers=headers)) == first
        await refused(client.post(TRIGGER, json={}), 422, "unprocessable")


async def test_what_is_refused_does_not_use_the_token_up(keys: KeyWorld):
    token = await mint(keys, scopes=["trigger:tasks:echo"], oneTimeUse=True)
    async with keys.client(token) as client:
        await refused(client.post("/api/v1/tasks/other/trigger", json={}), 403, "unauthorized")
        await refused(client.post(TRIGGER, content=b"{"), 400, "invalid_request")
        many = {"options": {"tags": [str(number) for number in range(11)]}}
        await refused(client.post(TRIGGER, json=many), 422, "unprocessable")
        await ok(client.post(TRIGGER, json={}))


async def test_a_cached_answer_does_not_use_it_up_either(keys: KeyWorld):
    with_key = {"options": {"idempotencyKey": "k"}}
    async with keys.client(DEV_KEY) as owner:
        run = (await ok(owner.post(TRIGGER, json=with_key)))["id"]
    token = await mint(keys, scopes=["trigger:tasks:echo"], oneTimeUse=True)
    async with keys.client(token) as client:
        assert await ok(client.post(TRIGGER, json=with_key)) == {"id": run, "isCached": True}
        assert (await ok(client.post(TRIGGER, json={})))["id"] != run
        assert await ok(client.post(TRIGGER, json=with_key)) == {"id": run, "isCached": True}
        await refused(client.post(TRIGGER, json={}), 422, "unprocessable")
