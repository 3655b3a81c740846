"""What is exported, as each format; what is refused to be exported, copied and registered, each with its code and
nothing changed; and what is not."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from calotype.disks.model import DiskFormat
from calotype.disks.targets import FILE_FORMATS, GIB, LARGEST_VDI, LARGEST_VHD, LARGEST_VHDX, LARGEST_VMDK, TIB
from tests.conftest import ROOMY
from tests.disks import build
from tests.service import Client, Service

CONTENT: Final = b"a disk of a megabyte, or so " * 40_000  # 1.12 MB
OCTETS: Final = {"Content-Type": "application/octet-stream"}
EXPORT_BYTES: Final = 2_000_000
QUICK_BYTES: Final = 4_000_000


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without a worker: jobs stay open. What is large here is a few MB."""
    folder = tmp_path_factory.mktemp("still")
    (folder / "fixed").mkdir()
    config = folder / "calotype.toml"
    config.write_text(f"[buckets.fixed]\nfolder = {json.dumps(str(folder / 'fixed'))}\n")
    environment = {
        "CALOTYPE_CONFIG": str(config),
        "CALOTYPE_IMAGE_EXPORT_BYTES": str(EXPORT_BYTES),
        "CALOTYPE_IMAGE_QUICK_BYTES": str(QUICK_BYTES),
        **ROOMY,
        "CALOTYPE_IMS_OPEN_ZVHD": "true",
        "CALOTYPE_IMAGE_VIRTUAL_BYTES_PER_IMAGE": str(1024 * TIB),
    }
    running = Service(folder, environment=environment)
    try:
        yield running.start("--no-worker")
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


@pytest.fixture
def owner(still: Service) -> Iterator[Client]:
    with still.demo() as client:
        client.http.put("/calotype/v1/buckets/out")
        yield client


@pytest.fixture
def publisher(still: Service) -> Iterator[Client]:
    with still.admin() as client:
        yield client


