"""`holdfast keys`: make, list, rotate and revoke keys, in the database itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import Family
from holdfast.cli.api import json_option
from holdfast.cli.database import Database, database_option, open_database, project_option
from holdfast.cli.output import ago, emit, emit_json, say, table
from holdfast.errors import InvalidRequest, NotFound, SealBroken, Unprocessable
from holdfast.model.environment import TYPES, Environment, type_named
from holdfast.model.key import ApiKey, KeyKind, digest, new_key, seal_context, shown
from holdfast.model.scope import PRESETS

if TYPE_CHECKING:
    from holdfast.engine.keys import NewKey

COLUMNS = ("id", "name", "environment", "kind", "key", "scopes", "state", "made")
environment_option = click.option(
    "--environment", "--env", "environment", metavar="TYPE", help=f"One of {', '.join(TYPES)}."
)


@click.group(cls=Family)
def keys() -> None:
    """Make, list, rotate and revoke keys. Works on the database; no server needs to run."""


@keys.command()
@environment_option
@project_option
@click.option("--root", "kind", flag_value="root", help="A root key: may do all, and signs public tokens.")
@click.option("--public", "kind", flag_value="public", help="A public key: reads runs, without their data.")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="What the key may do; `full` by default.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="One scope, such as read:runs.")
@click.option("--name", help="What it is for.")
@database_option
@json_option
def create(
    environment: str | None,
    project: str | None,
    kind: str | None,
    preset: str | None,
    scopes: tuple[str, ...],
    name: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Make a key, and print it: it is shown this one time. An additional secret key, unless told otherwise."""
    from holdfast.engine.keys import create_keys, signing

    of = KeyKind(kind or KeyKind.SECRET)
    allowed = _scopes(of, preset, scopes)
    with open_database(database, create=True) as there:
        found = _environment(there, project, _type(environment))
        made = _made(there, found, of, name or preset or of.value, allowed)
        kept = there.do(create_keys, made[1])
        _tell(made[0], kept, found, as_json)
        signs = there.read(lambda tx: signing(tx, found.id))
        if of is KeyKind.SECRET and (signs is None or not signs.keys):
            say(
                f"hint: {found.name} has no root key in the database. Public tokens are signed by one: "
                f"`holdfast keys create --environment {found.type} --root`, unless HOLDFAST_SECRET_KEY holds one"
            )


@keys.command("list")
@environment_option
@project_option
@click.option("--all", "everything", is_flag=True, help="Also keys that are no longer in force.")
@database_option
@json_option
def list_keys(
    environment: str | None, project: str | None, everything: bool, database: str | None, as_json: bool
) -> None:
    """The keys of all environments; of each its last characters only."""
    from holdfast.engine.keys import all_keys

    only = None if environment is None else _type(environment)
    with open_database(database) as there:
        now, found = there.read(lambda tx: (tx.now, all_keys(tx)))
    rows = [
        _row(key, own, now)
        for key, own in found
        if (everything or key.is_valid(now))
        and only in (None, own.type)
        and project in (None, own.project.ref)
    ]
    if as_json:
        emit_json(rows)
        return
    for row in rows:
        row["scopes"] = "all" if row["scopes"] is None else " ".join(row["scopes"])
        row["made"] = ago(row.pop("createdAt"))
    several = len({row["project"] for row in rows}) > 1
    columns = ("project", *COLUMNS) if several else COLUMNS
    table(columns, [[row[column] for column in columns] for row in rows])


@keys.command()
@click.argument("key", required=False)
@environment_option
@project_option
@click.option("--grace", default="24h", show_default=True, help="How long the old key stays valid.")
@database_option
@json_option
def rotate(
    key: str | None,
    environment: str | None,
    project: str | None,
    grace: str,
    database: str | None,
    as_json: bool,
) -> None:
    """Make a key in the place of another one, which stays valid for a while.

    KEY is an id of `holdfast keys list`; without it, the root key of --environment.
    """
    from holdfast.engine.keys import Replacement, replace_keys
    from holdfast.model.duration import duration_ms

    grace_ms = duration_ms(grace, "--grace")
    with open_database(database) as there:
        if key is None:
            old, own = _root(there, _environment(there, project, _type(environment)))
        else:
            old, own = _named(there, key)
        kind = KeyKind(old.kind)
        value, new = _made(there, own, kind, old.name, old.scope_list)
        kept = there.do(replace_keys, Replacement(old.id, new, grace_ms))
        _tell(value, kept, own, as_json, replaces=old.id)
    say(
        f"the old key {old.shown} " + (f"is valid for {grace} more" if grace_ms else "is refused from now on")
    )


