"""Writes the pages of the reference that are made from the code: `make docs`. `--check` only names stale ones."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import holdfast
from holdfast import cli, config, errors
from holdfast.model import error, limits
from holdfast.sdk.resources.base import Resource
from holdfast.server import ENDPOINTS, openapi, problems
from holdfast.server.access import Access
from holdfast.server.routing import Endpoint
from holdfast.wire import answers

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
MADE = "\n`make docs` makes this page from `{}`.\n"
CODES_WITHOUT_CLASS = {
    "method_not_allowed": (405, "The path exists, the method does not."),
    "internal_error": (500, "A defect of the server; its log tells more."),
}
# Public to the modules of holdfast, of no use to others.
FOR_OURSELVES = {
    "decode_payload",
    "encode_output",
    "lease",
    "manifest",
    "on_wire",
    "policy",
    "settled",
    "spec",
}
EXIT_MEANINGS = {
    0: "done",
    1: "failed; with `--wait` also: the run did not succeed",
    2: "wrong usage, a setting that can not be read, or a request that the server refuses",
    3: "the secret key is missing or unknown",
    4: "not found",
    5: "conflict",
    124: "timed out while it waited; the run goes on",
    130: "interrupted",
}
API = """# API

JSON over HTTP, `Authorization: Bearer <secret key>`. The key's prefix names the environment; what belongs to another one
does not exist for it. Refusals have [one shape](errors.md). `GET /openapi.json` describes every route to programs.

<!-- file: jobs.py -->
```python
from holdfast import task


@task
def greet(name: str) -> str:
    return f"Hello, {name}!"
```

Trigger a run, wait for its result, and list runs:

```sh
export KEY=$HOLDFAST_SECRET_KEY
curl -X POST http://localhost:3030/api/v1/tasks/greet/trigger -H "Authorization: Bearer $KEY" \\
     -d '{"payload": "Ada", "options": {"tags": ["user:7"], "idempotencyKey": "greet-ada"}}'

RUN=$(curl -X POST http://localhost:3030/api/v1/tasks/greet/trigger -H "Authorization: Bearer $KEY" \\
     -d '{"payload": "Ada", "options": {"idempotencyKey": "greet-ada"}}' | cut -d '"' -f 4)
curl "http://localhost:3030/api/v1/runs/$RUN/result?waitMs=25000" -H "Authorization: Bearer $KEY"

curl -G http://localhost:3030/api/v1/runs -H "Authorization: Bearer $KEY" \\
     --data-urlencode "filter[tag]=user:7" --data-urlencode "page[size]=10"
```

`GET /livez`, `/readyz` and `/openapi.json` need no key.
"""


def main() -> None:
    stale = []
    for name, page in PAGES.items():
        text = page()
        file = REFERENCE / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"stale, `make docs` writes them anew: {', '.join(stale)}")


def configuration() -> str:
    return f"""# Configuration

Each setting has one environment variable. Options of the command line override it. Durations are seconds or text
such as `1m30s`. `TRIGGER_API_URL` and `TRIGGER_SECRET_KEY` are read where `HOLDFAST_API_URL` and
`HOLDFAST_SECRET_KEY` are absent.
{MADE.format("src/holdfast/config.py")}
{config.reference()}
Which tasks `holdfast dev`, `start` and `worker` load, when the command line names none, stands in `pyproject.toml`:

```toml
[tool.holdfast]
tasks = ["jobs", "more/jobs.py"]
```

`HOLDFAST_DEBUG=1` shows the traceback of an error of a command, `NO_COLOR=1` turns colours off.
"""


def commands() -> str:
    context = click.Context(cli.commands, info_name="holdfast")
    parts = [
        "# Commands\n\nResults go to stdout, everything else to stderr. `--help` shows this for each command.\n"
    ]
    parts.append(MADE.format("src/holdfast/cli"))
    for name in cli.commands.list_commands(context):
        command = cli.commands.get_command(context, name)
        assert command is not None
        parts += _command(command, f"holdfast {name}")
    parts.append("\n## holdfast --version\n\nShow the version.\n\n## Exit codes\n\n")
    parts.append(_table(("code", "meaning"), ((f"`{code}`", text) for code, text in EXIT_MEANINGS.items())))
    unexplained = {*cli.EXIT_CODES.values(), cli.INTERRUPTED} - EXIT_MEANINGS.keys()
    assert not unexplained, f"exit codes without a meaning: {unexplained}"
    return "".join(parts)


def _command(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    yield f"\n## {path}\n\n```\n{usage}\n```\n\n{inspect.cleandoc(command.help or '')}\n"
    records = [parameter.get_help_record(context) for parameter in command.params]
    options = [record for record in records if record is not None and record[0].startswith("-")]
    if options:
        rows = ((f"`{name}`", " ".join(text.split())) for name, text in options)
        yield "\n" + _table(("option", "meaning"), rows)
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _command(inner, f"{path} {name}")


def error_page() -> str:
    statuses = {kind: str(status) for kind, status in problems.STATUS.items()}
    rows = [(kind.__name__, kind.code, statuses.get(kind, ""), _first(kind)) for kind in error_classes()]
    answers = [("", code, str(status), text) for code, (status, text) in CODES_WITHOUT_CLASS.items()]
    table = _table(
        ("class", "code", "HTTP status", "meaning"),
        (
            (f"`{name}`" if name else "", f"`{code}`", status, text)
            for name, code, status, text in rows + answers
        ),
    )
    run_errors = _table(
        ("code", "the run ends"),
        ((f"`{code}`", str(error.status_of(error.internal_error(code, "")))) for code in _run_codes()),
    )
    return f"""# Errors

