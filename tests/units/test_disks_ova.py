"""Finding the disks in an archive: what is there lies where it is said to, and what could be read in two ways is
refused."""

import io
import tarfile
from collections.abc import Callable, Mapping
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.disks import ova as reader
from calotype.disks.formats import tar
from calotype.disks.formats.reader import DiskFile
from calotype.disks.formats.tar import Member
from calotype.disks.ova import Ova, check_digest, is_ova
from calotype.errors import DiskRefused, OvaRefused, TooManyDataImages, TruncatedDisk
from tests.disks import ova as build
from tests.disks.ova import header, member, pax

DISK: Final = build.disk(b"bytes of a disk " * 100, 1600)
OVF: Final = build.ovf([DISK])
PAIR: Final = (member("web.ovf", OVF), member(DISK.name, DISK.data))


def reading(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def members(data: bytes, most: int = 100) -> tuple[Member, ...]:
    return tar.members(DiskFile(reading(data), len(data), most_virtual_bytes=0), most=most)


def read(data: bytes, most_data_disks: int = 3) -> Ova:
    return reader.read(reading(data), len(data), most_data_disks=most_data_disks)


def in_window(data: bytes, made: Ova, number: int = 0) -> bytes:
    window = made.disks[number].window
    return data[window.offset : window.offset + window.length]


# --- archives ---------------------------------------------------------------------------------------------------------

FORMATS: Final = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def by_tarfile(files: Mapping[str, bytes], format_: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format_) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000.5 if format_ == tarfile.PAX_FORMAT else 0
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


NAME: Final = st.text(st.characters(codec="ascii", exclude_characters="/\\:", categories=["L", "N", "P"]), min_size=1)


@pytest.mark.parametrize("format_", FORMATS)
@given(files=st.dictionaries(NAME.filter(lambda name: name not in (".", "..")), st.binary(max_size=2000), max_size=5))
def test_the_members_of_every_kind_of_archive_lie_where_they_are_said_to(format_: str, files: dict[str, bytes]) -> None:
    data = by_tarfile(files, FORMATS[format_])

    assert {one.name: data[one.offset : one.offset + one.size] for one in members(data)} == files


@pytest.mark.parametrize("format_", ["gnu", "pax"])
def test_a_name_of_255_bytes_is_read_and_a_longer_one_is_refused(format_: str) -> None:
    [one] = members(by_tarfile({"é" * 127 + "x": b"data"}, FORMATS[format_]))
    assert one.name == "é" * 127 + "x"

    with pytest.raises(OvaRefused, match="255 bytes"):
        members(by_tarfile({"é" * 128: b"data"}, FORMATS[format_]))


def test_sizes_in_base_256_and_in_pax_headers_are_read() -> None:
    data = build.tar(
        header("a", 0, size_field=build.base_256(600)) + build.padded(b"a" * 600),
        pax({"path": "b" * 120, "size": "700", "comment": "nothing"}) + member("b", b"b" * 700),
    )

    assert [(one.name, one.offset, one.size) for one in members(data)] == [("a", 512, 600), ("b" * 120, 3072, 700)]


class Large:
    """An archive whose first member is larger than 8 GiB, without its bytes."""

    SIZE: Final = 9 * 2**30

    def __init__(self, first: bytes) -> None:
        self.first = first
        self.size = len(first) + self.SIZE + 1024

    def read_at(self, offset: int, length: int) -> bytes:
        return (self.first[offset : offset + length]).ljust(length, b"\0")


@pytest.mark.parametrize(
    "first",
    [
        pax({"size": str(Large.SIZE)}) + header("large", 0),
        pax({"size": str(Large.SIZE)}) + header("large", 8**11 - 1),
        pax({"size": str(Large.SIZE)}) + header("large", 0, size_field=build.base_256(Large.SIZE)),
        header("large", 0, size_field=build.base_256(Large.SIZE)),
    ],
    ids=["zero beside pax", "the largest beside pax", "both", "base 256"],
)
def test_a_member_may_be_larger_than_a_ustar_header_can_say(first: bytes) -> None:
    large = Large(first)

    [one] = tar.members(DiskFile(large.read_at, large.size, most_virtual_bytes=0), most=1)

    assert (one.name, one.offset, one.size) == ("large", len(first), Large.SIZE)


BAD_ARCHIVES: Final[Mapping[str, tuple[bytes, str]]] = {
    "a hard link": (member("a", kind=b"1"), "hard link"),
    "a symbolic link": (member("a", kind=b"2"), "symbolic link"),
    "a character device": (member("a", kind=b"3"), "device"),
    "a block device": (member("a", kind=b"4"), "device"),
    "a folder": (member("a", kind=b"5"), "folder"),
    "a FIFO": (member("a", kind=b"6"), "FIFO"),
    "a sparse file of GNU": (member("a", b"data", kind=b"S"), "sparse"),
    "a sparse file of pax": (pax({"GNU.sparse.major": "1", "GNU.sparse.name": "x"}) + member("a", b"data"), "sparse"),
    "an unknown kind": (member("a", kind=b"Z"), "not known"),
    "no name": (member(""), "1 to 255"),
    "a way up": (member("../a"), "without folders"),
    "an absolute name": (member("/etc/passwd"), "without folders"),
    "a folder in the name": (member("a/b"), "without folders"),
    "a folder in the prefix": (member("b", prefix=b"a"), "without folders"),
    "the folder itself": (member("."), "without folders"),
    "the folder above": (member(".."), "without folders"),
    "a backslash": (member("a\\b"), "without folders"),
    "a control character": (member("a\nb"), "without folders"),
    "a drive": (member("c:x"), "without folders"),
    "a name that is no UTF-8": (member(b"\xff\xfe"), "not UTF-8"),
    "a way up in a pax name": (pax({"path": "../a"}) + member("a"), "without folders"),
    "a NUL in a pax name": (pax({"path": "a\0b"}) + member("a"), "without folders"),
    "a way up in a GNU name": (build.gnu_name(b"../a") + member("a"), "without folders"),
    "two names at once": (build.gnu_name(b"a") + pax({"path": "b"}) + member("c"), "two names"),
    "one name twice": (member("a") + member("a"), "two files of the name 'a'"),
    "one name twice, once in pax": (member("a") + pax({"path": "a"}) + member("b"), "two files"),
    "another size in pax": (pax({"size": "700"}) + member("a", bytes(512)), "two sizes"),
    "a size of zero in pax": (pax({"size": "0"}) + member("a", bytes(512)), "two sizes"),
    "a size of zero beside pax": (pax({"size": "512"}) + header("a", 0) + bytes(512), "two sizes"),
    "two sizes in pax": (pax({"size": "5"}) + pax({"size": "5"}) + member("a", b"12345"), "twice"),
    "a size in pax that is no number": (pax({"size": "-5"}) + member("a"), "no number"),
    "a size in pax of a thousand digits": (pax({"size": "0" * 5000 + "5"}) + member("a", b"12345"), "no number"),
    "a size for all": (pax({"size": "5"}, b"g") + member("a", b"12345"), "all its files"),
    "a name for all": (pax({"path": "b"}, b"g") + member("a"), "all its files"),
    "a damaged pax header": (pax(b"12 path=a") + member("a"), "damaged"),
    "a pax record that goes on": (pax(b"99 path=a\n") + member("a"), "damaged"),
    "a pax record of no length": (pax(b"0 path=a\n") + member("a"), "damaged"),
    "a pax header above the limit": (pax({"comment": "x" * 70_000}) + member("a"), "above 65536 bytes"),
    "headers without end": (pax({"comment": "x"}) * 4 + member("a"), "more headers"),
    "a header that no file follows": (pax({"path": "a"}), "no file follows"),
    "a size that is no number": (header("a", 0, size_field=b"0000000009x\0"), "no number"),
    "no size": (header("a", 0, size_field=bytes(12)), "no number"),
    "a negative size": (header("a", 0, size_field=b"\xff" * 12), "negative"),
    "a size above all": (header("a", 0, size_field=b"\x80" + b"\x7f" * 11), "more than there can be"),
    "a wrong checksum": (header("a", 0, checksum=1), "checksum"),
    "an old archive": (member("a", magic=bytes(8)), "not a tar archive"),
    "bytes after its end": (member("a") + build.END + member("hidden") + build.END, "after its end"),
    "zeros without end": (member("a") + bytes(2 * 1024 * 1024), "goes on for more than"),
}


@pytest.mark.parametrize("name", BAD_ARCHIVES)
def test_an_archive_is_refused_that_has(name: str) -> None:
    content, reason = BAD_ARCHIVES[name]

    with pytest.raises(OvaRefused, match=reason):
        members(build.tar(content))


def test_an_archive_of_more_members_than_allowed_is_refused() -> None:
    data = build.tar(*(member(f"n{at}") for at in range(101)))

    assert len(members(data, most=101)) == 101
    with pytest.raises(OvaRefused, match="more than 100 files"):
        members(data)


@pytest.mark.parametrize("keep", [100, 512, 600, 1023, 1024, 1535, 1536])
def test_an_archive_that_is_cut_is_refused(keep: int) -> None:
    data = build.tar(member("a", bytes(200) + b"x" * 100), member("b"))[:keep]

    with pytest.raises(TruncatedDisk):
        members(data)


def test_a_member_that_ends_past_the_archive_is_refused() -> None:
    with pytest.raises(TruncatedDisk, match="'a'"):
        members(build.tar(header("a", 10_000)))


@given(data=st.data())
def test_a_spoilt_archive_is_read_or_refused_and_never_crashes(data: st.DataObject) -> None:
    whole = bytearray(build.tar(build.gnu_name(b"a"), pax({"size": "700"}), member("b", bytes(700)), member("c")))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
        whole[at] = data.draw(st.integers(0, 255))

    try:
        found = members(bytes(whole))
    except DiskRefused:
        return
    assert all(one.offset + one.size <= len(whole) for one in found)


# --- OVAs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["", "SHA1", "SHA256", "SHA512"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_the_disk_of_an_ova_is_found_and_its_bytes_hold_against_the_manifest(algorithm: str, signed: bool) -> None:
    data = build.ova([DISK], algorithm=algorithm, signed=signed)
    told: list[int] = []

    made = read(data)
    check_digest(reading(data), made.disks[0], each=told.append)

    assert made.os_version == "Other Linux(64 bit)"
    assert in_window(data, made) == DISK.data
    assert made.disks[0].capacity == 1600
    assert told == ([len(DISK.data)] if algorithm else [])


def test_the_manifest_may_come_last() -> None:
    text = build.manifest({"web.ovf": OVF, DISK.name: DISK.data})

    made = read(build.tar(*PAIR, member("web.mf", text)))

    assert made.disks[0].digest is not None


def test_disks_come_in_the_order_of_the_machine_not_of_the_archive() -> None:
    disks = [build.disk(bytes([at]) * 512, 512, at) for at in range(4)]
    for one, place in zip(disks, (2, 0, 3, 1), strict=True):
        one.place = place
    data = build.ova(disks)

    made = read(data)

    assert [in_window(data, made, at)[0] for at in range(4)] == [1, 3, 0, 2]


def test_more_disks_than_allowed_are_refused() -> None:
    data = build.ova([build.disk(bytes([at]) * 512, 512, at) for at in range(5)])

    assert len(read(data, most_data_disks=4).disks) == 5
    with pytest.raises(TooManyDataImages, match="5 disks"):
        read(data)


def with_manifest(text: bytes) -> bytes:
    return build.tar(PAIR[0], member("web.mf", text), PAIR[1])


GOOD_LINES: Final = build.manifest({"web.ovf": OVF, DISK.name: DISK.data})
BAD_OVAS: Final[Mapping[str, tuple[bytes, str]]] = {
    "no files": (build.tar(), "first file is not an .ovf"),
    "its OVF in the second place": (build.tar(*reversed(PAIR)), "first file is not an .ovf"),
    "two OVFs": (build.tar(*PAIR, member("other.ovf", OVF)), "more than one .ovf"),
    "two OVFs of different case": (build.tar(*PAIR, member("WEB.OVF", OVF)), "more than one .ovf"),
    "two manifests": (build.tar(*PAIR, member("a.mf"), member("b.mf")), "more than one manifest"),
    "an empty OVF": (build.tar(member("web.ovf"), PAIR[1]), "the OVF has 0 bytes"),
    "an OVF above the limit": (build.tar(member("web.ovf", OVF + b" " * 2**20)), "at most|1 to 1048576"),
    "a manifest above the limit": (with_manifest(b"\n" * 70_000), "at most 65536"),
    "a manifest that is no UTF-8": (with_manifest(b"\xff\xfe"), "not UTF-8"),
    "a manifest that is none": (with_manifest(b"hello"), "no digest of SHA1, SHA256, SHA512"),
    "digests of MD5": (with_manifest(b"MD5(web.ovf)= " + b"a" * 32), "no digest of SHA1, SHA256, SHA512"),
    "two digests of a file": (with_manifest(GOOD_LINES + GOOD_LINES), "two digests"),
    "a digest of what is not there": (with_manifest(GOOD_LINES + b"SHA1(x)= 00"), "'x', which is not in the archive"),
    "a digest of a disk missing": (with_manifest(GOOD_LINES.splitlines()[0]), "no digest of 'disk0.vmdk'"),
    "a changed OVF": (with_manifest(build.manifest({"web.ovf": b"", DISK.name: DISK.data})), "the OVF does not have"),
    "no disk in it": (build.tar(PAIR[0]), "'disk0.vmdk', which is not in the archive"),
    "a disk of another size": (build.tar(PAIR[0], member(DISK.name, b"short")), "has 5 bytes; the OVF says 1600"),
}


@pytest.mark.parametrize("name", BAD_OVAS)
def test_an_ova_is_refused_that_has(name: str) -> None:
    data, reason = BAD_OVAS[name]

    with pytest.raises(OvaRefused, match=reason):
        read(data)


def test_a_disk_that_was_changed_does_not_hold_against_the_manifest() -> None:
    data = build.ova([DISK])
    made = read(data)
    spoilt = bytearray(data)
    spoilt[made.disks[0].window.offset + 7] ^= 1

    with pytest.raises(OvaRefused, match="does not have the sha256"):
        check_digest(reading(bytes(spoilt)), made.disks[0], each=lambda _: None)


def test_a_file_is_an_ova_by_its_first_bytes() -> None:
    cases = {
        "an OVA": build.ova([DISK]),
        "with a pax header": build.tar(pax({"path": "x" * 100 + ".ovf"}) + member("x", OVF)),
        "the start of one that is cut": build.ova([DISK])[: 512 + len(OVF)],
        "another archive": build.tar(member("a.txt", b"text")),
        "an empty archive": build.tar(),
        "a raw disk": bytes(2048),
        "an empty file": b"",
        "a damaged one": build.tar(header("web.ovf", 5, checksum=3)),
    }

    found = {name for name, data in cases.items() if is_ova(reading(data), len(data))}

    assert found == {"an OVA", "with a pax header", "the start of one that is cut"}
