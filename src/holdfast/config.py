"""Settings: one frozen dataclass, one way in.

Each setting has a default, a help text and one environment variable, `HOLDFAST_<NAME>`. Options of
the command line override the environment. `docs/reference/configuration.md` is made by `reference()`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from holdfast.errors import BadSetting

ENVIRONMENTS = {"tr_dev_": "dev", "tr_stg_": "staging", "tr_prod_": "prod", "tr_preview_": "preview"}
FALLBACKS = {
    "HOLDFAST_API_URL": "TRIGGER_API_URL",
    "HOLDFAST_SECRET_KEY": "TRIGGER_SECRET_KEY",
    "HOLDFAST_BRANCH": "TRIGGER_PREVIEW_BRANCH",
}
MIN_MASTER_KEY = 32
MAX_MASTER_KEY = 1_024
MAX_BRANCH = 128
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
BUCKETS = ("s3://", "gs://", "az://")
SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
BYTES = {"": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
PART = re.compile(r"([0-9]{1,9})([wdhms])")
NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
SIZE = re.compile(r"([0-9]{1,12}) *([KMG]B|)")


def text(value: str) -> str:
    return value


def duration(value: str) -> timedelta:
    """A number of seconds, or text such as "1m30s"."""
    if NUMBER.fullmatch(value):
        return timedelta(seconds=float(value))
    if not re.fullmatch(rf"(?:{PART.pattern})+", value):
        raise ValueError('expected a number of seconds or a duration such as "1m30s"')
    try:
        return timedelta(seconds=sum(int(count) * SECONDS[unit] for count, unit in PART.findall(value)))
    except OverflowError:
        raise ValueError("the duration is too long") from None


def positive_duration(value: str) -> timedelta:
    result = duration(value)
    if result < timedelta(seconds=1):
        raise ValueError("expected at least one second")
    return result


def whole(least: int, most: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", value) or not least <= int(value) <= most:
            raise ValueError(f"expected a whole number from {least} to {most}")
        return int(value)

    return read


def size(value: str) -> int:
    """Bytes, or text such as "512MB"."""
    match = SIZE.fullmatch(value.upper())
    if match is None:
        raise ValueError('expected a number of bytes or a size such as "512MB"')
    return int(match[1]) * BYTES[match[2]]


def address(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError('expected an address such as "http://localhost:3030"')
    return value.rstrip("/")


def object_store(value: str) -> str:
    if "://" in value and not value.startswith(("file://", *BUCKETS)):
        raise ValueError(f"expected a folder such as file:///var/lib/objects, or one of {', '.join(BUCKETS)}")
    return value


def level(value: str) -> str:
    if value.upper() not in LEVELS:
        raise ValueError(f"expected one of {', '.join(LEVELS)}")
    return value.upper()


def secret_keys(value: str) -> str:
    for key in _split(value):
        if environment_of(key) is None:
            raise ValueError(
                f"each key starts with one of {', '.join(ENVIRONMENTS)} and goes on with a secret"
            )
    return value


def master_keys(value: str) -> str:
    for key in _split(value):
        if not MIN_MASTER_KEY <= len(key) <= MAX_MASTER_KEY:
            raise ValueError(
                f"each master key has {MIN_MASTER_KEY} to {MAX_MASTER_KEY:,} characters, such as those of "
                f"`openssl rand -base64 32`; one has {len(key)} (a comma begins the next)"
            )
    return value


def branch_name(value: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value or len(value) > MAX_BRANCH:
        raise ValueError(f"expected up to {MAX_BRANCH} printable ASCII characters without spaces")
    return value


def setting(default: str, help: str, read: Callable[[str], Any] = text, *, secret: bool = False) -> Any:
    """A field of Settings. `default` is what one would write into the variable."""
    metadata = {"default": default, "help": help, "read": read, "secret": secret}
    return field(default=read(default) if default else default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    database_url: str = setting(
        "sqlite:///.holdfast/holdfast.db",
        "Where runs are kept: `sqlite:///relative/path.db`, `sqlite:////absolute/path.db` or "
        "`postgresql://user@host/database`.",
    )
    secret_key: str = setting(
        "",
        "The key that clients and workers send, and that a server takes. Its prefix names the environment: "
        "`tr_dev_`, `tr_stg_`, `tr_prod_` or `tr_preview_`. A server takes several, separated by commas.",
        secret_keys,
        secret=True,
    )
    master_key: str = setting(
        "",
        "What root keys and environment variables are sealed with in the database: 32 characters or more, such as "
        "those of `openssl rand -base64 32`. Several, separated by commas, rotate it: the first seals, each opens. "
        "`holdfast dev` makes one in `.holdfast/master_key`.",
        master_keys,
        secret=True,
    )
    branch: str = setting(
        "",
        "The preview branch that clients and workers act in; it goes with a key `tr_preview_…`.",
        branch_name,
    )
    api_url: str = setting("http://localhost:3030", "The server that clients and workers talk to.", address)
    host: str = setting("127.0.0.1", "The address the server listens on; `0.0.0.0` for every one.")
    port: int = setting("3030", "The port the server listens on; 0 for any free one.", whole(0, 65_535))
    public_url: str = setting(
        "",
        "How the world outside reaches the server, such as `https://jobs.example.com`: the addresses of tokens "
        "begin with it. By default the address it listens on.",
        address,
    )
    object_store_url: str = setting(
        "",
        "Where payloads and outputs over 512 KiB are kept: a folder such as `file:///var/lib/holdfast/objects`, or "
        "`s3://bucket/prefix`, `gs://…`, `az://…` with the usual variables of these services (extra `s3`). By default the "
        "folder `objects` beside an SQLite database, else `.holdfast/objects`. All servers of a database need the same one.",
        object_store,
    )
    lease: timedelta = setting(  # noqa: RUF009  # durations are immutable
        "15s", "How long a worker may stay silent before its runs are given to others.", positive_duration
    )
    warm_wait: timedelta = setting(  # noqa: RUF009  # durations are immutable
        "5s",
        "How long a worker keeps a run that does nothing but wait, before it is suspended and holds nothing; "
        "known longer waits suspend it at once.",
        duration,
    )
    retention: timedelta = setting(  # noqa: RUF009  # durations are immutable
        "30d", "How long finished runs are kept; 0 keeps them for ever.", duration
    )
    concurrency: int = setting(
        "0", "How many runs one worker works on at the same time; 0 for 100 per executor.", whole(0, 10_000)
    )
    executors: int = setting(
        "0", "How many processes of one worker run tasks; 0 for one per processor core.", whole(0, 1_000)
    )
    drain: timedelta = setting(  # noqa: RUF009  # durations are immutable
        "30s", "How long a worker that stops lets its runs go on.", duration
    )
    recycle_runs: int = setting(
        "0", "After how many runs an executor is replaced by a fresh one; 0 for never.", whole(0, 10**9)
    )
    recycle_memory: int = setting(
        "0", "At how much memory an executor is replaced by a fresh one, such as `512MB`; 0 for never.", size
    )
    log_level: str = setting(
        "WARNING",
        "From which level on a server writes log lines to stderr: DEBUG, INFO, WARNING or ERROR.",
        level,
    )

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Reads `HOLDFAST_<NAME>` for each setting; an empty variable counts as absent.

        overrides  values of the command line, text or already read; None counts as absent

        Raises BadSetting that names the variable (or the option), the value seen and what to do.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for one in fields(cls):
            given = overrides.pop(one.name, None)
            name = variable(one)
            if given is not None:
                name = f"--{one.name.removesuffix('_url').replace('_', '-')}"
                values[one.name] = _read(one, given, name) if isinstance(given, str) else given
                continue
            if not environ.get(name):
                name = FALLBACKS.get(name, name)
            if found := environ.get(name):
                values[one.name] = _read(one, found, name)
        if overrides:
            raise TypeError(f"no such setting: {', '.join(overrides)}")
        return cls(**values)

    @property
    def keys(self) -> dict[str, str]:
        """The environment of each secret key, such as {"tr_dev_…": "dev"}."""
        return {key: environment_of(key) or "" for key in _split(self.secret_key)}

    @property
    def master_keys(self) -> tuple[str, ...]:
        """The master keys: the first seals."""
        return tuple(_split(self.master_key))


def variable(one: Field[Any]) -> str:
    """The environment variable of a setting."""
    return f"HOLDFAST_{one.name.upper()}"


def environment_of(key: str) -> str | None:
    """The environment that a secret key's prefix names, or None where it is no secret key."""
    for prefix, environment in ENVIRONMENTS.items():
        if key.startswith(prefix) and len(key) > len(prefix) and key.isprintable() and " " not in key:
            return environment
    return None


def configured_tasks(folder: Path) -> list[str]:
    """`[tool.holdfast] tasks` of the folder's pyproject.toml; none where there is no such file."""
    import tomllib

    file = folder / "pyproject.toml"
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSetting(f"{file} can not be read: {error}") from error
    own = table.get("tool", {}).get("holdfast", {})
    names = own.get("tasks", []) if isinstance(own, dict) else []
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise BadSetting(f'[tool.holdfast] tasks in {file} is {names!r}: expected a list such as ["jobs"]')
    return names


def reference() -> str:
    """The settings as a Markdown table."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for one in fields(Settings):
        default = f"`{one.metadata['default']}`" if one.metadata["default"] else "none"
        lines.append(f"| `{variable(one)}` | {default} | {one.metadata['help']} |")
    return "\n".join(lines) + "\n"


def _read(one: Field[Any], value: str, name: str) -> Any:
    assert one.default is not MISSING
    try:
        return one.metadata["read"](value.strip())
    except ValueError as error:
        shown = f"{len(value)} characters that are not shown" if one.metadata["secret"] else repr(value[:100])
        raise BadSetting(f"{name} is {shown}: {error}") from None


def _split(value: str) -> list[str]:
    return [key.strip() for key in value.split(",") if key.strip()]
