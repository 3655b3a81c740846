"""The gate against images made to do harm, images that are broken, and images that are right."""

import io
import os
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calotype.disks.formats.reader import MOST_TABLE_BYTES, MOST_TABLES, DiskFile
from calotype.disks.gate import DECLARED, NEVER_TAKEN, inspect, inspect_at
from calotype.disks.model import DiskFormat, Inspection
from calotype.errors import DiskRefused, DiskTooLarge, FormatMismatch, TruncatedDisk, UnsafeDisk
from tests.disks import build, corpus
from tests.disks.corpus import MOST_VIRTUAL_BYTES, Case

CASES: Final = list(corpus.hostile())
HOSTILE: Final = {case.name: case for case in CASES}
FAMILIES: Final = sorted({case.family for case in CASES})
PAYLOADS: Final = {name: (format_, content) for name, format_, content in corpus.payloads()}
SOUND: Final = {name: make() for name, make in build.SOUND.items()}
EVERY_DECLARED: Final = (*DECLARED, *sorted(NEVER_TAKEN), None)
RAW_NAMES: Final = ("raw", "ami", "aki", "ari")
MOST_MEMORY: Final = 16 * 1024 * 1024


def inspected(content: bytes, declared: str | None = None, most: int = MOST_VIRTUAL_BYTES) -> Inspection:
    return inspect(io.BytesIO(content), declared=declared, most_virtual_bytes=most)


# --- hostile ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_is_refused_as_what_it_is(name: str) -> None:
    case = HOSTILE[name]

    with pytest.raises(case.error) as refused:
        inspected(case.content, case.format)

    assert type(refused.value) is case.error


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hostile_image_is_refused_whatever_it_is_declared_as(family: str) -> None:
    passed = []
    for case in CASES:
        if case.family == family:
            content = case.content
            passed += [(case.name, declared) for declared in EVERY_DECLARED if not refuses(content, declared)]

    assert passed == []


def refuses(content: bytes, declared: str | None) -> bool:
    try:
        inspected(content, declared)
    except DiskRefused:
        return True
    return False


def test_the_corpus_names_are_unique() -> None:
    assert len(CASES) == len(HOSTILE) > 500


@pytest.mark.parametrize("declared", EVERY_DECLARED)
def test_an_image_that_points_at_a_file_or_a_service_is_refused(declared: str | None) -> None:
    cases = list(corpus.pointing("/srv/decoy", port=10809))

    assert [case.name for case in cases if not refuses(case.content, declared)] == []
    assert {case.format for case in cases} == {"qcow2", "qed", "qcow", "vmdk", "vhd", "vhdx"}


def test_an_image_that_points_somewhere_is_refused_as_unsafe() -> None:
    for case in corpus.pointing("/srv/decoy", port=10809):
        with pytest.raises(UnsafeDisk):
            inspected(case.content, case.format)


def test_no_message_holds_what_a_hostile_image_names() -> None:
    """A text that repeats the image's words could carry anything into a log or a page."""
    for case in HOSTILE.values():
        with pytest.raises(DiskRefused) as refused:
            inspected(case.content, case.format)

        assert "passwd" not in refused.value.message, case.name
        assert refused.value.message.isprintable(), case.name
        assert len(refused.value.message) < 300, case.name


