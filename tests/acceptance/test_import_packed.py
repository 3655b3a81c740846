"""gzip, xz, zstd and bzip2 around an image in a bucket: taken off once, within limits, and never where bytes are taken
over as they are."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.service import Client, Service, until

MIB: Final = 1024 * 1024
QUICK: Final = {"type": "ECS", "os_version": "Ubuntu 22.04 server 64bit", "min_disk": 4}


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


PACK: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gz": gzip.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": zstd,
    "bz2": lambda data: bz2.compress(data, 1),
}
packings = pytest.mark.parametrize("suffix", PACK)


@pytest.fixture(scope="module")
def raw() -> bytes:
    """A raw disk with zeros in the middle and at the end."""
    return b"\x33\xc0" + os.urandom(300_000) + bytes(3 * MIB) + os.urandom(70_000) + bytes(2 * MIB - 370_002)


@pytest.fixture(scope="module")
def qcow2(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("qcow2")
    (folder / "raw").write_bytes(raw)
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(folder / "raw"), str(folder / "qcow2")], check=True
    )
    return (folder / "qcow2").read_bytes()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose projects have 32 MiB, and where a packed file holds ten times its size, or 64 MiB, at most."""
    running = Service(
        tmp_path_factory.mktemp("strict"),
        environment={
            "CALOTYPE_IMAGE_STORED_BYTES_PER_PROJECT": str(32 * MIB),
            "CALOTYPE_IMPORTS_DECOMPRESS_RATIO": "10",
        },
    )
    try:
        yield running.start()
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


@pytest.fixture
def bucket(demo: Client) -> str:
    name = f"p-{os.urandom(4).hex()}"
    assert demo.http.put(f"/calotype/v1/buckets/{name}").status_code == 201
    return name


def content(client: Client, job: dict[str, Any]) -> bytes:
    answer = client.http.get(f"/v2/images/{job['entities']['image_id']}/file")
    assert answer.status_code == 200
    return answer.content


def guest_bytes(data: bytes, folder: Path) -> bytes:
    (folder / "image").write_bytes(data)
    command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(folder / "image"), str(folder / "guest")]
    subprocess.run(command, check=True)
    return (folder / "guest").read_bytes()


def used(service: Service) -> int:
    """Bytes of the disk that images and jobs take."""
    found = 0
    for name in service.files():
        try:
            found += (service.data_dir / name).stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return found


def fails(client: Client, job_id: str, code: str, says: str) -> None:
    job = client.ended(job_id)
    assert (job["status"], job["error_code"]) == ("FAIL", code), job
    assert says in job["fail_reason"], job


# --- taken off --------------------------------------------------------------------------------------------------------


@packings
def test_what_is_packed_is_imported_as_what_is_inside(demo: Client, bucket: str, qcow2: bytes, suffix: str) -> None:
    demo.put_object(bucket, f"disk.qcow2.{suffix}", PACK[suffix](qcow2))

    job = demo.succeeded(demo.import_image(f"{bucket}:disk.qcow2.{suffix}", "packed"))

    assert content(demo, job) == qcow2
    assert demo.image(job["entities"]["image_id"])["disk_format"] == "qcow2"


@packings
def test_what_is_packed_may_be_converted(demo: Client, bucket: str, raw: bytes, tmp_path: Path, suffix: str) -> None:
    """The name says nothing: the first bytes do."""
    demo.put_object(bucket, f"named-otherwise-{suffix}", PACK[suffix](raw))

    job = demo.succeeded(demo.import_image(f"{bucket}:named-otherwise-{suffix}", "packed"))

    assert guest_bytes(content(demo, job), tmp_path) == raw


@packings
def test_a_queued_image_is_filled_from_a_packed_file(demo: Client, bucket: str, qcow2: bytes, suffix: str) -> None:
    demo.put_object(bucket, "disk", PACK[suffix](qcow2))
    image = demo.http.post("/v2/images", json={"name": "w", "disk_format": "qcow2", "container_format": "bare"}).json()

    body = {"image_url": f"{bucket}:disk"}
    job = demo.succeeded(demo.submit("PUT", f"/v1/cloudimages/{image['id']}/upload", body))

    assert content(demo, job) == qcow2


@packings
def test_a_data_disk_is_imported_from_a_packed_file(demo: Client, bucket: str, qcow2: bytes, suffix: str) -> None:
    demo.put_object(bucket, "disk", PACK[suffix](qcow2))

    body = {"name": "data", "image_url": f"{bucket}:disk", "min_disk": 1}
    job = demo.succeeded(demo.submit("POST", "/v1/cloudimages/dataimages/action", body))

    assert content(demo, job) == qcow2


def test_several_streams_one_after_the_other_are_one_image(demo: Client, bucket: str, qcow2: bytes) -> None:
    half = len(qcow2) // 2
    demo.put_object(bucket, "disk.gz", gzip.compress(qcow2[:half]) + gzip.compress(qcow2[half:]) + bytes(512))

    job = demo.succeeded(demo.import_image(f"{bucket}:disk.gz", "packed"))

    assert content(demo, job) == qcow2


# --- refused ----------------------------------------------------------------------------------------------------------


