"""The main job: a file in a bucket becomes an image, is downloaded, and exported again. On a real Linux image."""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.service import Client, Service, until

# What qemu-img calls it and with which options -> what the file is called.
MADE: Final = {
    "raw": ("raw", ""),
    "vmdk": ("vmdk", "subformat=monolithicSparse"),
    "stream.vmdk": ("vmdk", "subformat=streamOptimized"),
    "vhd": ("vpc", "subformat=dynamic,force_size=on"),
    "fixed.vhd": ("vpc", "subformat=fixed,force_size=on"),
    "vhdx": ("vhdx", ""),
    "vdi": ("vdi", ""),
    "qed": ("qed", ""),
    "qcow": ("qcow", ""),
}
EXPORTS: Final = {"qcow2": "qcow2", "vhd": "vpc", "vmdk": "vmdk"}


@pytest.fixture(scope="module")
def disks(alpine: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("disks")
    made = {"qcow2": alpine}
    for name, (qemu_name, options) in MADE.items():
        made[name] = folder / f"alpine.{name}"
        extra = ["-o", options] if options else []
        command = ["qemu-img", "convert", "-f", "qcow2", "-O", qemu_name, *extra, str(alpine), str(made[name])]
        subprocess.run(command, check=True)
    return made


@pytest.fixture
def bucket(demo: Client) -> Iterator[str]:
    name = f"b-{os.urandom(4).hex()}"
    assert demo.http.put(f"/calotype/v1/buckets/{name}").status_code == 201
    yield name
    for item in demo.http.get(f"/calotype/v1/buckets/{name}/objects").json()["objects"]:
        demo.http.delete(f"/calotype/v1/buckets/{name}/objects/{item['key']}")
    demo.http.delete(f"/calotype/v1/buckets/{name}")


def downloaded(client: Client, image_id: str, target: Path) -> dict[str, Any]:
    image = client.image(image_id)
    with client.http.stream("GET", f"/v2/images/{image_id}/file") as answer, target.open("wb") as file:
        assert answer.status_code == 200
        md5, digest = hashlib.md5(usedforsecurity=False), hashlib.new(image["os_hash_algo"])
        for chunk in answer.iter_bytes():
            file.write(chunk)
            md5.update(chunk)
            digest.update(chunk)
    assert md5.hexdigest() == image["checksum"] == answer.headers["Content-MD5"]
    assert digest.hexdigest() == image["os_hash_value"]
    assert target.stat().st_size == image["size"]
    return image


def same_guest_bytes(one: Path, one_format: str, other: Path, other_format: str) -> bool:
    command = ["qemu-img", "compare", "-f", one_format, "-F", other_format, str(one), str(other)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", ["qcow2", *MADE])
def test_an_import_of_each_format_gives_an_image_with_the_same_guest_bytes(
    demo: Client, bucket: str, disks: dict[str, Path], alpine: Path, tmp_path: Path, name: str
) -> None:
    demo.put_object(bucket, f"disks/alpine.{name}", disks[name])

    job = demo.succeeded(demo.import_image(f"{bucket}:disks/alpine.{name}", f"alpine-{name}", min_disk=1))
    image = downloaded(demo, job["entities"]["image_id"], tmp_path / "image")

    assert image["status"] == "active"
    assert image["disk_format"] == "qcow2"
    assert image["virtual_size"] == 1024**3
    assert image["__data_origin"] == f"file,{bucket}:disks/alpine.{name}"
    assert same_guest_bytes(alpine, "qcow2", tmp_path / "image", "qcow2")
    if name == "qcow2":
        assert (tmp_path / "image").read_bytes() == alpine.read_bytes()


@pytest.mark.parametrize("file_format", EXPORTS)
def test_an_export_is_a_whole_file_with_the_same_guest_bytes(
    demo: Client, bucket: str, alpine: Path, tmp_path: Path, file_format: str
) -> None:
    demo.put_object(bucket, "alpine.qcow2", alpine)
    image_id = demo.succeeded(demo.import_image(f"{bucket}:alpine.qcow2", "to-export"))["entities"]["image_id"]

    body = {"bucket_url": f"{bucket}:out/exported", "file_format": file_format}
    job = demo.succeeded(demo.submit("POST", f"/v1/cloudimages/{image_id}/file", body))

    assert job["job_type"] == "imsNativeExportImageJob"
    assert job["entities"] == {"image_id": image_id}
    (tmp_path / "out").write_bytes(demo.get_object(bucket, "out/exported"))
    assert same_guest_bytes(alpine, "qcow2", tmp_path / "out", EXPORTS[file_format])
    again = demo.http.post(f"/v1/cloudimages/{image_id}/file", json=body)
    assert (again.status_code, again.json()["error"]["code"]) == (400, "IMG.0070")


def test_a_registered_file_becomes_the_bytes_of_the_image_that_waited(
    demo: Client, bucket: str, alpine: Path, tmp_path: Path
) -> None:
    demo.put_object(bucket, "alpine.qcow2", alpine)
    created = demo.http.post(
        "/v2/images", json={"name": "waiting", "disk_format": "qcow2", "container_format": "bare"}
    ).json()

    body = {"image_url": f"{bucket}:alpine.qcow2"}
    job = demo.succeeded(demo.submit("PUT", f"/v1/cloudimages/{created['id']}/upload", body))

    assert job["job_type"] == "imsNativeImportImageJob"
    assert job["entities"] == {"image_id": created["id"]}
    downloaded(demo, created["id"], tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == alpine.read_bytes()
    again = demo.http.put(f"/v1/cloudimages/{created['id']}/upload", json=body)
    assert (again.status_code, again.json()["error"]["code"]) == (400, "IMG.0046")


def test_a_copy_has_the_same_bytes_and_outlives_its_source(
    demo: Client, bucket: str, alpine: Path, tmp_path: Path
) -> None:
    demo.put_object(bucket, "alpine.qcow2", alpine)
    source = demo.succeeded(demo.import_image(f"{bucket}:alpine.qcow2", "source"))["entities"]["image_id"]

    job = demo.succeeded(demo.submit("POST", f"/v1/cloudimages/{source}/copy", {"name": "the-copy"}))
    assert demo.http.delete(f"/v2/images/{source}").status_code == 204

    assert job["job_type"] == "imsCopyImageInRegionJob"
    assert job["entities"]["image_name"] == "the-copy"
    image = downloaded(demo, job["entities"]["image_id"], tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == alpine.read_bytes()
    assert image["__originalimagename"] == source
    assert image["__data_origin"] == f"image,RegionOne,{source}"


def test_an_object_that_is_deleted_or_replaced_after_the_import_leaves_the_image_as_it_is(
    demo: Client, bucket: str, alpine: Path, tmp_path: Path
) -> None:
    demo.put_object(bucket, "alpine.qcow2", alpine)
    image_id = demo.succeeded(demo.import_image(f"{bucket}:alpine.qcow2", "kept"))["entities"]["image_id"]

    demo.put_object(bucket, "alpine.qcow2", b"something else")
    demo.http.delete(f"/calotype/v1/buckets/{bucket}/objects/alpine.qcow2")

    downloaded(demo, image_id, tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == alpine.read_bytes()


# --- bad input --------------------------------------------------------------------------------------------------------


def jobs_and_images(client: Client) -> tuple[int, int]:
    jobs = client.http.get("/calotype/v1/jobs", params={"limit": 1000}).json()["jobs"]
    images = client.http.get("/v2/images", params={"limit": 1000}).json()["images"]
    return len(jobs), len(images)


VALID: Final[dict[str, Any]] = {"name": "n", "image_url": "BUCKET:disk.qcow2", "min_disk": 4}
REFUSED: Final[list[tuple[dict[str, Any], str]]] = [
    ({"name": None}, "IMG.0013"),
    ({"name": "x" * 129}, "IMG.0002"),
    ({"name": " edge"}, "IMG.0003"),
    ({"name": "a/b"}, "IMG.0003"),
    ({"name": 7}, "IMG.0001"),
    ({"description": "x" * 1025}, "IMG.0004"),
    ({"description": "<b>"}, "IMG.0054"),
    ({"min_disk": None}, "IMG.0055"),
    ({"min_disk": 0}, "IMG.0055"),
    ({"min_disk": 1025}, "IMG.0055"),
    ({"min_disk": "big"}, "IMG.0055"),
    ({"min_disk": 1.5}, "IMG.0055"),
    ({"min_disk": True}, "IMG.0055"),
    ({"min_ram": 4096, "max_ram": 1024}, "IMG.0055"),
    ({"min_ram": -1}, "IMG.0055"),
    ({"os_version": "Amiga Workbench"}, "IMG.0056"),
    ({"os_type": "BeOS"}, "IMG.0122"),
    ({"type": "Toaster"}, "IMG.0117"),
    ({"type": "IsoImage"}, "IMG.0166"),
    ({"hw_firmware_type": "coreboot"}, "IMG.0141"),
    ({"architecture": "vax"}, "IMG.0212"),
    ({"cmk_id": "00000000-0000-0000-0000-000000000000"}, "IMG.0095"),
    ({"enterprise_project_id": "x"}, "IMG.0155"),
    ({"tags": ["a=b"], "image_tags": [{"key": "a", "value": "b"}]}, "IMG.0001"),
    ({"tags": ["bad tag"]}, "IMG.0115"),
    ({"tags": [f"k{n}" for n in range(11)]}, "IMG.0116"),
    ({"image_url": "no-colon"}, "IMG.0017"),
    ({"image_url": ":key"}, "IMG.0068"),
    ({"image_url": "UPPER:key"}, "IMG.0109"),
    ({"image_url": "BUCKET:with space.qcow2"}, "IMG.0175"),
    ({"image_url": "BUCKET:../../etc/passwd"}, "IMG.0075"),
    ({"image_url": 5}, "IMG.0001"),
    ({"image_url": "no-such-bucket:disk.qcow2"}, "IMG.0069"),
    ({"image_url": "BUCKET:no-such-key"}, "IMG.0057"),
    ({"image_url": "BUCKET:empty"}, "IMG.0057"),
    ({"image_url": None}, "IMG.0021"),
    ({"image_url": None, "instance_id": "9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"}, "IMG.0005"),
]


@pytest.mark.parametrize(("change", "code"), REFUSED, ids=lambda value: str(value)[:50])
def test_a_bad_field_is_refused_with_its_code_and_changes_nothing(
    demo: Client, bucket: str, alpine: Path, change: dict[str, Any], code: str
) -> None:
    demo.put_object(bucket, "disk.qcow2", alpine.read_bytes()[:65536])
    demo.put_object(bucket, "empty", b"")
    before = jobs_and_images(demo)
    body = {
        name: value.replace("BUCKET", bucket) if isinstance(value, str) else value
        for name, value in {**VALID, **change}.items()
        if value is not None
    }

    answer = demo.http.post("/v2/cloudimages/action", json=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), answer.text
    assert jobs_and_images(demo) == before


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "IMG.0007"),
        (b"   ", "IMG.0007"),
        (b"{", "IMG.0001"),
        (b"[]", "IMG.0001"),
        (b'"text"', "IMG.0001"),
        (b"\xff\xfe", "IMG.0001"),
        (b"[" * 5000, "IMG.0001"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "IMG.0001"),
        (b'{"name": "n", "image_url": "b:k", "min_disk": 1e999}', "IMG.0001"),
        (b'{"name": "\\ud800", "image_url": "bbb:k", "min_disk": 1}', "IMG.0001"),
    ],
)
def test_a_malformed_body_is_refused_by_every_call_that_wants_one(demo: Client, raw: bytes, code: str) -> None:
    unknown = "9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"
    answer = demo.http.post("/v2/cloudimages/action", content=raw)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), answer.text
    for method, path in (("POST", "file"), ("POST", "copy"), ("PUT", "upload")):
        other = demo.http.request(method, f"/v1/cloudimages/{unknown}/{path}", content=raw)
        assert other.status_code in (400, 404), other.text


@pytest.mark.parametrize("image_id", ["9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111", "nope", "%00"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "file", {"bucket_url": "BUCKET:o", "file_format": "vmdk"}),
        ("POST", "copy", {"name": "n"}),
        ("PUT", "upload", {"image_url": "BUCKET:disk"}),
    ],
)
def test_an_unknown_image_id_is_404_with_its_code(
    demo: Client, bucket: str, method: str, path: str, body: dict[str, str], image_id: str
) -> None:
    demo.put_object(bucket, "disk", b"x" * 512)
    given = {name: value.replace("BUCKET", bucket) for name, value in body.items()}

    answer = demo.http.request(method, f"/v1/cloudimages/{image_id}/{path}", json=given)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "IMG.0144"), answer.text


