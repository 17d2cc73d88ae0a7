"""The worker protocol: what a worker sends and is answered.

    POST   /api/v1/workers                 Registration -> Registered
    POST   /api/v1/workers/variables       -> {"variables": {"NAME": "value"}}
    POST   /api/v1/workers/{id}/claim      ClaimRequest -> ClaimAnswer   (held open up to waitMs)
    POST   /api/v1/workers/{id}/heartbeat  Heartbeat    -> {"leaseMs": 15000}
    POST   /api/v1/workers/{id}/reports    {"reports": [Report, …]} -> {"answers": [Answer, …]}
    POST   /api/v1/workers/{id}/journal    JournalRequest -> JournalPage
    DELETE /api/v1/workers/{id}            -> {}        (what it still holds goes back to the queue)

Every report carries the `lease` number that the claim, or the last answer, gave. With an older
number nothing is changed and the answer is "fenced": final, never to be repeated. A 404 means that
the worker was declared lost: it stops what it runs and registers again. 5xx and broken connections
are repeated with the same body until the lease is over; a report that arrives twice changes nothing
and is answered "fenced" the second time, but where the worker goes on by the answer ("retry",
"started") it gets that once more.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, StringConstraints, TypeAdapter
from typing_extensions import TypedDict

from holdfast.model.limits import (
    MAX_ENTRIES,
    MAX_ENTRY_NAME,
    MAX_LOG_MESSAGE,
    MAX_REPORTS,
    MAX_SCOPE,
    MAX_SLOTS,
    MAX_STEP_RESULT,
    MAX_TAG,
    MAX_TAGS,
    MAX_TASKS,
    MAX_WAITS,
)
from holdfast.wire.manifests import Milliseconds, WireQueue, WireTask

Id = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Lease = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[int, Field(ge=0, le=2**53)]
Wake = Literal["any", "failure", "last"]
Stamp = Annotated[int, Field(ge=0, le=253_402_300_799_999)]  # epoch milliseconds up to the year 9999


class Registration(TypedDict):
    name: Annotated[str, StringConstraints(max_length=256)]  # shown to people: host and process id
    fingerprint: Annotated[str, StringConstraints(max_length=128)]  # equal code registers one version
    tasks: Annotated[list[WireTask], Field(max_length=MAX_TASKS)]
    queues: NotRequired[Annotated[list[WireQueue], Field(max_length=MAX_TASKS)]]
    replaces: NotRequired[Id]  # a predecessor that is known to be dead: its runs return at once


class Registered(TypedDict):
    workerId: str
    version: str  # YYYYMMDD.N
    current: NotRequired[str]  # the version that plain runs go to, where one is deployed
    environment: str
    leaseMs: int
    variables: dict[
        str, str
    ]  # of the environment, for executors; `POST /api/v1/workers/variables` tells them again


class Heartbeat(TypedDict):
    """Renews the lease of a worker and so of all that it holds.

    A worker that claims no more says what it holds, itself or in reports that were not answered. The
    answer to its last claim may have been lost; what else the server believes that it holds goes back
    to the queue as if it had never been claimed.
    """

    held: NotRequired[Annotated[list[Id], Field(max_length=MAX_SLOTS)]]


class ClaimRequest(TypedDict):
    """A claim ends the wait of an earlier one of the same worker: whoever sent that listens no more."""

    slots: Annotated[int, Field(ge=0, le=MAX_SLOTS)]  # with 0 only cancellations are answered
    waitMs: Annotated[int, Field(ge=0, le=30_000)]


class JournalEntry(TypedDict):
    """One thing that the code of a run asked for; see model/journal.py.

    Of a "done" without a value the result is left with its run: `POST /api/v1/runs/results` gives it.
    """

    scope: Annotated[str, StringConstraints(max_length=MAX_SCOPE)]
    kind: Literal["step", "sleep", "trigger", "token", "done", "first", "forget"]
    name: Annotated[str, StringConstraints(max_length=MAX_ENTRY_NAME)]
    args: Annotated[str, StringConstraints(max_length=64)] | None
    ok: bool | None  # None: the code cancelled it
    value: Annotated[str, StringConstraints(max_length=MAX_STEP_RESULT)] | None  # JSON text
    ref: Annotated[str, StringConstraints(max_length=64)] | None  # the run or token that it is about


class NewEntry(JournalEntry):
    delayMs: NotRequired[Milliseconds]  # of a sleep: the server makes the due time of it, which is the value


class JournalRequest(TypedDict):
    run: Id
    lease: Lease
    after: Annotated[int, Field(ge=0, le=2**31)]  # how many entries are known already


class JournalPage(TypedDict):
    entries: list[JournalEntry]
    more: bool
    operations: int


class ClaimedPayload(TypedDict):
    payload: str | None  # JSON text
    payloadType: NotRequired[
        Literal["application/store"]
    ]  # GET /api/v1/runs/{run}/packets/payload/content gives it


class ClaimedRun(ClaimedPayload):
    id: str
    lease: int
    task: str
    attempt: int  # from 1
    maxAttempts: int
    maxDuration: int | None  # seconds
    tags: list[str]
    metadata: dict[str, Any]
    queue: str
    concurrencyKey: str
    isTest: bool
    alone: bool  # run it in a process of its own
    createdAt: int  # epoch milliseconds
    startedAt: int
    parentId: str | None
    rootId: str | None
    entries: int  # of its journal
    journal: list[JournalEntry] | None  # the whole of it; None when it is empty, or too large to stand here
    resumes: int  # how often this attempt was suspended and has gone on
    resumed: bool  # it goes on now with the attempt that was suspended
    activeMs: int  # of that attempt before
    operations: int  # how many of its code's changes of metadata are written


class Cancelled(TypedDict):
    id: str
    lease: int  # for the "closed" report


class ClaimAnswer(TypedDict):
    runs: list[ClaimedRun]
    cancelled: list[Cancelled]  # to be stopped now; repeated until reported closed
    now: int  # the store's time


class Succeeded(TypedDict):
    kind: Literal["succeeded"]
    run: Id
    lease: Lease
    output: str | None  # JSON text


class Failed(TypedDict):
    """An attempt failed; `retryDelayMs` null means that there shall be no other one."""

    kind: Literal["failed"]
    run: Id
    lease: Lease
    error: dict[str, Any]
    retryDelayMs: Annotated[int, Field(ge=0, le=10**12)] | None
    forget: NotRequired[Annotated[list[Number], Field(max_length=MAX_ENTRIES)]]  # failures to be tried anew
    operations: NotRequired[Number]  # changes of metadata that are not to be made again


class Entries(TypedDict):
    """New journal entries, numbered from `first` on, which is how many the run has."""

    kind: Literal["entries"]
    run: Id
    lease: Lease
    first: Number
    entries: Annotated[list[NewEntry], Field(min_length=1, max_length=MAX_ENTRIES)]


class Triggers(TypedDict):
    """Children, and the journal entry that names them: its value is the list of what each was answered."""

    kind: Literal["triggers"]
    run: Id
    lease: Lease
    first: Number
    scope: Annotated[str, StringConstraints(max_length=MAX_SCOPE)]
    name: Annotated[str, StringConstraints(max_length=MAX_ENTRY_NAME)]
    args: Annotated[str, StringConstraints(max_length=64)] | None
    items: Annotated[list[Any], Field(min_length=1, max_length=MAX_ENTRIES)]  # as of a batch trigger


class TokenMade(TypedDict):
    """A token, and the journal entry that names it: {"id", "isCached", "url", "publicAccessToken"}."""

    kind: Literal["token"]
    run: Id
    lease: Lease
    first: Number
    scope: Annotated[str, StringConstraints(max_length=MAX_SCOPE)]
    name: Annotated[str, StringConstraints(max_length=MAX_ENTRY_NAME)]
    args: Annotated[str, StringConstraints(max_length=64)] | None
    timeout: NotRequired[str]
    tags: NotRequired[list[str]]
    idempotencyKey: NotRequired[str]
    idempotencyKeyTTL: NotRequired[str]
    schema: NotRequired[dict[str, Any]]


class TimeWait(TypedDict):
    on: Literal["time"]
    dueAt: Stamp
    wake: Wake
    group: NotRequired[Number]


class EndWait(TypedDict):
    on: Literal["run", "token"]
    id: Id
    wake: Wake
    group: NotRequired[Number]


class Suspended(TypedDict):
    """The run waits, and its worker lets it go. Which ends resume it, each wait says:

    any      its end does
    failure  its end does when it failed, or when it was the last of its group
    last     only as the last of its group
    """

    kind: Literal["suspended"]
    run: Id
    lease: Lease
    activeMs: Milliseconds
    waits: Annotated[list[TimeWait | EndWait], Field(min_length=1, max_length=MAX_WAITS)]


class Crashed(TypedDict):
    """The process died. `shared`: other runs were in it, so no attempt is counted."""

    kind: Literal["crashed"]
    run: Id
    lease: Lease
    error: dict[str, Any]
    shared: bool


class Started(TypedDict):
    """The delay of an in-process retry is over: the next attempt begins now."""

    kind: Literal["started"]
    run: Id
    lease: Lease


class Released(TypedDict):
    """Handed back at shutdown. `started` tells whether user code had begun."""

    kind: Literal["released"]
    run: Id
    lease: Lease
    started: bool


class Closed(TypedDict):
    """The process of a cancelled run is gone."""

    kind: Literal["closed"]
    run: Id
    lease: Lease


class MetadataChanged(TypedDict):
    kind: Literal["metadata"]
    run: Id
    lease: Lease
    operations: NotRequired[list[dict[str, Any]]]
    parentOperations: NotRequired[list[dict[str, Any]]]
    rootOperations: NotRequired[list[dict[str, Any]]]
    written: NotRequired[Number]  # how many changes of the code are written with this one


class TagsAdded(TypedDict):
    kind: Literal["tags"]
    run: Id
    lease: Lease
    tags: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=MAX_TAG)]], Field(max_length=MAX_TAGS)
    ]


class LogRecord(TypedDict):
    at: Stamp  # of the worker's clock, never compared
    level: Annotated[str, StringConstraints(max_length=16)]
    logger: Annotated[str, StringConstraints(max_length=256)]
    message: Annotated[str, StringConstraints(max_length=MAX_LOG_MESSAGE)]


class Logged(TypedDict):
    kind: Literal["logs"]
    run: Id
    lease: Lease
    records: Annotated[list[LogRecord], Field(max_length=1_000)]


Report = Annotated[
    Succeeded
    | Failed
    | Suspended
    | Crashed
    | Started
    | Released
    | Closed
    | Entries
    | Triggers
    | TokenMade
    | MetadataChanged
    | TagsAdded
    | Logged,
    Field(discriminator="kind"),
]


class Reports(TypedDict):
    reports: Annotated[list[Report], Field(max_length=MAX_REPORTS)]


class Answer(TypedDict):
    """What became of one report.

    ok       done
    retry    sleep `delayMs`, report "started" with `lease`, and begin `attempt`
    started  the attempt begins: act under `lease` from now on
    fenced   the lease was lost; nothing was changed; stop the attempt
    refused  the report can never be accepted, see `error`; nothing was changed

    To journal reports "ok" comes with `now`, and with what the server filled in: `values`, or `value`.
    """

    status: Literal["ok", "retry", "started", "fenced", "refused"]
    lease: NotRequired[int]
    attempt: NotRequired[int]
    delayMs: NotRequired[int]
    error: NotRequired[str]
    code: NotRequired[str]
    now: NotRequired[int]
    values: NotRequired[list[str | None]]
    value: NotRequired[str]


class Answers(TypedDict):
    answers: list[Answer]  # in the order of the reports


class Leased(TypedDict):
    leaseMs: int


REGISTRATION: TypeAdapter[Registration] = TypeAdapter(Registration)
HEARTBEAT: TypeAdapter[Heartbeat] = TypeAdapter(Heartbeat)
CLAIM: TypeAdapter[ClaimRequest] = TypeAdapter(ClaimRequest)
REPORTS: TypeAdapter[Reports] = TypeAdapter(Reports)
JOURNAL: TypeAdapter[JournalRequest] = TypeAdapter(JournalRequest)
REGISTERED: TypeAdapter[Registered] = TypeAdapter(Registered)
CLAIM_ANSWER: TypeAdapter[ClaimAnswer] = TypeAdapter(ClaimAnswer)
LEASED: TypeAdapter[Leased] = TypeAdapter(Leased)
ANSWERS: TypeAdapter[Answers] = TypeAdapter(Answers)
JOURNAL_PAGE: TypeAdapter[JournalPage] = TypeAdapter(JournalPage)
