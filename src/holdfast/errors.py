"""Every error Holdfast raises on purpose.

    HoldfastError
    ├── InvalidRequest      a field is malformed                      (the message names field and value)
    ├── Unprocessable       well-formed, but refused
    ├── PayloadTooLarge     over a size limit
    ├── LengthRequired      the request does not say how long its body is
    ├── UnsupportedMediaType  the body is of another type than this route reads
    ├── NotAuthorised       the key is missing or unknown
    ├── Forbidden           the credential does not cover this
    │   └── ScopesExceedKeyAccess
    ├── NotFound            no such thing in this environment
    ├── RunNotFound
    ├── WaitpointNotFound   no such token in this environment
    ├── BulkActionNotFound  no such bulk action in this environment
    ├── BatchNotFound       no such batch in this environment
    ├── WorkerNotFound      the worker was declared lost, or never registered
    ├── Fenced              the attempt that asks has lost its lease
    ├── StoreUnavailable    the database does not answer; safe to repeat
    ├── ObjectStoreUnavailable  large payloads and outputs can not be reached now; safe to repeat
    ├── StoreTooNew         the database was written by a newer release
    ├── BadSetting          a setting can not be read
    ├── NoMasterKey         nothing can be sealed or opened: a setting or a library is missing
    ├── SealBroken          a sealed value was altered, or sealed with another master key
    ├── ServerUnreachable   no answer from the server
    ├── BlockingCallInLoop  a blocking name was used inside a running event loop
    ├── TaskImportFailed    a task module does not import
    ├── ResultTimeout       the run did not end in time; it goes on
    ├── TokenTimedOut       a token's timeout passed before it was completed
    ├── ReplayMismatch      the code asks for something else than the journal has recorded
    ├── JournalFull         a run has recorded more than is kept
    ├── WaitInStep          a step may not wait: it is recorded as a whole
    ├── StepFailed          a recorded failure whose exception class is not there any more
    ├── StepTimedOut        a step took longer than its timeout
    ├── SuspensionSwallowed the code caught what unwinds it while its run is suspended
    ├── RunFailed           a run that was waited for did not succeed
    │   ├── RunCancelled  RunCrashed  RunTimedOut  RunExpired
    ├── AbortRun            raised by user code: no further attempt
    └── RetryAfter          raised by user code: the next attempt after this delay

An error knows nothing of HTTP; `server/problems.py` holds the table of status codes.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar


class HoldfastError(Exception):
    """Base of everything Holdfast raises on purpose."""

    code: ClassVar[str] = "holdfast_error"


class InvalidRequest(HoldfastError):
    """A field is malformed. `param` names it."""

    code = "invalid_request"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Unprocessable(HoldfastError):
    """The request is well-formed and refused all the same. `param` names the field."""

    code = "unprocessable"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class PayloadTooLarge(HoldfastError):
    """A payload, output or metadata is over its limit."""

    code = "payload_too_large"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class LengthRequired(HoldfastError):
    """The request does not say how long its body is, and this route asks for it."""

    code = "length_required"
    param = "content-length"


class UnsupportedMediaType(HoldfastError):
    """The body is of a type that this route does not read."""

    code = "unsupported_media_type"
    param = "content-type"


class NotAuthorised(HoldfastError):
    """The API key is missing, unknown or revoked."""

    code = "not_authorised"


class Forbidden(HoldfastError):
    """The credential is valid and does not cover this; the message names what it lacks."""

    code = "unauthorized"  # the word of the wire contract, 1.4
    param = "access_token"


class ScopesExceedKeyAccess(Forbidden):
    """A key asked for a public token that may do more than the key itself."""

    code = "scopes_exceed_key_access"
    param = "scopes"


class NotFound(HoldfastError):
    """Nothing of this name exists in this environment."""

    code = "not_found"


class RunNotFound(HoldfastError):
    """No run has this id, or the key in use may not see it."""

    code = "run_not_found"

    def __init__(self, run_id: str = "") -> None:
        super().__init__("Run not found")
        self.run_id = run_id


class WaitpointNotFound(HoldfastError):
    """No token has this id, or the key in use may not see it."""

    code = "waitpoint_not_found"

    def __init__(self, waitpoint_id: str = "") -> None:
        super().__init__("Waitpoint not found")
        self.waitpoint_id = waitpoint_id


class BatchNotFound(HoldfastError):
    """No batch has this id, or the key in use may not see it."""

    code = "batch_not_found"

    def __init__(self, batch_id: str = "") -> None:
        super().__init__("Batch not found")
        self.batch_id = batch_id


class BulkActionNotFound(HoldfastError):
    """No bulk action has this id in this environment."""

    code = "bulk_action_not_found"

    def __init__(self, bulk_id: str = "") -> None:
        super().__init__("Bulk action not found")
        self.bulk_id = bulk_id


class WorkerNotFound(HoldfastError):
    """The worker was declared lost (its runs went back to the queue) or never registered."""

    code = "worker_not_found"

    def __init__(self, worker_id: str = "") -> None:
        super().__init__("Worker not found: it was declared lost, or it never registered. Register again.")
        self.worker_id = worker_id


class Fenced(HoldfastError):
    """The attempt that asks holds the run's lease no longer; nothing was changed."""

    code = "fenced"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"the attempt no longer holds run {run_id}; nothing was changed")
        self.run_id = run_id


class StoreUnavailable(HoldfastError):
    """The database does not answer. The call may be repeated."""

    code = "store_unavailable"


