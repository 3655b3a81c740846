"""ZVHD and ZVHD2: kept unseen where they are the vendor's, opened and written where they are of the open layout."""

import os
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.importing import ask, staged
from tests.service import Client, Service, until

SECRET: Final = b"\x17vendor" + os.urandom(200_000)  # no format that anybody knows
QUICK: Final = {"type": "ECS", "os_version": "Ubuntu 22.04 server 64bit", "min_disk": 4}


@pytest.fixture
def bucket(demo: Client) -> str:
    name = f"z-{os.urandom(4).hex()}"
    assert demo.http.put(f"/calotype/v1/buckets/{name}").status_code == 201
    return name


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small disk with something on it, as raw."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    with path.open("wb") as file:
        file.truncate(24 * 1024 * 1024)
        file.write(os.urandom(700_000))
        file.seek(17 * 1024 * 1024)
        file.write(b"in the middle" * 5000)
    return path


@pytest.fixture(scope="module")
def open_zvhd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that writes the open layout."""
    running = Service(tmp_path_factory.mktemp("open-zvhd"), environment={"CALOTYPE_IMS_OPEN_ZVHD": "true"})
    try:
        yield running.start()
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


@pytest.fixture
def writer(open_zvhd: Service) -> Iterator[Client]:
    with open_zvhd.demo() as client:
        yield client


def created(client: Client, disk_format: str, **more: Any) -> str:
    body = {"name": "z", "disk_format": disk_format, "container_format": "bare", **more}
    answer = client.http.post("/v2/images", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def upload(client: Client, image_id: str, content: bytes) -> tuple[int, str]:
    headers = {"Content-Type": "application/octet-stream"}
    answer = client.http.put(f"/v2/images/{image_id}/file", content=content, headers=headers)
    return answer.status_code, answer.text


def registered(client: Client, bucket: str, key: str, content: bytes, disk_format: str) -> dict[str, Any]:
    client.put_object(bucket, key, content)
    image_id = created(client, disk_format)
    job = client.submit("PUT", f"/v1/cloudimages/{image_id}/upload", {"image_url": f"{bucket}:{key}"})
    client.succeeded(job)
    return client.image(image_id)


def is_kept_unseen(client: Client, image: dict[str, Any], disk_format: str, content: bytes) -> None:
    assert (image["status"], image["disk_format"]) == ("active", disk_format)
    assert (image["virtual_size"], image["size"]) == (None, len(content))
    assert client.http.get(f"/v2/images/{image['id']}/file").content == content


def guest_bytes(file: Path, format_: str) -> bytes:
    raw = file.with_name(f"{file.name}.guest")
    subprocess.run(["qemu-img", "convert", "-f", format_, "-O", "raw", str(file), str(raw)], check=True)
    return raw.read_bytes()


# --- kept unseen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disk_format", ["zvhd", "zvhd2"])
def test_an_upload_of_a_format_that_has_no_description_is_kept_as_it_is(demo: Client, disk_format: str) -> None:
    image_id = created(demo, disk_format, min_disk=1)

    assert upload(demo, image_id, SECRET)[0] == 204

    is_kept_unseen(demo, demo.image(image_id), disk_format, SECRET)


@pytest.mark.parametrize("disk_format", ["zvhd", "zvhd2"])
def test_such_a_file_is_registered_as_it_is(demo: Client, bucket: str, disk_format: str) -> None:
    image = registered(demo, bucket, "file-without-suffix", SECRET, disk_format)

    is_kept_unseen(demo, image, disk_format, SECRET)
    assert image["__root_origin"] == "file"


@pytest.mark.parametrize("suffix", ["zvhd", "zvhd2", "ZVHD2"])
def test_such_a_file_is_imported_by_its_name(demo: Client, bucket: str, suffix: str) -> None:
    demo.put_object(bucket, f"disk.{suffix}", SECRET)

    job = demo.succeeded(demo.import_image(f"{bucket}:disk.{suffix}", "unseen", min_disk=1))

    is_kept_unseen(demo, demo.image(job["entities"]["image_id"]), suffix.lower(), SECRET)


def test_a_quick_import_takes_such_a_file_without_a_bitmap(demo: Client, bucket: str) -> None:
    demo.put_object(bucket, "disk.zvhd2", SECRET)
    body = {"name": "quick", "image_url": f"{bucket}:disk.zvhd2", **QUICK}

    job = demo.succeeded(demo.submit("POST", "/v2/cloudimages/quickimport/action", body))

    is_kept_unseen(demo, demo.image(job["entities"]["image_id"]), "zvhd2", SECRET)


def test_staged_bytes_of_such_a_format_are_imported_as_they_are(demo: Client) -> None:
    content = b"\x28\xb5\x2f\xfd" + SECRET  # begins as zstd does
    image = staged(demo, content, disk_format="zvhd2")

    assert ask(demo, image, "glance-direct").status_code == 202

    until(lambda: demo.image(image["id"])["status"] == "active", "the import")
    is_kept_unseen(demo, demo.image(image["id"]), "zvhd2", content)


def test_it_is_copied_and_shared_as_it_is(demo: Client, admin: Client) -> None:
    image_id = created(demo, "zvhd2", visibility="shared")
    upload(demo, image_id, SECRET)

    copied = demo.succeeded(demo.submit("POST", f"/v1/cloudimages/{image_id}/copy", {"name": "again"}))
    demo.http.post(f"/v2/images/{image_id}/members", json={"member": admin.project_id})

    is_kept_unseen(demo, demo.image(copied["entities"]["image_id"]), "zvhd2", SECRET)
    is_kept_unseen(admin, admin.image(image_id), "zvhd2", SECRET)


@pytest.mark.parametrize("body", [{"file_format": "qcow2"}, {"file_format": "vhd"}], ids=["qcow2", "vhd"])
def test_it_cannot_be_exported_and_the_answer_says_why(demo: Client, bucket: str, body: dict[str, Any]) -> None:
    image_id = created(demo, "zvhd2")
    upload(demo, image_id, SECRET)

    answer = demo.http.post(f"/v1/cloudimages/{image_id}/file", json={"bucket_url": f"{bucket}:out", **body})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "IMG.0072")
    assert "no public description" in answer.json()["error"]["detail"]


def test_a_known_format_under_the_label_is_told_as_what_it_is(demo: Client, bucket: str, alpine: Path) -> None:
    image_id = created(demo, "zvhd2")

    assert upload(demo, image_id, alpine.read_bytes())[0] == 204

    image = demo.image(image_id)
    assert (image["disk_format"], image["virtual_size"]) == ("qcow2", 1024**3)
    body = {"bucket_url": f"{bucket}:out.vhd", "file_format": "vhd"}
    demo.succeeded(demo.submit("POST", f"/v1/cloudimages/{image_id}/file", body))
    assert registered(demo, bucket, "a.zvhd2", alpine.read_bytes(), "zvhd2")["disk_format"] == "qcow2"


@pytest.mark.parametrize(
    "content",
    [b"\x1f\x8b\x08\x00" + SECRET, b"PK\x03\x04" + SECRET, b"QED\x00" + SECRET, b"QFI\xfb\x00\x00\x00\x03" + SECRET],
    ids=["gzip", "zip", "qed", "broken-qcow2"],
)
def test_an_archive_a_foreign_and_a_broken_format_do_not_pass_under_the_label(
    demo: Client, bucket: str, content: bytes
) -> None:
    image_id = created(demo, "zvhd2")
    demo.put_object(bucket, "disk.zvhd2", content)

    status, _ = upload(demo, image_id, content)
    job = demo.ended(demo.import_image(f"{bucket}:disk.zvhd2", "refused-zvhd2"))

    assert status == 400
    assert demo.image(image_id)["status"] == "queued"
    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057")


def test_raw_bytes_under_a_raw_name_fill_an_image_of_the_default_format_as_a_raw_disk(
    demo: Client, bucket: str
) -> None:
    """In the dialect of IMS an image is zvhd2 when nothing was said; the file's name says more."""
    image = registered(demo, bucket, "disk.raw", SECRET, "zvhd2")

    assert (image["disk_format"], image["virtual_size"]) == ("qcow2", -(-len(SECRET) // 512) * 512)


# --- the open layout --------------------------------------------------------------------------------------------------


def image_of(client: Client, disk: Path, bucket: str) -> str:
    client.put_object(bucket, "disk.raw", disk)
    job = client.import_image(f"{bucket}:disk.raw", "to-export", min_disk=1)
    return str(client.succeeded(job)["entities"]["image_id"])


EXPORTS: Final[dict[str, dict[str, Any]]] = {
    "zvhd": {"file_format": "zvhd"},
    "zvhd2": {"is_quick_export": True, "file_format": "vmdk"},  # a client sends a format always: it is ignored
}


def by_zlib(data: bytes, _folder: Path) -> bytes:
    return zlib.decompress(data)


def by_zstd(data: bytes, _folder: Path) -> bytes:
    return subprocess.run(["zstd", "-d", "-q", "-c"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize(("kind", "tool"), [("zvhd", by_zlib), ("zvhd2", by_zstd)], ids=["zvhd", "zvhd2"])
def test_an_export_in_the_open_layout_is_read_by_standard_tools_and_imported_again(
    writer: Client, disk: Path, tmp_path: Path, kind: str, tool: Callable[[bytes, Path], bytes]
) -> None:
    bucket = f"out-{kind}"
    image_id = image_of(writer, disk, bucket)

    body = {"bucket_url": f"{bucket}:exported", **EXPORTS[kind]}
    job = writer.succeeded(writer.submit("POST", f"/v1/cloudimages/{image_id}/file", body))

    assert (job["job_type"], job["entities"]) == ("imsNativeExportImageJob", {"image_id": image_id})
    exported = writer.get_object(bucket, "exported")
    (tmp_path / "vhd").write_bytes(tool(exported, tmp_path))
    assert guest_bytes(tmp_path / "vhd", "vpc") == disk.read_bytes()
    assert len(exported) < (tmp_path / "vhd").stat().st_size
    again = writer.succeeded(writer.import_image(f"{bucket}:exported", "again", min_disk=1))
    image = writer.image(again["entities"]["image_id"])
    assert (image["disk_format"], image["virtual_size"]) == ("qcow2", disk.stat().st_size)
    (tmp_path / "again").write_bytes(writer.http.get(f"/v2/images/{image['id']}/file").content)
    assert guest_bytes(tmp_path / "again", "qcow2") == disk.read_bytes()


def test_a_service_that_does_not_write_the_open_layout_reads_it(
    writer: Client, demo: Client, bucket: str, disk: Path
) -> None:
    image_id = image_of(writer, disk, "elsewhere")
    body = {"bucket_url": "elsewhere:out.zvhd2", **EXPORTS["zvhd2"]}
    writer.succeeded(writer.submit("POST", f"/v1/cloudimages/{image_id}/file", body))
    exported = writer.get_object("elsewhere", "out.zvhd2")

    image = registered(demo, bucket, "disk.zvhd2", exported, "zvhd2")
    quick = {"name": "quick", "image_url": f"{bucket}:disk.zvhd2", **QUICK}
    job = demo.succeeded(demo.submit("POST", "/v2/cloudimages/quickimport/action", quick))
    uploaded = created(demo, "zvhd2")
    upload(demo, uploaded, exported)

    assert (image["disk_format"], image["virtual_size"]) == ("qcow2", disk.stat().st_size)
    taken = demo.image(job["entities"]["image_id"])
    assert (taken["disk_format"], taken["virtual_size"]) == ("vhd", disk.stat().st_size)
    is_kept_unseen(demo, demo.image(uploaded), "zvhd2", exported)  # an upload is never opened


def test_a_quick_export_is_a_worker_step_of_its_own_name(writer: Client, disk: Path) -> None:
    image_id = image_of(writer, disk, "step")
    body = {"bucket_url": "step:out", "is_quick_export": True}

    job_id = writer.submit("POST", f"/v1/cloudimages/{image_id}/file", body)
    writer.succeeded(job_id)

    told = writer.http.get(f"/v1/cloudimages/job/{job_id}").json()
    step = writer.job(told["entities"]["subJobId"])
    assert step["job_type"] == "imsQuickExportImageJob"
    assert step["status"] == "SUCCESS"


def test_a_damaged_file_of_the_open_layout_is_refused(writer: Client, disk: Path) -> None:
    image_id = image_of(writer, disk, "damaged")
    for kind, body in EXPORTS.items():
        submitted = {"bucket_url": f"damaged:{kind}", **body}
        writer.succeeded(writer.submit("POST", f"/v1/cloudimages/{image_id}/file", submitted))
        data = bytearray(writer.get_object("damaged", kind))
        data[len(data) // 2] ^= 0xFF
        writer.put_object("damaged", f"broken-{kind}", bytes(data))

        job = writer.ended(writer.import_image(f"damaged:broken-{kind}", "broken"))

        assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057"), job
        assert "damaged" in job["fail_reason"]


@pytest.mark.parametrize("body", EXPORTS.values(), ids=EXPORTS)
def test_without_the_setting_the_answer_says_that_there_is_one(
    demo: Client, bucket: str, disk: Path, body: dict[str, Any]
) -> None:
    image_id = image_of(demo, disk, bucket)

    answer = demo.http.post(f"/v1/cloudimages/{image_id}/file", json={"bucket_url": f"{bucket}:out", **body})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "IMG.0072")
    assert "ims.open_zvhd" in answer.json()["error"]["detail"]
    assert demo.http.get(f"/calotype/v1/buckets/{bucket}/objects/out").status_code == 404