def test_a_foreign_image_is_told_like_an_unknown_one(admin: Client, demo: Client, bucket: str, alpine: Path) -> None:
    demo.put_object(bucket, "alpine.qcow2", alpine)
    image_id = demo.succeeded(demo.import_image(f"{bucket}:alpine.qcow2", "mine"))["entities"]["image_id"]
    created = admin.http.post("/identity/v3/projects", json={"project": {"name": f"p{os.urandom(4).hex()}"}})
    assert created.status_code == 201
    project = created.json()["project"]
    user = {"name": project["name"], "password": "a-long-password", "default_project_id": project["id"]}
    user_id = admin.http.post("/identity/v3/users", json={"user": user}).json()["user"]["id"]
    roles = admin.http.get("/identity/v3/roles", params={"name": "member"}).json()["roles"]
    granted = admin.http.put(f"/identity/v3/projects/{project['id']}/users/{user_id}/roles/{roles[0]['id']}")
    assert granted.status_code == 204

    with Client(demo.service, project["name"], "a-long-password", project["name"]) as stranger:
        for path, body in (("copy", {"name": "n"}), ("file", {"bucket_url": "bbb:o", "file_format": "vmdk"})):
            foreign = stranger.http.post(f"/v1/cloudimages/{image_id}/{path}", json=body)
            unknown = stranger.http.post(f"/v1/cloudimages/9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111/{path}", json=body)
            assert foreign.status_code == unknown.status_code
            assert foreign.json()["error"]["code"] == unknown.json()["error"]["code"]


