"""What fuzzing starts from: a sound file of everything, and the hostile ones of the tests."""

import bz2
import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.disks import build, corpus, guest, ova

from calotype.disks.model import DiskFormat
from calotype.servers import qcow2_header
from fuzz.sparse import encoded, encoded_sectors
from fuzz.targets import DECLARED, MOST_GUEST_BYTES, REPAIR, TARGETS

SOUND: Final[Mapping[str, Callable[[], tuple[bytes, ...]]]] = {
    "qcow2": lambda: (
        build.qcow2(),
        build.qcow2(version=2),
        build.qcow2(cluster_bits=9, size=32 * build.KIB),
        with_snapshot(),
    ),
    "vmdk": lambda: (build.vmdk(), build.vmdk_stream()),
    "vhd": lambda: (build.vhd(), build.vhd_fixed()),
    "vhdx": lambda: (build.vhdx(),),
    "vdi": lambda: (build.vdi(),),
    "iso": lambda: (build.iso(), build.iso(boot_sector=True)),
    "qed": lambda: (build.qed(),),
    "qcow": lambda: (build.qcow1(), build.qcow1(compressed=True)),
    "raw": lambda: (build.raw(), build.gpt(), build.with_boot_sector(build.raw())),
}


def small_clusters() -> bytes:
    return build.qcow2(cluster_bits=9, size=32 * build.KIB)


def with_snapshot() -> bytes:
    cluster = 64 * 1024
    entry = struct.pack(">QIHHIIQII", 3 * cluster, 1, 1, 5, 0, 0, 0, 0, 0) + b"1first"
    return build.qcow2(snapshots=1, snapshots_offset=6 * cluster) + entry


def seeds_of(target: str) -> Iterator[bytes]:
    """Inputs of a target that are small enough for it."""
    for seed in SEEDS[target]():
        if len(seed) <= TARGETS[target].most_bytes:
            yield seed


@cache
def _hostile() -> tuple[tuple[str, bytes], ...]:
    """The format that each is declared as, and the file."""
    return tuple((case.format, encoded(case.content, without=build.CONTENT)) for case in corpus.hostile())


def _file(content: bytes, first: int = REPAIR) -> bytes:
    return bytes([first]) + encoded(content, without=build.CONTENT)


def _gate() -> Iterator[bytes]:
    for format_, made in SOUND.items():
        for content in made():
            for declared in (None, format_, "zvhd2"):
                yield _file(content, REPAIR | DECLARED.index(declared))
                yield _file(content, REPAIR | 0x20 | DECLARED.index(declared))
            yield _file(bytes(512) + content, 0x40)
    for format_, file in _hostile():
        yield bytes([DECLARED.index(format_)]) + file
    for _, content in (*corpus.harmless(), *corpus.packed()):
        yield _file(content, 0)


def _format(format_: str) -> Callable[[], Iterator[bytes]]:
    def make() -> Iterator[bytes]:
        for content in SOUND[format_]():
            yield _file(content)
        for declared, file in _hostile():
            if declared == format_:
                yield b"\0" + file

    return make


def _descriptors() -> Iterator[bytes]:
    yield build.vmdk_descriptor()
    yield build.vmdk_descriptor("streamOptimized")
    yield build.vmdk_descriptor("monolithicFlat", 'RW 8192 FLAT "/etc/passwd" 0')
    yield build.vmdk_descriptor(extra='parentFileNameHint="base.vmdk"\n')


def _machine(**fields: object) -> bytes:
    return ova.ova([ova.disk(b"a disk" * 100, 4096), ova.disk(b"another", 8192, 1)], **fields)  # type: ignore[arg-type] # passed on


def _archives() -> Iterator[bytes]:
    yield _file(_machine())
    yield _file(_machine(algorithm="SHA1", signed=True))
    yield _file(_machine(algorithm=""))
    name = "long" * 30 + ".ovf"
    long = ova.pax({"path": name, "size": "600"})
    yield _file(ova.tar(long, ova.member(name[:99], b"x" * 600), ova.gnu_name(b"n" * 120), ova.member("n", b"y")))
    yield _file(ova.tar(ova.member("../up", b"x"), ova.member("a", kind=b"2")))


def _descriptions() -> Iterator[bytes]:
    disks = [ova.disk(b"a disk" * 100, 4096), ova.disk(b"another", 4, 1, unit="byte * 2^30", compression="gzip")]
    yield ova.ovf(disks)
    yield ova.ovf(disks, envelope=ova.ENVELOPE_2)
    yield b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'
    yield b"<a x='1'><b>t</b>" + b"<c>" * 40 + b"</c>" * 40 + b"</a>"


def _packed() -> Iterator[bytes]:
    content = b"what is inside, " * 500
    packers: tuple[Callable[[bytes], bytes], ...] = (gzip.compress, lzma.compress, bz2.compress)
    for number, pack in enumerate(packers):
        yield bytes([number]) + pack(content)
        yield bytes([number]) + pack(content) + bytes(100) + pack(b"more")
    yield b"\x00" + gzip.compress(bytes(8 * 2**20))


def _open_zvhd() -> Iterator[bytes]:
    yield zlib.compress(build.vhd())
    label = struct.pack("<II", 0x184D2A50, 31) + b"calotype open zvhd2, version 1\n"
    table = struct.pack("<IIII", 100, 2**20, len(label), 0)
    yield (
        b"\x28\xb5\x2f\xfd".ljust(100, b"x")
        + label
        + struct.pack("<II", 0x184D2A5E, len(table) + 9)
        + table
        + struct.pack("<IBI", 2, 0, 0x8F92EAB1)
    )