@packings
@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda packed: packed[:-9], ""),
        (lambda packed: packed[: len(packed) // 2] + os.urandom(200) + packed[len(packed) // 2 + 200 :], ""),
        (lambda packed: packed + b"\x01 other bytes after it", ""),
    ],
    ids=["cut", "damaged", "followed"],
)
def test_a_damaged_one_fails_the_job_and_leaves_nothing(
    service: Service,
    demo: Client,
    bucket: str,
    raw: bytes,
    suffix: str,
    harm: Callable[[bytes], bytes],
    says: str,
) -> None:
    demo.put_object(bucket, "disk", harm(PACK[suffix](raw)))
    before = service.files()

    fails(demo, demo.import_image(f"{bucket}:disk", "damaged"), "IMG.0057", says)

    until(lambda: service.files() <= before, f"no byte left: {service.files() - before}")


@packings
@pytest.mark.parametrize("inner", PACK)
def test_what_is_packed_twice_is_refused(demo: Client, bucket: str, qcow2: bytes, suffix: str, inner: str) -> None:
    demo.put_object(bucket, "disk", PACK[suffix](PACK[inner](qcow2)))

    fails(demo, demo.import_image(f"{bucket}:disk", "twice"), "IMG.0057", "packed twice")


def ten_gigabytes(suffix: str) -> bytes:
    """Of zeros, packed: several streams one after the other are one content."""
    return PACK[suffix](bytes(64 * MIB)) * 160


@packings
@pytest.mark.parametrize("nested", [False, True], ids=["once", "twice"])
def test_a_bomb_fails_the_job_and_the_disk_is_as_it_was(strict: Service, suffix: str, nested: bool) -> None:
    bomb = ten_gigabytes(suffix)
    with strict.demo() as client:
        client.put_object("bombs", f"{suffix}-{nested}", PACK[suffix](bomb) if nested else bomb)
        files, bytes_before = strict.files(), used(strict)
        usage = client.http.get("/v2/info/usage").json()

        says = "packed twice" if nested else "would be unpacked"
        fails(client, client.import_image(f"bombs:{suffix}-{nested}", "bomb"), "IMG.0057", says)

        until(lambda: strict.files() <= files, f"no byte left: {strict.files() - files}")
        assert used(strict) <= bytes_before
        assert client.http.get("/v2/info/usage").json() == usage


def test_an_archive_in_a_packed_file_is_no_image(demo: Client, bucket: str, qcow2: bytes) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("disk.ovf")
        member.size = len(qcow2)
        tar.addfile(member, io.BytesIO(qcow2))
    demo.put_object(bucket, "machine.ova.gz", gzip.compress(archive.getvalue()))

    fails(demo, demo.import_image(f"{bucket}:machine.ova.gz", "archive"), "IMG.0057", "tar")


# --- left as it is ----------------------------------------------------------------------------------------------------


def test_a_quick_import_unpacks_nothing(demo: Client, bucket: str, raw: bytes) -> None:
    demo.put_object(bucket, "disk.raw", gzip.compress(raw))
    demo.put_object(bucket, "disk.mf", b"bitmap")

    body = {"name": "quick", "image_url": f"{bucket}:disk.raw", **QUICK}
    job_id = demo.submit("POST", "/v2/cloudimages/quickimport/action", body)

    fails(demo, job_id, "IMG.0057", "gzip")


def test_an_iso_is_not_unpacked(demo: Client, bucket: str, raw: bytes) -> None:
    demo.put_object(bucket, "install.iso", gzip.compress(raw))

    body = {"type": "IsoImage", "os_version": "Ubuntu 22.04 server 64bit"}
    fails(demo, demo.import_image(f"{bucket}:install.iso", "iso", **body), "IMG.0057", "gzip")


def test_what_is_called_zvhd2_and_begins_like_zstd_is_kept_as_it_is(demo: Client, bucket: str, raw: bytes) -> None:
    packed = zstd(raw)
    demo.put_object(bucket, "disk.zvhd2", packed)

    job = demo.succeeded(demo.import_image(f"{bucket}:disk.zvhd2", "unseen"))

    assert content(demo, job) == packed
    assert demo.image(job["entities"]["image_id"])["disk_format"] == "zvhd2"


# --- by the settings --------------------------------------------------------------------------------------------------


@packings
def test_what_comes_out_counts_in_the_quota_and_not_what_came(strict: Service, suffix: str) -> None:
    with strict.demo() as client:
        client.put_object("packed", "large", PACK[suffix](bytes(33 * MIB)))
        files = strict.files()

        fails(client, client.import_image("packed:large", "large"), "IMG.0059", "")

        until(lambda: strict.files() <= files, f"no byte left: {strict.files() - files}")
        assert client.http.get("/v2/info/usage").json()["usage"]["image_size_total"]["usage"] == 0


def test_nothing_is_unpacked_where_the_setting_says_so_by_its_old_name_too(
    make_service: Callable[..., Service], qcow2: bytes
) -> None:
    service = make_service(environment={"CALOTYPE_IMAGEV2_DECOMPRESS": "false"}).start()
    with service.demo() as client:
        client.put_object("packed", "disk.gz", gzip.compress(qcow2))

        fails(client, client.import_image("packed:disk.gz", "packed"), "IMG.0057", "gzip")


def test_the_tool_for_zstd_is_there() -> None:
    """Else half of the tests here would say nothing."""
    assert shutil.which("zstd") is not None
