"""An image that lies inside a file is judged as if it were a file of its own, whatever lies around it."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.disks import part
from calotype.disks.gate import inspect, inspect_at
from calotype.disks.model import Inspection, Window
from calotype.errors import DiskRefused, TruncatedDisk
from tests.disks import build, corpus
from tests.disks.corpus import MOST_VIRTUAL_BYTES, Case

CASES: Final = [*corpus.hostile(), *corpus.truncated_raw()]
# What would change the verdict if it were seen: another format before, a footer and a signature after.
BEFORE: Final = build.qcow2(backing=b"/etc/passwd")
AFTER: Final = build.vhd_footer(kind=2) + b"koly".ljust(512, b"\0")
SOUND: Final[dict[str, Callable[[], bytes]]] = {
    "qcow2": build.qcow2,
    "vmdk": build.vmdk,
    "vhd": build.vhd,
    "fixed vhd": build.vhd_fixed,
    "vhdx": build.vhdx,
    "vdi": build.vdi,
    "iso": build.iso,
    "qed": build.qed,
    "qcow": build.qcow1,
    "gpt": build.gpt,
    "raw": build.raw,
    "text": lambda: b"/etc/passwd\n" * 100,
}


def alone(content: bytes) -> Inspection:
    return inspect_at(reading(content), len(content), declared=None, most_virtual_bytes=MOST_VIRTUAL_BYTES)


def within(content: bytes) -> Inspection:
    whole = BEFORE + content + AFTER
    window = Window(offset=len(BEFORE), length=len(content))
    return inspect(io.BytesIO(whole), declared=None, most_virtual_bytes=MOST_VIRTUAL_BYTES, window=window)


def reading(content: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: content[offset : offset + length]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_the_gate_says_of_a_hostile_image_it_says_of_it_in_an_archive(case: Case) -> None:
    content = case.content
    try:
        expected = alone(content)
    except DiskRefused as error:
        with pytest.raises(type(error)):
            within(content)
        return

    assert within(content) == expected


@pytest.mark.parametrize("name", SOUND)
def test_what_the_gate_finds_in_a_sound_image_it_finds_in_an_archive(name: str, tmp_path: Path) -> None:
    content = SOUND[name]()
    path = tmp_path / "archive"
    path.write_bytes(BEFORE + content + AFTER)
    window = Window(offset=len(BEFORE), length=len(content))

    with path.open("rb") as file:
        found = inspect(file, declared=None, most_virtual_bytes=MOST_VIRTUAL_BYTES, window=window)

    assert found == alone(content)


def test_a_window_that_ends_past_its_file_is_refused() -> None:
    with pytest.raises(TruncatedDisk, match="would end at 101"):
        inspect(io.BytesIO(bytes(100)), declared=None, most_virtual_bytes=1000, window=Window(offset=50, length=51))


@given(content=st.binary(max_size=3000), data=st.data())
def test_a_part_reads_as_a_file_of_its_own(content: bytes, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, len(content) - offset))
    expected = io.BytesIO(content[offset : offset + length])
    descriptor = os.memfd_create("content")
    try:
        os.write(descriptor, content)
        opened = part.opened(descriptor, Window(offset=offset, length=length))

        for size in data.draw(st.lists(st.integers(0, 2000), max_size=5)):
            assert opened.read(size) == expected.read(size)
            assert opened.tell() == expected.tell()
        place = data.draw(st.integers(0, length))
        assert opened.seek(place) == place
        assert opened.read() == content[offset + place : offset + length]
        assert opened.seek(0, io.SEEK_END) == length
        opened.close()
        assert os.fstat(descriptor).st_size == len(content)
    finally:
        os.close(descriptor)