def broken(kind: str, alpine: Path, folder: Path) -> bytes:
    """A file that only looking inside shows to be wrong."""
    if kind == "truncated qcow2":
        return alpine.read_bytes()[:-4_000_000]
    if kind == "text":
        return b"this is no disk image at all\n"
    if kind == "vmdk of a host file":
        head = b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
        return head + b'RW 2048 FLAT "/etc/passwd" 0\n'
    target = folder / "broken.qcow2"
    if kind == "qcow2 with a backing file":
        command = ["create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", str(target), "1M"]
    else:
        command = ["create", "-q", "-f", "qcow2", "-o", f"data_file={folder / 'data.raw'}", str(target), "1M"]
    subprocess.run(["qemu-img", *command], check=True)
    return target.read_bytes()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("truncated qcow2", "cut short"),
        ("qcow2 with a backing file", "backing file"),
        ("qcow2 with a data file", "data file"),
        ("vmdk of a host file", "extent|monolithicFlat|flat|descriptor"),
    ],
)
def test_a_file_that_must_not_be_opened_fails_the_job_with_its_reason_and_leaves_no_bytes(
    service: Service, demo: Client, bucket: str, alpine: Path, tmp_path: Path, kind: str, says: str
) -> None:
    demo.put_object(bucket, "disk", broken(kind, alpine, tmp_path))

    job_id = demo.import_image(f"{bucket}:disk", "broken")
    job = demo.ended(job_id)

    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057"), job
    assert re.search(says, job["fail_reason"], re.IGNORECASE), job["fail_reason"]
    assert list(job["entities"]) == ["image_name", "error_code", "error"]
    assert demo.http.get("/v2/images", params={"name": "broken"}).json()["images"] == []
    until(lambda: not [name for name in service.files() if job_id in name], "the job's files to be gone")


