"""Packets: payloads and outputs in the object store. Uploads, downloads, and the presigned addresses of both.

Who has a presigned address needs no key. Of a bucket it is the bucket's own; a folder is served here, under addresses that
are signed over method, object and expiry with the root key of the environment.
"""

from __future__ import annotations

import base64
import binascii

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from holdfast.engine import Engine
from holdfast.errors import Forbidden, InvalidRequest, NotFound, UnsupportedMediaType
from holdfast.model.limits import MAX_PACKET
from holdfast.model.packet import JSON, OWN, TYPES, checked_name, packet_key
from holdfast.model.run import Run
from holdfast.server.access import Access, Thing
from holdfast.server.auth import Keyring
from holdfast.server.objects import Folder, Object
from holdfast.server.presign import FIELDS, address, stored_name
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint, body_chunks
from holdfast.server.runs import READ_RUN, things_of
from holdfast.server.tokens import OBJECTS
from holdfast.wire.answers import TEXT, exactly

OWNERS = 20  # runs that use a packet; whoever may read one of the newest may read it


async def upload(call: Call) -> Response:
    name = _own_name(call)
    return respond({"presignedUrl": await _room(call, name), "storagePath": name})


async def upload_before(call: Call) -> Response:
    return respond({"presignedUrl": await _room(call, _own_name(call))})


async def download(call: Call) -> Response:
    name = checked_name(call.path("path"), "path")
    await _runs_using(call, name)
    return respond({"presignedUrl": await address(call, "GET", name)})


async def of_run(call: Call) -> Response:
    name = await _name_in_run(call)
    return respond({"presignedUrl": await address(call, "GET", name), "storagePath": name})


async def content_of_run(call: Call) -> Response:
    """For clients that reach this server and perhaps no other: the Python SDK and workers."""
    return _streamed(await _found(call, packet_key(call.environment_id, await _name_in_run(call))))


async def get_object(call: Call) -> Response:
    return _streamed(await _found(call, _key_in(call.request)))


async def put_object(call: Call) -> Response:
    """The body is the object, as it is; its Content-Type is remembered."""
    if not isinstance(call.objects, Folder):
        raise NotFound("Packet not found: objects of this server are in a bucket")
    data_type = call.request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if data_type not in TYPES:
        raise UnsupportedMediaType(f"Content-Type is {data_type[:80]!r}: expected one of {', '.join(TYPES)}")
    key = _key_in(call.request)
    [refusal] = await call.engine.add_packets([key])
    if refusal is not None:
        raise refusal
    await call.objects.receive(key, body_chunks(call.request, MAX_PACKET, call.body_seconds), data_type)
    return respond({})


async def _room(call: Call, name: str) -> str:
    [refusal] = await call.engine.add_packets([packet_key(call.environment_id, name)])
    if refusal is not None:
        raise refusal
    return await address(call, "PUT", name)


def _own_name(call: Call) -> str:
    name = checked_name(call.path("path"), "path")
    if name.startswith(OWN):
        raise InvalidRequest(
            f"path is {name[:60]!r}: names that begin with {OWN} are the server's own", "path"
        )
    return name


async def _found(call: Call, key: str) -> Object:
    found = await call.objects.get(key)
    if found is None:
        raise NotFound("Packet not found")
    return found


def _streamed(found: Object) -> Response:
    # As a header of its own the type stays bare: the SDK compares it literally.
    headers = {
        "content-type": found.data_type,
        "content-length": str(found.size),
        "cache-control": "private",
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(found.chunks, headers=headers)


async def _name_in_run(call: Call) -> str:
    field = call.path("field")
    if field not in FIELDS:
        raise InvalidRequest(f"field is {field[:40]!r}: expected payload or output", "field")
    run = await call.engine.run(call.environment_id, call.path("run"))
    name = stored_name(run, field)
    if name is None:
        raise NotFound(f"Packet not found: the {field} of this run is not in the object store")
    return name


async def _runs_using(call: Call, name: str) -> list[Run]:
    """Raises NotFound."""
    runs = await call.engine.runs_of_packet(packet_key(call.environment_id, name), OWNERS)
    if runs is None:
        raise NotFound("Packet not found")
    return runs


async def _things_of_owners(call: Call) -> list[Thing]:
    runs = await _runs_using(call, checked_name(call.path("path"), "path"))
    return [thing for run in runs for thing in things_of(run)] or [("runs", None)]


def _key_in(request: Request) -> str:
    """The key of the object that an address names. Raises Forbidden for what is none."""
    text = request.path_params["object"]
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        raise Forbidden(NO_ADDRESS) from None


async def environment_of_address(request: Request, engine: Engine, keyring: Keyring) -> str:
    """The environment of a presigned address. Raises Forbidden for one that was altered or has expired."""
    key = _key_in(request)
    query = request.query_params
    expires, signature = query.get("expires", ""), query.get("signature", "")
    environment_id = key.partition("/")[0]
    signer = await keyring.signer(environment_id)
    if signer is None or not expires.isdecimal() or len(expires) > 12:
        raise Forbidden(NO_ADDRESS)
    if not signer.is_of_object(request.method, key, int(expires), signature):
        raise Forbidden(NO_ADDRESS)
    if await engine.store.read(lambda tx: tx.now) >= int(expires) * 1_000:
        raise Forbidden("Unauthorized: this address has expired; ask for a new one")
    return environment_id


NO_ADDRESS = "Unauthorized: this address was not made here for this method and object"
URL = exactly({"presignedUrl": TEXT})
URL_AND_PATH = exactly({"presignedUrl": TEXT, "storagePath": TEXT})
UPLOAD = Access("write", ("packets",))
SIGNED = ("expires", "signature")
ENDPOINTS = (
    Endpoint("PUT", "/api/v2/packets/{path}", upload, "Upload a large payload", UPLOAD, answer=URL_AND_PATH),
    Endpoint(
        "PUT",
        "/api/v1/packets/{path}",
        upload_before,
        "Upload a large payload, before 4.4",
        UPLOAD,
        answer=URL,
    ),
    Endpoint(
        "GET",
        "/api/v1/packets/{path}",
        download,
        "Download a packet, with a scope for a run that uses it",
        Access("read", ("runs", "tasks", "tags", "batch"), _things_of_owners, tokens=True),
        answer=URL,
    ),
    Endpoint(
        "GET",
        "/api/v1/runs/{run}/packets/{field}",
        of_run,
        "Download a run's stored payload or output",
        READ_RUN,
        answer=URL_AND_PATH,
    ),
    Endpoint(
        "GET",
        "/api/v1/runs/{run}/packets/{field}/content",
        content_of_run,
        "Read a run's stored payload or output",
        READ_RUN,
    ),
    Endpoint(
        "GET",
        f"{OBJECTS}/{{object}}",
        get_object,
        "A presigned download",
        None,
        query=SIGNED,
        opened=environment_of_address,
    ),
    Endpoint(
        "PUT",
        f"{OBJECTS}/{{object}}",
        put_object,
        "A presigned upload",
        None,
        query=SIGNED,
        opened=environment_of_address,
    ),
)
