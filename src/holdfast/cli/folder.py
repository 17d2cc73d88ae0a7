"""The folder `.holdfast` of a project: the database of `holdfast dev`, its key, and where it serves.

holdfast.db   the runs
secret_key    the key of the environment dev, readable by its owner only
master_key    what keys and variables in the database are sealed with, readable by its owner only
dev.json      address and process id of the `holdfast dev` that runs now; it holds a lock on the file
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.config import Settings, environment_of, master_keys
from holdfast.errors import BadSetting, HoldfastError

try:
    import fcntl
except ImportError:  # Windows: two servers of one folder are then found out by their port
    fcntl = None  # type: ignore[assignment]  # the module is absent there


class AlreadyRunning(HoldfastError):
    """Another `holdfast dev` of this folder runs now."""

    code = "already_running"


@dataclass(frozen=True, slots=True)
class Folder:
    """`.holdfast` below `project`; nothing is created before it is needed."""

    project: Path

    @property
    def path(self) -> Path:
        return self.project / ".holdfast"

    @property
    def key_file(self) -> Path:
        return self.path / "secret_key"

    @property
    def master_key_file(self) -> Path:
        return self.path / "master_key"

    @property
    def dev_file(self) -> Path:
        return self.path / "dev.json"

    def database_url(self) -> str:
        return f"sqlite:///{(self.path / 'holdfast.db').absolute()}"

    def create(self) -> None:
        """Makes the folder, hidden from git; doing it again changes nothing."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            ignore = self.path / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise BadSetting(
                f"{self.path} can not be made: {error.strerror}. Start in a folder of your own."
            ) from error

    def key(self) -> str | None:
        """The kept key, or None where there is none."""
        key = _read(self.key_file)
        if key is not None and environment_of(key) is None:
            raise BadSetting(
                f"{self.key_file} holds no secret key: delete it, `holdfast dev` makes another one"
            )
        return key

    def key_made_once(self) -> str:
        """The kept key; makes and keeps one where there is none."""
        return self.key() or self._kept(self.key_file, f"tr_dev_{secrets.token_urlsafe(24)}")

    def master_key(self) -> str | None:
        """The kept master key, or None where there is none."""
        key = _read(self.master_key_file)
        try:
            return None if key is None else master_keys(key)
        except ValueError as error:
            raise BadSetting(
                f"{self.master_key_file} holds no master key: {error}. Bring the old one back: what it sealed opens "
                "with it only"
            ) from None

    def master_key_made_once(self) -> str:
        """The kept master key; makes and keeps one where there is none."""
        return self.master_key() or self._kept(self.master_key_file, secrets.token_urlsafe(32))

    def _kept(self, file: Path, made: str) -> str:
        """What the file holds from now on: `made`, unless another process was faster."""
        self.create()
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as written:
            written.write(made + "\n")
        try:
            os.link(draft, file)  # whole or not at all: nobody reads half a key
        except FileExistsError:
            return _read(file) or made
        finally:
            draft.unlink()
        return made

    @contextmanager
    def held(self) -> Iterator[DevFile]:
        """Marks this folder as served by this process; raises AlreadyRunning when another one does."""
        self.create()
        handle = os.open(self.dev_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _locked_soon(handle):
                other = self.serving() or {}
                raise AlreadyRunning(
                    f"`holdfast dev` already runs for this folder at {other.get('url', 'an unknown address')} "
                    f"(process {other.get('pid', 'unknown')}): use it, or stop it first"
                )
            os.ftruncate(handle, 0)
            yield DevFile(handle)
            os.ftruncate(handle, 0)
        finally:
            os.close(handle)

    def serving(self) -> dict[str, Any] | None:
        """`{"url", "pid"}` of the `holdfast dev` that serves this folder now, or None."""
        try:
            handle = os.open(self.dev_file, os.O_RDONLY)
        except OSError:
            return None
        try:
            if fcntl is not None and _locked(handle, shared=True):
                return None  # nobody holds it: what it says is old
            found = json.loads(os.read(handle, 10_000) or b"null")
        except ValueError:
            return None
        finally:
            os.close(handle)
        return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class DevFile:
    handle: int

    def tell(self, url: str) -> None:
        """Lets other commands of this folder find the server."""
        os.pwrite(self.handle, json.dumps({"url": url, "pid": os.getpid()}).encode(), 0)


def client_settings(project: Path, server: str | None = None) -> Settings:
    """Settings of a command that talks to a server.

    What neither the option nor the environment says is taken from the `holdfast dev` of this folder.
    """
    settings = Settings.load(api_url=server)
    folder = Folder(project)
    if not settings.secret_key:
        settings = replace(settings, secret_key=folder.key() or "")
    if server is None and not (os.environ.get("HOLDFAST_API_URL") or os.environ.get("TRIGGER_API_URL")):
        serving = folder.serving()
        if serving and isinstance(serving.get("url"), str):
            settings = replace(settings, api_url=serving["url"])
    return settings


def _read(file: Path) -> str | None:
    """The line that a file holds, or None where there is no file."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"{file} can not be read: {error}") from error


def _locked(handle: int, *, shared: bool = False) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _locked_soon(handle: int) -> bool:
    """A command that looks whether we run holds a shared lock for an instant: ask more than once."""
    for _ in range(5):
        if _locked(handle):
            return True
        time.sleep(0.02)
    return False
