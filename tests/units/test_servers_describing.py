"""What a person writes about servers: read, or refused with the file and the key; ids of disks; the lock of QEMU."""

import re
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from calotype.errors import SourceUnreadable
from calotype.servers.describing import (
    ID,
    MOST_BYTES,
    MOST_DISKS,
    BackupForm,
    DiskForm,
    F,
    ServerForm,
    VaultForm,
    VolumeForm,
    form_of,
    slots_of,
    tables_of,
    volume_id,
)
from calotype.servers.model import ServerStatus


def reader(kind: type[F]) -> Callable[[dict[str, Any], str], F]:
    return lambda tables, file: form_of(tables, kind, file)


READERS: Final[dict[type[Struct], Callable[[dict[str, Any], str], Struct]]] = {
    ServerForm: reader(ServerForm),
    VolumeForm: reader(VolumeForm),
    BackupForm: reader(BackupForm),
    VaultForm: reader(VaultForm),
}


def server(toml: str) -> ServerForm:
    return form_of(tables_of(toml.encode(), "server.toml"), ServerForm, "server.toml")


def test_a_name_and_a_file_are_enough() -> None:
    form = server('name = "web-1"\n[[disks]]\nfile = "disk.qcow2"\n')

    assert (form.name, form.status, form.project) == ("web-1", ServerStatus.STOPPED, None)
    assert [disk.file for disk in form.disks] == ["disk.qcow2"]


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ('nmae = "x"', "nmae: no such key"),
        ('[[disks]]\nfile = "a"\nsise_gb = 1', "disks[0].sise_gb: no such key"),
        ("[[disks]]\nslot = 1", "disks[0].file: is missing"),
        ('status = "on"', "status: "),
        ('kind = "vm"', "kind: "),
        ('id = "a/b"', "id: "),
        ('id = ".."', "id: "),
        ('id = "."', "id: "),
        ('id = ""', "id: "),
        ('id = "a\\n"', "id: "),
        ('name = "a\\u0000b"', "name: "),
        ('image_id = "a\\n"', "image_id: "),
        (f'id = "{"a" * 65}"', "id: "),
        ("frozen = 1", "frozen: "),
        ('disks = "disk.qcow2"', "disks: "),
        ('[[disks]]\nfile = ""', "disks[0].file: "),
        ('[[disks]]\nfile = "/etc/passwd"', "disks[0].file: wants a path below"),
        ('[[disks]]\nfile = "../other/disk"', "disks[0].file: wants a path below"),
        ('[[disks]]\nfile = "a/./disk"', "disks[0].file: wants a path below"),
        ('[[disks]]\nfile = "disk/"', "disks[0].file: wants a path below"),
        ('[[disks]]\nfile = "a\\u0000"', "disks[0].file: wants a path below"),
        (f'[[disks]]\nfile = "{"a" * 256}"', "disks[0].file: wants a path below"),
        ('[[disks]]\nfile = "a"\nslot = -1', "disks[0].slot: "),
        (f'[[disks]]\nfile = "a"\nslot = {MOST_DISKS}', "disks[0].slot: "),
        ('[[disks]]\nfile = "a"\nsize_gb = 99999999999999999999999', "disks[0].size_gb: "),
        ('[[disks]]\nfile = "a"\nslot = 1\n[[disks]]\nfile = "b"', "2 disks have the slot 1"),
        ('[[disks]]\nfile = "a"\nid = "x"\n[[disks]]\nfile = "b"\nid = "x"', "2 disks have the id x"),
        ('[[disks]]\nfile = "a"\n' * (MOST_DISKS + 1), "disks: "),
        ("name = ", "is not TOML"),
        ("name = " + "[" * 30_000, "is not TOML"),
        (f"frozen = {'9' * 5000}", "is not TOML"),
        ("#" * (MOST_BYTES + 1), "is above 65536 bytes"),
    ],
    ids=lambda value: re.sub(r"[^a-z0-9]+", "-", value)[:40],
)
def test_what_is_wrong_is_told_with_the_file_and_the_key(toml: str, problem: str) -> None:
    with pytest.raises(SourceUnreadable) as refused:
        server(toml)

    assert refused.value.message.startswith("server.toml")
    assert problem in refused.value.message


def test_a_path_in_a_volume_is_held_to_the_same() -> None:
    with pytest.raises(SourceUnreadable, match=r"volume.toml: file: wants a path below"):
        form_of({"file": "../x"}, VolumeForm, "volume.toml")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(SourceUnreadable, match="not text in UTF-8"):
        tables_of(b"name = '\xff'", "server.toml")


def test_a_backup_may_say_when_it_was_made() -> None:
    form = form_of(tables_of(b"created_at = 2026-01-02T03:04:05Z", "backup.toml"), BackupForm, "backup.toml")

    assert form.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_slots_follow_the_list_where_none_is_given() -> None:
    disks = (DiskForm(file="a"), DiskForm(file="b", slot=7), DiskForm(file="c"))

    assert slots_of(disks) == [0, 7, 2]


@given(owner=st.from_regex(ID, fullmatch=True), slot=st.integers(0, MOST_DISKS - 1))
def test_the_id_of_a_disk_is_always_one_that_can_be_sent(owner: str, slot: int) -> None:
    given_none = DiskForm(file="disk")

    made = volume_id(given_none, owner, slot)

    assert re.fullmatch(ID, made)
    assert made == volume_id(given_none, owner, slot)
    assert made != volume_id(given_none, owner, slot + 1)


def test_an_id_that_is_given_stays() -> None:
    assert volume_id(DiskForm(file="disk", id="mine"), "web-1", 0) == "mine"


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_never_crash(data: bytes) -> None:
    for form, read_as in READERS.items():
        try:
            read = read_as(tables_of(data, "file.toml"), "file.toml")
        except SourceUnreadable as error:
            assert error.message.startswith("file.toml")  # noqa: PT017 - either outcome is right, and each is checked
        else:
            assert isinstance(read, form)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data())
def test_values_of_any_type_under_known_keys_are_read_or_refused(data: st.DataObject) -> None:
    for form, read_as in READERS.items():
        keys = [field.name for field in msgspec.structs.fields(form)]
        tables = data.draw(st.dictionaries(st.sampled_from(keys), VALUES, max_size=4))
        try:
            read = read_as(tables, "file.toml")
        except SourceUnreadable as error:
            assert error.message.startswith("file.toml: ")  # noqa: PT017 - either outcome is right, and each is checked
        else:
            assert isinstance(read, form)


def test_the_examples_of_the_reference_can_be_read() -> None:
    """Each TOML block of docs/reference/inventory.md begins with a comment that names its file."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "inventory.md").read_text()
    kinds: dict[str, type[Struct]] = {"server.toml": ServerForm, "volume.toml": VolumeForm, "backup.toml": BackupForm}

    blocks = re.findall(r"```toml\n# (\S+)\n(.*?)```", page, re.DOTALL)

    assert len(blocks) >= 4
    for path, toml in blocks:
        file = path.rpartition("/")[2]
        READERS[kinds.get(file, VaultForm)](tomllib.loads(toml), file)