def queued(client: Client, disk_format: str = "raw", **fields: Any) -> str:
    body = {"name": "e", "disk_format": disk_format, "container_format": "bare", **fields}
    answer = client.http.post("/v2/images", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def uploaded(client: Client, content: bytes = CONTENT, disk_format: str = "raw", **fields: Any) -> str:
    image_id = queued(client, disk_format, **fields)
    answer = client.http.put(f"/v2/images/{image_id}/file", content=content, headers=OCTETS)
    assert answer.status_code == 204, answer.text
    return image_id


def code_of(client: Client, path: str, body: dict[str, Any], status: int = 400) -> str:
    """The code of a refusal, which has changed nothing."""
    before = state(client)
    answer = client.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert state(client) == before
    return str(answer.json()["error"]["code"])


def state(client: Client) -> tuple[int, int]:
    jobs = client.http.get("/calotype/v1/jobs", params={"limit": 1000}).json()["jobs"]
    images = client.http.get("/v2/images", params={"limit": 1000}).json()["images"]
    return len(jobs), len(images)


def export(client: Client, image_id: str, **fields: Any) -> str:
    """The code of a refused export."""
    key = os.urandom(4).hex()
    code = code_of(
        client, f"/v1/cloudimages/{image_id}/file", {"bucket_url": f"out:{key}", "file_format": "qcow2", **fields}
    )
    assert client.http.get(f"/calotype/v1/buckets/out/objects/{key}").status_code == 404
    return code


def accepts_export(client: Client, image_id: str, **fields: Any) -> bool:
    body = {"bucket_url": f"out:{os.urandom(4).hex()}", "file_format": "qcow2", **fields}
    answer = client.http.post(f"/v1/cloudimages/{image_id}/file", json=body)
    return answer.status_code == 200 and list(answer.json()) == ["job_id"]


def copy(client: Client, image_id: str) -> str:
    """The code of a refused copy."""
    return code_of(client, f"/v1/cloudimages/{image_id}/copy", {"name": "copy"})


def set_visibility(client: Client, image_id: str, visibility: str) -> None:
    change = [{"op": "replace", "path": "/visibility", "value": visibility}]
    headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    answer = client.http.patch(f"/v2/images/{image_id}", content=json.dumps(change), headers=headers)
    assert answer.status_code == 200, answer.text


# --- export: which images ---------------------------------------------------------------------------------------------


def test_a_public_image_cannot_be_exported_by_anybody(owner: Client, publisher: Client) -> None:
    image_id = uploaded(publisher, visibility="public")

    assert export(owner, image_id) == "IMG.0077"
    publisher.http.put("/calotype/v1/buckets/out")
    assert export(publisher, image_id) == "IMG.0077"


def test_an_iso_cannot_be_exported(owner: Client) -> None:
    assert export(owner, uploaded(owner, build.iso(), "iso")) == "IMG.0167"


@pytest.mark.parametrize("visibility", ["community", "shared"])
def test_only_the_owner_exports(owner: Client, publisher: Client, visibility: str) -> None:
    image_id = uploaded(publisher, visibility=visibility)
    if visibility == "shared":
        publisher.http.post(f"/v2/images/{image_id}/members", json={"member": owner.project_id})

    assert export(owner, image_id) == "IMG.0047"


def test_an_image_without_bytes_cannot_be_exported(owner: Client) -> None:
    assert export(owner, queued(owner)) == "IMG.0046"


def test_a_deactivated_image_cannot_be_exported(owner: Client) -> None:
    image_id = uploaded(owner)
    owner.http.post(f"/v2/images/{image_id}/actions/deactivate")

    assert export(owner, image_id) == "IMG.0046"


def test_one_export_of_an_image_at_a_time(owner: Client) -> None:
    image_id = uploaded(owner)
    assert accepts_export(owner, image_id)

    assert export(owner, image_id) == "IMG.0148"
    assert accepts_export(owner, uploaded(owner))


def test_a_large_image_has_a_quick_export_only(owner: Client) -> None:
    image_id = uploaded(owner, CONTENT[:1_000_000] * 2 + b"x")

    assert export(owner, image_id) == "IMG.0160"
    assert accepts_export(owner, image_id, is_quick_export=True)


def test_the_largest_image_of_an_ordinary_export(owner: Client) -> None:
    assert accepts_export(owner, uploaded(owner, CONTENT[:1_000_000] * 2))


@pytest.mark.parametrize("quick", [False, True])
def test_a_very_large_image_cannot_be_exported(owner: Client, quick: bool) -> None:
    image_id = uploaded(owner, CONTENT[:1_000_000] * 4)

    assert export(owner, image_id, is_quick_export=quick) == "IMG.0071"


# --- export: made of a charged image ----------------------------------------------------------------------------------

CHARGED: Final = (
    "Windows Server 2019 Datacenter 64bit",
    "SUSE Linux Enterprise Server 15 SP1 64bit",
    "Redhat Linux Enterprise 8.0 64bit",
    "Ubuntu 18.04 server 64bit",
    "Oracle Linux Server release 7.6 64bit",
)


def copied(client: Client, image_id: str) -> str:
    job = client.submit("POST", f"/v1/cloudimages/{image_id}/copy", {"name": "copy"})
    return str(client.succeeded(job)["entities"]["image_id"])


@pytest.mark.parametrize("os_version", CHARGED, ids=lambda name: name.split()[0])
def test_a_copy_of_a_charged_public_image_cannot_be_exported_nor_a_copy_of_the_copy(
    admin: Client, demo: Client, os_version: str
) -> None:
    demo.http.put("/calotype/v1/buckets/out")
    public = uploaded(admin, visibility="public", __os_version=os_version)
    first = copied(demo, public)
    second = copied(demo, first)

    assert export(demo, first) == "IMG.0079"
    assert export(demo, second) == "IMG.0079"
    set_visibility(admin, public, "private")
    assert accepts_export(demo, second)


def test_copies_of_other_public_images_and_of_private_ones_are_exported(admin: Client, demo: Client) -> None:
    demo.http.put("/calotype/v1/buckets/out")
    free = uploaded(admin, visibility="public", __os_version="Debian GNU/Linux 10.0.0 64bit")
    own = uploaded(demo, __os_version="Ubuntu 18.04 server 64bit")

    assert accepts_export(demo, copied(demo, free))
    assert accepts_export(demo, copied(demo, own))


# --- export: where to, and as what ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bucket_url", "code"),
    [
        (":file", "IMG.0068"),
        ("nobody-has-it:file", "IMG.0069"),
        ("fixed:file", "IMG.0069"),  # read-only
        ("UPPER:file", "IMG.0109"),
        ("out:", "IMG.0073"),
        (f"out:{'x' * 256}", "IMG.0074"),
        (f"out:{'x/' * 20}{'y' * 1010}", "IMG.0074"),
        ("out:../../etc/passwd", "IMG.0075"),
        ("out:back\\slash", "IMG.0075"),
        ("out:with space", "IMG.0175"),
        ("out:taken", "IMG.0070"),
        ("no-colon", "IMG.0017"),
        (None, "IMG.0017"),
        (7, "IMG.0001"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_bad_target_is_refused_with_its_code(owner: Client, bucket_url: Any, code: str) -> None:
    owner.put_object("out", "taken", b"there before")
    image_id = uploaded(owner)

    assert export(owner, image_id, bucket_url=bucket_url) == code
    assert owner.get_object("out", "taken") == b"there before"


@pytest.mark.parametrize("file_format", ["zvhd2", "iso", "qed", "vpc", "QCOW2", "qcow2_zlib", "", None, "x" * 5000])
def test_a_format_that_images_are_not_exported_as_is_refused(owner: Client, file_format: str | None) -> None:
    assert export(owner, uploaded(owner), file_format=file_format) == "IMG.0072"


@pytest.mark.parametrize("fields", [{"file_format": 7}, {"is_quick_export": "yes"}], ids=["format", "quick"])
def test_a_field_of_another_type_is_refused(owner: Client, fields: dict[str, Any]) -> None:
    assert export(owner, uploaded(owner), **fields) == "IMG.0001"


def test_an_unknown_image_is_told_as_such(owner: Client) -> None:
    body = {"bucket_url": "out:x", "file_format": "qcow2"}
    path = "/v1/cloudimages/9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111/file"

    assert code_of(owner, path, body, status=404) == "IMG.0144"


TOO_LARGE: Final = {
    "vhd": LARGEST_VHD,
    "vhd-fixed": LARGEST_VHD,
    "zvhd": LARGEST_VHD,
    "vmdk": LARGEST_VMDK,
    "vmdk-sparse": LARGEST_VMDK,
    "vhdx": LARGEST_VHDX,
    "vdi": LARGEST_VDI,
}


@pytest.mark.parametrize("file_format", TOO_LARGE)
def test_a_disk_that_the_format_cannot_hold_is_refused_before_any_work(
    owner: Client, tmp_path: Path, file_format: str
) -> None:
    most = TOO_LARGE[file_format]
    largest, larger = (uploaded(owner, empty_qcow2(tmp_path, size), "qcow2") for size in (most, most + 512))

    assert export(owner, larger, file_format=file_format) == "IMG.0071"
    assert accepts_export(owner, larger)
    assert accepts_export(owner, largest, file_format=file_format)


def test_a_quick_export_of_a_disk_that_no_vhd_can_hold_is_refused(owner: Client, tmp_path: Path) -> None:
    image_id = uploaded(owner, empty_qcow2(tmp_path, 2041 * GIB), "qcow2")

    assert export(owner, image_id, is_quick_export=True) == "IMG.0071"


def empty_qcow2(folder: Path, size: int) -> bytes:
    path = folder / "empty.qcow2"
    options = ["-o", "cluster_size=256k"]  # so that its tables are small
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, str(size)], check=True)
    return path.read_bytes()


# --- export: what is written ------------------------------------------------------------------------------------------

DISK_BYTES: Final = 3 * 2**20 + 512
QEMU: Final = {DiskFormat.VHD: "vpc"}  # where its name is another
# What qemu-img tells of the file, beside its format.
TOLD: Final[dict[str, dict[str, Any]]] = {
    "qcow2": {"compat": "1.1", "compression-type": "zstd"},
    "qcow2-plain": {"compat": "1.1", "compression-type": "zlib"},
    "qcow2-zlib": {"compat": "1.1", "compression-type": "zlib"},
    "qcow2-zstd": {"compat": "1.1", "compression-type": "zstd"},
    "vmdk": {"create-type": "streamOptimized"},
    "vmdk-sparse": {"create-type": "monolithicSparse"},
}


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return (b"the bytes of a disk ".ljust(512) * 1200).ljust(DISK_BYTES - 512, b"\0") + b"its end".ljust(512)


def image_of(client: Client, content: bytes, disk_format: str = "raw") -> str:
    client.http.put("/calotype/v1/buckets/made")
    return uploaded(client, content, disk_format)


def exported(client: Client, image_id: str, file_format: str, target: Path) -> Path:
    key = f"{image_id}.{file_format}"
    body = {"bucket_url": f"made:{key}", "file_format": file_format}
    client.succeeded(client.submit("POST", f"/v1/cloudimages/{image_id}/file", body))
    target.write_bytes(client.get_object("made", key))
    return target


def guest_bytes(path: Path, driver: str) -> bytes:
    target = path.with_suffix(".guest")
    subprocess.run(["qemu-img", "convert", "-f", driver, "-O", "raw", path, target], check=True)
    return target.read_bytes()


def information(path: Path, driver: str) -> dict[str, Any]:
    told = subprocess.run(["qemu-img", "info", "-f", driver, "--output=json", path], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(told.stdout)
    return found


@pytest.mark.parametrize("file_format", FILE_FORMATS)
def test_an_export_as_each_format_holds_the_bytes_of_the_guest_to_the_size(
    demo: Client, guest: bytes, tmp_path: Path, file_format: str
) -> None:
    driver = QEMU.get(FILE_FORMATS[file_format].format, FILE_FORMATS[file_format].format.value)

    target = exported(demo, image_of(demo, guest), file_format, tmp_path / "target")

    assert hashlib.sha256(guest_bytes(target, driver)).digest() == hashlib.sha256(guest).digest()
    found = information(target, driver)
    assert found["virtual-size"] == DISK_BYTES
    told = found.get("format-specific", {}).get("data", {})
    wanted = TOLD.get(file_format, {})
    assert {name: told[name] for name in wanted} == wanted


@pytest.mark.parametrize(("file_format", "compressed"), [("qcow2-plain", False), ("qcow2-zlib", True), ("vhd", False)])
def test_what_is_called_compressed_is(
    demo: Client, guest: bytes, tmp_path: Path, file_format: str, compressed: bool
) -> None:
    target = exported(demo, image_of(demo, guest), file_format, tmp_path / "target")

    assert (target.stat().st_size < 600 * 1024) is compressed


def test_a_fixed_vhd_is_the_disk_and_a_footer(demo: Client, guest: bytes, tmp_path: Path) -> None:
    target = exported(demo, image_of(demo, guest), "vhd-fixed", tmp_path / "target")

    content = target.read_bytes()
    assert content[:-512] == guest
    assert content[-512:-504] == b"conectix"


def test_a_raw_export_is_the_disk(demo: Client, guest: bytes, tmp_path: Path) -> None:
    assert exported(demo, image_of(demo, guest), "raw", tmp_path / "target").read_bytes() == guest


@pytest.mark.parametrize("file_format", [name for name in FILE_FORMATS if name.startswith("qcow2")])
def test_a_stored_qcow2_is_exported_as_it_is_by_one_name_and_written_anew_by_the_others(
    demo: Client, guest: bytes, tmp_path: Path, file_format: str
) -> None:
    """Also what it holds beside the disk in force: nobody has asked for something else."""
    stored = qcow2_with_snapshot(guest, tmp_path)
    before = stored.read_bytes()

    target = exported(demo, image_of(demo, before, "qcow2"), file_format, tmp_path / "target")

    assert (target.read_bytes() == before) is (file_format == "qcow2")
    assert guest_bytes(target, "qcow2") == guest
    assert bool(information(target, "qcow2").get("snapshots")) is (file_format == "qcow2")


def qcow2_with_snapshot(guest: bytes, folder: Path) -> Path:
    """The disk in force is `guest`; in the snapshot it has other bytes at its start."""
    raw, path = folder / "guest.raw", folder / "snapshot.qcow2"
    raw.write_bytes(b"a secret of before".ljust(65536, b"!") + guest[65536:])
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", "before", path], check=True)
    raw.write_bytes(guest[:65536])
    write = f"write -s {raw} 0 65536"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", write, path], check=True, capture_output=True)
    return path


def test_an_import_keeps_only_the_disk_in_force(demo: Client, guest: bytes, tmp_path: Path) -> None:
    demo.put_object("made-with-snapshot", "disk", qcow2_with_snapshot(guest, tmp_path))

    job = demo.succeeded(demo.import_image("made-with-snapshot:disk", "without snapshots"))

    target = tmp_path / "image"
    target.write_bytes(demo.http.get(f"/v2/images/{job['entities']['image_id']}/file").content)
    assert guest_bytes(target, "qcow2") == guest
    assert not information(target, "qcow2").get("snapshots")
    assert b"a secret of before" not in target.read_bytes()
    everything = demo.image(job["entities"]["image_id"])
    assert (everything["disk_format"], everything["virtual_size"]) == ("qcow2", DISK_BYTES)


# --- copy -------------------------------------------------------------------------------------------------------------


def test_an_image_without_bytes_an_iso_and_a_large_one_are_not_copied(owner: Client) -> None:
    assert copy(owner, queued(owner)) == "IMG.0046"
    assert copy(owner, uploaded(owner, build.iso(), "iso")) == "IMG.0167"
    assert copy(owner, uploaded(owner, CONTENT[:1_000_000] * 2 + b"x")) == "IMG.0059"


@pytest.mark.parametrize("answer", ["pending", "rejected"])
def test_a_shared_image_is_copied_only_when_it_was_accepted(owner: Client, publisher: Client, answer: str) -> None:
    image_id = uploaded(publisher, visibility="shared")
    publisher.http.post(f"/v2/images/{image_id}/members", json={"member": owner.project_id})
    member = f"/v2/images/{image_id}/members/{owner.project_id}"
    owner.http.put(member, json={"status": answer})

    assert copy(owner, image_id) == "IMG.0196"
    owner.http.put(member, json={"status": "accepted"})
    job = owner.submit("POST", f"/v1/cloudimages/{image_id}/copy", {"name": "accepted"})
    owner.http.post(f"/calotype/v1/jobs/{job}:cancel", json={"reason": "not needed"})


def test_a_community_image_is_copied_by_everyone(owner: Client, publisher: Client) -> None:
    job = owner.submit(
        "POST", f"/v1/cloudimages/{uploaded(publisher, visibility='community')}/copy", {"name": "of everyone"}
    )
    owner.http.post(f"/calotype/v1/jobs/{job}:cancel", json={"reason": "not needed"})


def test_five_copies_at_once(owner: Client) -> None:
    image_id = uploaded(owner)
    begun = [owner.submit("POST", f"/v1/cloudimages/{image_id}/copy", {"name": f"c{number}"}) for number in range(5)]

    assert copy(owner, image_id) == "IMG.0060"
    for job in begun:
        owner.http.post(f"/calotype/v1/jobs/{job}:cancel", json={"reason": "not needed"})


# --- register ---------------------------------------------------------------------------------------------------------

REGISTERED: Final = {
    "qcow2": ("qcow2", ""),
    "raw": ("raw", ""),
    "vhd": ("vpc", "subformat=dynamic,force_size=on"),
    "vhdx": ("vhdx", ""),
    "vmdk": ("vmdk", "subformat=streamOptimized"),
    "vdi": ("vdi", ""),
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("register") / "disk.raw"
    path.write_bytes(os.urandom(300_000) + bytes(3 * 2**20 - 300_000 - 512) + b"end of the disk".ljust(512))
    return path


def made(disk: Path, folder: Path, name: str) -> Path:
    driver, options = REGISTERED[name]
    target = folder / f"disk.{name}"
    extra = ["-o", options] if options else []
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", driver, *extra, str(disk), str(target)], check=True)
    return target


def register(client: Client, image_id: str, address: str) -> dict[str, Any]:
    job = client.submit("PUT", f"/v1/cloudimages/{image_id}/upload", {"image_url": address})
    return client.ended(job)


@pytest.mark.parametrize("name", REGISTERED)
def test_a_file_of_each_format_fills_the_image_that_waited(demo: Client, disk: Path, tmp_path: Path, name: str) -> None:
    demo.put_object("register", f"disk.{name}", made(disk, tmp_path, name))
    image_id = queued(demo, name)

    job = register(demo, image_id, f"register:disk.{name}")

    assert (job["status"], job["job_type"]) == ("SUCCESS", "imsNativeImportImageJob"), job
    assert job["entities"] == {"image_id": image_id}
    image = demo.image(image_id)
    assert (image["status"], image["disk_format"], image["virtual_size"]) == ("active", "qcow2", disk.stat().st_size)
    assert image["__data_origin"] == f"file,register:disk.{name}"
    assert (image["__root_origin"], image["__originalimagename"]) == ("file", "")
    (tmp_path / "image").write_bytes(demo.http.get(f"/v2/images/{image_id}/file").content)
    command = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(disk), str(tmp_path / "image")]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_an_iso_fills_an_image_that_waits_for_one(demo: Client) -> None:
    demo.put_object("register", "cd.iso", build.iso())
    image_id = queued(demo, "iso")

    assert register(demo, image_id, "register:cd.iso")["status"] == "SUCCESS"
    assert demo.image(image_id)["disk_format"] == "iso"


@pytest.mark.parametrize(
    "content",
    [b"QED\x00" + CONTENT, b"QFI\xfb\x00\x00\x00\x01" + CONTENT, b"\x1f\x8b\x08\x00" + CONTENT, build.iso()],
    ids=["qed", "qcow", "gzip", "iso-for-a-disk"],
)
def test_a_file_that_the_gate_refuses_fails_the_job_and_the_image_waits_again(demo: Client, content: bytes) -> None:
    demo.put_object("register", "bad", content)
    image_id = queued(demo)

    job = register(demo, image_id, "register:bad")

    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057"), job
    assert (demo.image(image_id)["status"], demo.image(image_id)["size"]) == ("queued", None)


def test_a_file_that_cannot_be_taken_over_is_a_failure_to_register(demo: Client, disk: Path, tmp_path: Path) -> None:
    """Its tables are right, so that the gate lets it pass; its compressed data is not."""
    content = bytearray(made(disk, tmp_path, "vmdk").read_bytes())
    middle = content.index(b"\x78", 128 * 512) + 3000
    content[middle : middle + 64] = bytes(64)
    demo.put_object("register", "damaged.vmdk", bytes(content))
    image_id = queued(demo, "vmdk")

    job = register(demo, image_id, "register:damaged.vmdk")

    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.1075"), job
    assert demo.image(image_id)["status"] == "queued"
    assert register(demo, image_id, "register:damaged.vmdk")["error_code"] == "IMG.1075"


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("register:nothing-there", "IMG.0057"),
        ("register:empty", "IMG.0057"),
        ("nobody-has-it:disk", "IMG.0069"),
        ("register:with space", "IMG.0175"),
        ("register", "IMG.0017"),
        (None, "IMG.0017"),
    ],
)
def test_a_bad_source_is_refused_at_once_and_the_image_waits_on(demo: Client, address: Any, code: str) -> None:
    demo.put_object("register", "empty", b"")
    image_id = queued(demo)

    answer = demo.http.put(f"/v1/cloudimages/{image_id}/upload", json={"image_url": address})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), answer.text
    assert demo.image(image_id)["status"] == "queued"


def test_only_an_image_that_waits_is_filled(demo: Client) -> None:
    demo.put_object("register", "disk", CONTENT)
    image_id = uploaded(demo)

    answer = demo.http.put(f"/v1/cloudimages/{image_id}/upload", json={"image_url": "register:disk"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "IMG.0046")
