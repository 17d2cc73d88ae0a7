"""What the routes about traces answer, as JSON Schema (the wire contract, 4.14)."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.wire.answers import (
    FLAG,
    MOMENT,
    NUMBER,
    OBJECT,
    TEXT,
    WHOLE,
    Schema,
    exactly,
    list_of,
    or_null,
    ref,
)

_OUTCOME: Mapping[str, Schema] = {"isError": FLAG, "isPartial": FLAG, "isCancelled": FLAG, "level": TEXT}
_EVENTS = list_of(exactly({"name": {"enum": ["log", "exception"]}, "time": MOMENT, "properties": OBJECT}))
_NEXT = exactly({}, next=TEXT)

NAMED: Mapping[str, Schema] = {
    "TraceNode": exactly(
        {
            "id": TEXT,
            "runId": TEXT,
            "data": exactly(
                {
                    "message": TEXT,
                    "taskSlug": TEXT,
                    "events": _EVENTS,
                    "startTime": MOMENT,
                    "duration": WHOLE,
                    **_OUTCOME,
                    "properties": OBJECT,
                },
                workerVersion=TEXT,
                queueName=TEXT,
                machinePreset=TEXT,
            ),
            "children": list_of(ref("TraceNode")),
        },
        parentId=TEXT,
    )
}
TREE = exactly({"trace": exactly({"traceId": TEXT, "rootSpan": ref("TraceNode")}, truncated=FLAG)})
PAGE = exactly(
    {
        "data": list_of(
            exactly(
                {
                    "id": TEXT,
                    "runId": TEXT,
                    "message": TEXT,
                    "startTime": MOMENT,
                    "duration": WHOLE,
                    **_OUTCOME,
                },
                parentId=TEXT,
                attemptNumber=WHOLE,
            )
        ),
        "attemptFailures": list_of(exactly({"spanId": TEXT, "attemptNumber": WHOLE, "runId": TEXT})),
        "pagination": exactly({}, next=TEXT, truncated=FLAG),
    }
)
EVENTS = exactly(
    {
        "events": list_of(
            exactly(
                {
                    "spanId": TEXT,
                    "runId": TEXT,
                    "message": TEXT,
                    "style": OBJECT,
                    "startTime": {"type": "string", "pattern": "^[0-9]+$"},
                    "duration": WHOLE,
                    **_OUTCOME,
                    "kind": {"enum": ["SERVER", "INTERNAL", "LOG"]},
                    "taskSlug": TEXT,
                    "properties": OBJECT,
                    "events": _EVENTS,
                },
                parentId=TEXT,
                attemptNumber=WHOLE,
            )
        ),
        "pagination": _NEXT,
    }
)
SPAN = exactly(
    {
        "spanId": TEXT,
        "parentId": or_null(TEXT),
        "runId": TEXT,
        "message": TEXT,
        **_OUTCOME,
        "startTime": MOMENT,
        "durationMs": NUMBER,
        "properties": OBJECT,
        "events": _EVENTS,
        "triggeredRuns": list_of(
            exactly({"runId": TEXT, "taskIdentifier": TEXT, "status": TEXT, "createdAt": MOMENT})
        ),
    }
)