def test_a_disk_larger_than_min_disk_fails_the_job_and_says_how_large_it_must_be(
    demo: Client, bucket: str, tmp_path: Path
) -> None:
    target = tmp_path / "large.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(target), "5G"], check=True)
    demo.put_object(bucket, "large", target)

    job = demo.ended(demo.import_image(f"{bucket}:large", "too-large", min_disk=4))

    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0055")
    assert "5 GB" in job["fail_reason"] or "use 5" in job["fail_reason"]


def test_more_copies_at_once_than_allowed_are_refused(demo: Client, make_service: Any, alpine: Path) -> None:
    """Without a worker the jobs stay open."""
    service = make_service(environment={"CALOTYPE_JOBS_CREATIONS_PER_PROJECT": "2"}).start("--no-worker")
    with service.demo() as client:
        client.put_object("many", "alpine.qcow2", alpine)
        for _ in range(2):
            client.import_image("many:alpine.qcow2", "n")

        answer = client.http.post(
            "/v2/cloudimages/action", json={"name": "n", "image_url": "many:alpine.qcow2", "min_disk": 1}
        )

        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "IMG.0060")


def test_cancelling_a_waiting_job_ends_it_at_once_and_takes_its_image_back(make_service: Any, alpine: Path) -> None:
    service = make_service().start("--no-worker")
    with service.demo() as client:
        client.put_object("cancel", "alpine.qcow2", alpine)
        job_id = client.import_image("cancel:alpine.qcow2", "unwanted")

        cancelled = client.http.post(f"/calotype/v1/jobs/{job_id}:cancel", json={"reason": "typed the wrong name"})

        assert cancelled.status_code == 202
        job = client.job(job_id)
        assert job["status"] == "FAIL"
        assert job["fail_reason"] == "cancelled by demo: typed the wrong name"
        assert client.http.get("/v2/images").json()["images"] == []
