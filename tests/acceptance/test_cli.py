"""The command line against the running service, as a person or a script uses it."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from calotype.cli import images, run, transfer
from calotype.cli.session import connected
from calotype.cli.show import Meter
from tests.service import DEMO_PASSWORD, Service

CALOTYPE = str(Path(sys.executable).with_name("calotype"))
OS_VARIABLES = ("OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_PROJECT_NAME", "OS_REGION_NAME")
SILENT = Meter(lambda _percent, _words: None)
TERMINAL_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli:
    """`calotype` as the user demo runs it; in this process, for the most of its time is the import of a library."""

    def __init__(self, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, clouds: Path) -> None:
        self._capture = capture
        for name in OS_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds))
        monkeypatch.setenv("OS_CLOUD", "calotype-demo")

    def __call__(self, *arguments: str | Path, status: int = 0) -> Done:
        self._capture.readouterr()
        ended = run([str(argument) for argument in arguments])
        said = self._capture.readouterr()
        assert ended == status, said.err
        return Done(ended, said.out, said.err)

    def refused(self, *arguments: str | Path) -> str:
        """What is said on stderr by a command that is refused."""
        done = self(*arguments, status=1)
        assert done.out == ""
        return done.err


@pytest.fixture
def cli(service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    return Cli(capsys, monkeypatch, service.clouds_yaml)


@pytest.fixture
def bucket(cli: Cli) -> str:
    """A new bucket."""
    name = f"b-{uuid.uuid4().hex}"
    cli("bucket", "create", name)
    return name


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A disk image of a few hundred KiB."""
    path = tmp_path / "small.qcow2"
    subprocess.run(("qemu-img", "create", "-q", "-f", "qcow2", str(path), "3G"), check=True)
    return path


@pytest.fixture
def image(cli: Cli, small: Path) -> str:
    """The id of a new image."""
    arguments = ("--file", small, "--disk-format", "qcow2", "--name", f"image-{uuid.uuid4().hex}")
    return str(cli("image", "create", *arguments, "--json").json["id"])


def test_an_object_goes_into_a_bucket_and_comes_back(cli: Cli, bucket: str, alpine: Path, tmp_path: Path) -> None:
    there, back = f"{bucket}:disks/alpine one.qcow2", tmp_path / "back"

    put = cli("bucket", "put", alpine, there, "--json").json
    listed = cli("bucket", "list", bucket, "--prefix", "disks/", "--json").json
    got = cli("bucket", "get", there, "-o", back, "--json").json

    assert put["size"] == alpine.stat().st_size
    assert [item["key"] for item in listed] == ["disks/alpine one.qcow2"]
    assert got == {"file": str(back), "size": put["size"]}
    assert back.read_bytes() == alpine.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["back"]


def test_an_object_is_removed_and_then_the_bucket(cli: Cli, bucket: str, small: Path) -> None:
    cli("bucket", "put", small, f"{bucket}:x")

    full = cli.refused("bucket", "delete", bucket)
    cli("bucket", "rm", f"{bucket}:x")
    cli("bucket", "delete", bucket)

    assert "[bucket_not_empty]" in full
    assert bucket not in cli("bucket", "list").out


