"""How task modules are found and imported, and what becomes of those that fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.sdk import registry

TASK = "from holdfast import task\n@task\ndef {name}(): ...\n"


@pytest.fixture(autouse=True)
def a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Imports leave no trace in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(path: str, text: str) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", ["mail_jobs.py", "mail_jobs"])
def test_a_file_or_a_module_is_imported(name: str) -> None:
    write("mail_jobs.py", TASK.format(name="send"))
    assert registry.load([name]) == []
    assert list(registry.tasks()) == ["send"]


def test_a_package_keeps_its_relative_imports() -> None:
    write("shop_app/__init__.py", "")
    write("shop_app/names.py", "WORD = 'x'\n")
    write("shop_app/jobs/__init__.py", "")
    write("shop_app/jobs/mail.py", "from ..names import WORD\n" + TASK.format(name="send"))
    write("shop_app/jobs/deep/ship.py", TASK.format(name="ship"))

    assert registry.load(["shop_app/jobs/mail.py"]) == []
    assert list(registry.tasks()) == ["send"]
    assert registry.tasks()["send"].fn.__module__ == "shop_app.jobs.mail"
    assert registry.load(["shop_app.jobs"]) == []
    assert sorted(registry.tasks()) == ["send", "ship"]


def test_every_module_of_a_folder_is_imported() -> None:
    write("all_jobs/first_jobs.py", TASK.format(name="one"))
    write("all_jobs/.hidden/bad.py", "raise SystemExit")
    write("all_jobs/second_jobs.py", TASK.format(name="two"))
    assert registry.load(["all_jobs"]) == []
    assert sorted(registry.tasks()) == ["one", "two"]


def test_a_module_that_fails_is_named_and_the_others_go_on() -> None:
    write("bad_jobs.py", TASK.format(name="half") + "import no_such_module_here\n")
    write("worse_jobs.py", "def (\n")
    write("last_jobs.py", "raise SystemExit(3)")
    write("good_jobs.py", TASK.format(name="fine"))

    names = ["bad_jobs.py", "worse_jobs.py", "last_jobs.py", "no_file.py", "no_module_here", "good_jobs.py"]
    failures = registry.load(names)

    assert [failure.module for failure in failures] == names[:-1]
    assert isinstance(failures[0].__cause__, ModuleNotFoundError)
    assert isinstance(failures[1].__cause__, SyntaxError)
    assert list(registry.tasks()) == ["fine"]


def test_a_file_whose_module_name_is_taken_is_named() -> None:
    write("json.py", TASK.format(name="one"))
    [failure] = registry.load(["json.py"])
    assert "is taken by" in str(failure)


def test_two_modules_with_one_task_id_are_told_apart() -> None:
    write("one_jobs.py", TASK.format(name="same"))
    write("two_jobs.py", TASK.format(name="same"))
    [failure] = registry.load(["one_jobs.py", "two_jobs.py"])
    assert "one_jobs.same and two_jobs.same" in str(failure)
