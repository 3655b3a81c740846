"""python-glanceclient as it comes from PyPI, its command and its library, against the running service."""

import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from glanceclient import exc

from tests.glance import Command, Glance, command, connect, shown
from tests.service import Client, Service, until

# The client and what it builds on warn of their own affairs.
pytestmark = pytest.mark.filterwarnings("ignore")


def name() -> str:
    return f"glance-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def glance(service: Service) -> Glance:
    return connect(service, "calotype-demo")


@pytest.fixture(scope="module")
def admin_glance(service: Service) -> Glance:
    return connect(service, "calotype-admin")


@pytest.fixture
def call(service: Service, tmp_path: Path) -> Iterator[Command]:
    with command(service, tmp_path) as running:
        yield running


def test_the_command_goes_the_way_of_an_image_from_its_file_to_its_end(
    call: Command, alpine: Path, tmp_path: Path, admin: Client
) -> None:
    called, saved = name(), tmp_path / "saved.qcow2"

    made = shown(
        call(
            "image-create", "--name", called, "--disk-format", "qcow2", "--container-format", "bare",
            "--file", str(alpine), "--property", "color=blue", "--tags", "demo", "--min-disk", "1",
        )
    )  # fmt: skip
    image_id = made["id"]
    call("image-update", image_id, "--name", f"{called}-renamed", "--property", "color=red")
    call("image-tag-update", image_id, "golden")
    listed = call("image-list", "--tag", "golden", "--property-filter", "color=red")
    call("member-create", image_id, admin.project_id)
    offered = call("member-list", "--image-id", image_id)
    call("member-update", image_id, admin.project_id, "accepted", cloud="calotype-admin")
    accepted = call("member-list", "--image-id", image_id)
    call("member-delete", image_id, admin.project_id)
    call("image-download", image_id, "--file", str(saved))
    call("image-tag-delete", image_id, "golden")
    last = shown(call("image-show", image_id))
    call("image-delete", image_id)
    gone = call("image-show", image_id, ok=False)

    assert (made["status"], made["size"], made["color"]) == ("active", str(alpine.stat().st_size), "blue")
    assert f"{called}-renamed" in listed
    assert ("pending" in offered, "accepted" in accepted) == (True, True)
    assert saved.read_bytes() == alpine.read_bytes()
    assert (last["name"], last["color"], last["tags"]) == (f"{called}-renamed", "red", '["demo"]')
    assert f"no image {image_id}" in gone


def test_the_command_stages_and_imports_and_shows_the_task(call: Command, tmp_path: Path, glance: Glance) -> None:
    staged = tmp_path / "disk.raw"
    staged.write_bytes(os.urandom(70_000))
    made = shown(call("image-create", "--name", name(), "--disk-format", "raw", "--container-format", "bare"))

    assert "glance-direct" in call("import-info")
    call("image-stage", made["id"], "--file", str(staged))
    uploading = shown(call("image-show", made["id"]))
    call("image-import", made["id"], "--import-method", "glance-direct")
    until(lambda: glance.images.get(made["id"]).status == "active", "the import")

    assert uploading["status"] == "uploading"
    assert "success" in call("image-tasks", made["id"])
    assert glance.images.get(made["id"]).checksum == hashlib.md5(staged.read_bytes(), usedforsecurity=False).hexdigest()


def test_the_command_withholds_an_image_and_gives_it_back(call: Command, glance: Glance) -> None:
    made = glance.images.create(name=name(), disk_format="raw", container_format="bare")
    glance.images.upload(made.id, io.BytesIO(os.urandom(2048)))

    call("image-deactivate", made.id)
    withheld = glance.images.get(made.id).status
    refused = call("image-download", made.id, "--file", "/dev/null", ok=False)
    call("image-reactivate", made.id)

    assert withheld == "deactivated"
    assert "withheld" in refused
    assert glance.images.get(made.id).status == "active"


def test_the_command_tells_of_stores_quotas_and_the_cache(call: Command) -> None:
    assert "local" in call("stores-info")
    assert "image_count_total" in call("usage")
    call("cache-list", cloud="calotype-admin")
    assert "do not allow" in call("cache-list", ok=False)


