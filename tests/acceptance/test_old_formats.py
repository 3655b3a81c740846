"""QED and the first version of qcow: accepted where they are converted, on every such path, and nowhere kept."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.disks import build, corpus
from tests.importing import OCTETS, failed, imported, staged
from tests.service import Client, Service

BUCKET: Final = "old-formats"
SIZE: Final = 3 * 2**20
OLD: Final = ("qed", "qcow")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("old") / "disk.raw"
    path.write_bytes(os.urandom(300_000) + bytes(SIZE - 300_000 - 512) + b"end of the disk".ljust(512))
    return path


@pytest.fixture
def files(disk: Path, tmp_path: Path) -> dict[str, bytes]:
    made = {}
    for driver in OLD:
        target = tmp_path / f"disk.{driver}"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", driver, str(disk), str(target)], check=True)
        made[driver] = target.read_bytes()
    return made


def queued(client: Client, **fields: Any) -> str:
    answer = client.http.post("/v2/images", json={"name": "old", "container_format": "bare", **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def is_the_disk(client: Client, image_id: str, disk: Path, folder: Path) -> None:
    image = client.image(image_id)
    assert (image["status"], image["disk_format"], image["virtual_size"]) == ("active", "qcow2", SIZE)
    (folder / "image").write_bytes(client.http.get(f"/v2/images/{image_id}/file").content)
    command = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(disk), str(folder / "image")]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("declared", ["zvhd2", "qcow2"])
@pytest.mark.parametrize("name", OLD)
def test_an_old_format_fills_the_image_that_waited_whatever_that_was_declared_as(
    demo: Client, disk: Path, files: dict[str, bytes], tmp_path: Path, name: str, declared: str
) -> None:
    demo.put_object(BUCKET, f"disk.{name}", files[name])
    image_id = queued(demo, disk_format=declared)

    demo.succeeded(demo.submit("PUT", f"/v1/cloudimages/{image_id}/upload", {"image_url": f"{BUCKET}:disk.{name}"}))

    is_the_disk(demo, image_id, disk, tmp_path)


@pytest.mark.parametrize("name", OLD)
def test_an_old_format_is_imported_whatever_the_file_is_called(
    demo: Client, disk: Path, files: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    demo.put_object(BUCKET, f"{name}.zvhd2", files[name])

    job = demo.succeeded(demo.import_image(f"{BUCKET}:{name}.zvhd2", f"called-{name}"))

    is_the_disk(demo, job["entities"]["image_id"], disk, tmp_path)


def test_an_old_format_becomes_a_data_disk_image(
    demo: Client, disk: Path, files: dict[str, bytes], tmp_path: Path
) -> None:
    demo.put_object(BUCKET, "data.qed", files["qed"])

    body = {"name": "old-data", "image_url": f"{BUCKET}:data.qed", "min_disk": 1}
    job = demo.succeeded(demo.submit("POST", "/v1/cloudimages/dataimages/action", body))

    is_the_disk(demo, job["entities"]["image_id"], disk, tmp_path)


@pytest.mark.parametrize("declared", ["zvhd2", "zvhd", "qcow2", "raw", "vmdk"])
@pytest.mark.parametrize("name", OLD)
def test_an_upload_of_an_old_format_is_refused_with_advice_and_the_image_waits(
    demo: Client, files: dict[str, bytes], name: str, declared: str
) -> None:
    image_id = queued(demo, disk_format=declared)

    answer = demo.http.put(f"/v2/images/{image_id}/file", content=files[name], headers=OCTETS)

    assert answer.status_code == 400
    assert name in answer.text
    assert ("qemu-img convert" in answer.text) is (declared in ("zvhd", "zvhd2"))
    assert (demo.image(image_id)["status"], demo.image(image_id)["size"]) == ("queued", None)


@pytest.mark.parametrize("name", OLD)
def test_an_image_cannot_be_declared_as_an_old_format(demo: Client, name: str) -> None:
    body = {"name": "old", "disk_format": name, "container_format": "bare"}

    assert demo.http.post("/v2/images", json=body).status_code == 400
    assert name not in demo.http.get("/v2/schemas/image").json()["properties"]["disk_format"]["enum"]


def test_an_old_format_is_converted_also_where_sources_are_kept_and_imports_are_converted(
    make_service: Callable[..., Service], disk: Path, files: dict[str, bytes], tmp_path: Path
) -> None:
    settings = {"CALOTYPE_IMPORTS_FORMAT": "keep", "CALOTYPE_IMAGEV2_CONVERT_TO": "qcow2"}
    with make_service(environment=settings).start().demo() as client:
        for name in OLD:
            client.put_object(BUCKET, name, files[name])
            job = client.succeeded(client.import_image(f"{BUCKET}:{name}", f"kept-{name}"))
            is_the_disk(client, job["entities"]["image_id"], disk, tmp_path)

            image = imported(client, staged(client, files[name], disk_format="zvhd2"), "glance-direct")
            is_the_disk(client, image["id"], disk, tmp_path)
            # What is not a bare disk is left as it came, which these must not be.
            packed = staged(client, files[name], disk_format="zvhd2", container_format="ovf")
            assert "not kept" in failed(client, packed, "glance-direct")["message"]


@pytest.mark.parametrize("name", OLD)
def test_an_interoperable_import_that_keeps_what_comes_refuses_an_old_format(
    demo: Client, files: dict[str, bytes], name: str
) -> None:
    image = staged(demo, files[name], disk_format="zvhd2")

    assert "not kept" in failed(demo, image, "glance-direct")["message"]
    assert demo.image(image["id"])["status"] == "queued"


@pytest.mark.parametrize(
    "content",
    [
        build.qed(features=5, backing=b"/etc/passwd"),
        build.qed(l2={500: 5 * 4096}),
        build.qed()[:-1],
        build.qcow1(backing=b"/etc/passwd"),
        build.qcow1(crypt=1),
        build.qcow1(compressed=True)[:-1],
        corpus.over(build.qcow1(), b"\x55\xaa", 510),
    ],
    ids=["qed-backing", "qed-data-twice", "qed-cut", "qcow-backing", "qcow-encrypted", "qcow-cut", "qcow-mbr"],
)
@pytest.mark.parametrize("path", ["import", "register"])
def test_an_old_format_that_is_unsafe_or_broken_fails_the_job(demo: Client, content: bytes, path: str) -> None:
    demo.put_object(BUCKET, "bad", content)

    if path == "import":
        job = demo.ended(demo.import_image(f"{BUCKET}:bad", "bad-old"))
    else:
        image_id = queued(demo, disk_format="zvhd2")
        job = demo.ended(demo.submit("PUT", f"/v1/cloudimages/{image_id}/upload", {"image_url": f"{BUCKET}:bad"}))
        assert demo.image(image_id)["status"] == "queued"

    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057"), job
    assert "passwd" not in str(job)
