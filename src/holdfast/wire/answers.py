"""What routes answer, above all those about runs, as JSON Schema: in the OpenAPI document, and what Schemathesis holds answers to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.model.status import AttemptStatus, RunStatus
from holdfast.wire.versions import STATUS

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
MOMENT: Schema = {"type": "string", "format": "date-time"}
TEXTS: Schema = {"type": "array", "items": TEXT}
OBJECT: Schema = {"type": "object"}


def exactly(required: Mapping[str, Schema], **optional: Schema) -> dict[str, Any]:
    """An object with these fields and no other."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def or_null(schema: Schema) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def list_of(schema: Schema) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def page_of(item: Schema) -> dict[str, Any]:
    """A page with cursors; one that there is not is left out."""
    return exactly({"data": list_of(item), "pagination": exactly({}, next=TEXT, previous=TEXT)})


def ref(name: str) -> dict[str, Any]:
    """One of NAMED."""
    return {"$ref": f"#/components/schemas/{name}"}


def offset_page_of(item: Schema) -> dict[str, Any]:
    """A page with a number."""
    return exactly(
        {
            "data": list_of(item),
            "pagination": exactly({"currentPage": WHOLE, "totalPages": WHOLE, "count": WHOLE}),
        }
    )


ID = exactly({"id": TEXT})
DONE = exactly({"success": {"const": True}})
MESSAGE = exactly({"message": TEXT})

_ITEM: dict[str, Schema] = {
    "id": TEXT,
    "status": {"enum": [str(status) for status in RunStatus]},
    "taskIdentifier": TEXT,
    "version": or_null(TEXT),
    "createdAt": MOMENT,
    "updatedAt": MOMENT,
    "startedAt": or_null(MOMENT),
    "finishedAt": or_null(MOMENT),
    "isTest": FLAG,
    "tags": TEXTS,
    "metadata": OBJECT,
}
_ATTEMPT = exactly(
    {
        "id": TEXT,
        "status": {"enum": [str(status) for status in AttemptStatus]},
        "startedAt": MOMENT,
        "completedAt": or_null(MOMENT),
        "error": or_null(ref("RunError")),
    }
)
_SDK_COMMON: dict[str, Schema] = {
    "id": TEXT,
    "status": {"enum": sorted(set(STATUS.values()))},
    "taskIdentifier": TEXT,
    **dict.fromkeys(
        (
            "isQueued",
            "isExecuting",
            "isWaiting",
            "isCompleted",
            "isSuccess",
            "isFailed",
            "isCancelled",
            "isTest",
        ),
        FLAG,
    ),
    "createdAt": MOMENT,
    "updatedAt": MOMENT,
    "tags": TEXTS,
    "costInCents": NUMBER,
    "baseCostInCents": NUMBER,
    "durationMs": NUMBER,
    "depth": WHOLE,
}
_SDK_OPTIONAL: dict[str, Schema] = {
    "idempotencyKey": TEXT,
    "version": TEXT,
    "startedAt": MOMENT,
    "finishedAt": MOMENT,
    "delayedUntil": MOMENT,
    "expiredAt": MOMENT,
    "ttl": TEXT,
    "metadata": OBJECT,
}
_SDK_RELATED: dict[str, Schema] = {
    **_SDK_COMMON,
    "triggerFunction": {"enum": ["trigger", "triggerAndWait", "batchTrigger", "batchTriggerAndWait"]},
}
_OUTCOME: dict[str, Schema] = {"id": TEXT, "taskIdentifier": TEXT, "status": TEXT}

# What makes the ticks of a schedule.
GENERATOR = exactly({"type": {"const": "CRON"}, "expression": TEXT, "description": TEXT})

NAMED: Mapping[str, Schema] = {
    "RunError": {
        "type": "object",
        "properties": {
            "type": {"enum": ["BUILT_IN_ERROR", "CUSTOM_ERROR", "STRING_ERROR", "INTERNAL_ERROR"]},
            "name": TEXT,
            "message": TEXT,
            "stackTrace": TEXT,
            "raw": TEXT,
            "code": {},  # as the worker told it
        },
        "required": ["type"],
    },
    "RunItem": exactly(_ITEM),
    "Run": exactly(
        {
            **_ITEM,
            "relatedRuns": exactly(
                {
                    "root": or_null(ref("RunItem")),
                    "parent": or_null(ref("RunItem")),
                    "children": list_of(ref("RunItem")),
                }
            ),
            "attempts": list_of(_ATTEMPT),
        },
        payload={},
        output={},
        payloadPresignedUrl=TEXT,
        outputPresignedUrl=TEXT,
    ),
    "SdkRunItem": exactly({**_SDK_COMMON, "env": exactly({"id": TEXT, "name": TEXT})}, **_SDK_OPTIONAL),
    "SdkRelatedRun": exactly(_SDK_RELATED, batchId=TEXT, **_SDK_OPTIONAL),
    "SdkRun": exactly(
        {
            **_SDK_RELATED,
            "relatedRuns": exactly(
                {"children": list_of(ref("SdkRelatedRun"))},
                root=ref("SdkRelatedRun"),
                parent=ref("SdkRelatedRun"),
            ),
            "attemptCount": WHOLE,
            "attempts": {"type": "array", "maxItems": 0},
        },
        payload={},
        output={},
        payloadPresignedUrl=TEXT,
        outputPresignedUrl=TEXT,
        error=exactly({"message": TEXT}, name=TEXT, stackTrace=TEXT, causes={"type": "array"}),
        batchId=TEXT,
        schedule=exactly({"id": TEXT, "generator": GENERATOR}, externalId=TEXT, deduplicationKey=TEXT),
        **_SDK_OPTIONAL,
    ),
    "RunResult": {
        "oneOf": [
            exactly({"ok": {"const": True}, **_OUTCOME, "output": TEXT, "outputType": TEXT}),
            exactly({"ok": {"const": False}, **_OUTCOME, "error": ref("RunError")}),
        ]
    },
}

TRIGGERED = exactly({"id": TEXT, "isCached": FLAG})
RUN = ref("Run")
SDK_RUN = ref("SdkRun")
RUNS = page_of(ref("RunItem"))
SDK_RUNS = page_of(ref("SdkRunItem"))
METADATA = exactly({"metadata": OBJECT}, metadataType=TEXT)
RESULT = ref("RunResult")
RESULTS = exactly(
    {
        "results": list_of(RESULT),
        "tokens": list_of(
            exactly({"id": TEXT, "status": TEXT}, output=TEXT, outputType=TEXT, outputIsError=FLAG)
        ),
        "pending": TEXTS,
    }
)
LOGS = page_of(
    exactly(
        {"id": TEXT, "attempt": WHOLE, "at": MOMENT, "level": TEXT, "logger": TEXT, "message": TEXT},
    )
)
JOURNAL = page_of(
    exactly(
        {
            "seq": WHOLE,
            "scope": TEXT,
            "kind": TEXT,
            "name": TEXT,
            "args": or_null(TEXT),
            "ok": or_null(FLAG),
            "value": or_null(TEXT),
            "ref": or_null(TEXT),
        }
    )
)
