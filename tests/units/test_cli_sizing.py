"""What the command line finds out of a disk from its first bytes, with files that qemu-img made."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.cli.sizing import HEAD_BYTES, virtual_size

GIB = 1024**3


def made(folder: Path, qemu_format: str, options: str = "") -> bytes:
    """The head of an empty disk of 3 GiB."""
    path = folder / "disk"
    chosen = ("-o", options) if options else ()
    subprocess.run(("qemu-img", "create", "-q", "-f", qemu_format, *chosen, str(path), "3G"), check=True)
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


@pytest.mark.parametrize(
    ("qemu_format", "options"),
    [("qcow2", ""), ("vmdk", ""), ("vpc", "force_size=on"), ("vhdx", ""), ("vdi", ""), ("qed", ""), ("qcow", "")],
)
def test_the_head_of_a_disk_image_says_how_large_the_disk_is(qemu_format: str, options: str, tmp_path: Path) -> None:
    assert virtual_size(made(tmp_path, qemu_format, options)) == 3 * GIB


def test_the_head_of_a_compressed_vmdk_says_how_large_the_disk_is(tmp_path: Path) -> None:
    made(tmp_path, "qcow2")
    written = tmp_path / "stream.vmdk"
    command = ("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", str(tmp_path / "disk"))
    subprocess.run((*command, str(written)), check=True)

    assert virtual_size(written.read_bytes()) == 3 * GIB


def test_of_a_raw_disk_the_head_says_nothing(tmp_path: Path) -> None:
    assert virtual_size(made(tmp_path, "raw")) is None


@given(
    st.binary(max_size=2048),
    st.sampled_from([b"", b"QFI\xfb", b"KDMV", b"conectix", b"vhdxfile", b"# Disk Descr", b"QED\0"]),
)
def test_any_bytes_are_sized_or_left_alone(tail: bytes, magic: bytes) -> None:
    size = virtual_size(magic + tail)

    assert size is None or size > 0