def _guests() -> Iterator[bytes]:
    """Disks of the tools that are there; of each what a search reads."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        root = guest.linux_root(folder / "root")
        windows = guest.windows_root(folder / "windows", libraries=20)
        makers: list[Callable[[Path], Path]] = [
            lambda path: guest.ext(path, root, mib=4),
            lambda path: guest.xfs(path, root),
            lambda path: guest.btrfs(path, root),
            lambda path: guest.ntfs(path, windows),
            lambda path: guest.ufs(path, root),
            lambda path: guest.fat(path, ["EFI/BOOT/BOOTX64.EFI"], mib=4, bits=12),
            lambda path: guest.lvm(path, guest.ext(path.with_suffix(".ext"), root, "ext2", mib=4)),
            lambda path: guest.gpt(path, [(guest.LINUX_DATA, guest.ext(path.with_suffix(".ext"), root, mib=4))]),
        ]
        for number, make in enumerate(makers):
            try:
                path = make(folder / f"disk{number}")
            except FileNotFoundError:
                continue  # its tool is not there
            seed = _of_disk(path)
            yield bytes([15]) + seed
            if number < 6:
                yield bytes([number]) + seed
    yield bytes([6]) + encoded(guest.hive(guest.WINDOWS_2019))


def _of_disk(path: Path) -> bytes:
    damaged = guest.Damaged(path)
    size = min(damaged.size, MOST_GUEST_BYTES)
    sectors = {}
    with path.open("rb") as file:
        for page in damaged.used:
            file.seek(page * guest.PAGE)
            for number in range(guest.PAGE // 512):
                sector = file.read(512)
                if sector.strip(b"\0"):
                    sectors[page * guest.PAGE // 512 + number] = sector.ljust(512, b"\0")
    return encoded_sectors(sectors, size)


def _volumes() -> Iterator[bytes]:
    yield b"""g { id = "a" seqno = 1 extent_size = 8192 physical_volumes { pv0 { id = "b" pe_start = 2048 pe_count = 9 }
} logical_volumes { root { segment_count = 1 segment1 { start_extent = 0 extent_count = 2 type = "striped"
stripe_count = 1 stripes = [ "pv0", 0 ] } } } } # said by a comment
"""


DOMAIN: Final = b"""<domain type="kvm"><name>web</name><uuid>9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111</uuid>
<metadata><c:server xmlns:c="https://calotype.dev/xmlns/1" project="p" image="i" os_version="o"/></metadata>
<os firmware="efi"><type arch="x86_64">hvm</type><loader type="pflash"/></os><devices>
<disk type="file" device="disk"><driver name="qemu" type="qcow2"/><source file="/a"><encryption><secret uuid="u"/>
</encryption></source><backingStore type="file"><format type="raw"/><source file="/b"/><backingStore/></backingStore>
<target dev="vda"/><boot order="1"/></disk><disk type="block" device="lun"><source dev="/dev/x"/><target dev="sda"/>
<shareable/><mirror/></disk><channel><target name="org.qemu.guest_agent.0" state="connected"/></channel></devices>
</domain>"""
BACKUP: Final = b'<domainbackup><disks><disk name="vda"><target file="/a"/></disk></disks></domainbackup>'


def _domains() -> Iterator[bytes]:
    yield DOMAIN
    yield BACKUP


def _headers() -> Iterator[bytes]:
    yield qcow2_header.empty(2**30)[:4096]
    extensions = ((0xE2792ACA, b"qcow2"), (0x6803F857, b"names" * 9))
    yield build.qcow2(backing=b"/base", extensions=extensions)[:2048]
    yield build.qcow2(version=2, backing=b"/base", extensions=extensions)[:2048]


def _served() -> Iterator[bytes]:
    """What servers say; a first byte chooses what is asked: less than 0x80, to read."""

    def reply(option: int, kind: int, data: bytes = b"") -> bytes:
        return struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data

    def chunk(kind: int, data: bytes = b"", flags: int = 1) -> bytes:
        return struct.pack(">IHHQI", 0x668E33EF, flags, kind, 1, len(data)) + data

    name = b"base:allocation"
    hello = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3) + reply(8, 1) + reply(10, 4, b"\0\0\0\x09" + name) + reply(10, 1)
    hello += reply(7, 3, struct.pack(">HQH", 0, 4096, 0)) + reply(7, 1)
    yield b"\x00" + hello + chunk(1, bytes(8) + b"x" * 4096)
    yield b"\x00" + hello + chunk(1, bytes(8) + b"x" * 1024, 0) + chunk(2, struct.pack(">QI", 1024, 3072), 0) + chunk(0)
    yield b"\x80" + hello + chunk(5, struct.pack(">IIIII", 9, 1024, 0, 3072, 3))
    yield b"\x80" + hello + chunk(0x8001, b"\0\0\0\x05\0\0")


def _served_guests() -> Iterator[bytes]:
    made = io.BytesIO()
    made.write(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3) + struct.pack(">QH", 8192, 0))
    for cookie in range(1, 4):
        made.write(struct.pack(">IIQ", 0x67446698, 0, cookie) + bytes(8192))
    yield made.getvalue()


SEEDS: Final[Mapping[str, Callable[[], Iterator[bytes]]]] = {
    "gate": _gate,
    **{str(format_): _format(str(format_)) for format_ in DiskFormat if format_ is not DiskFormat.RAW},
    "partitions": lambda: (_file(content) for content in SOUND["raw"]()),
    "vmdk_descriptor": _descriptors,
    "tar": _archives,
    "ova": _archives,
    "ovf": _descriptions,
    "xml": _descriptions,
    "unpack": _packed,
    "zvhd": _open_zvhd,
    "guest": _guests,
    "guest_lvm": _volumes,
    "guest_nbd": _served_guests,
    "domain_xml": _domains,
    "qcow2_header": _headers,
    "nbd": _served,
}