Every refusal of the API has one shape, `param` and `details` only where they say something:

```json
{{"error": "what happened and what to do", "code": "unprocessable", "param": "payload", "details": []}}
```

The SDK raises the class of the code. All are below `HoldfastError`; `holdfast` has the public ones, `holdfast.errors`
the others. Classes without an HTTP status are raised on the user's side.
{MADE.format("src/holdfast/errors.py")}
{table}
## Errors of runs

A run that raised has `{{"type": "BUILT_IN_ERROR", "name", "message", "stackTrace"}}`. What Holdfast found itself has
`{{"type": "INTERNAL_ERROR", "code", "message"}}`; [retries](../retries.md) says what is attempted again.

{run_errors}"""


def error_classes() -> list[type[errors.HoldfastError]]:
    """Those of errors.py in the order of the file, then the other public ones."""
    found = [
        kind
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, errors.HoldfastError)
    ]
    for name in holdfast.__all__:
        kind = getattr(holdfast, name)
        if inspect.isclass(kind) and issubclass(kind, errors.HoldfastError) and kind not in found:
            found.append(kind)
    return found


def _run_codes() -> list[str]:
    """The codes that this release writes: those that stand in the source outside of their table."""
    table = Path(error.__file__)
    files = [file for file in table.parents[1].rglob("*.py") if file != table]
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return sorted(code for code in {*error.STATUS_OF_CODE, *error.NEVER_RETRIED} if f'"{code}"' in source)


def limit_page() -> str:
    rows = []
    for line in Path(limits.__file__).read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"([A-Z_]+) = .*?  # (\w+); (.+)", line):
            rows.append((_amount(getattr(limits, match[1]), match[2]), match[3], f"`{match[1]}`"))
    named = {name for name in vars(limits) if name.isupper()}
    assert len(rows) == len(named), (
        f"limits without unit and meaning: {named - {row[2].strip('`') for row in rows}}"
    )
    table = _table(("limit", "of what", "name"), rows)
    return f"# Limits\n\nWhat is over a limit is refused and named; nothing is cut, except log messages.\n{MADE.format('src/holdfast/model/limits.py')}\n{table}"


def _amount(value: int, unit: str) -> str:
    for size, name in ((1024**2, "MiB"), (1024, "KiB")):
        if unit == "bytes" and value >= size and value % size == 0:
            return f"{value // size} {name}"
    return f"{value:,} {unit}"


def api() -> str:
    ours = [one for one in ENDPOINTS if not one.path.startswith("/api/v1/workers")]
    workers = [one for one in ENDPOINTS if one.path.startswith("/api/v1/workers")]
    return (
        API
        + MADE.format("src/holdfast/server")
        + "".join(map(_route, ours))
        + "\n## The worker protocol\n\nFor those who write a worker: `src/holdfast/wire/workers.py` says what each"
        + " report means and what happens twice.\n"
        + "".join(map(_route, workers))
        + _shapes()
    )


def _shapes() -> str:
    parts = ["\n## Shapes\n\nWhat several routes answer.\n"]
    for name, schema in answers.NAMED.items():
        rows = [
            row
            for part in schema.get("oneOf", [schema])
            for row in _fields(dict(part), dict(answers.NAMED), "")
        ]
        parts.append(f"\n### {name}\n\n" + _table(("field", "value"), dict(rows).items()))
    return "".join(parts)


def _needs(access: Access | None) -> str:
    """Who may call a route, in a sentence."""
    if access is None:
        return "Takes no key."
    scopes = " or ".join(f"`{access.action}:{kind}`" for kind in access.kinds) or "any secret key"
    others = [name for name, taken in (("tokens", access.tokens), ("keys", access.public_keys)) if taken]
    return f"Needs {scopes}" + (f"; takes public {' and public '.join(others)}." if others else ".")


def _answer(one: Endpoint) -> str:
    operation = openapi.document([one], "")["paths"][one.path][one.method.lower()]
    schema = operation["responses"][str(one.status)]["content"]["application/json"]["schema"]
    shapes = openapi.document([one], "")["components"]["schemas"]
    variants = schema["anyOf"] if one.sdk_answer is not None else [schema]
    names = [variant["$ref"].rpartition("/")[2] for variant in variants if "$ref" in variant]
    status = "" if one.status == 200 else f" with {one.status}"
    if names:
        links = [f"[{name}](#{name.lower()})" for name in names]
        return f"\nAnswers{status}: {links[0]}" + (f"; to the SDK {links[1]}.\n" if links[1:] else ".\n")
    rows = [row for row in _fields(variants[0], shapes, "") if row[0].count(".") < 2]
    return f"\nAnswers{status}:\n\n" + _table(("field", "value"), rows) if rows else ""


def _route(one: Endpoint) -> str:
    text = f"\n### {one.method} {one.path}\n\n{one.summary}. {_needs(one.access)}\n"
    if one.query:
        text += f"\nQuery: {', '.join(f'`{name}`' for name in one.query)}.\n"
    if one.body is not None:
        schema = one.body.json_schema()
        fields = list(_fields(schema, schema.get("$defs", {}), ""))
        note = " The body may be absent." if one.body_optional else ""
        text += f"\nBody, \\* marks what is required.{note}\n\n" + _table(("field", "value"), fields)
    return text + _answer(one)


def _fields(schema: dict[str, Any], shapes: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    schema = _resolved(schema, shapes)
    for name, value in schema.get("properties", {}).items():
        star = " \\*" if name in schema.get("required", ()) else ""
        yield f"`{prefix}{name}`{star}", _kind(value, shapes)
        for inner in (value, *value.get("anyOf", ())):
            if "$ref" in inner and _kind(inner, shapes)[0] != "[":
                yield from _fields(inner, shapes, f"{prefix}{name}.")
        if "$ref" in value.get("items", {}) and _kind(value["items"], shapes)[0] != "[":
            yield from _fields(value["items"], shapes, f"{prefix}{name}[].")


def _resolved(schema: dict[str, Any], shapes: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return shapes[name] if name else schema


def _kind(schema: dict[str, Any], shapes: dict[str, Any]) -> str:
    """A JSON schema in a few words, such as "integer, 1 to 250"."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one, shapes) for one in schema["anyOf"]))
    name = schema.get("$ref", "").rpartition("/")[2]
    if name in answers.NAMED:
        return f"[{name}](#{name.lower()})"
    if "oneOf" in schema:
        return "one of its kinds"
    if "enum" in schema and name not in shapes:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if schema.get("format") == "date-time":
        return "ISO 8601, UTC"
    schema = _resolved(schema, shapes)
    kind = str(schema.get("type", "any JSON"))
    if kind == "array":
        items = schema.get("items", {})
        kind = "array of " + _kind(items, shapes)
    least = schema.get("minimum", schema.get("minLength", schema.get("minItems")))
    most = schema.get("maximum", schema.get("maxLength", schema.get("maxItems")))
    unit = (
        " characters" if schema.get("type") == "string" else " items" if schema.get("type") == "array" else ""
    )
    if most is not None:
        return f"{kind}, {'up' if least is None else f'{least:,}'} to {most:,}{unit}"
    return kind if least is None else f"{kind}, at least {least:,}{unit}"