def test_a_listing_goes_over_several_pages_and_says_when_it_stops_short(cli: Cli, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    keys = [f"k{number}" for number in range(5)]
    for key in keys:
        cli("bucket", "put", tmp_path / "x", f"{bucket}:{key}")

    part = cli("bucket", "list", bucket, "--limit", "3")
    whole = cli("bucket", "list", bucket, "--json").json

    assert [line.split()[0] for line in part.out.splitlines()] == ["KEY", *keys[:3]]
    assert "there are more" in part.err
    assert [item["key"] for item in whole] == keys


def test_put_keeps_what_is_there_when_asked_to(cli: Cli, bucket: str, small: Path) -> None:
    cli("bucket", "put", small, f"{bucket}:x")

    assert "[object_exists]" in cli.refused("bucket", "put", small, f"{bucket}:x", "--keep")
    cli("bucket", "put", small, f"{bucket}:x")


def test_a_large_file_into_a_missing_bucket_is_refused_in_the_services_words(cli: Cli, alpine: Path) -> None:
    said = cli.refused("bucket", "put", alpine, "no-such-bucket:x")

    assert "error: no bucket no-such-bucket [bucket_not_found]" in said
    assert "next: calotype bucket list" in said


def test_a_missing_object_is_told_with_the_next_step(cli: Cli, bucket: str, tmp_path: Path) -> None:
    said = cli.refused("bucket", "get", f"{bucket}:nothing", "-o", tmp_path / "x")

    assert f"error: object {bucket}:nothing not found [object_not_found]" in said
    assert list(tmp_path.iterdir()) == []


def test_an_image_is_imported_shown_downloaded_exported_copied_and_deleted(
    cli: Cli, bucket: str, alpine: Path, tmp_path: Path
) -> None:
    name = f"alpine-{uuid.uuid4().hex}"
    cli("bucket", "put", alpine, f"{bucket}:alpine.qcow2")

    made = cli("image", "create", "--from", f"{bucket}:alpine.qcow2", "--name", name, "--wait", "--json").json
    listed = cli("image", "list", "--name", name, "--json").json
    shown = cli("image", "show", name, "--json").json
    downloaded = cli("image", "download", name, "-o", tmp_path / "back", "--json").json
    export = cli("image", "export", name, f"{bucket}:out.vmdk", "--format", "vmdk", "--wait", "--json").json
    copy = cli("image", "copy", name, "--name", f"{name}-copy", "--wait", "--json").json
    deleted = cli("image", "delete", made["id"], f"{name}-copy", "--json").json

    assert (made["status"], made["min_disk"], made["virtual_size"]) == ("active", 1, 1024**3)
    assert listed == [shown] == [made]
    assert downloaded["sha512"] == made["os_hash_value"]
    assert (tmp_path / "back").read_bytes() == alpine.read_bytes()
    assert export["state"] == "succeeded"
    assert (copy["name"], copy["checksum"]) == (f"{name}-copy", made["checksum"])
    assert deleted == {"deleted": [made["id"], copy["id"]]}
    assert cli("image", "list", "--name", name, "--json").json == []


def test_a_job_is_started_waited_for_shown_and_listed(cli: Cli, bucket: str, small: Path) -> None:
    cli("bucket", "put", small, f"{bucket}:small.qcow2")

    begun = cli("image", "create", "--from", f"{bucket}:small.qcow2", "--name", "small")
    job_id = begun.out.strip()
    waited = cli("job", "wait", job_id)
    shown = cli("job", "show", job_id, "--json").json
    listed = cli("job", "list", "--state", "succeeded", "--limit", "200", "--json").json

    assert f"calotype job wait {job_id}" in begun.err
    assert "min_disk is 3 GB" in begun.err
    assert "imsImportImageJob" in waited.out
    assert "100 %, succeeded" in waited.err
    assert shown["state"] == "succeeded"
    assert job_id in [item["id"] for item in listed]


def test_waiting_for_a_job_that_fails_exits_with_1_and_says_why(cli: Cli, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"QFI\xfb\0\0\0\3" + b"\0" * 400)
    cli("bucket", "put", tmp_path / "short", f"{bucket}:short")
    create = ("image", "create", "--from", f"{bucket}:short", "--name", "short", "--min-disk", "1")

    said = cli.refused(*create, "--wait")
    begun = cli(*create, "--json").json
    waited = cli("job", "wait", begun["job_id"], "--json", status=1)

    assert "[IMG.0057]" in said
    assert waited.json["state"] == "failed"
    assert "[IMG.0057]" in waited.err


def test_an_empty_object_is_refused_by_the_service_not_by_the_command_line(
    cli: Cli, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    cli("bucket", "put", tmp_path / "empty", f"{bucket}:empty")

    assert "[IMG." in cli.refused("image", "create", "--from", f"{bucket}:empty", "--name", "x", "--wait")


def test_a_wait_ends_at_its_limit_and_the_job_is_cancelled(
    make_service: Callable[..., Service],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    small: Path,
) -> None:
    cli = Cli(capsys, monkeypatch, make_service(arguments=["--no-worker"]).start().clouds_yaml)
    job_id = a_job(cli, small)

    too_long = cli("job", "wait", job_id, "--timeout", "1", status=1)
    cancelled = cli("job", "cancel", job_id, "--json").json

    assert "[timeout]" in too_long.err
    assert f"next: calotype job wait {job_id}" in too_long.err
    assert cancelled["state"] in ("cancelling", "cancelled")
    assert "[job_finished]" in cli.refused("job", "cancel", job_id)


def test_a_wait_goes_on_over_a_restart_of_the_service(
    make_service: Callable[..., Service],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    small: Path,
) -> None:
    restarted = make_service().start("--no-worker")
    job_id = a_job(Cli(capsys, monkeypatch, restarted.clouds_yaml), small)
    command = (CALOTYPE, "job", "wait", job_id)
    with subprocess.Popen(command, env=restarted.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        assert waiting.stderr is not None
        waiting.stderr.readline()  # it waits

        restarted.stop()
        restarted.start()
        out, err = waiting.communicate(timeout=120)

    assert waiting.returncode == 0, err
    assert b"succeeded" in out


def a_job(cli: Cli, disk: Path) -> str:
    """The id of an import that has begun."""
    cli("bucket", "create", "disks")
    cli("bucket", "put", disk, "disks:x")
    return cli("image", "create", "--from", "disks:x", "--name", "x").out.strip()


def test_an_upload_that_the_service_refuses_leaves_no_image(cli: Cli, alpine: Path) -> None:
    name = f"lie-{uuid.uuid4().hex}"

    said = cli.refused("image", "create", "--file", alpine, "--disk-format", "raw", "--name", name)

    assert "declared as raw" in said
    assert cli("image", "list", "--name", name, "--json").json == []


def test_images_of_one_name_are_told_apart_by_id(cli: Cli, image: str) -> None:
    name = cli("image", "show", image, "--json").json["name"]
    twin = cli("image", "copy", image, "--name", name, "--wait", "--json").json["id"]

    said = cli.refused("image", "show", name)

    assert "[ambiguous_name]" in said
    assert image in said
    assert twin in said


def test_of_several_images_to_delete_the_others_go_when_one_cannot(cli: Cli, image: str) -> None:
    done = cli("image", "delete", "no such image", image, status=1)

    assert "no image no such image [image_not_found]" in done.err
    assert f"image {image} deleted" in done.err
    assert "[image_not_found]" in cli.refused("image", "show", image)


def test_a_download_does_not_replace_a_file_unless_forced(cli: Cli, image: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")

    assert "[file_exists]" in cli.refused("image", "download", image, "-o", mine)
    assert mine.read_text() == "mine"
    cli("image", "download", image, "-o", mine, "--force")
    assert mine.read_bytes().startswith(b"QFI\xfb")


def test_a_download_that_was_stopped_goes_on_and_is_right(service: Service, alpine: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop_half_way(percent: float | None, _words: str) -> None:
        if (percent or 0) > 50:
            raise Stopped

    seen: list[float] = []
    with closing(connected("calotype-demo", config=service.clouds_yaml)) as api:
        made = images.upload(api, alpine, f"alpine-{uuid.uuid4().hex}", "qcow2")
        with pytest.raises(Stopped):
            images.download_to(api, made, tmp_path / "back", Meter(stop_half_way))
        kept = [path.stat().st_size for path in tmp_path.iterdir()]

        images.download_to(api, made, tmp_path / "back", Meter(lambda percent, _words: seen.append(percent or 0)))

    assert len(kept) == 1
    assert kept[0] > alpine.stat().st_size // 2
    assert seen[0] > 50
    assert [path.name for path in tmp_path.iterdir()] == ["back"]
    assert (tmp_path / "back").read_bytes() == alpine.read_bytes()


def test_an_expired_token_is_renewed_once_in_the_middle_of_the_work(service: Service, small: Path, bucket: str) -> None:
    with closing(connected("calotype-demo", config=service.clouds_yaml)) as api:
        token = api._token()
        answer = httpx.delete(
            f"{service.url}/identity/v3/auth/tokens", headers={"X-Auth-Token": token, "X-Subject-Token": token}
        )
        assert answer.status_code == 204

        file = transfer.OutgoingFile(small)
        made = transfer.send(api, "PUT", f"/calotype/v1/buckets/{bucket}/objects/x", file, SILENT, {})

        assert json.loads(made)["size"] == small.stat().st_size
        assert api._token() != token


def test_a_wrong_password_is_told_and_shown_to_nobody(
    service: Service, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "clouds.yaml"
    wrong.write_text(service.clouds_yaml.read_text().replace(DEMO_PASSWORD, "wrong-password"))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(wrong))

    said = cli.refused("image", "list")

    assert "[unauthenticated]" in said
    assert "next: check user, password and project" in said
    assert "wrong-password" not in said


def test_the_cloud_may_come_from_os_variables_alone(
    service: Service, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OS_CLIENT_CONFIG_FILE")
    monkeypatch.delenv("OS_CLOUD")
    for name, value in service.cloud("calotype-demo")["auth"].items():
        monkeypatch.setenv(f"OS_{name.upper()}", str(value))

    assert isinstance(cli("bucket", "list", "--json").json, list)


def test_a_region_that_is_not_there_is_told(cli: Cli) -> None:
    assert "Elsewhere" in cli.refused("image", "list", "--os-region-name", "Elsewhere")


def test_the_images_and_jobs_of_another_project_do_not_exist(cli: Cli, bucket: str, small: Path) -> None:
    cli("bucket", "put", small, f"{bucket}:x")
    made = cli("image", "create", "--from", f"{bucket}:x", "--name", "x", "--wait", "--json").json
    job_id = cli("job", "list", "--json").json[0]["id"]
    foreign = ("--os-cloud", "calotype-admin")

    assert "[job_not_found]" in cli.refused(*foreign, "job", "show", job_id)
    assert "[job_not_found]" in cli.refused(*foreign, "job", "cancel", job_id)
    assert "[bucket_not_found]" in cli.refused(*foreign, "bucket", "list", bucket)
    assert made["id"] not in [item["id"] for item in cli(*foreign, "job", "list", "--json").json]


def test_on_a_terminal_a_bar_with_rate_and_percentage_is_drawn(service: Service, bucket: str, alpine: Path) -> None:
    mine, its = pty.openpty()
    command = (CALOTYPE, "bucket", "put", alpine, f"{bucket}:alpine")
    environment = {**service.env(), "TERM": "xterm", "COLUMNS": "120"}
    drawn = b""

    with subprocess.Popen(command, env=environment, stderr=its, stdout=subprocess.DEVNULL) as drawing:
        os.close(its)
        while select.select([mine], [], [], 60)[0]:
            try:
                read = os.read(mine, 4096)
            except OSError:  # how the end of a terminal is told
                break
            drawn += read
    os.close(mine)

    text = TERMINAL_CONTROL.sub("", drawn.decode())
    assert drawing.returncode == 0
    assert "100 %" in text
    assert "━" in text
    assert "61.4 MiB of 61.4 MiB" in text
    assert "MiB/s" in text
    assert f"{bucket}:alpine stored" in text


def test_output_into_a_closed_pipe_ends_quietly(service: Service, image: str) -> None:
    command = (CALOTYPE, "image", "show", image)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(command, env=service.env(), stdout=closed, stderr=subprocess.PIPE, check=False)

    assert done.returncode == 1
    assert done.stderr == b""