def test_the_library_changes_an_image_by_its_schema(glance: Glance) -> None:
    made = glance.images.create(name=name(), visibility="private", color="blue", tags=["a", "b"])

    glance.images.update(made.id, remove_props=["color"], shape="round", min_ram=64)
    changed = glance.images.get(made.id)
    glance.image_tags.update(made.id, "c")
    glance.image_tags.delete(made.id, "a")

    assert "color" not in changed
    assert (changed.shape, changed.min_ram, changed.visibility) == ("round", 64, "private")
    assert sorted(glance.images.get(made.id).tags) == ["b", "c"]
    with pytest.raises(TypeError, match="is not of type 'integer'"):
        glance.images.create(name=name(), min_ram="much")


def test_the_library_uploads_and_checks_the_digest_as_it_downloads(glance: Glance) -> None:
    content = os.urandom(300_000)
    made = glance.images.create(name=name(), disk_format="raw", container_format="bare")

    glance.images.upload(made.id, io.BytesIO(content))

    assert b"".join(glance.images.data(made.id)) == content
    assert glance.images.get(made.id).os_hash_value == hashlib.sha512(content).hexdigest()


def test_the_library_pages_sorts_and_filters(glance: Glance) -> None:
    tag = name()
    made = [glance.images.create(name=f"{tag}-{n}", tags=[tag], min_ram=n).id for n in range(5)]

    def ids(**asked: Any) -> list[str]:
        return [image.id for image in glance.images.list(filters={"tag": [tag], **asked.pop("filters", {})}, **asked)]

    assert ids(page_size=2, sort_key=["name"], sort_dir=["asc"]) == made
    assert ids(sort="name:desc", limit=2, page_size=1) == made[:2:-1]
    assert ids(filters={"name": f"{tag}-3"}) == [made[3]]
    assert ids(filters={"id": f"in:{made[0]},{made[4]}"}, sort="name:asc") == [made[0], made[4]]
    assert ids(filters={"visibility": "private"}) == []


def test_the_library_names_what_was_wrong(glance: Glance, admin_glance: Glance) -> None:
    hidden = admin_glance.images.create(name=name(), visibility="private")
    kept = glance.images.create(name=name(), protected=True)

    with pytest.raises(exc.HTTPNotFound):
        glance.images.get(hidden.id)
    with pytest.raises(exc.HTTPForbidden):
        glance.images.delete(kept.id)
    with pytest.raises(exc.HTTPForbidden):
        glance.images.create(name=name(), visibility="public")
    with pytest.raises(exc.HTTPConflict):
        glance.images.create(id=kept.id)


def test_the_library_knows_the_versions_and_schemas(glance: Glance, service: Service) -> None:
    versions = glance.versions.list()

    assert [version["id"] for version in versions if version["status"] == "CURRENT"] == ["v2.18"]
    for schema in ("image", "images", "member", "members", "task", "tasks", "metadefs/namespace", "metadefs/tags"):
        assert glance.schemas.get(schema).name


def test_the_library_defines_metadata(admin_glance: Glance, glance: Glance) -> None:
    namespace, kind = f"Test::{name()}", f"Kind::{name()}"
    admin_glance.metadefs_namespace.create(namespace=namespace, visibility="public", description="of a test")

    admin_glance.metadefs_property.create(namespace, name="color", title="Color", type="string", enum=["red", "blue"])
    admin_glance.metadefs_object.create(
        namespace, name="shape", properties={"sides": {"title": "S", "type": "integer"}}
    )
    list(admin_glance.metadefs_tag.create_multiple(namespace, tags=["a", "b"]))
    admin_glance.metadefs_resource_type.associate(namespace, name=kind, prefix="hw_")

    assert namespace in {one.namespace for one in glance.metadefs_namespace.list()}
    assert glance.metadefs_property.get(namespace, "color").enum == ["red", "blue"]
    assert [one.name for one in glance.metadefs_object.list(namespace)] == ["shape"]
    assert sorted(one.name for one in glance.metadefs_tag.list(namespace)) == ["a", "b"]
    assert [one.name for one in glance.metadefs_resource_type.get(namespace)] == [kind]
    with pytest.raises(exc.HTTPForbidden):
        glance.metadefs_namespace.delete(namespace)
    admin_glance.metadefs_namespace.delete(namespace)
    with pytest.raises(exc.HTTPNotFound):
        glance.metadefs_namespace.get(namespace)