class ObjectStoreUnavailable(HoldfastError):
    """The object store, where large payloads and outputs are, does not answer. The call may be repeated."""

    code = "object_store_unavailable"


class StoreTooNew(HoldfastError):
    """The database was written by a newer release of Holdfast."""

    code = "store_too_new"


class BadSetting(HoldfastError):
    """A setting can not be read; the message names its variable and the value seen."""

    code = "bad_setting"


class NoMasterKey(HoldfastError):
    """Something must be sealed or opened, and there is no master key, or no library for it."""

    code = "no_master_key"


class SealBroken(HoldfastError):
    """A sealed value was altered, stood elsewhere, or was sealed with another master key."""

    code = "seal_broken"


class ServerUnreachable(HoldfastError):
    """The server did not answer, or answered what no Holdfast server answers."""

    code = "server_unreachable"


class BlockingCallInLoop(HoldfastError):
    """A name that blocks was used inside a running event loop; use its `a…` twin."""

    code = "blocking_call_in_loop"

    def __init__(self, name: str, instead: str) -> None:
        super().__init__(f"{name}() blocks and was called inside a running event loop: {instead}")


class TaskImportFailed(HoldfastError):
    """A module that holds tasks does not import. `module` names it, the cause is chained."""

    code = "task_import_failed"

    def __init__(self, module: str, reason: str) -> None:
        super().__init__(f"{module} does not import: {reason}")
        self.module = module


class ResultTimeout(HoldfastError, TimeoutError):
    """The run did not end in the time given. It goes on; ask again later."""

    code = "result_timeout"


class TokenTimedOut(HoldfastError, TimeoutError):
    """The timeout of a token passed before anybody completed it. `token_id` names it."""

    code = "token_timed_out"

    def __init__(self, token_id: str, message: str = "") -> None:
        super().__init__(message or f"token {token_id} was not completed in time")
        self.token_id = token_id


class ReplayMismatch(HoldfastError):
    """While a run was executed again, its code asked for something else than it had before.

    recorded  what the journal has at this place, such as {"kind": "step", "name": "charge", …}; None
              where the code asks for nothing the journal knows
    asked     what the code asked for

    Nothing was executed or recorded. The run waits for other code: deploy a version that asks again
    for what is recorded, and it goes on (docs: living with code changes).
    """

    code = "replay_mismatch"

    def __init__(self, recorded: dict[str, Any], asked: dict[str, Any], message: str) -> None:
        super().__init__(message)
        self.recorded = recorded
        self.asked = asked


class JournalFull(HoldfastError):
    """A run has recorded more entries, or more bytes, than are kept for one run."""

    code = "journal_full"


class WaitInStep(HoldfastError):
    """A durable wait was used inside a step. A step is recorded as a whole: wait before or after it."""

    code = "wait_in_step"


class StepFailed(HoldfastError):
    """A step failed earlier, and the class of its exception is not known in this process.

    error  what was recorded: {"name": "CardDeclined", "message": "…", "stackTrace": "…"}
    """

    code = "step_failed"

    def __init__(self, step: str, error: dict[str, Any]) -> None:
        super().__init__(f"step {step} failed: {error.get('name', 'Error')}: {error.get('message', '')}")
        self.error = error


class StepTimedOut(HoldfastError, TimeoutError):
    """A step took longer than its timeout."""

    code = "step_timed_out"


class SuspensionSwallowed(HoldfastError):
    """The run's code caught what unwinds it for a suspension, and went on: it must let it pass."""

    code = "suspension_swallowed"


class RunFailed(HoldfastError):
    """A run that was waited for did not succeed.

    run    the run, as far as it was read: `.run.id`, `.run.status`
    error  its error as recorded, such as
           {"type": "BUILT_IN_ERROR", "name": "ValueError", "message": "…", "stackTrace": "…"}
    """

    code = "run_failed"

    def __init__(self, run: Any, error: dict[str, Any] | None) -> None:
        self.run = run
        self.error = error or {}
        name = self.error.get("name") or self.error.get("code") or self.error.get("type") or "Error"
        message = self.error.get("message") or self.error.get("raw") or ""
        text = f"run {getattr(run, 'id', run)} ended {getattr(run, 'status', 'unsuccessfully')}: {name}: {message}"
        if trace := self.error.get("stackTrace"):
            text += f"\n\nRemote traceback:\n{trace}"
        super().__init__(text)


class RunCancelled(RunFailed):
    """The run was cancelled."""

    code = "run_cancelled"


class RunCrashed(RunFailed):
    """The run's process died, or its worker was lost too often."""

    code = "run_crashed"


class RunTimedOut(RunFailed):
    """An attempt of the run took longer than its time limit."""

    code = "run_timed_out"


class RunExpired(RunFailed):
    """The run's ttl passed before it was started."""

    code = "run_expired"


class AbortRun(HoldfastError):
    """Raise it in a task to end the run COMPLETED_WITH_ERRORS, without another attempt."""

    code = "abort_run"


class RetryAfter(HoldfastError):
    """Raise it in a task to choose the delay before the next attempt.

    delay  a `timedelta`, seconds, or text such as "30s". Attempts still count: after the last
           one the run fails with this error.
    """

    code = "retry_after"

    def __init__(self, delay: timedelta | float | str, message: str = "") -> None:
        super().__init__(message or f"asked to be retried after {delay}")
        self.delay = delay
