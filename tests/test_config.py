from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.config import Settings, configured_tasks, environment_of, reference, variable
from holdfast.errors import BadSetting

GOOD = {
    "database_url": ("postgresql://me@there/runs", "postgresql://me@there/runs"),
    "secret_key": ("tr_dev_one,tr_prod_two", "tr_dev_one,tr_prod_two"),
    "master_key": ("m" * 32 + "," + "n" * 44, "m" * 32 + "," + "n" * 44),
    "branch": ("feat/x", "feat/x"),
    "api_url": ("https://runs.example/", "https://runs.example"),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("8080", 8080),
    "public_url": ("https://jobs.example/", "https://jobs.example"),
    "object_store_url": ("s3://bucket/prefix", "s3://bucket/prefix"),
    "lease": ("1m30s", timedelta(seconds=90)),
    "warm_wait": ("0", timedelta(0)),
    "retention": ("0", timedelta(0)),
    "concurrency": ("7", 7),
    "executors": ("2", 2),
    "drain": ("2.5", timedelta(seconds=2.5)),
    "recycle_runs": ("1000", 1000),
    "recycle_memory": ("512MB", 512 * 1024**2),
    "log_level": ("debug", "DEBUG"),
}
BAD = {
    "secret_key": "hunter2",
    "master_key": "m" * 32 + ",too-short",
    "branch": "a branch",
    "api_url": "localhost:3030",
    "port": "65536",
    "public_url": "jobs.example",
    "object_store_url": "ftp://files.example",
    "lease": "0",
    "warm_wait": "a while",
    "retention": "soon",
    "concurrency": "10001",
    "executors": "-1",
    "drain": "1x",
    "recycle_runs": "many",
    "recycle_memory": "1 bottle",
    "log_level": "loud",
}


def test_each_setting_is_read_from_its_own_variable():
    assert set(GOOD) == {one.name for one in fields(Settings)}
    for name, (text, value) in GOOD.items():
        assert getattr(Settings.load({f"HOLDFAST_{name.upper()}": text}), name) == value


@pytest.mark.parametrize("name", BAD)
def test_a_value_that_can_not_be_read_is_named_with_its_variable(name: str):
    with pytest.raises(BadSetting) as caught:
        Settings.load({f"HOLDFAST_{name.upper()}": BAD[name]})
    assert f"HOLDFAST_{name.upper()} is" in str(caught.value)
    assert "expected" in str(caught.value) or name in ("secret_key", "master_key")


def test_the_first_master_key_comes_first():
    found = Settings.load({"HOLDFAST_MASTER_KEY": f" {'m' * 32} , {'n' * 32}"})
    assert found.master_keys == ("m" * 32, "n" * 32)
    assert "mmm" not in repr(found)


def test_an_error_about_a_key_does_not_show_the_key():
    with pytest.raises(BadSetting) as caught:
        Settings.load({"HOLDFAST_SECRET_KEY": "tr_dev_good,hunter2"})
    assert "hunter2" not in str(caught.value)
    assert "tr_dev_good" not in str(caught.value)
    assert "tr_dev_secret" not in repr(Settings.load({"HOLDFAST_SECRET_KEY": "tr_dev_secret"}))


def test_an_option_overrides_the_environment_and_is_named_in_its_error():
    assert Settings.load({"HOLDFAST_PORT": "1"}, port="2").port == 2
    assert Settings.load({"HOLDFAST_PORT": "1"}, port=None).port == 1
    with pytest.raises(BadSetting, match="--drain is 'later'"):
        Settings.load({}, drain="later")


def test_the_variables_of_the_official_sdk_are_read_where_ours_are_absent():
    theirs = {"TRIGGER_API_URL": "http://theirs", "TRIGGER_SECRET_KEY": "tr_stg_theirs"}
    assert Settings.load(theirs).api_url == "http://theirs"
    assert Settings.load(theirs).keys == {"tr_stg_theirs": "staging"}
    assert Settings.load(theirs | {"HOLDFAST_API_URL": "http://ours"}).api_url == "http://ours"


def test_an_empty_variable_counts_as_absent():
    assert Settings.load({"HOLDFAST_PORT": "", "HOLDFAST_API_URL": ""}) == Settings.load({})


def test_the_prefix_of_a_key_names_its_environment():
    keys = ("tr_dev_a", "tr_stg_a", "tr_prod_a", "tr_dev_", "pk_a", "tr_dev_a b", "tr_dev_a\n")
    assert [environment_of(key) for key in keys] == ["dev", "staging", "prod", None, None, None, None]


def test_the_reference_names_every_setting_and_its_default():
    page = reference()
    for one in fields(Settings):
        assert f"`{variable(one)}`" in page
        assert one.metadata["help"] in page


def test_tasks_are_taken_from_pyproject(tmp_path: Path):
    assert configured_tasks(tmp_path) == []
    file = tmp_path / "pyproject.toml"
    file.write_text('[tool.holdfast]\ntasks = ["jobs", "more.jobs"]\n')
    assert configured_tasks(tmp_path) == ["jobs", "more.jobs"]
    file.write_text('[tool.holdfast]\ntasks = "jobs"\n')
    with pytest.raises(BadSetting, match="expected a list"):
        configured_tasks(tmp_path)
    file.write_text("[tool.holdfast\n")
    with pytest.raises(BadSetting, match="can not be read"):
        configured_tasks(tmp_path)
