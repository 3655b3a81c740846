"""A disk that comes in as any format boots, and one that goes out as any format boots: in QEMU, by software emulation.

Two disks: a whole Linux system, which is logged in to, with its kernel given by hand; and one of a size that no format
likes, which the BIOS starts from its own boot loader, as a machine does.
"""

import bz2
import gzip
import lzma
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import Struct

from tests.disks import ova
from tests.importing import imported, staged
from tests.service import Client
from tests.services import machine
from tests.services.machine import System

pytestmark = pytest.mark.services


class Made(Struct, frozen=True, kw_only=True):
    """How a raw disk becomes a file of a format."""

    driver: str  # as QEMU calls it
    options: str = ""
    flags: tuple[str, ...] = ()
    snapshot: bool = False

    def of(self, disk: Path, target: Path) -> Path:
        options = ["-o", self.options] if self.options else []
        command = ["qemu-img", "convert", "-f", "raw", "-O", self.driver, *options, *self.flags, str(disk), str(target)]
        subprocess.run(command, check=True)
        if self.snapshot:
            subprocess.run(["qemu-img", "snapshot", "-c", "before", str(target)], check=True)
        return target


INPUTS: Final = {
    "raw": Made(driver="raw"),
    "qcow2": Made(driver="qcow2"),
    "qcow2-v2": Made(driver="qcow2", options="compat=0.10"),
    "qcow2-zlib": Made(driver="qcow2", options="compression_type=zlib", flags=("-c",)),
    "qcow2-zstd": Made(driver="qcow2", options="compression_type=zstd", flags=("-c",)),
    "qcow2-extended-l2": Made(driver="qcow2", options="extended_l2=on,cluster_size=128k"),
    "qcow2-snapshot": Made(driver="qcow2", snapshot=True),
    "qcow": Made(driver="qcow"),
    "qcow-packed": Made(driver="qcow", flags=("-c",)),
    "qed": Made(driver="qed"),
    "vdi": Made(driver="vdi"),
    "vmdk-sparse": Made(driver="vmdk", options="subformat=monolithicSparse"),
    "vmdk-stream": Made(driver="vmdk", options="subformat=streamOptimized"),
    "vhd": Made(driver="vpc", options="subformat=dynamic,force_size=on"),
    "vhd-fixed": Made(driver="vpc", options="subformat=fixed,force_size=on"),
    "vhdx": Made(driver="vhdx"),
}
# `file_format` of an export -> what QEMU calls it.
EXPORTS: Final = {
    "raw": "raw",
    "qcow2": "qcow2",
    "qcow2-plain": "qcow2",
    "qcow2-zlib": "qcow2",
    "qcow2-zstd": "qcow2",
    "vmdk": "vmdk",
    "vmdk-sparse": "vmdk",
    "vhd": "vpc",
    "vhd-fixed": "vpc",
    "vhdx": "vhdx",
    "vdi": "vdi",
}
PACKERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": lambda data: subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout,
}
BUCKET: Final = "boots"


@pytest.fixture(scope="module")
def system(alpine: Path, tmp_path_factory: pytest.TempPathFactory) -> System:
    return machine.system(tmp_path_factory.mktemp("alpine"), alpine)


@pytest.fixture(scope="module")
def partitioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return machine.partitioned(tmp_path_factory.mktemp("grub"))


def image_of(client: Client, file: Path, **fields: Any) -> str:
    """The image that a file becomes by way of a bucket."""
    key = f"{os.urandom(4).hex()}-{file.name}"
    client.put_object(BUCKET, key, file)
    job = client.succeeded(client.import_image(f"{BUCKET}:{key}", "boots", **fields), within_s=300)
    client.http.delete(f"/calotype/v1/buckets/{BUCKET}/objects/{key}")
    return str(job["entities"]["image_id"])