def python() -> str:
    public = {name: getattr(holdfast, name) for name in sorted(holdfast.__all__, key=str.lower)}
    failures = {
        name for name, kind in public.items() if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    parts = ["# Python\n\nWhat `from holdfast import …` offers; everything else may change without notice.\n"]
    parts.append("\n`make docs` makes this page from the docstrings.\n")
    for name, value in public.items():
        if name not in failures:
            parts.append(f"\n## {name}\n\n```\n{inspect.getdoc(value)}\n```\n")
            members = list(_members(value, "."))
            if value is holdfast.Holdfast:
                for noun, resource in vars(holdfast.Holdfast("http://localhost", "")).items():
                    if isinstance(resource, Resource):
                        members += _members(type(resource), f".{noun}.")
            if members:
                parts.append("\n" + _table(("member", "what it does"), members))
    parts.append("\n## Errors\n\n[Errors](errors.md) has their codes.\n\n")
    rows = ((f"`{name}`", _first(public[name])) for name in public if name in failures)
    parts.append(_table(("error", "meaning"), rows))
    return "".join(parts)


def _members(kind: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """The documented methods and properties of a class; async twins stand beside their names."""
    if inspect.ismodule(kind):  # `wait`
        for name in kind.__all__:
            if not (name.startswith("a") and name[1:] in kind.__all__):
                twin = f", `a{name}`" if f"a{name}" in kind.__all__ else ""
                yield f"`{prefix}{name}`{twin}", _first(getattr(kind, name))
        return
    names = [name for name in dir(kind) if not name.startswith("_") and name not in FOR_OURSELVES]
    for name in names if inspect.isclass(kind) else ():
        member = inspect.getattr_static(kind, name)
        is_twin = name.startswith("a") and (name[1:] in names or name == "await_")
        if is_twin or not (isinstance(member, property) or inspect.isfunction(member)):
            continue
        other = f"a{name}" if name != "wait" else "await_"  # of this it would be a word of the language
        twin = f", `{prefix}{other}`" if other in names else ""
        text = (inspect.getdoc(member) or "As it was last read.").splitlines()[0]
        yield f"`{prefix}{name}`{twin}", text


def _first(kind: type) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())


def _table(columns: tuple[str, ...], rows: Any) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


PAGES: dict[str, Callable[[], str]] = {
    "api.md": api,
    "commands.md": commands,
    "configuration.md": configuration,
    "errors.md": error_page,
    "limits.md": limit_page,
    "python.md": python,
}

if __name__ == "__main__":
    main()