class Watch:
    """What the interpreter opens, connects to or starts while `on`. An audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[tuple[str, Any]] = []

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event in ("open", "os.posix_spawn", "subprocess.Popen", "socket.connect", "os.exec", "os.fork"):
            self.seen.append((event, arguments[:1]))

    @contextmanager
    def watching(self) -> Iterator[list[tuple[str, Any]]]:
        self.seen, self.on = [], True
        try:
            yield self.seen
        finally:
            self.on = False


@pytest.fixture(scope="module")
def watch() -> Watch:
    made = Watch()
    sys.addaudithook(made.hook)
    return made


def test_the_gate_opens_nothing_connects_to_nothing_and_starts_nothing(watch: Watch) -> None:
    refuses(build.qcow2(backing=b"/etc/passwd"), None)  # everything is imported now

    with watch.watching() as seen:
        for case in HOSTILE.values():
            refuses(case.content, case.format)

    assert seen == []


def test_the_watch_would_have_seen_it(watch: Watch, tmp_path: Path) -> None:
    with watch.watching() as seen:
        os.close(os.open(tmp_path, os.O_RDONLY))

    assert [event for event, _ in seen] == ["open"]


# --- right ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", build.SOUND)
def test_a_sound_image_passes_under_its_own_name_and_undeclared(name: str) -> None:
    content = SOUND[name]
    format_ = DiskFormat(build.FORMAT_OF[name])

    for declared in (format_.value, None, "zvhd2", "zvhd"):
        found = inspected(content, declared)

        assert found.format is format_
        assert found.virtual_size == (len(content) if format_ in ("iso", "raw") else build.SIZE)
        assert found.file_size == len(content)
        assert found.self_contained


@pytest.mark.parametrize("name", build.SOUND)
def test_a_sound_image_is_refused_under_any_other_name_and_both_are_named(name: str) -> None:
    content = SOUND[name]
    own = {build.FORMAT_OF[name], "zvhd", "zvhd2"} | (set(RAW_NAMES) if name == "raw" else set())

    for declared in set(DECLARED) - own:
        with pytest.raises(FormatMismatch) as refused:
            inspected(content, declared)

        assert declared in refused.value.message
        assert name == "raw" or build.FORMAT_OF[name] in refused.value.message


DETAILS: Final = {
    "qcow2": "v3 zlib",
    "vmdk": "monolithicSparse",
    "vmdk-stream": "streamOptimized",
    "vhd": "dynamic",
    "vhd-fixed": "fixed",
    "vhdx": "dynamic",
    "vdi": "dynamic",
    "iso": "ISO 9660",
    "qed": "closed",
    "qcow": "v1",
}


@pytest.mark.parametrize(("name", "detail"), list(DETAILS.items()))
def test_an_inspection_tells_the_variant(name: str, detail: str) -> None:
    assert inspected(SOUND[name]).detail == detail


@pytest.mark.parametrize(("name", "content"), list(corpus.harmless()))
def test_what_is_of_no_format_is_raw(name: str, content: bytes) -> None:
    for declared in (*RAW_NAMES, None, "zvhd2"):
        found = inspected(content, declared)

        assert found.format is DiskFormat.RAW
        assert found.virtual_size == -(-len(content) // 512) * 512

    for declared in ("qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "qed", "qcow"):
        assert refuses(content, declared)


@pytest.mark.parametrize(("name", "content"), list(corpus.packed()))
def test_what_is_packed_is_raw_only_where_raw_was_said(name: str, content: bytes) -> None:
    for declared in RAW_NAMES:
        assert inspected(content, declared).format is DiskFormat.RAW

    with pytest.raises(FormatMismatch, match="unpack it first"):
        inspected(content, None)
    with pytest.raises(FormatMismatch, match="declared as qcow2, but the content is"):
        inspected(content, "qcow2")


@pytest.mark.parametrize("case", list(corpus.truncated_raw()), ids=lambda case: case.name)
def test_a_disk_that_tells_its_own_end_is_refused_when_cut(case: Case) -> None:
    with pytest.raises(TruncatedDisk):
        inspected(case.content, case.format)


@pytest.mark.parametrize("content", [build.iso(boot_sector=True), build.iso(start=build.gpt()[: 32 * 1024])])
def test_an_iso_image_that_boots_as_a_disk_is_an_iso_image(content: bytes) -> None:
    assert inspected(content, "iso").format is DiskFormat.ISO
    assert inspected(content).format is DiskFormat.ISO
    assert refuses(content, "raw")


def test_a_fixed_vhd_may_hold_a_partitioned_disk() -> None:
    content = build.vhd_fixed(content=build.with_boot_sector(build.raw()))

    assert inspected(content, "vhd").detail == "fixed"
    assert refuses(content, "raw")


def test_a_name_that_no_api_knows_is_refused() -> None:
    with pytest.raises(FormatMismatch):
        inspected(build.qcow2(), "floppy")


def test_an_old_qcow2_passes() -> None:
    assert inspected(build.qcow2(version=2)).detail == "v2 zlib"


def with_extension(path: Path, kind: int, data: bytes) -> bytes:
    """An image without header extensions, after it was given one; and after QEMU has written its header anew."""
    made = bytearray(path.read_bytes())
    made[72 : 72 + 8 + len(data)] = struct.pack(">II", kind, len(data)) + data
    path.write_bytes(made)
    command = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path.read_bytes()


@pytest.fixture
def old_qcow2(tmp_path: Path) -> Path:
    """Of version 2, by QEMU."""
    path = tmp_path / "old.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", str(path), "4M"]
    subprocess.run(command, check=True)
    return path


@pytest.mark.parametrize("length", [0, 1, 4, 7, 12, 100, 396, 4000])
def test_an_old_qcow2_may_have_header_extensions(old_qcow2: Path, length: int) -> None:
    """oslo.utils takes the first one for feature bits: every second length is an external data file to it."""
    content = with_extension(old_qcow2, 0x12345678, b"\x04" * length)

    found = inspected(content, "qcow2")

    assert struct.pack(">II", 0x12345678, length) in content[:512]
    assert (found.detail, found.virtual_size) == ("v2 zlib", 4 * 1024**2)


@pytest.mark.parametrize("kind", [0x44415441, 0x0537BE77, 0xE2792ACA])
@pytest.mark.parametrize("before", [b"", struct.pack(">II", 0x12345678, 12) + bytes(16)], ids=["first", "second"])
def test_an_old_qcow2_may_not_have_one_that_names_a_file_or_a_key(old_qcow2: Path, kind: int, before: bytes) -> None:
    content = bytearray(old_qcow2.read_bytes())
    extension = before + struct.pack(">II", kind, 11) + b"/etc/passwd"
    content[72 : 72 + len(extension)] = extension

    with pytest.raises(UnsafeDisk):
        inspected(bytes(content), "qcow2")


@pytest.mark.parametrize("bit", range(5, 64))
def test_a_new_qcow2_may_not_have_features_that_are_not_known(bit: int) -> None:
    with pytest.raises(UnsafeDisk):
        inspected(build.qcow2(incompatible=1 << bit), "qcow2")


@pytest.mark.parametrize("options", [[], ["compat=0.10"]], ids=["new", "made old"])
def test_what_qemu_writes_into_a_header_passes(tmp_path: Path, options: list[str]) -> None:
    """A table of the features' names, and a bitmap; an image of the newer version that was made one of the older."""
    path = tmp_path / "made.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "4M"], check=True)
    subprocess.run(["qemu-img", "bitmap", "--add", "-f", "qcow2", str(path), "kept"], check=True)
    for option in options:  # the older version knows no bitmaps
        subprocess.run(["qemu-img", "bitmap", "--remove", "-f", "qcow2", str(path), "kept"], check=True)
        subprocess.run(["qemu-img", "amend", "-f", "qcow2", "-o", option, str(path)], check=True)

    assert inspected(path.read_bytes(), "qcow2").detail == ("v2 zlib" if options else "v3 zlib")


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_disk_on_which_a_guest_has_put_an_image_is_a_disk_and_its_bytes_alone_are_not(
    name: str, tmp_path: Path
) -> None:
    """What is written out as raw is looked at again, and is then what the guest wrote."""
    format_, content = PAYLOADS[name]
    (tmp_path / name).write_bytes(content)
    driver = "vpc" if format_ == "vhd" else format_
    subprocess.run(
        ["qemu-img", "convert", "-f", driver, "-O", "raw", str(tmp_path / name), str(tmp_path / "raw")], check=True
    )

    assert inspected(content, format_).format == format_
    assert refuses((tmp_path / "raw").read_bytes(), "raw")


