"""Payloads and outputs in the object store: uploads, offload, downloads, and who may have them. On a folder and on S3."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import pytest

from holdfast.engine.upkeep import Retention, retain
from holdfast.errors import ObjectStoreUnavailable
from holdfast.model.limits import MAX_PACKET, OFFLOADED, PACKET_URL_SECONDS, UNUSED_PACKET_HOURS
from holdfast.server import create_app
from holdfast.server.objects import Objects, open_objects
from holdfast.server.sweep import sweep
from holdfast.server.tokens import Signer
from server.world import DEV_KEY, KEYS, PROD_KEY, World, ok, read, refused, trigger

pytestmark = pytest.mark.anyio

STORE = "application/store"
SUPERJSON = "application/super+json"
SDK = {"x-trigger-api-version": "2025-07-16"}
LARGE = "x" * (OFFLOADED + 1)
HERE = "http://localhost:3030"  # the public address of the server of these tests
on_folder = pytest.mark.parametrize("objects", ["folder"], indirect=True)


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "s3":
        return open_objects(request.getfixturevalue("bucket_url"))
    return open_objects(f"file://{tmp_path}/objects")


async def at(world: World, method: str, url: str, **more: Any) -> httpx2.Response:
    """A request without a key to a presigned address: to this server, or to S3."""
    if not url.startswith(HERE):
        async with httpx2.AsyncClient() as client:
            return await client.request(method, url, **more)
    transport = httpx2.ASGITransport(world.app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport) as client:
        return await client.request(method, url, **more)


def path_of(name: str) -> str:
    return f"/api/v2/packets/{quote(name, safe='').replace('..', '%2E%2E')}"


async def uploaded(
    world: World,
    data: str | bytes,
    data_type: str = "application/json",
    name: str = "trigger/packet_1/payload.json",
) -> str:
    """Uploads as the SDK does; answers the storage path."""
    told = await ok(world.dev.put(path_of(name)))
    put = await at(world, "PUT", told["presignedUrl"], content=data, headers={"content-type": data_type})
    assert put.is_success, put.text
    path: str = told["storagePath"]
    return path


async def downloaded(world: World, url: str) -> httpx2.Response:
    got = await at(world, "GET", url)
    assert got.status_code == 200, got.text
    return got


async def test_an_uploaded_payload_is_run_and_read_back(world: World):
    worker = await world.worker("echo")
    path = await uploaded(world, '{"stored":"✓"}'.encode())
    run = await trigger(world.dev, payload=path, payloadType=STORE)
    [claimed] = await worker.claim()
    assert (claimed["payload"], claimed["payloadType"]) == (None, STORE)
    content = await world.dev.get(f"/api/v1/runs/{run}/packets/payload/content")
    assert (content.headers["content-type"], content.json()) == ("application/json", {"stored": "✓"})
    for headers in ({}, SDK):
        shown = await ok(world.dev.get(f"/api/v3/runs/{run}", headers=headers))
        assert "payload" not in shown
        assert (await downloaded(world, shown["payloadPresignedUrl"])).json() == {"stored": "✓"}


@pytest.mark.parametrize(
    ("data_type", "data", "given"),
    [
        ("application/json", '{"a":1}', {"a": 1}),
        (SUPERJSON, '{"json":"5","meta":{"values":["bigint"]}}', 5),
        ("text/plain", "just text ✓", "just text ✓"),
    ],
)
async def test_the_type_of_an_object_comes_back_literally(
    world: World, data_type: str, data: str, given: Any
):
    path = await uploaded(world, data.encode(), data_type)
    told = await ok(world.dev.get(f"/api/v1/packets/{quote(path, safe='')}"))
    got = await downloaded(world, told["presignedUrl"])
    assert got.headers["content-type"] == data_type
    assert got.text == data
    worker = await world.worker({"id": "echo", "key": ""})
    await trigger(world.dev, payload=path, payloadType=STORE)
    [claimed] = await worker.claim()
    assert claimed["concurrencyKey"] == ("" if isinstance(given, dict) else str(given))


async def test_parameters_of_a_type_say_nothing(world: World):
    path = await uploaded(world, '{"a":1}', "application/json; charset=utf-8")
    run = await trigger(world.dev, payload=path, payloadType=STORE)
    content = await world.dev.get(f"/api/v1/runs/{run}/packets/payload/content")
    assert content.headers["content-type"] == "application/json"


async def test_a_large_payload_goes_to_the_object_store_unseen(world: World):
    worker = await world.worker({"id": "echo", "key": "tenant"})
    run = await trigger(world.dev, payload={"tenant": "t1", "text": LARGE})
    [claimed] = await worker.claim()
    assert claimed["concurrencyKey"] == "t1"
    kept = await world.engine.run("dev", run)
    assert len(kept.payload or "") < 100
    shown = await read(world.dev, run)
    assert (await downloaded(world, shown["payloadPresignedUrl"])).json() == {"tenant": "t1", "text": LARGE}
    told = await ok(world.dev.get(f"/api/v1/runs/{run}/packets/payload"))
    assert told["storagePath"] == kept.payload
    await refused(world.dev.get(f"/api/v1/runs/{run}/packets/output"), 404, "not_found")


async def test_large_superjson_keeps_its_type(world: World):
    text = json.dumps({"json": {"n": "7", "text": LARGE}, "meta": {"values": {"n": ["bigint"]}}})
    run = await trigger(world.dev, payload=text, payloadType=SUPERJSON)
    shown = await read(world.dev, run)
    got = await downloaded(world, shown["payloadPresignedUrl"])
    assert got.headers["content-type"] == SUPERJSON
    assert got.json()["meta"] == {"values": {"n": ["bigint"]}}


async def test_a_small_payload_stays_in_the_database(world: World):
    text = "x" * (OFFLOADED - 2)  # with its quotes exactly at the limit
    run = await trigger(world.dev, payload=text)
    assert (await read(world.dev, run))["payload"] == text


async def test_a_large_output_is_told_as_an_address(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    output = json.dumps(LARGE)
    await worker.succeed(run, output)
    result = await ok(world.dev.get(f"/api/v1/runs/{run}/result"))
    assert (result["ok"], result["outputType"]) == (True, STORE)
    told = await ok(world.dev.get(f"/api/v1/runs/{run}/packets/output"))
    assert told["storagePath"] == result["output"]
    for url in (told["presignedUrl"], (await read(world.dev, run))["outputPresignedUrl"]):
        got = await downloaded(world, url)
        assert (got.headers["content-type"], got.text) == ("application/json", output)
    several = await ok(world.dev.post("/api/v1/runs/results", json={"runs": [run]}))
    assert several["results"][0]["outputType"] == STORE
    content = await world.dev.get(f"/api/v1/runs/{run}/packets/output/content")
    assert content.text == output
    [item] = (await ok(world.dev.get("/api/v1/runs")))["data"]
    assert not {name for name in item if "output" in name or "payload" in name}


async def test_an_output_can_be_the_payload_of_another_run(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    await worker.succeed(run, json.dumps(LARGE))
    path = (await ok(world.dev.get(f"/api/v1/runs/{run}/result")))["output"]
    again = await trigger(world.dev, payload=path, payloadType=STORE)
    assert (await world.dev.get(f"/api/v1/runs/{again}/packets/payload/content")).json() == LARGE


async def test_batches_take_large_and_uploaded_payloads(world: World):
    path = await uploaded(world, "[1]")
    items = [
        {"task": "echo", "payload": LARGE},
        {"task": "echo", "payload": path, "options": {"payloadType": STORE}},
        {"task": "echo", "payload": "nowhere", "options": {"payloadType": STORE}},
    ]
    runs = (await ok(world.dev.post("/api/v1/tasks/batch", json={"items": items})))["runs"]
    assert (await world.dev.get(f"/api/v1/runs/{runs[0]['id']}/packets/payload/content")).json() == LARGE
    assert (await world.dev.get(f"/api/v1/runs/{runs[1]['id']}/packets/payload/content")).json() == [1]
    assert (runs[2]["code"], runs[2]["param"]) == ("unprocessable", "payload")


async def test_children_in_a_report_may_have_large_payloads(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    item = {"task": "echo", "payload": LARGE}
    entry = {"first": 0, "scope": "", "name": "echo", "args": None}
    answer = await worker.say("triggers", run, **entry, items=[item])
    [child] = json.loads(answer["value"])
    assert (await world.dev.get(f"/api/v1/runs/{child['id']}/packets/payload/content")).json() == LARGE


@pytest.mark.parametrize(
    ("payload", "status", "code"),
    [
        ("trigger/nowhere.json", 422, "unprocessable"),
        ("", 400, "invalid_request"),
        (None, 400, "invalid_request"),
        ({"path": "a"}, 400, "invalid_request"),
        ("../prod/secret", 400, "invalid_request"),
        ("/etc/passwd", 400, "invalid_request"),
        ("a\\b", 400, "invalid_request"),
        ("a" * 300, 400, "invalid_request"),
    ],
)
async def test_a_trigger_needs_an_object_that_is_there(world: World, payload: Any, status: int, code: str):
    body = {"payload": payload, "options": {"payloadType": STORE}}
    await refused(world.dev.post("/api/v1/tasks/echo/trigger", json=body), status, code, param="payload")


async def test_another_environment_can_not_use_or_read_an_object(world: World):
    path = await uploaded(world, "[1]")
    body = {"payload": path, "options": {"payloadType": STORE}}
    await refused(
        world.prod.post("/api/v1/tasks/echo/trigger", json=body), 422, "unprocessable", param="payload"
    )
    await refused(world.prod.get(f"/api/v1/packets/{quote(path, safe='')}"), 404, "not_found")


@pytest.mark.parametrize(
    ("data", "data_type"),
    [
        ("{", "application/json"),
        ("[" * 200 + "]" * 200, "application/json"),
        (b'"\\u0000"', "application/json"),
        (b"\xff", "text/plain"),
        (b"a\x00b", "text/plain"),
        ('{"json":1,"meta":{"values":["odd"]}}', SUPERJSON),
        ('{"meta":{}}', SUPERJSON),
    ],
)
async def test_an_object_that_holds_no_payload_is_refused_at_the_door(
    world: World, data: Any, data_type: str
):
    path = await uploaded(world, data, data_type)
    body = {"payload": path, "options": {"payloadType": STORE}}
    await refused(world.dev.post("/api/v1/tasks/echo/trigger", json=body), 400, "invalid_request")


async def test_a_schema_is_held_to_what_an_object_holds(world: World):
    await world.worker({"id": "echo", "payloadSchema": {"type": "object", "required": ["n"]}})
    path = await uploaded(world, '{"m":1}')
    body = {"payload": path, "options": {"payloadType": STORE}}
    await refused(
        world.dev.post("/api/v1/tasks/echo/trigger", json=body), 422, "unprocessable", param="payload"
    )


async def test_a_replay_repeats_a_stored_payload_while_it_is_there(world: World, objects: Objects):
    run = await trigger(world.dev, payload=LARGE)
    again = (await ok(world.dev.post(f"/api/v1/runs/{run}/replay")))["id"]
    assert (await world.dev.get(f"/api/v1/runs/{again}/packets/payload/content")).json() == LARGE
    other = (await ok(world.dev.post(f"/api/v1/runs/{run}/replay", json={"payload": LARGE + "y"})))["id"]
    assert (await world.dev.get(f"/api/v1/runs/{other}/packets/payload/content")).json() == LARGE + "y"
    kept = await world.engine.run("dev", run)
    await objects.delete([f"dev/{kept.payload}"])
    await refused(world.dev.post(f"/api/v1/runs/{run}/replay"), 400, "invalid_request", param="payload")
    await refused(world.dev.get(f"/api/v1/runs/{run}/packets/payload/content"), 404, "not_found")


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "a/../b",
        "/etc/passwd",
        "a//b",
        "a/",
        "./a",
        "a\\b",
        "a\nb",
        "a\x7fb",
        "a\x00b",
        "é" * 129,
        "holdfast/x",
    ],
)
async def test_a_name_that_leads_elsewhere_is_refused(world: World, name: str):
    for version in ("v1", "v2"):
        path = path_of(name).replace("v2", version)
        await refused(world.dev.put(path), 400, "invalid_request", param="path")


async def test_names_with_odd_characters_do_not_get_in_each_others_way(world: World):
    names = ["a b", "a%20b", "a%2Fb", "a/b", "a", "A", "ä=+?#", "a/b/c"]
    for name in names:
        await uploaded(world, json.dumps(name), name=name)
    for name in names:
        told = await ok(world.dev.get(f"/api/v1/packets/{quote(name, safe='')}"))
        assert (await downloaded(world, told["presignedUrl"])).json() == name


async def test_the_older_upload_answers_the_address_only(world: World):
    told = await ok(world.dev.put("/api/v1/packets/old%2Fpayload.json"))
    assert list(told) == ["presignedUrl"]


async def test_what_a_run_uses_can_not_be_uploaded_again(world: World):
    path = await uploaded(world, "[1]")
    await uploaded(world, "[2]")  # nobody uses it yet: a retry
    await trigger(world.dev, payload=path, payloadType=STORE)
    await refused(world.dev.put(path_of(path)), 422, "unprocessable")


@on_folder
async def test_an_address_is_good_for_one_method_one_object_and_an_hour(world: World):
    url = (await ok(world.dev.put(path_of("a"))))["presignedUrl"]
    other = (await ok(world.dev.put(path_of("b"))))["presignedUrl"]
    assert (await at(world, "PUT", url, content="1")).status_code == 200
    query, other_path = urlsplit(url).query, urlsplit(other).path
    signature = query.partition("signature=")[2]
    flipped = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    later = int(query.removeprefix("expires=").partition("&")[0]) + 1
    for method, altered in [
        ("GET", url),
        ("PUT", f"{HERE}{other_path}?{query}"),
        ("PUT", url.replace(signature, flipped)),
        ("PUT", url.replace(signature, "")),
        ("PUT", url.replace(signature, "é")),
        ("PUT", url.replace(f"expires={later - 1}", f"expires={later}")),
        ("PUT", url.replace(f"expires={later - 1}", "expires=soon")),
        ("PUT", url.partition("?")[0]),
        ("PUT", f"{HERE}/api/v1/objects/!!?{query}"),
        ("PUT", f"{HERE}/api/v1/objects/____?{query}"),
    ]:
        await refused(at(world, method, altered, content="2"), 403, "unauthorized")
    world.clock.advance(PACKET_URL_SECONDS - 1)
    assert (await at(world, "PUT", url, content="3")).status_code == 200
    world.clock.advance(1)
    await refused(at(world, "PUT", url, content="4"), 403, "unauthorized")
    got = (await ok(world.dev.get("/api/v1/packets/a")))["presignedUrl"]
    assert (await downloaded(world, got)).text == "3"


@on_folder
async def test_an_address_of_another_environments_key_is_refused(world: World):
    world_signer = Signer("dev", [PROD_KEY], HERE)
    url = world_signer.object_url("PUT", "dev/a", 9_999_999_999)
    await refused(at(world, "PUT", url, content="1"), 403, "unauthorized")
    url = Signer("dev", [DEV_KEY], HERE).object_url("PUT", "nowhere/a", 9_999_999_999)
    await refused(at(world, "PUT", url, content="1"), 403, "unauthorized")


@on_folder
async def test_uploads_are_bounded_in_size_type_and_time(world: World, tmp_path: Path):
    url = (await ok(world.dev.put(path_of("a"))))["presignedUrl"]
    await refused(at(world, "PUT", url, content=b"x" * (MAX_PACKET + 1)), 413, "payload_too_large")

    async def endless() -> Any:
        for _ in range(MAX_PACKET // 65_536 + 1):
            yield b"x" * 65_536

    await refused(at(world, "PUT", url, content=endless()), 413, "payload_too_large")
    await refused(
        at(world, "PUT", url, content="1", headers={"content-type": "image/png"}),
        415,
        "unsupported_media_type",
    )
    charset = {"content-type": "Text/Plain; charset=utf-8"}
    assert (await at(world, "PUT", url, content="1", headers=charset)).status_code == 200
    got = await downloaded(world, (await ok(world.dev.get("/api/v1/packets/a")))["presignedUrl"])
    assert got.headers["content-type"] == "text/plain"
    assert list((tmp_path / "objects" / "drafts").iterdir()) == []


@on_folder
async def test_what_a_killed_server_has_left_of_an_upload_is_removed_after_a_day(
    objects: Objects, tmp_path: Path
):
    drafts = tmp_path / "objects" / "drafts"
    drafts.mkdir(parents=True)
    for name, age in (("old", 86_401), ("new", 60)):
        (drafts / name).write_text("half")
        os.utime(drafts / name, times=(time.time() - age,) * 2)
    await objects.tidy()
    assert [path.name for path in drafts.iterdir()] == ["new"]


@on_folder
async def test_an_upload_that_trickles_in_is_cut_off(world: World, objects: Objects, tmp_path: Path):
    impatient = create_app(world.engine, KEYS, objects=objects, body_seconds=0.05)
    url = (await ok(world.dev.put(path_of("a"))))["presignedUrl"]
    stuck = asyncio.Event()

    async def trickle() -> Any:
        yield b"1"
        await stuck.wait()

    transport = httpx2.ASGITransport(impatient)
    async with httpx2.AsyncClient(transport=transport) as client:
        await refused(client.put(url, content=trickle()), 400, "invalid_request")
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []


async def test_a_public_token_needs_a_scope_for_a_run_that_uses_the_packet(world: World):
    path = await uploaded(world, "[1]")
    name = f"/api/v1/packets/{quote(path, safe='')}"
    run = await trigger(world.dev, payload=path, payloadType=STORE, tags=["user:7"])
    for scope, status in [
        (f"read:runs:{run}", 200),
        ("read:tags:user:7", 200),
        ("read:tasks:echo", 200),
        ("read:runs", 200),
        ("read:runs:run_other", 403),
        ("write:runs", 403),
        ("read:tags:user:8", 403),
    ]:
        token = Signer("dev", [DEV_KEY], HERE).jwt([scope], world.clock.now, 60)
        headers = {"authorization": f"Bearer {token}"}
        for route in (
            name,
            f"/api/v1/runs/{run}/packets/payload",
            f"/api/v1/runs/{run}/packets/payload/content",
        ):
            answer = await world.dev.get(route, headers=headers)
            assert answer.status_code == status, (scope, route, answer.text)
    await refused(world.dev.put(path_of("mine"), headers=headers), 401, "not_authorised")
    await refused(world.dev.get("/api/v1/packets/nowhere", headers=headers), 404, "not_found")


async def test_an_upload_that_nobody_triggers_with_is_deleted_after_a_day(world: World, objects: Objects):
    path = await uploaded(world, "[1]")
    world.clock.advance(UNUSED_PACKET_HOURS * 3_600 - 1)
    assert await sweep(world.engine, objects) == 0
    world.clock.advance(1)
    assert await sweep(world.engine, objects) == 1
    assert await objects.get(f"dev/{path}") is None
    await refused(world.dev.get(f"/api/v1/packets/{quote(path, safe='')}"), 404, "not_found")


async def test_an_object_lives_as_long_as_the_runs_that_use_it(world: World, objects: Objects):
    worker = await world.worker("echo")
    path = await uploaded(world, "[1]")
    first = await trigger(world.dev, payload=path, payloadType=STORE)
    await worker.claim()
    await worker.succeed(first, json.dumps(LARGE))
    output = (await ok(world.dev.get(f"/api/v1/runs/{first}/result")))["output"]
    world.clock.advance(20 * 86_400)
    second = (await ok(world.dev.post(f"/api/v1/runs/{first}/replay")))["id"]
    assert await sweep(world.engine, objects) == 0
    world.clock.advance(15 * 86_400)
    thirty_days = Retention("dev", 30 * 86_400_000)
    assert await world.engine.store.write(retain, [thirty_days]) == [1]
    assert await sweep(world.engine, objects) == 1
    assert await objects.get(f"dev/{output}") is None
    assert await objects.get(f"dev/{path}") is not None
    await ok(world.dev.post(f"/api/v2/runs/{second}/cancel"))
    world.clock.advance(31 * 86_400)
    assert await world.engine.store.write(retain, [thirty_days]) == [1]
    assert await sweep(world.engine, objects) == 1
    assert await objects.get(f"dev/{path}") is None


class Away:
    """An object store that does not answer."""

    async def put(self, *_: Any) -> None:
        raise ObjectStoreUnavailable("away")

    get = delete = url = put

    async def tidy(self) -> None:
        return None


@on_folder
async def test_without_its_object_store_the_server_keeps_large_values_in_the_database(world: World):
    app = create_app(world.engine, KEYS, objects=Away())  # type: ignore[arg-type]  # no call of it answers
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {DEV_KEY}"}
    worker = await world.worker("echo")
    async with httpx2.AsyncClient(transport=transport, base_url="http://holdfast", headers=headers) as client:
        run = await trigger(client, payload=LARGE)
        assert (await read(client, run))["payload"] == LARGE
        [claimed] = await worker.claim()
        assert json.loads(claimed["payload"]) == LARGE
        worker.client = client
        await worker.succeed(run, json.dumps(LARGE))
        assert (await read(client, run))["output"] == LARGE
        told = await refused(client.put(path_of("a")), 503, "object_store_unavailable")
        assert "object store" in told["error"]


@on_folder
async def test_a_run_whose_addresses_can_not_be_made_is_read_without_them(world: World):
    run = await trigger(world.dev, payload=LARGE)
    app = create_app(world.engine, KEYS, objects=Away())  # type: ignore[arg-type]  # no call of it answers
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    for headers in ({}, SDK):
        own = {"Authorization": f"Bearer {DEV_KEY}", **headers}
        async with httpx2.AsyncClient(transport=transport, base_url="http://holdfast", headers=own) as client:
            shown = await read(client, run)
        assert not {name for name in shown if "ayload" in name}


@on_folder
async def test_a_server_without_an_object_store_says_so(world: World):
    app = create_app(world.engine, KEYS)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {DEV_KEY}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://holdfast", headers=headers) as client:
        await refused(client.put(path_of("a")), 422, "unprocessable")
        run = await trigger(client, payload=LARGE)
        assert (await read(client, run))["payload"] == LARGE


@on_folder
async def test_a_report_that_comes_again_changes_nothing_of_the_output(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    await worker.succeed(run, json.dumps(LARGE))
    assert (await worker.say("succeeded", run, output=json.dumps(LARGE + "y")))["status"] == "fenced"
    assert (await world.dev.get(f"/api/v1/runs/{run}/packets/output/content")).json() == LARGE
