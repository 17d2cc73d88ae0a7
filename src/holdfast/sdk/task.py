"""Tasks: functions that can be called as before, and triggered as runs.

@task(retry=Retry(5), timeout="10m")
async def fulfil(order: Order) -> str: ...

await fulfil(order)                          # calls the function: no engine, no hooks
run = fulfil.trigger(order)                  # queues a run: Run[str]
receipt = fulfil.run(order)                  # queues it and waits for the result
run = fulfil.options(delay="1h").trigger(order)
"""

from __future__ import annotations

import copy
import inspect
import json
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeAlias,
    TypeVar,
    Unpack,
    cast,
)
from urllib.parse import quote

from holdfast.model.journal import Entry
from holdfast.model.limits import MAX_TASK_ID
from holdfast.sdk import options as trigger_options
from holdfast.sdk import registry
from holdfast.sdk.client import default_client
from holdfast.sdk.context import (
    CurrentRun,
    Durable,
    current_durable,
    current_run,
    current_run_or_none,
    refuse_in_step,
)
from holdfast.sdk.hooks import Hooks
from holdfast.sdk.options import Options
from holdfast.sdk.payload import PayloadInvalid, Shape
from holdfast.sdk.policy import Flow, Request, asked, error_from
from holdfast.sdk.queue import Queue
from holdfast.sdk.retry import Retry
from holdfast.sdk.run import Run
from holdfast.sdk.transport import refuse_in_loop
from holdfast.sdk.values import digest

if TYPE_CHECKING:
    from holdfast.sdk.cron import Cron
    from holdfast.wire.manifests import WireTask

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Isolation = Literal["thread", "process"]
Duration: TypeAlias = timedelta | float | str
Hook: TypeAlias = Callable[..., Any] | Iterable[Callable[..., Any]]

# What any schedule may give its task.
TICK = (
    '{"scheduleId":"sched_1","type":"DECLARATIVE","timestamp":"2026-11-24T09:00:00.000Z",'
    '"lastTimestamp":"2026-11-23T09:00:00.000Z","timezone":"UTC","upcoming":["2026-11-25T09:00:00.000Z"]}'
)


