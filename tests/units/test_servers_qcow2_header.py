"""The qcow2 headers that are written here are what QEMU and the gate read."""

import io
import subprocess
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.disks.formats.qcow2 import BACKING_FORMAT
from calotype.disks.gate import inspect
from calotype.errors import UnsafeDisk
from calotype.servers.qcow2_header import detached, empty, names_backing
from tests.disks import build

GIB: Final = 1024**3
OTHER_EXTENSION: Final = (0x6803F857, b"a name of a feature " * 3)


@pytest.mark.parametrize("size", [512, 10 * 1024**2, 512 * 1024**2 + 512, 600 * GIB, 20 * 1024 * GIB])
def test_an_empty_image_has_its_size_and_nothing_in_it(size: int, tmp_path: Path) -> None:
    path = tmp_path / "empty.qcow2"
    path.write_bytes(empty(size))

    found = inspect(io.BytesIO(empty(size)), declared="qcow2", most_virtual_bytes=size)
    checked = subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], capture_output=True, check=False)

    assert (found.virtual_size, found.snapshots) == (size, 0)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(("version", "others"), [(2, ()), (3, (OTHER_EXTENSION,))])
def test_a_detached_image_passes_the_gate_with_its_content_and_its_other_extensions(
    version: int, others: tuple[tuple[int, bytes], ...]
) -> None:
    extensions = ((BACKING_FORMAT, b"raw"), *others)
    image = build.qcow2(version=version, backing=b"/etc/shadow", extensions=extensions)
    with pytest.raises(UnsafeDisk):
        inspect(io.BytesIO(image), declared="qcow2", most_virtual_bytes=GIB)

    alone = detached(image)

    assert names_backing(image)
    assert not names_backing(alone)
    assert inspect(io.BytesIO(alone), declared="qcow2", most_virtual_bytes=GIB).virtual_size == build.SIZE
    assert len(alone) == len(image)
    assert alone[64 * 1024 :] == image[64 * 1024 :]
    assert all(content in alone for _, content in others)


def test_an_image_without_a_backing_file_stays_as_it_is() -> None:
    image = build.qcow2(extensions=(OTHER_EXTENSION,))

    assert detached(image) == image


@given(st.binary(max_size=200), st.booleans())
def test_any_header_is_detached_to_the_same_length(tail: bytes, magic: bool) -> None:
    head = (b"QFI\xfb\0\0\0\3" if magic else b"") + tail

    alone = detached(head)

    assert len(alone) == len(head)
    assert not names_backing(alone) or len(head) < 72
