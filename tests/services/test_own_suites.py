"""The functional tests that OpenStack's clients bring along, run as they are against the service.

They look for the clouds that a DevStack has; here these are accounts of the service.
"""

import csv
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.service import Client, Service, clean_environment
from tests.services.deployment import create_account
from tests.services.skips import skips

pytestmark = pytest.mark.services

SDK: Final = tuple(
    f"openstack.tests.functional.{name}"
    for name in (
        *(
            f"image.v2.test_{part}"
            for part in (
                "image",
                "member",
                "metadef_namespace",
                "metadef_object",
                "metadef_property",
                "metadef_resource_type",
                "metadef_schema",
                "schema",
                "task",
            )
        ),
        "cloud.test_image",
    )
)
OPENSTACKCLIENT: Final = tuple(
    f"openstackclient.tests.functional.image.v2.test_{part}"
    for part in ("cache", "image", "info", "metadef_objects", "metadef_resource_type")
)
GLANCECLIENT: Final = tuple(
    f"glanceclient.tests.functional.v2.test_{part}" for part in ("http_headers", "readonly_glance")
)
WITHIN_S: Final = 900
PUBLIC: Final = "a-public-image"


@pytest.fixture(scope="module")
def devstack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the clouds.yaml of a DevStack that is this service."""
    folder = tmp_path_factory.mktemp("devstack")
    running = Service(folder / "service")
    try:
        running.start()
        with running.admin() as admin:
            (folder / "clouds.yaml").write_text(yaml.safe_dump({"clouds": _clouds(running, admin)}))
            _publish_an_image(admin)
        (folder / "CONTRIBUTING.rst").write_text("What the SDK's tests upload: any file of this name.\n" * 20)
        _give_it_something_to_read(folder)
        yield folder
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


def _clouds(running: Service, admin: Client) -> dict[str, Any]:
    create_account(admin, "alt", "alt", "member")
    given = running.cloud("calotype-admin")
    alt = {"username": "alt", "project_name": "alt", "password": "password-of-alt"}
    return {
        "devstack": running.cloud("calotype-demo"),
        "devstack-admin": given,
        "devstack-alt": {**given, "auth": {**given["auth"], **alt}},
        "devstack-system-admin": given,
    }


def _give_it_something_to_read(folder: Path) -> None:
    """The command openstack uploads its standard input where that is no terminal. Its tests have none: with Glance they
    work on images that are active without a byte; here such an upload leaves the image queued."""
    (folder / "standard-input").write_bytes(os.urandom(1024))
    programs = folder / "programs"
    programs.mkdir()
    program = programs / "openstack"
    real = Path(sys.executable).with_name("openstack")
    program.write_text(f'#!/bin/sh\nexec {real} "$@" <{folder}/standard-input\n')
    program.chmod(0o755)


def _publish_an_image(admin: Client) -> None:
    """The SDK's tests want one to be there, as a cloud has."""
    document = {"name": PUBLIC, "visibility": "public", "disk_format": "raw", "container_format": "bare"}
    made = admin.http.post("/v2/images", json=document)
    assert made.status_code == 201, made.text
    put = admin.http.put(
        f"/v2/images/{made.json()['id']}/file",
        content=os.urandom(4096),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert put.status_code == 204, put.text


def run(folder: Path, modules: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Names of tests by what became of them, each with what it said."""
    environment = {
        **clean_environment(),
        "HOME": str(folder),
        "OS_CLIENT_CONFIG_FILE": str(folder / "clouds.yaml"),
        "OS_CLOUD": "devstack-admin",
        "OPENSTACKSDK_IMAGE": PUBLIC,
        "OS_LOG_CAPTURE": "true",
        "OS_TEST_TIMEOUT": "120",
        "OS_GLANCECLIENT_EXEC_DIR": str(Path(sys.executable).parent),
        "PATH": os.pathsep.join((str(folder / "programs"), str(Path(sys.executable).parent), os.environ["PATH"])),
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, "-m", "subunit.run", *modules],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WITHIN_S,
        check=False,
    )
    outcome: dict[str, dict[str, str]] = {"success": {}, "skip": {}}
    lines = _read(done.stdout, "subunit2csv", "--no-passthrough")
    for row in csv.DictReader(io.StringIO(lines)):
        outcome.setdefault(row["status"], {})[row["test"]] = row["status"]
    said = _read(done.stdout, "subunit2pyunit", "--no-passthrough") + done.stderr.decode(errors="replace")
    assert set(outcome) == {"success", "skip"}, said[-30_000:]
    return outcome


def _read(stream: bytes, *program: str) -> str:
    command = [str(Path(sys.executable).with_name(program[0])), *program[1:]]
    done = subprocess.run(command, input=stream, capture_output=True, timeout=60, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


@pytest.mark.parametrize(
    ("suite", "modules", "passed"),
    [
        pytest.param("openstacksdk", SDK, 30, id="openstacksdk"),
        pytest.param("openstackclient", OPENSTACKCLIENT, 13, id="openstackclient"),
        pytest.param("glanceclient", GLANCECLIENT, 7, id="glanceclient"),
    ],
)
def test_the_functional_tests_of_a_client_pass(
    devstack: Path, suite: str, modules: tuple[str, ...], passed: int
) -> None:
    outcome = run(devstack, modules)

    assert set(outcome["skip"]) == {test for test in skips("client") if test.startswith(suite)}
    assert len(outcome["success"]) == passed
