"""Server and worker in one process and one event loop: the base of `dev`, `start`, `server` and `worker`.

The stages of an end: the first signal drains (claim nothing more, let runs finish), the second one
stops at once; then the server closes, then the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.cli.output import say
from holdfast.config import Settings
from holdfast.errors import BadSetting, HoldfastError
from holdfast.worker.loop import loop_factory

if TYPE_CHECKING:
    from holdfast.worker.supervisor import Supervisor

READY_SECONDS = 10.0
CLOSE_SECONDS = 3  # for answers that are held back, such as a claim that waits
BACKLOG = 1_024
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  # compared with, not listened on


class PortTaken(HoldfastError):
    """Something else listens on the port."""

    code = "port_taken"

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"port {port} of {host} is taken by another program")
        self.hint = f"stop it, or take another port: --port {port + 1 if port < 65_535 else 3030}"


class NoTasks(BadSetting):
    """Neither the command line nor pyproject.toml names tasks."""

    hint = 'name files, folders or modules: `holdfast dev jobs.py`, or tasks = ["jobs"] below [tool.holdfast] in pyproject.toml'


@dataclass(frozen=True, slots=True)
class Ready:
    """What is served. `url` is for people, `local_url` for processes of this machine."""

    url: str
    local_url: str
    supervisor: Supervisor | None


class Signals:
    """Takes SIGINT and SIGTERM: the first one drains, the second one stops. Handlers only take a note."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.drain: Callable[[], None] = lambda: None
        self.stop: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def taken(self) -> Iterator[Signals]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._take)
        try:
            yield self
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _take(self) -> None:
        if self.asked.is_set():
            self.stop()
            return
        self.asked.set()
        self.drain()


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Runs `main` on uvloop where it is installed. An error of a single part is raised as itself."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            runner.run(main)
        except BaseExceptionGroup as group:
            raise _innermost(group) from None


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes any free one. Raises PortTaken or BadSetting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)  # at once: a second server must not be able to bind the same port
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(host, port) from error
        raise BadSetting(f"can not listen on {host} port {port}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


async def serve(
    settings: Settings,
    keys: dict[str, str],
    *,
    tasks: Sequence[str] | None,
    watch: bool = False,
    echo: bool = False,
    on_ready: Callable[[Ready], None],
) -> None:
    """Serves until a signal; with `tasks` a worker runs beside the server, `watch` reloads it on save.

    keys  the environment of each secret key; the worker takes the first
    echo  whether to tell on stderr what runs log and print
    """
    from holdfast.engine import Engine
    from holdfast.server import create_app
    from holdfast.server.objects import open_objects
    from holdfast.server.vault import Vault
    from holdfast.stores import open_store

    sock = listen(settings.host, settings.port)
    port = int(sock.getsockname()[1])
    local = f"[{settings.host}]" if ":" in settings.host else settings.host
    local_url = f"http://{'127.0.0.1' if settings.host in EVERYWHERE else local}:{port}"
    shown = "localhost" if settings.host in (*EVERYWHERE, "127.0.0.1", "::1") else local
    with contextlib.closing(sock), contextlib.closing(open_store(settings.database_url)) as store:
        retention_ms = round(settings.retention.total_seconds() * 1_000) or None
        lease_ms = round(settings.lease.total_seconds() * 1_000)
        engine = Engine(store, lease_ms=lease_ms, retention_ms=retention_ms)
        app = create_app(
            engine,
            keys,
            public_url=settings.public_url or f"http://{shown}:{port}",
            vault=Vault(settings.master_keys),
            objects=open_objects(settings.object_store_url, settings.database_url),
        )
        web = web_server(app, settings)
        with Signals().taken() as signals:
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(web.serve([sock]))
                try:
                    await reachable(local_url, serving)
                    if tasks is None:
                        on_ready(Ready(f"http://{shown}:{port}", local_url, None))
                        await signals.asked.wait()
                    else:
                        from holdfast.worker.api import AsgiApi

                        key = next(iter(keys))
                        supervisor = make_supervisor(
                            settings, AsgiApi(app, key, settings.branch), tasks, local_url, key, echo=echo
                        )
                        working = group.create_task(work(supervisor, signals))
                        await joined(supervisor, working)
                        if supervisor.joined.is_set():
                            on_ready(Ready(f"http://{shown}:{port}", local_url, supervisor))
                        watching = group.create_task(reload_on_save(supervisor, tasks)) if watch else None
                        await working
                        if watching is not None:
                            watching.cancel()
                finally:
                    engine.stop_waiting()
                    web.should_exit = True


def make_supervisor(
    settings: Settings, api: Any, tasks: Sequence[str], api_url: str, secret_key: str, *, echo: bool = False
) -> Supervisor:
    from holdfast.worker.supervisor import Supervisor

    return Supervisor(
        api,
        tasks=tasks,
        executors=settings.executors or None,
        concurrency=settings.concurrency or None,
        api_url=api_url,
        secret_key=secret_key,
        drain_seconds=settings.drain.total_seconds(),
        recycle_after=settings.recycle_runs or None,
        recycle_memory=settings.recycle_memory or None,
        warm_seconds=settings.warm_wait.total_seconds(),
        echo=echo,
    )


async def work(supervisor: Supervisor, signals: Signals) -> None:
    """Runs the worker until it is drained."""

    def drain() -> None:
        say("stopping: runs may finish; once more stops at once")
        supervisor.drain()

    signals.drain, signals.stop = drain, supervisor.stop_now
    if signals.asked.is_set():
        supervisor.drain()
    await supervisor.run()


async def joined(supervisor: Supervisor, working: asyncio.Task[None]) -> None:
    """Until the worker takes runs, or ended before it could."""
    waiting = asyncio.ensure_future(supervisor.joined.wait())
    await asyncio.wait((waiting, working), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


async def reload_on_save(supervisor: Supervisor, tasks: Sequence[str]) -> None:
    """Loads the code anew whenever a Python file below a folder of tasks, or this folder, changes."""
    from watchfiles import PythonFilter, awatch

    async for changes in awatch(*watched_folders(tasks), watch_filter=PythonFilter(), debounce=300):
        names = sorted({Path(path).name for _, path in changes})
        if await supervisor.reload():
            say(f"reloaded: {listed(names)}; tasks: {listed(supervisor.task_ids)}")


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "") or "none"


def watched_folders(tasks: Sequence[str]) -> list[Path]:
    """This folder and those of the tasks, without the ones that lie in another."""
    folders = {Path.cwd()}
    for name in tasks:
        path = Path(name).absolute()
        if path.exists():
            folders.add(path if path.is_dir() else path.parent)
    return [folder for folder in folders if not any(other in folder.parents for other in folders)]


def web_server(app: Any, settings: Settings) -> Any:
    """uvicorn without its signal handlers and its log of requests."""
    import uvicorn

    class Web(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # signals belong to whoever owns the loop

    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, logging.getLogger().level))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,  # nobody asks who the caller's neighbour was
        backlog=BACKLOG,
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )
    return Web(config)


async def reachable(url: str, serving: asyncio.Task[None]) -> None:
    """Until `/readyz` answers 200 through the socket; raises what kept the server from starting."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    deadline = asyncio.get_running_loop().time() + READY_SECONDS
    while not serving.done():
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
                writer.write(f"GET /readyz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
                answer = await reader.readline()
                writer.close()
                if b" 200 " in answer:
                    return
        if asyncio.get_running_loop().time() > deadline:
            raise HoldfastError(f"the server at {url} does not become ready")
        await asyncio.sleep(0.02)
    raise HoldfastError("the server ended before it was ready")


def _innermost(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _innermost(first) if isinstance(first, BaseExceptionGroup) else first
