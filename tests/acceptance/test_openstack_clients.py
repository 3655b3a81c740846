"""OpenStack's own clients, run as they come from PyPI against the running service."""

import hashlib
import io
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest

from tests.service import Service

# The clients warn of their own affairs: what they will remove, and who should do without it.
pytestmark = pytest.mark.filterwarnings("ignore")
Cloud = Any  # a Connection; its types are unions over two versions of the API


def name() -> str:
    return f"clients-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def cloud(service: Service) -> Iterator[Cloud]:
    with openstack.connect(load_envvars=False, load_yaml_config=False, **service.cloud("calotype-demo")) as connection:
        yield connection


@pytest.fixture
def admin_cloud(service: Service) -> Iterator[Cloud]:
    with openstack.connect(load_envvars=False, load_yaml_config=False, **service.cloud("calotype-admin")) as connection:
        yield connection


def test_the_command_line_creates_lists_shows_sets_saves_and_deletes(
    service: Service, alpine: Path, tmp_path: Path
) -> None:
    called, renamed, saved = name(), name(), tmp_path / "saved.qcow2"

    created = service.run_json(
        "openstack", "image", "create", called, "--disk-format", "qcow2", "--file", str(alpine), "--min-disk", "1",
        "--property", "color=blue", "--tag", "demo", "-f", "json",
    )  # fmt: skip
    listed = service.run_json("openstack", "image", "list", "--name", called, "-f", "json")
    service.run("openstack", "image", "set", called, "--name", renamed, "--property", "color=red", "--min-ram", "64")
    service.run("openstack", "image", "save", renamed, "--file", str(saved))
    shown = service.run_json("openstack", "image", "show", renamed, "-f", "json")
    service.run("openstack", "image", "delete", renamed)
    after = service.run_json("openstack", "image", "list", "--name", renamed, "-f", "json")

    assert (created["status"], created["size"]) == ("active", alpine.stat().st_size)
    assert listed == [{"ID": created["id"], "Name": called, "Status": "active"}]
    assert (shown["id"], shown["name"], shown["min_ram"], shown["tags"]) == (created["id"], renamed, 64, ["demo"])
    assert shown["properties"]["color"] == "red"
    assert saved.read_bytes() == alpine.read_bytes()
    assert after == []


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_the_command_line_creates_an_image_without_data_when_there_is_no_terminal(
    service: Service, format_: str
) -> None:
    """Its standard input is what it sends then, and that is empty: in a script, or under cron."""
    program = str(Path(sys.executable).with_name("openstack"))
    command = [program, "image", "create", name(), "--disk-format", format_, "-f", "json"]
    done = subprocess.run(
        command, env=service.env(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "queued"


def test_the_command_line_tells_why_an_image_was_refused_and_leaves_none(service: Service, tmp_path: Path) -> None:
    called, broken = name(), tmp_path / "broken.qcow2"
    broken.write_bytes(b"QFI\xfb")

    done = service.run(
        "openstack", "image", "create", called, "--disk-format", "qcow2", "--file", str(broken), ok=False
    )

    assert done.returncode == 1
    assert "the file is cut short" in done.stderr
    assert service.run_json("openstack", "image", "list", "--name", called, "-f", "json") == []


def test_the_sdk_shares_an_image(cloud: Cloud, admin_cloud: Cloud) -> None:
    made = cloud.image.create_image(name())
    project = admin_cloud.current_project_id

    offered = cloud.image.add_member(made, member_id=project)
    admin_cloud.image.update_member(project, made, status="accepted")
    members = [(member.member_id, member.status) for member in cloud.image.members(made)]
    cloud.image.remove_member(project, made)

    assert offered.status == "pending"
    assert members == [(project, "accepted")]
    assert list(cloud.image.members(made)) == []


def test_the_sdk_creates_and_checks_the_digest(cloud: Cloud) -> None:
    called, content = name(), b"a raw disk" * 1000

    made = cloud.image.create_image(
        called, data=content, disk_format="raw", wait=True, validate_checksum=True, tags=["a"], color="blue"
    )
    found = cloud.image.find_image(called)
    output = io.BytesIO()
    cloud.image.download_image(made, output=output)

    assert found.id == made.id
    assert (found.status, found.hash_value) == ("active", hashlib.sha512(content).hexdigest())
    assert found.properties["color"] == "blue"
    assert output.getvalue() == content
    assert cloud.image.find_image(name()) is None


def test_the_sdk_finds_an_equal_image_instead_of_a_second_upload(cloud: Cloud, tmp_path: Path) -> None:
    called, file = name(), tmp_path / "disk.raw"
    file.write_bytes(b"the same disk" * 100)

    first = cloud.create_image(called, filename=str(file), disk_format="raw", wait=True, validate_checksum=True)
    second = cloud.create_image(called, filename=str(file), disk_format="raw", wait=True, validate_checksum=True)

    assert first.id == second.id


def test_the_sdk_changes_properties(cloud: Cloud) -> None:
    made = cloud.image.create_image(name(), color="blue", shape="round")

    assert cloud.update_image_properties(image=made, color="red", size_class="s", min_ram=64)
    cloud.image.update_image(made.id, name="renamed", protected=False)

    changed = cloud.image.get_image(made.id)
    assert (changed.name, changed.min_ram) == ("renamed", 64)
    assert {key: changed.properties[key] for key in ("color", "shape", "size_class")} == {
        "color": "red",
        "shape": "round",
        "size_class": "s",
    }


def test_the_sdk_pages_sorts_and_filters(cloud: Cloud) -> None:
    tag = name()
    made = [cloud.image.create_image(f"{tag}-{n}", tags=[tag]) for n in range(3)]

    listed = list(cloud.image.images(tag=tag, limit=1, sort="name:asc"))

    assert [image.id for image in listed] == [image.id for image in made]
    assert [image.id for image in cloud.image.images(tag=tag, name=f"{tag}-1")] == [made[1].id]


def test_the_sdk_deletes_and_waits_until_it_is_gone(cloud: Cloud) -> None:
    made = cloud.image.create_image(name())

    assert cloud.delete_image(made.id, wait=True, timeout=10)
    assert not cloud.delete_image(made.id)


def test_the_sdk_reads_schemas_and_adds_tags(cloud: Cloud) -> None:
    made = cloud.image.create_image(name())

    cloud.image.add_tag(made, "x")

    assert cloud.image.get_image_schema().name == "image"
    assert cloud.image.get_image(made.id).tags == ["x"]
