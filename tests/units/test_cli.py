"""The command line without a service: arguments, exit statuses, and what it says when it finds no cloud."""

import json
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from calotype.cli import run
from calotype.cli.buckets import address
from calotype.cli.options import cloud_first

TEXT = st.text(max_size=12)


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cloud: not in the environment, not in this folder."""
    for name in ("OS_CLOUD", "OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_CLIENT_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


COMMANDS = (
    "serve",
    "worker",
    "migrate",
    "settings",
    "demo",
    "bucket create",
    "bucket list",
    "bucket put",
    "bucket get",
    "bucket rm",
    "bucket delete",
    "image create",
    "image list",
    "image show",
    "image download",
    "image export",
    "image copy",
    "image delete",
    "job show",
    "job wait",
    "job list",
    "job cancel",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = run([*command.split(), "--help"])

    assert status == 0
    assert f"calotype {command}" in capsys.readouterr().out.partition("Example")[2]


@pytest.mark.parametrize("command", [c for c in COMMANDS if " " in c])
def test_each_client_command_offers_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    run([*command.split(), "--help"])

    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["image"],
        ["image", "paint"],
        ["image", "create"],
        ["image", "create", "--name", "n"],
        ["image", "create", "--name", "n", "--from", "b:k", "--file", "f"],
        ["image", "create", "--name", "n", "--file", "f"],
        ["image", "create", "--name", "n", "--file", "f", "--disk-format", "floppy"],
        ["image", "create", "--name", "n", "--from", "b:k", "--disk-format", "raw"],
        ["image", "create", "--name", "n", "--from", "no-colon"],
        ["image", "create", "--name", "n", "--from", "b:k", "--min-disk", "0"],
        ["image", "export", "i", "b:k", "--format", "zip"],
        ["image", "export", "i", "nowhere", "--format", "vmdk"],
        ["image", "download", "i"],
        ["bucket", "rm", "b:../k"],
        ["bucket", "delete", "b:k"],
        ["job", "wait", "j", "--timeout", "0"],
        ["job", "list", "--limit", "0"],
        ["--nonsense", "job", "list"],
    ],
)
def test_wrong_usage_exits_with_2_and_says_so_on_stderr(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(arguments)

    said = capsys.readouterr()
    assert status == 2
    assert "Usage: calotype" in said.err + said.out


@pytest.mark.parametrize(
    "arguments", [["image", "list"], ["job", "list", "--json"], ["--os-cloud", "nowhere", "bucket", "list"]]
)
def test_without_a_cloud_the_error_says_how_to_name_one(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(arguments)

    said = capsys.readouterr()
    assert status == 1
    assert said.out == ""
    assert "[no_cloud]" in said.err
    assert "OS_CLIENT_CONFIG_FILE" in said.err


def test_without_a_cloud_the_clouds_yaml_of_a_service_run_here_is_pointed_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/clouds.yaml").write_text("clouds: {}")

    status = run(["image", "list"])

    assert status == 1
    assert "set OS_CLIENT_CONFIG_FILE=data/clouds.yaml OS_CLOUD=calotype-demo" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["clouds: [", "clouds:\n  here: 3\n", "3", "clouds:\n  here:\n    auth: no\n"])
def test_a_clouds_yaml_of_wrong_form_is_told_without_a_traceback(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "wrong.yaml"))

    status = run(["--os-cloud", "here", "image", "list"])

    assert status == 1
    assert "[no_cloud]" in capsys.readouterr().err


def test_a_service_that_is_not_there_is_told_with_the_next_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"AUTH_URL": "http://127.0.0.1:1/v3", "USERNAME": "u", "PASSWORD": "p", "PROJECT_NAME": "p"}
    for name, value in {**names, "USER_DOMAIN_ID": "default", "PROJECT_DOMAIN_ID": "default"}.items():
        monkeypatch.setenv(f"OS_{name}", value)

    status = run(["image", "list"])

    said = capsys.readouterr().err
    assert status == 1
    assert said.splitlines() == [
        "error: nothing answers at http://127.0.0.1:1/v3 [no_connection]",
        "next: start the service: calotype serve --data-dir DIR",
    ]


def test_a_file_that_cannot_be_read_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(["bucket", "put", str(tmp_path / "missing"), "disks:key"])

    assert status == 1
    assert "[cannot_read]" in capsys.readouterr().err


def test_an_existing_file_is_not_replaced_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = tmp_path / "alpine.qcow2"
    here.write_text("mine")

    status = run(["image", "download", "alpine", "-o", str(here)])

    assert status == 1
    assert "[file_exists]" in capsys.readouterr().err
    assert here.read_text() == "mine"


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    status = run(["--version"])

    assert status == 0
    assert capsys.readouterr().out.startswith("calotype ")


def test_the_cloud_may_be_chosen_behind_the_command_too() -> None:
    assert cloud_first(["job", "list", "--os-cloud", "here", "-x"]) == ["--os-cloud", "here", "job", "list", "-x"]
    assert cloud_first(["image", "list", "--os-cloud=here"]) == ["--os-cloud=here", "image", "list"]
    assert cloud_first(["image", "show", "--", "--os-cloud"]) == ["image", "show", "--", "--os-cloud"]
    assert cloud_first(["image", "list", "--os-cloud"]) == ["--os-cloud", "image", "list"]


@given(st.lists(st.sampled_from(["--os-cloud", "--os-cloud=x", "--os-region-name", "--", "image", "x", "--json"])))
def test_choosing_the_cloud_loses_and_adds_no_argument(arguments: list[str]) -> None:
    assert sorted(cloud_first(arguments)) == sorted(arguments)


def test_an_object_is_a_bucket_and_a_key_that_may_hold_slashes_and_colons() -> None:
    assert address("disks:a/b:c.qcow2") == ("disks", "a/b:c.qcow2")


@given(st.one_of(TEXT, st.tuples(TEXT, st.sampled_from(["..", ".", "", "a/../b", "/a", "a/"])).map(":".join)))
def test_an_address_is_read_or_refused_and_its_path_never_climbs(text: str) -> None:
    try:
        name, key = address(text)
    except typer.BadParameter:
        return
    assert f"{name}:{key}" == text
    assert "/" not in name
    assert not {"", ".", ".."} & set(key.split("/"))


def test_the_import_of_the_command_line_leaves_the_slow_libraries_for_later() -> None:
    import subprocess
    import sys

    script = "import calotype.cli, sys, json; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    slow = {"openstack", "keystoneauth1", "httpx", "rich.progress", "sqlalchemy", "granian"}
    assert not slow & set(json.loads(ran.stdout))