class Task(Generic[P, R]):
    """A function that is a task. Made by `@task`."""

    fn: Callable[..., Any]

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        id: str | None = None,
        queue: Queue | str | None = None,
        key: str | None = None,
        cron: Cron | str | None = None,
        retry: Retry | int | None = None,
        timeout: Duration | None = None,
        ttl: Duration | None = None,
        machine: str | None = None,
        isolation: Isolation = "thread",
        memory_limit: int | str | None = None,
        hooks: Hooks | None = None,
        local_names: Mapping[str, Any] | None = None,
    ) -> None:
        if not inspect.isfunction(fn):
            raise TypeError(f"@task decorates functions, and this is {fn!r}")
        self.fn = fn
        self.id = _checked_id(fn, id)
        self.is_async = inspect.iscoroutinefunction(fn)
        self.shape = Shape(fn, f"task {self.id}", local_names)
        self.queue = _queue(queue)
        self.key = key
        self.schedule = None if cron is None else _schedule(self.id, cron)
        self.retry = Retry(retry) if isinstance(retry, int) else retry or Retry()
        self.timeout_s = None if timeout is None else trigger_options.whole_seconds(timeout, "timeout")
        self.ttl = None if ttl is None else trigger_options.duration_on_wire(ttl, "ttl")
        self.machine = machine
        self.isolation = isolation
        self.memory_limit = _memory_limit(self.id, isolation, memory_limit)
        self.hooks = hooks or Hooks()
        self._queue_name = queue if isinstance(queue, str) else None
        self._options: Options = {}
        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(self, name, getattr(fn, name))
        self.__wrapped__ = fn

    def __repr__(self) -> str:
        return f"<task {self.id}>"

    def trigger(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Queue a run with these arguments. Raises TypeError or PayloadInvalid for arguments that do not fit."""
        refuse_in_loop("trigger", "atrigger")
        return self._trigger(args, kwargs)

    async def atrigger(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """As `trigger`, inside an event loop."""
        return await self._atrigger(args, kwargs)

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Queue a run, wait for its end, and give what it returned. Raises as `Run.result`."""
        refuse_in_loop("run", "arun")
        refuse_in_step(f"{self.id}.run()")
        return self._trigger(args, kwargs, is_awaited=True).result()

    async def arun(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `run`, inside an event loop."""
        refuse_in_step(f"{self.id}.arun()")
        return await (await self._atrigger(args, kwargs, is_awaited=True)).aresult()

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Bound[R]:
        """The task with its arguments, for `run_all`. They are written as JSON now."""
        return Bound(self, self.shape.encode_arguments(args, kwargs), self._options)

    def options(self, **options: Unpack[Options]) -> Self:
        """The same task with options for its runs; see `Options`. Later ones replace earlier ones.

        Raises TypeError for an unknown name, InvalidRequest or Unprocessable for a value that can not be.
        """
        trigger_options.checked(options)
        changed = copy.copy(self)
        changed._options = cast(Options, {**self._options, **options})
        return changed

    def decode_payload(
        self, payload_text: str | None, run: CurrentRun
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments for `fn`, validated by its type hints. Raises PayloadInvalid."""
        return self.shape.decode_arguments(payload_text, run)

    def encode_output(self, value: Any) -> str:
        """JSON text of a return value. Raises OutputInvalid."""
        return self.shape.encode_output(value)

    def manifest(self) -> WireTask:
        """What a worker tells the server about it. Raises TypeError for a scheduled one whose parameters fit no `Tick`."""
        told: WireTask = {"id": self.id, "retry": self.retry.manifest()}
        if self.queue is not None:
            told["queue"] = self.queue.name
        elif self._queue_name is not None:
            told["queue"] = self._queue_name
        if self.timeout_s is not None:
            told["maxDuration"] = self.timeout_s
        if self.ttl is not None:
            told["ttl"] = self.ttl
        if self.machine is not None:
            told["machine"] = self.machine
        if self.key is not None:
            told["key"] = self.shape.key_path(self.key)
        schema = self.shape.schema()
        if schema is not None:
            told["payloadSchema"] = schema
        if self.schedule is not None:
            self._check_parameters(schema)
            told["schedule"] = self.schedule.manifest()
        return told

    def _check_parameters(self, schema: dict[str, Any] | None) -> None:
        """That a tick can be its payload, or none where the server sees by the schema that a tick can not."""
        try:
            self.shape.decode_arguments(TICK, None)
        except PayloadInvalid as error:
            if error.__cause__ is not None:  # its hints can not be read
                raise
            if schema is None or not self.shape.takes_nothing:
                raise TypeError(
                    f"task {self.id} is scheduled, and its parameters do not fit a tick: "
                    "it may have none, optional ones, or one annotated `Tick`"
                ) from error

    def _item(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        payload = self.shape.encode_arguments(args, kwargs)
        return item_of(self.id, payload, trigger_options.on_wire(self._options, current_run_or_none()))

    def _trigger(self, args: Any, kwargs: Mapping[str, Any], *, is_awaited: bool = False) -> Run[R]:
        if (durable := current_durable()) is not None:
            item = self._item(args, kwargs)
            made = durable.blocking(lambda: self._durably(durable, item, is_awaited))
            return self._triggered(durable, made)
        connection = default_client().connection
        return self._run(connection.run(self._triggering(args, kwargs)))

    async def _atrigger(self, args: Any, kwargs: Mapping[str, Any], *, is_awaited: bool = False) -> Run[R]:
        if (durable := current_durable()) is not None:
            item = self._item(args, kwargs)
            return self._triggered(durable, await self._durably(durable, item, is_awaited))
        connection = default_client().connection
        return self._run(await connection.arun(self._triggering(args, kwargs)))

    async def _durably(
        self, durable: Durable, item: dict[str, Any], is_awaited: bool
    ) -> tuple[Entry, dict[str, Any]]:
        same = digest([item], {})  # of what the code asks for, so before the version is added
        if is_awaited:
            trigger_options.on_same_version([item], current_run())
        entry, answers = await durable.trigger(self.id, same, [item])
        return entry, answers[0]

    def _triggered(self, durable: Durable, made: tuple[Entry, dict[str, Any]]) -> Run[R]:
        entry, answer = made
        if "error" in answer:
            error = error_from(answer)
            durable.failed(error, entry)
            raise error
        return self._run(answer)

    def _run(self, answer: dict[str, Any]) -> Run[R]:
        return Run(
            default_client().connection, {**answer, "taskIdentifier": self.id}, self.shape.decode_output
        )

    def _triggering(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Flow[dict[str, Any]]:
        payload = self.shape.encode_arguments(args, kwargs)
        options = json.dumps(trigger_options.on_wire(self._options, current_run_or_none()))
        body = (
            f'{{"options":{options}}}' if payload is None else f'{{"payload":{payload},"options":{options}}}'
        )
        path = f"/api/v1/tasks/{quote(self.id, safe='')}/trigger"
        answer: dict[str, Any] = yield from asked(Request("POST", path, body.encode()))
        return answer


class SyncTask(Task[P, R]):
    """A task whose function is a plain one."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function: no engine, no hooks."""
        result: R = self.fn(*args, **kwargs)
        return result


class AsyncTask(Task[P, R]):
    """A task whose function is a coroutine function; R is what awaiting it gives."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function: no engine, no hooks."""
        result: Coroutine[Any, Any, R] = self.fn(*args, **kwargs)
        return result


class Bound(Generic[R_co]):
    """A task with arguments and options, not yet triggered. Made by `.bind`."""

    __slots__ = ("options", "payload", "task")

    def __init__(self, task: Task[Any, R_co], payload: str | None, options: Options) -> None:
        self.task = task
        self.payload = payload
        self.options = options

    def __repr__(self) -> str:
        return f"<{self.task.id} bound to {(self.payload or 'nothing')[:60]}>"

    def item(self, run: CurrentRun | None) -> dict[str, Any]:
        """The item of a batch."""
        return item_of(self.task.id, self.payload, trigger_options.on_wire(self.options, run))

    def on_wire(self, run: CurrentRun | None) -> str:
        """JSON text of the item of a batch."""
        item = {"task": self.task.id, "options": trigger_options.on_wire(self.options, run)}
        text = json.dumps(item)
        return text if self.payload is None else f'{text[:-1]}, "payload": {self.payload}}}'


def item_of(id: str, payload: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """A trigger as an item of a batch."""
    item: dict[str, Any] = {"task": id, "options": options}
    if payload is not None:
        item["payload"] = json.loads(payload)
    return item


def kebab(name: str) -> str:
    """A function's name as a task id: send_email and sendEmail both give "send-email"."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    return spaced.replace("_", "-").strip("-").lower()


def _checked_id(fn: Callable[..., Any], id: str | None) -> str:
    found = kebab(fn.__name__) if id is None else id
    if id is None and not found.replace("-", "").isalnum():
        raise TypeError(
            f'the function {fn.__name__!r} has no name to make a task id of: give one, @task(id="…")'
        )
    if not isinstance(found, str) or not found.strip() or len(found) > MAX_TASK_ID:
        raise ValueError(f"the task id {found!r} must have 1 to {MAX_TASK_ID} characters")
    if found in (".", "..") or not found.isprintable():
        raise ValueError(f"the task id {found!r} can not be used in an address")
    return found


def _queue(queue: Queue | str | None) -> Queue | None:
    """A name may be that of a queue that is declared elsewhere; then only the name is known."""
    if queue is None or isinstance(queue, Queue):
        return queue
    if not isinstance(queue, str) or not queue.strip():
        raise TypeError(f"queue is {queue!r}: expected a Queue or the name of one")
    return registry.queues().get(queue)


def _schedule(id: str, cron: Cron | str) -> Cron:
    from holdfast.sdk.cron import Cron

    if not isinstance(cron, str | Cron):
        raise TypeError(
            f'cron of task {id} is {cron!r}: expected a Cron, or an expression such as "0 9 * * *"'
        )
    return Cron(cron) if isinstance(cron, str) else cron


def _memory_limit(id: str, isolation: str, limit: int | str | None) -> int | None:
    if isolation not in ("thread", "process"):
        raise ValueError(f'isolation of task {id} is {isolation!r}: expected "thread" or "process"')
    if limit is None:
        return None
    if isolation != "process":
        raise ValueError(f'memory_limit of task {id} needs isolation="process": threads share their memory')
    from holdfast.config import size

    limit = size(limit) if isinstance(limit, str) else limit
    if isinstance(limit, bool) or not isinstance(limit, int) or limit <= 0:
        raise ValueError(f'memory_limit of task {id} is {limit!r}: expected bytes, or text such as "512MB"')
    return limit
