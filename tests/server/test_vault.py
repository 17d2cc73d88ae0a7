"""Sealed text opens with the key that sealed it, in the place where it was sealed, and nowhere else."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import NoMasterKey, SealBroken
from holdfast.server.vault import Vault

OLD = "an old master key, of 32 characters or more"
NEW = "a new master key, of 32 characters or more!"


@given(st.text(), st.text())
def test_what_is_sealed_opens_in_its_place(text: str, context: str) -> None:
    vault = Vault([OLD])
    try:
        text.encode(), context.encode()
    except UnicodeEncodeError:
        return  # half a surrogate pair is no text; the codec of JSON refuses it at the edge
    assert vault.open(vault.seal(text, context), context) == text


def test_equal_texts_do_not_look_equal_and_do_not_hold_the_text() -> None:
    vault = Vault([OLD])
    first, second = vault.seal("secret-value", "env:prod:A"), vault.seal("secret-value", "env:prod:A")
    assert first != second
    assert "secret" not in first


def test_a_sealed_text_does_not_open_in_another_place() -> None:
    vault = Vault([OLD])
    with pytest.raises(SealBroken, match="env:prod:B"):
        vault.open(vault.seal("x", "env:prod:A"), "env:prod:B")


@pytest.mark.parametrize("at", [0, 3, 12, 20, -3, -8])
def test_an_altered_text_does_not_open(at: int) -> None:
    sealed = list(Vault([OLD]).seal("some text that is long enough", "c"))
    sealed[at] = "A" if sealed[at] != "A" else "B"
    with pytest.raises(SealBroken):
        Vault([OLD]).open("".join(sealed), "c")


@pytest.mark.parametrize(
    "text", ["", "v1", "v1..", "v1.0.0.0", "v1.x.", "v1.é.é", "v2.00000000.AAAA", "x" * 100_000]
)
def test_what_was_never_sealed_does_not_open(text: str) -> None:
    with pytest.raises(SealBroken):
        Vault([OLD]).open(text, "c")


def test_a_short_ciphertext_of_the_right_key_does_not_open() -> None:
    version, key_id, _ = Vault([OLD]).seal("x", "c").split(".")
    for data in ("", "AAAA", "AAAAAAAAAAAAAAAA"):
        with pytest.raises(SealBroken):
            Vault([OLD]).open(f"{version}.{key_id}.{data}", "c")


def test_the_first_key_seals_and_each_opens() -> None:
    old, both, new = Vault([OLD]), Vault([NEW, OLD]), Vault([NEW])
    before, after = old.seal("x", "c"), both.seal("x", "c")
    assert both.open(before, "c") == both.open(after, "c") == new.open(after, "c") == "x"
    assert (both.is_current(before), both.is_current(after)) == (False, True)
    with pytest.raises(SealBroken, match="another master key"):
        new.open(before, "c")
    with pytest.raises(SealBroken, match="another master key"):
        old.open(after, "c")


def test_without_a_master_key_the_error_says_what_to_do() -> None:
    for attempt in (Vault().ready, lambda: Vault().seal("x", "c"), lambda: Vault().open("x", "c")):
        with pytest.raises(NoMasterKey, match="HOLDFAST_MASTER_KEY is not set"):
            attempt()


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for attempt in (lambda: Vault([OLD]).seal("x", "c"), lambda: Vault([OLD]).open("x", "c")):
        with pytest.raises(NoMasterKey, match=r"pip install 'holdfast\[vault\]'"):
            attempt()