def downloaded(client: Client, image_id: str, folder: Path) -> tuple[Path, str]:
    """Its file, and the driver for it."""
    image, target = client.image(image_id), folder / "downloaded"
    with client.http.stream("GET", f"/v2/images/{image_id}/file") as answer, target.open("wb") as file:
        assert answer.status_code == 200
        for chunk in answer.iter_bytes():
            file.write(chunk)
    return target, image["disk_format"]


def exported(client: Client, image_id: str, file_format: str, folder: Path) -> Path:
    key, target = f"out-{os.urandom(4).hex()}", folder / "exported"
    body = {"bucket_url": f"{BUCKET}:{key}", "file_format": file_format}
    client.succeeded(client.submit("POST", f"/v1/cloudimages/{image_id}/file", body), within_s=300)
    with (
        client.http.stream("GET", f"/calotype/v1/buckets/{BUCKET}/objects/{key}") as answer,
        target.open("wb") as file,
    ):
        assert answer.status_code == 200
        for chunk in answer.iter_bytes():
            file.write(chunk)
    client.http.delete(f"/calotype/v1/buckets/{BUCKET}/objects/{key}")
    return target


# --- in ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INPUTS)
def test_a_system_that_was_imported_as_any_format_boots_to_its_login(
    demo: Client, system: System, tmp_path: Path, name: str
) -> None:
    image_id = image_of(demo, INPUTS[name].of(system.disk, tmp_path / name))

    machine.log_in(system, *downloaded(demo, image_id, tmp_path))


@pytest.mark.parametrize("name", INPUTS)
def test_a_disk_that_was_imported_as_any_format_is_started_by_the_bios(
    demo: Client, partitioned: Path, tmp_path: Path, name: str
) -> None:
    image_id = image_of(demo, INPUTS[name].of(partitioned, tmp_path / name))

    machine.starts_by_itself(*downloaded(demo, image_id, tmp_path))


@pytest.mark.parametrize("packer", PACKERS)
def test_a_disk_that_was_sent_packed_is_started_by_the_bios(
    demo: Client, partitioned: Path, tmp_path: Path, packer: str
) -> None:
    image = imported(demo, staged(demo, PACKERS[packer](partitioned.read_bytes())), "glance-direct")

    machine.starts_by_itself(*downloaded(demo, image["id"], tmp_path))


def test_a_system_that_came_in_an_ova_boots_to_its_login(demo: Client, system: System, tmp_path: Path) -> None:
    vmdk = INPUTS["vmdk-stream"].of(system.disk, tmp_path / "disk.vmdk")
    archive = tmp_path / "machine.ova"
    archive.write_bytes(ova.ova([ova.disk(vmdk.read_bytes(), machine.SYSTEM_BYTES)]))

    image_id = image_of(demo, archive)

    machine.log_in(system, *downloaded(demo, image_id, tmp_path))


def test_an_iso_boots_from_the_drive(demo: Client, tmp_path: Path) -> None:
    image_id = image_of(demo, machine.ISO, type="IsoImage", os_version="Debian GNU/Linux 12.0.0 64bit")

    file, disk_format = downloaded(demo, image_id, tmp_path)

    assert disk_format == "iso"
    machine.starts_as_iso(file)


# --- out --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """What is there to export."""
    return {}


@pytest.mark.parametrize("file_format", EXPORTS)
def test_a_system_that_is_exported_as_any_format_boots_to_its_login(
    demo: Client, system: System, images: dict[str, str], tmp_path: Path, file_format: str
) -> None:
    image_id = images.get("system") or images.setdefault("system", image_of(demo, system.disk))

    file = exported(demo, image_id, file_format, tmp_path)

    machine.log_in(system, file, EXPORTS[file_format])


@pytest.mark.parametrize("file_format", EXPORTS)
def test_a_disk_that_is_exported_as_any_format_is_started_by_the_bios(
    demo: Client, partitioned: Path, images: dict[str, str], tmp_path: Path, file_format: str
) -> None:
    image_id = images.get("disk") or images.setdefault("disk", image_of(demo, partitioned))

    file = exported(demo, image_id, file_format, tmp_path)

    machine.starts_by_itself(file, EXPORTS[file_format])