@keys.command()
@click.argument("key")
@database_option
@json_option
def revoke(key: str, database: str | None, as_json: bool) -> None:
    """Refuse a key from now on, on every server within a second. KEY is an id of `holdfast keys list`."""
    from holdfast.engine.keys import revoke_keys

    with open_database(database) as there:
        old, own = _named(there, key)
        kept = there.do(revoke_keys, old.id)
        now = there.read(lambda tx: tx.now)
    if as_json:
        emit_json(_row(kept, own, now))
    else:
        say(f"revoked: {kept.shown} of {own.name}")


@keys.command()
@database_option
@json_option
def reseal(database: str | None, as_json: bool) -> None:
    """Seal root keys and environment variables anew, under the first of several master keys.

    Afterwards the other master keys can be dropped.
    """
    from holdfast.engine.seals import Resealed, reseal, seals

    with open_database(database) as there:
        vault, broken = there.vault(), []
        vault.ready()
        items = []
        for seal in there.read(seals):
            if not vault.is_current(seal.sealed):
                try:
                    items.append(
                        Resealed(seal, vault.seal(vault.open(seal.sealed, seal.context), seal.context))
                    )
                except SealBroken as error:
                    broken.append(str(error))
        done = sum(there.store.transact(reseal, items))
    if as_json:
        emit_json({"resealed": done, "broken": broken})
    else:
        say(f"sealed anew: {done}")
    if broken:
        raise SealBroken(f"{len(broken)} of them do not open: {broken[0]}")


def _type(word: str | None) -> str:
    if word is None:
        raise InvalidRequest(f"--environment is missing: one of {', '.join(TYPES)}", "environment")
    if (type := type_named(word)) is None:
        raise InvalidRequest(
            f"--environment is {word[:40]!r}: expected one of {', '.join(TYPES)}", "environment"
        )
    return type


def _scopes(kind: KeyKind, preset: str | None, scopes: tuple[str, ...]) -> tuple[str, ...] | None:
    if kind is not KeyKind.SECRET and (preset or scopes):
        raise InvalidRequest(f"a {kind} key has no scopes: leave --preset and --scope out", "scope")
    if preset and scopes:
        raise InvalidRequest("--preset and --scope exclude each other: give one", "scope")
    return scopes or PRESETS[preset or "full"]


def _environment(there: Database, project: str | None, type: str) -> Environment:
    from holdfast.engine.projects import environments, find_environment

    return find_environment(there.read(environments), project, type, None)


def _made(
    there: Database, own: Environment, kind: KeyKind, name: str, scopes: tuple[str, ...] | None
) -> tuple[str, NewKey]:
    """A key, and what is to be kept of it."""
    from holdfast.engine.keys import NewKey

    value = new_key(kind, own.type)
    own_digest, sealed = digest(value), None
    if kind is KeyKind.ROOT:
        sealed = there.vault().seal(value, seal_context(own.id, own_digest))
    return value, NewKey(own.id, kind, name, own_digest, shown(value), sealed, scopes)


def _named(there: Database, key_id: str) -> tuple[ApiKey, Environment]:
    from holdfast.engine.keys import all_keys

    for key, own in there.read(all_keys):
        if key.id == key_id:
            return key, own
    raise NotFound(f"key {key_id[:40]!r} does not exist: `holdfast keys list --all` shows the ids")


def _root(there: Database, own: Environment) -> tuple[ApiKey, Environment]:
    """The root key that is in force and not being replaced."""
    from holdfast.engine.keys import signing

    signs = there.read(lambda tx: signing(tx, own.id))
    roots = [key for key in signs.keys if key.expires_at is None] if signs else []
    if not roots:
        raise NotFound(
            f"{own.name} has no root key in the database. One of HOLDFAST_SECRET_KEY is rotated there: put the new "
            "one first and keep the old one behind it for a while"
        )
    if len(roots) > 1:
        raise Unprocessable(f"{own.name} has {len(roots)} root keys: name one by its id")
    return roots[0], own


def _tell(value: str, kept: ApiKey, own: Environment, as_json: bool, **more: Any) -> None:
    if as_json:
        emit_json({"key": value, **_row(kept, own, kept.created_at, hidden=True), **more})
        return
    emit(value)
    say(f"{kept.kind} key {kept.id} of {own.name}: keep it now, it is not shown again")


def _row(key: ApiKey, own: Environment, now: int, hidden: bool = False) -> dict[str, Any]:
    row = {
        "id": key.id,
        "name": key.name,
        "project": own.project.ref,
        "environment": own.type,
        "kind": key.kind,
        "key": key.shown,
        "scopes": None if key.scope_list is None else list(key.scope_list),
        "state": key.state(now),
        "createdAt": _date(key.created_at),
    }
    if hidden:
        del row["key"]
    if key.expires_at is not None:
        row["expiresAt"] = _date(key.expires_at)
    return row


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