def test_compression_by_zstd_is_told() -> None:
    assert inspected(build.qcow2(header_length=112, compression=1, incompatible=8)).detail == "v3 zstd"


def test_internal_snapshots_are_counted() -> None:
    cluster = 1 << 16
    entry = (3 * cluster).to_bytes(8, "big") + (1).to_bytes(4, "big") + b"\0\1\0\4" + bytes(24) + b"1base"
    content = build.qcow2(snapshots=1, snapshots_offset=6 * cluster) + entry.ljust(cluster, b"\0")

    assert inspected(content).snapshots == 1
    assert inspected(content).detail == "v3 zlib 1 snapshots"


@pytest.mark.parametrize(("creator", "size"), [(b"win ", build.SIZE), (b"vbox", build.SIZE), (b"qem2", build.SIZE),
                                               (b"qemu", 8160 * 512), (b"vpc ", 8160 * 512)])  # fmt: skip
def test_the_size_of_a_vhd_goes_by_its_creators_rule(creator: bytes, size: int) -> None:
    footer = build.vhd_footer(kind=2, creator=creator, geometry=(120, 4, 17))

    assert inspected(build.vhd_fixed(footer=footer)).virtual_size == size


def test_the_virtual_size_is_bounded_for_every_format() -> None:
    for content in SOUND.values():
        exactly = inspected(content).virtual_size

        assert inspected(content, most=exactly).virtual_size == exactly
        with pytest.raises(DiskTooLarge):
            inspected(content, most=exactly - 1)


