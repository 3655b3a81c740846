"""OpenStack's clients with what wants several stores, a second API node, or a file of a web server."""

import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openstack
import pytest

from tests.glance import Command, Glance, command, connect, shown
from tests.service import until
from tests.services.deployment import Deployment, deployment

# The clients warn of their own affairs: what they will remove, and who should do without it.
pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore")]
EVERYWHERE = "local,other"


def name() -> str:
    return f"clients-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("deployment")) as running:
        yield running


@pytest.fixture(scope="module")
def glance(deployed: Deployment) -> Glance:
    return connect(deployed.first)


@pytest.fixture
def call(deployed: Deployment, tmp_path: Path) -> Iterator[Command]:
    with command(deployed.first, tmp_path) as running:
        yield running


@pytest.fixture
def cloud(deployed: Deployment) -> Iterator[Any]:
    given = deployed.first.cloud("calotype-demo")
    with openstack.connect(load_envvars=False, load_yaml_config=False, **given) as connection:
        yield connection


def active(glance: Glance, image_id: str) -> Any:
    return until(lambda: (image := glance.images.get(image_id)).status == "active" and image, f"image {image_id}")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_glance_imports_from_the_web_into_every_store(call: Command, deployed: Deployment, glance: Glance) -> None:
    made = shown(
        call(
            "image-create-via-import", "--import-method", "web-download", "--uri", deployed.files.disk,
            "--name", name(), "--disk-format", "qcow2", "--container-format", "bare", "--all-stores", "True",
        )
    )  # fmt: skip

    image = active(glance, made["id"])

    assert until(lambda: glance.images.get(made["id"])["stores"] == EVERYWHERE, "both stores")
    assert image.checksum == md5(httpx.get(deployed.files.disk).content)
    assert "success" in call("image-tasks", made["id"])


def test_glance_copies_to_another_store_and_takes_it_away_from_one(call: Command, glance: Glance) -> None:
    made = glance.images.create(name=name(), disk_format="raw", container_format="bare")
    content = os.urandom(100_000)
    glance.images.upload(made.id, io.BytesIO(content))
    before = glance.images.get(made.id)["stores"]

    call("image-import", made.id, "--import-method", "copy-image", "--stores", "other")
    until(lambda: glance.images.get(made.id)["stores"] == EVERYWHERE, "the copy")
    call("stores-delete", "--store", "local", made.id, cloud="calotype-admin")

    assert before == "local"
    assert glance.images.get(made.id)["stores"] == "other"
    assert b"".join(glance.images.data(made.id)) == content


def test_glance_registers_a_file_of_a_web_server(call: Command, deployed: Deployment, glance: Glance) -> None:
    content = httpx.get(deployed.files.archive).content
    digest = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(content).hexdigest()}
    made = glance.images.create(name=name(), disk_format="raw", container_format="bare")

    call("add-location", "--url", deployed.files.archive, "--validation-data", json.dumps(digest), made.id)
    image = active(glance, made.id)

    assert (image["stores"], image.size, image.checksum) == ("web", len(content), md5(content))
    assert b"".join(glance.images.data(made.id)) == content


def test_glance_downloads_from_another_image_service(call: Command, deployed: Deployment, glance: Glance) -> None:
    source = glance.images.create(name=name(), disk_format="raw", container_format="bare", os_distro="debian")
    content = os.urandom(50_000)
    glance.images.upload(source.id, io.BytesIO(content))
    made = glance.images.create(name=name(), disk_format="raw", container_format="bare")

    call(
        "image-import", made.id, "--import-method", "glance-download", "--remote-region", "RegionOne",
        "--remote-image-id", source.id, "--remote-service-interface", "public",
    )  # fmt: skip
    image = active(glance, made.id)

    assert (image.checksum, image.os_distro) == (md5(content), "debian")


def test_an_image_is_staged_on_one_node_and_imported_on_the_other(deployed: Deployment, glance: Glance) -> None:
    other = connect(deployed.first, service_type="image_remote")
    made = glance.images.create(name=name(), disk_format="raw", container_format="bare")
    content = os.urandom(50_000)

    glance.images.stage(made.id, io.BytesIO(content))
    other.images.image_import(made.id, method="glance-direct")

    assert active(other, made.id).checksum == md5(content)
    assert b"".join(glance.images.data(made.id)) == content


def test_each_node_has_a_cache_of_its_own(call: Command, deployed: Deployment, glance: Glance) -> None:
    made = glance.images.create(name=name(), disk_format="raw", container_format="bare")
    glance.images.upload(made.id, io.BytesIO(os.urandom(5000)))
    here, there = (connect(deployed.first, "calotype-admin", service_type=kind) for kind in ("image", "image_remote"))

    def cached(node: Glance) -> set[str]:
        return {one["image_id"] for one in node.cache.list()["cached_images"]}

    call("cache-queue", made.id, cloud="calotype-admin")
    until(lambda: made.id in cached(here), "the image in the cache")
    there_before = cached(there)
    call("cache-clear", cloud="calotype-admin")

    assert made.id not in there_before
    assert cached(here) == set()


def test_the_sdk_stages_imports_and_reads_the_task(cloud: Any) -> None:
    made = cloud.image.create_image(name(), disk_format="raw", container_format="bare")
    content = os.urandom(60_000)

    cloud.image.stage_image(made, data=io.BytesIO(content))
    cloud.image.import_image(made, method="glance-direct")
    image = until(
        lambda: (found := cloud.image.get_image(made.id)).status == "active" and found, "the import of the SDK"
    )

    assert image.checksum == md5(content)
    assert [task.status for task in cloud.image.image_tasks(made.id)] == ["success"]
    assert {store.id for store in cloud.image.stores()} == {"local", "other", "web"}


def test_the_command_openstack_imports_and_lists_tasks_stores_and_definitions(deployed: Deployment) -> None:
    run = deployed.first.run_json
    made = run("openstack", "image", "create", name(), "--disk-format", "qcow2", "-f", "json")

    deployed.first.run(
        "openstack", "image", "import", made["id"], "--method", "web-download", "--uri", deployed.files.disk, "--wait"
    )

    assert run("openstack", "image", "show", made["id"], "-f", "json")["status"] == "active"
    stores = {store["ID"] for store in run("openstack", "image", "stores", "list", "-f", "json")}
    assert stores == {"local", "other", "web"}
    tasks = run("openstack", "image", "task", "list", "-f", "json", cloud="calotype-admin")
    assert {"success"} <= {task["Status"] for task in tasks} <= {"success", "processing", "pending", "failure"}
    assert run("openstack", "image", "metadef", "namespace", "list", "-f", "json")
