import stat
from pathlib import Path

import pytest

from holdfast.cli.folder import AlreadyRunning, Folder, client_settings
from holdfast.config import Settings, environment_of
from holdfast.errors import BadSetting

VARIABLES = ("HOLDFAST_API_URL", "HOLDFAST_SECRET_KEY", "TRIGGER_API_URL", "TRIGGER_SECRET_KEY")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return Folder(tmp_path)


def test_the_key_is_made_once_and_readable_by_its_owner_only(folder: Folder):
    key = folder.key_made_once()
    assert folder.key_made_once() == key == folder.key()
    assert environment_of(key) == "dev"
    assert stat.S_IMODE(folder.key_file.stat().st_mode) == 0o600
    assert (folder.path / ".gitignore").read_text() == "*\n"


def test_the_master_key_is_made_once_and_readable_by_its_owner_only(folder: Folder):
    key = folder.master_key_made_once()
    assert folder.master_key_made_once() == key == folder.master_key()
    assert Settings.load({"HOLDFAST_MASTER_KEY": key}).master_keys == (key,)
    assert stat.S_IMODE(folder.master_key_file.stat().st_mode) == 0o600
    assert sorted(file.name for file in folder.path.iterdir()) == [".gitignore", "master_key"]


def test_of_two_that_make_a_key_at_once_the_first_wins(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Folder, "master_key", lambda self: None)  # both have looked and found none
    assert folder.master_key_made_once() == folder.master_key_made_once()


def test_a_broken_master_key_file_is_named_and_not_replaced(folder: Folder):
    folder.create()
    folder.master_key_file.write_text("rubbish\n")
    with pytest.raises(BadSetting, match="master_key holds no master key"):
        folder.master_key_made_once()
    assert folder.master_key_file.read_text() == "rubbish\n"


def test_a_broken_key_file_is_named(folder: Folder):
    folder.create()
    folder.key_file.write_text("rubbish\n")
    with pytest.raises(BadSetting, match="secret_key holds no secret key"):
        folder.key_made_once()


def test_a_folder_is_served_by_one_process_at_a_time(folder: Folder):
    with folder.held() as dev_file:
        dev_file.tell("http://127.0.0.1:4000")
        with pytest.raises(AlreadyRunning, match=r"127\.0\.0\.1:4000"), folder.held():
            raise AssertionError("two of them")
        assert (folder.serving() or {})["url"] == "http://127.0.0.1:4000"
    assert folder.serving() is None
    with folder.held():
        pass


def test_commands_find_the_server_and_the_key_of_their_folder(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
):
    assert client_settings(folder.project).api_url == "http://localhost:3030"
    key = folder.key_made_once()
    with folder.held() as dev_file:
        dev_file.tell("http://127.0.0.1:4000")
        found = client_settings(folder.project)
        assert (found.api_url, found.secret_key) == ("http://127.0.0.1:4000", key)
        assert client_settings(folder.project, "http://other").api_url == "http://other"
        monkeypatch.setenv("HOLDFAST_API_URL", "http://environment")
        monkeypatch.setenv("HOLDFAST_SECRET_KEY", "tr_prod_environment")
        found = client_settings(folder.project)
        assert (found.api_url, found.secret_key) == ("http://environment", "tr_prod_environment")