# --- cut, bent, random ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in build.SOUND if name not in ("raw", "vhd-fixed")])
def test_an_image_cut_anywhere_is_refused(name: str) -> None:
    content = SOUND[name]
    cuts = [*range(1, 2048, 61), *range(2048, len(content), max(8191, len(content) // 60)), len(content) - 1]

    passed = [cut for cut in cuts if not refuses(content[:cut], build.FORMAT_OF[name])]

    assert passed == []


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.data_too_large])
@given(data=st.data(), name=st.sampled_from([name for name in build.SOUND if name != "raw"]))
def test_a_bent_image_passes_or_is_refused_and_never_crashes(data: st.DataObject, name: str) -> None:
    content = bytearray(SOUND[name])
    tables = {
        "vhdx": [(0, 512), (196608, 300), (3 << 20, 400), (2 << 20, 16)],
        "qed": [(0, 64), (4096, 32), (12288, 256)],
    }
    headers = tables.get(name, [(0, 2048)])
    for _ in range(data.draw(st.integers(1, 4))):
        start, length = data.draw(st.sampled_from(headers))
        place = start + data.draw(st.integers(0, length - 1))
        content[place] ^= data.draw(st.integers(1, 255))

    for declared in (build.FORMAT_OF[name], None):
        try:
            found = inspected(bytes(content), declared)
        except DiskRefused:
            continue
        assert 0 < found.virtual_size <= MOST_VIRTUAL_BYTES


MARKS: Final = (b"", b"QFI\xfb\0\0\0\3", b"KDMV", b"conectix", b"vhdxfile", b"# Disk DescriptorFile\n", b"version=1\n",
                bytes(64) + b"\x7f\x10\xda\xbe", bytes(32769) + b"CD001", b"LUKS\xba\xbe", b"QED\0",
                b"QFI\xfb\0\0\0\1")  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(mark=st.sampled_from(MARKS), rest=st.binary(max_size=4096), declared=st.sampled_from(EVERY_DECLARED))
def test_random_bytes_pass_or_are_refused_and_never_crash(mark: bytes, rest: bytes, declared: str | None) -> None:
    try:
        found = inspected(mark + rest, declared)
    except DiskRefused:
        return
    assert found.format is DiskFormat.RAW or mark


# --- bounds -----------------------------------------------------------------------------------------------------------


class Endless:
    """A file of any size that is not there: a few given pieces, and a pattern everywhere else."""

    def __init__(self, pieces: dict[int, bytes], pattern: bytes = b"\0") -> None:
        self.pieces = pieces
        self.pattern = pattern
        self.most_read = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.most_read = max(self.most_read, length)
        shift = offset % len(self.pattern)
        data = bytearray((self.pattern * (length // len(self.pattern) + 2))[shift : shift + length])
        for place, piece in self.pieces.items():
            start, end = max(place, offset), min(place + len(piece), offset + length)
            if start < end:
                data[start - offset : end - offset] = piece[start - place : end - place]
        return bytes(data)


def l1_of_distinct_tables(entries: int, first: int, step: int) -> bytes:
    return b"".join((1 << 63 | first + index * step).to_bytes(8, "big") for index in range(entries))


def endless_qcow2(cluster_bits: int, size: int, entries: int) -> Endless:
    cluster = 1 << cluster_bits
    header = build.qcow2(cluster_bits=cluster_bits, size=size, l1_entries=entries)[: 3 * cluster]
    return Endless({0: header, 3 * cluster: l1_of_distinct_tables(entries, 1 << 32, cluster)})


def test_tiny_clusters_cannot_make_an_inspection_long() -> None:
    """Three hundred thousand tables of 512 bytes: QEMU would read every one of them."""
    entries = 300_000
    endless = endless_qcow2(9, entries * 64 * 512, entries)

    with pytest.raises(DiskTooLarge, match="tables"):
        inspect_at(endless.read_at, 1 << 40, declared=None, most_virtual_bytes=1 << 50)


def test_large_tables_cannot_make_an_inspection_long() -> None:
    """Every table counts with what it says it is, before it is read."""
    disk = DiskFile(Endless({}).read_at, 1 << 50, most_virtual_bytes=1 << 60)
    entries = 16 * 1024 * 1024 // 8
    for number in range(MOST_TABLE_BYTES // (entries * 8)):
        next(disk.table(number << 32, entries, "Q", "a table", big_endian=True))

    with pytest.raises(DiskTooLarge, match="tables"):
        next(disk.table(1 << 40, 1, "Q", "a table", big_endian=True))


def test_memory_is_bounded_whatever_a_file_says() -> None:
    """The most tables that are looked at, of which the first lies outside the file."""
    entries = MOST_TABLES
    endless = endless_qcow2(9, entries * 64 * 512, entries)
    inspected(build.qcow2())  # everything is imported now

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(TruncatedDisk):
            inspect_at(endless.read_at, 1 << 31, declared=None, most_virtual_bytes=1 << 50)
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    assert most < MOST_MEMORY
    assert endless.most_read <= 64 * 1024


LOOK_AT_ALL: Final = """
import io
from pathlib import Path
from calotype.disks.gate import inspect
from calotype.errors import DiskRefused
from tests.disks import corpus

made, passed = 0, []
for case in (*corpus.hostile(), *corpus.pointing("/srv/decoy", port=10809)):
    made += 1
    for declared in (case.format, None):
        try:
            inspect(io.BytesIO(case.content), declared=declared, most_virtual_bytes=corpus.MOST_VIRTUAL_BYTES)
            passed.append(case.name)
        except DiskRefused:
            pass
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(made, len(passed), int(status["VmHWM"].split()[0]) * 1024)
"""


def test_all_hostile_images_are_looked_at_within_little_memory() -> None:
    """In a process of its own that may not have more. The images are in its memory as well: up to 13 MB each."""
    command = ["prlimit", f"--as={512 * 1024**2}", sys.executable, "-c", LOOK_AT_ALL]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])

    made, passed, most = map(int, done.stdout.split())
    assert made > 600
    assert passed == 0
    assert most < 200 * 1024**2


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    content = build.qcow2()

    with pytest.raises(TruncatedDisk):
        inspect_at(lambda o, n: content[:1000][o : o + n], len(content), declared=None, most_virtual_bytes=1 << 40)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_is_inspected_by_object_and_by_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(build.qcow2())

    with path.open("rb") as file:
        by_object = inspect(file, declared="qcow2", most_virtual_bytes=MOST_VIRTUAL_BYTES)
        by_descriptor = inspect(file.fileno(), declared="qcow2", most_virtual_bytes=MOST_VIRTUAL_BYTES)

    assert by_object == by_descriptor == inspected(build.qcow2())


def test_what_is_not_a_regular_file_is_refused(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(UnsafeDisk):
            inspect(descriptor, declared=None, most_virtual_bytes=MOST_VIRTUAL_BYTES)
    finally:
        os.close(descriptor)
