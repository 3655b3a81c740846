"""Disks with systems on them, made without root: file systems by their own tools, tables and the registry here."""

import os
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID

from calotype.disks.guest.reader.blocks import MOST_BYTES, MOST_READS, Disk
from calotype.disks.guest.reader.search import Found, search

MIB: Final = 1024**2
SECTOR: Final = 512

EFI_SYSTEM: Final = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_BOOT: Final = "21686148-6449-6e6f-744e-656564454649"
LINUX_DATA: Final = "0fc63daf-8483-4772-8e79-3d69d8477de4"

UBUNTU: Final = """\
PRETTY_NAME="Ubuntu 22.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="22.04"
VERSION="22.04.3 LTS (Jammy Jellyfish)"
ID=ubuntu
ID_LIKE=debian
"""

PAGE: Final = 4096
SBIN: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def elf(machine: int = 62, *, wide: bool = True, system: int = 0) -> bytes:
    """The start of a program."""
    return b"\x7fELF" + bytes([2 if wide else 1, 1, 1, system]) + bytes(8) + struct.pack("<HHI", 2, machine, 1)


def linux_root(folder: Path, os_release: str = UBUNTU, *, programs: int = 0) -> Path:
    """A root as distributions lay it out: `/bin` is a link, and `os-release` too; with so many programs in `/bin`."""
    for name in ("usr/lib", "usr/bin", "etc"):
        (folder / name).mkdir(parents=True)
    (folder / "bin").symlink_to("usr/bin")
    (folder / "etc/os-release").symlink_to("../usr/lib/os-release")
    (folder / "usr/lib/os-release").write_text(os_release)
    (folder / "usr/bin/dash").write_bytes(elf().ljust(20_000, b"\x90"))
    (folder / "usr/bin/sh").symlink_to("dash")
    for number in range(programs):
        (folder / f"usr/bin/a-program-with-a-rather-long-name-{number}").write_bytes(b"#!")
    return folder


def run(*command: str | Path) -> None:
    done = subprocess.run(command, check=False, capture_output=True, env={**os.environ, "PATH": SBIN})
    assert done.returncode == 0, (command, done.stdout, done.stderr)


def empty(path: Path, mib: int) -> Path:
    with path.open("wb") as file:
        file.truncate(mib * MIB)
    return path


def ext(path: Path, root: Path, kind: str = "ext4", *options: str, mib: int = 32) -> Path:
    run(f"mkfs.{kind}", "-q", "-F", *options, "-d", root, empty(path, mib))
    return path


def xfs(path: Path, root: Path, *options: str) -> Path:
    prototype = path.with_suffix(".proto")
    prototype.write_text("\n".join(["/dev/null", "0 0", "d--755 0 0", *_listed(root), "$", ""]))
    run("mkfs.xfs", "-q", *options, "-p", prototype, empty(path, 310))
    return path


def _listed(folder: Path) -> list[str]:
    lines = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            lines.append(f"{path.name} l--777 0 0 {path.readlink()}")
        elif path.is_dir():
            lines += [f"{path.name} d--755 0 0", *_listed(path), "$"]
        else:
            lines.append(f"{path.name} ---755 0 0 {path}")
    return lines


def btrfs(path: Path, root: Path) -> Path:
    run("mkfs.btrfs", "-q", "--rootdir", root, empty(path, 120))
    return path


def ufs(path: Path, root: Path) -> Path:
    run("makefs", "-t", "ffs", "-o", "version=2", "-s", "24m", path, root)
    return path


def ntfs(path: Path, root: Path) -> Path:
    """Written by wimlib, which needs no mount."""
    packed = path.with_suffix(".wim")
    run("mkntfs", "-q", "-F", "-f", empty(path, 24))
    run("wimcapture", root, packed, "--compress=none")
    run("wimapply", packed, "1", path)
    return path


def fat(path: Path, files: Sequence[str], *, mib: int = 40, bits: int = 32) -> Path:
    """With these files and their folders, all of short names."""
    options = ["-F"] if bits == 32 else []
    run("mformat", "-i", empty(path, mib), "-T", str(mib * MIB // SECTOR), "-h", "64", "-s", "32", *options, "::")
    made: set[str] = set()
    content = path.with_suffix(".content")
    content.write_bytes(b"MZ")
    for name in files:
        folders = name.split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            folder = "/".join(folders[:depth])
            if folder not in made:
                run("mmd", "-i", path, f"::{folder}")
                made.add(folder)
        run("mcopy", "-i", path, content, f"::{name}")
    return path


def gpt(path: Path, parts: Sequence[tuple[str, Path | None]], *, boot_code: bytes = b"", sector: int = SECTOR) -> Path:
    """A disk of partitions: the type of each, and the file whose bytes it has (None: 1 MiB of zeros)."""
    entries, at = b"", MIB // sector
    places = []
    for number, (kind, content) in enumerate(parts):
        size = content.stat().st_size if content else MIB
        sectors = -(-size // sector)
        unique = UUID(int=number + 1)
        entries += UUID(kind).bytes_le + unique.bytes_le + struct.pack("<QQQ", at, at + sectors - 1, 0) + bytes(72)
        places.append(at * sector)
        at += -(-sectors // 2048) * 2048
    entries = entries.ljust(128 * 128, b"\0")
    last = at + 64
    header = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, last, 34, last - 34,
                         UUID(int=99).bytes_le, 2, 128, 128, zlib.crc32(entries))  # fmt: skip
    header = header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]
    protective = struct.pack("<B3xB3xII", 0, 0xEE, 1, last)
    with path.open("wb") as disk:
        disk.write(boot_code.ljust(446, b"\0") + protective.ljust(64, b"\0") + b"\x55\xaa")
        disk.seek(sector)
        disk.write(header)
        disk.seek(2 * sector)
        disk.write(entries)
        for place, (_, content) in zip(places, parts, strict=True):
            if content is not None:
                _copied(disk.fileno(), place, content)
        disk.truncate((last + 1) * sector)
    return path


def mbr(path: Path, parts: Sequence[tuple[int, Path]], *, logical: Sequence[tuple[int, Path]] = ()) -> Path:
    """A disk of up to three partitions, and of logical ones in a fourth that holds them; with something to boot."""
    at = 2048
    table: list[bytes] = []
    copies: list[tuple[int, Path]] = []
    for kind, content in parts:
        sectors = -(-content.stat().st_size // SECTOR)
        table.append(struct.pack("<B3xB3xII", 0x80 if not table else 0, kind, at, sectors))
        copies.append((at, content))
        at += -(-sectors // 2048) * 2048
    chain: list[tuple[int, bytes]] = []
    extended = at
    for number, (kind, content) in enumerate(logical):
        sectors = -(-content.stat().st_size // SECTOR)
        copies.append((at + 2048, content))
        following = at + 2048 + -(-sectors // 2048) * 2048
        entries = struct.pack("<B3xB3xII", 0, kind, 2048, sectors)
        if number + 1 < len(logical):
            entries += struct.pack("<B3xB3xII", 0, 5, following - extended, sectors)
        chain.append((at, bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa"))
        at = following
    if logical:
        table.append(struct.pack("<B3xB3xII", 0, 5, extended, at - extended))
    with path.open("wb") as disk:
        disk.write(b"\xeb\x63\x90".ljust(446, b"\0") + b"".join(table).ljust(64, b"\0") + b"\x55\xaa")
        for place, sector in chain:
            disk.seek(place * SECTOR)
            disk.write(sector)
        for place, content in copies:
            _copied(disk.fileno(), place * SECTOR, content)
        disk.truncate((at + 1) * SECTOR)
    return path


def _copied(disk: int, place: int, content: Path) -> None:
    """Without what is zeros anyway."""
    with content.open("rb") as file:
        at = 0
        while piece := file.read(64 * 1024):
            if piece.strip(b"\0"):
                os.pwrite(disk, piece, place + at)
            at += len(piece)


def lvm(path: Path, content: Path, *, pieces: int = 1, ring: bool = False) -> Path:
    """A physical volume whose one logical volume has these bytes, in extents of 1 MiB, the pieces out of order.

    `ring`: the text goes over the end of its area to its start.
    """
    extents = -(-content.stat().st_size // MIB)
    each = -(-extents // pieces)
    first, segments, places = 1, "", []
    for number in range(pieces):
        count = min(each, extents - number * each)
        start = extents - number * each - count
        places.append((start, number * each, count))
        segments += f"""
            segment{number + 1} {{
                start_extent = {number * each}
                extent_count = {count}
                type = "striped"
                stripe_count = 1	# linear
                stripes = [
                    "pv0", {start}
                ]
            }}"""
    text = (
        f"""group {{
    id = "aaaaaa-bbbb-cccc-dddd-eeee-ffff-gggggg"
    status = ["RESIZEABLE", "READ", "WRITE"]
    extent_size = 2048
    physical_volumes {{
        pv0 {{
            id = "012345-6789-abcd-efgh-ijkl-mnop-qrstuv"
            device = "/dev/sda2"	# Hint only
            pe_start = {first * 2048}
            pe_count = {extents}
        }}
    }}
    logical_volumes {{
        root {{
            status = ["READ", "WRITE", "VISIBLE"]
            segment_count = {pieces}{segments}
        }}
    }}
}}
# Generated by LVM2 version 2.03.16(2) (2022-05-18)
contents = "Text Format Volume Group"
version = 1
""".encode()
        + b"\0"
    )
    area, size = 4096, MIB - 4096
    offset = size - len(text) // 2 if ring else 512
    pv_header = b"0123456789abcdefghijklmnopqrstuv" + struct.pack("<Q", (first + extents) * MIB)
    pv_header += struct.pack("<QQQQ", first * MIB, 0, 0, 0) + struct.pack("<QQQQ", area, size, 0, 0)
    label = struct.pack("<8sQII8s", b"LABELONE", 1, 0, 32, b"LVM2 001") + pv_header
    header = struct.pack("<I16sIQQ", 0, b" LVM2 x[5A%r0N*>", 1, area, size)
    header += struct.pack("<QQII", offset, len(text), zlib.crc32(text), 0)
    data = content.read_bytes().ljust(extents * MIB, b"\0")
    with path.open("wb") as file:
        file.truncate((first + extents) * MIB)
        os.pwrite(file.fileno(), label, SECTOR)
        os.pwrite(file.fileno(), header, area)
        os.pwrite(file.fileno(), text[: size - offset], area + offset)
        os.pwrite(file.fileno(), text[size - offset :], area + 512)
        for start, number, count in places:
            os.pwrite(file.fileno(), data[number * MIB : (number + count) * MIB], (first + start) * MIB)
    return path


WINDOWS_2019: Final[Mapping[str, str | int]] = {
    "ProductName": "Windows Server 2019 Standard",
    "EditionID": "ServerStandard",
    "CurrentVersion": "6.3",
    "CurrentMajorVersionNumber": 10,
    "CurrentMinorVersionNumber": 0,
    "CurrentBuild": "17763",
    "CurrentBuildNumber": "17763",
    "BuildLabEx": "17763.1.amd64fre.rs5_release.180914-1434",
}


class _Cells:
    """The cells of a hive, each after the one before."""

    def __init__(self) -> None:
        self.data = bytearray(32)  # after the header of the bin

    def add(self, cell: bytes) -> int:
        at = len(self.data)
        size = -(-(len(cell) + 4) // 8) * 8
        self.data += struct.pack("<i", -size) + cell.ljust(size - 4, b"\0")
        return at


def hive(values: Mapping[str, str | int], path: str = "Microsoft\\Windows NT\\CurrentVersion") -> bytes:
    """A registry file with these values at a key; each key on the way has others beside the one."""
    cells = _Cells()
    offsets = b"".join(struct.pack("<I", _value(cells, name, value)) for name, value in values.items())
    here = _key(cells, path.split("\\")[-1], 0, cells.add(offsets), len(values))
    for depth, name in enumerate(reversed(["ROOT", *path.split("\\")[:-1]])):
        beside = [_key(cells, other, 0, 0xFFFFFFFF, 0) for other in ("Classes", "Ödland")]
        places = sorted([*beside, here])
        if depth == 0:  # a list of lists
            first, second = (_list(cells, b"lh", part) for part in (places[:1], places[1:]))
            index = cells.add(b"ri" + struct.pack("<HII", 2, first, second))
        else:
            index = _list(cells, (b"li", b"lf")[depth % 2], places)
        here = _key(cells, name, index, 0xFFFFFFFF, 0, below=len(places))
    size = -(-len(cells.data) // 4096) * 4096
    free = size - len(cells.data)
    data = bytes(cells.data) + (struct.pack("<i", free).ljust(free, b"\0") if free else b"")
    data = b"hbin" + struct.pack("<II", 0, size) + data[12:]
    header = struct.pack("<4sIIQIIIIII", b"regf", 1, 1, 0, 1, 5, 0, 1, here, size) + struct.pack("<I", 1)
    header = header.ljust(508, b"\0")
    checksum = 0
    for (word,) in struct.iter_unpack("<I", header):
        checksum ^= word
    return (header + struct.pack("<I", checksum)).ljust(4096, b"\0") + data


def _value(cells: _Cells, name: str, value: str | int) -> int:
    if isinstance(value, int):
        size, place, kind = 4 | 0x80000000, value, 4
    else:
        data = (value + "\0").encode("utf-16-le")
        size, place, kind = len(data), cells.add(data), 1
    encoded = name.encode("latin-1")
    return cells.add(struct.pack("<2sHIIIHH", b"vk", len(encoded), size, place, kind, 1, 0) + encoded)


def _list(cells: _Cells, kind: bytes, places: Sequence[int]) -> int:
    form = "<I" if kind == b"li" else "<I4x"
    return cells.add(kind + struct.pack("<H", len(places)) + b"".join(struct.pack(form, place) for place in places))


def _key(cells: _Cells, name: str, index: int, values: int, count: int, below: int = 0) -> int:
    latin = name.isascii()
    encoded = name.encode("ascii" if latin else "utf-16-le")
    flags = (0x20 if latin else 0) | (0x0C if name == "ROOT" else 0)
    fields = struct.pack("<2sHQIIIIIIIIII", b"nk", flags, 0, 0, 0, below, 0, index if below else 0xFFFFFFFF,
                         0xFFFFFFFF, count, values, 0xFFFFFFFF, 0xFFFFFFFF)  # fmt: skip
    return cells.add((fields + bytes(20) + struct.pack("<HH", len(encoded), 0))[:76] + encoded)


def windows_root(folder: Path, values: Mapping[str, str | int] | None = WINDOWS_2019, *, libraries: int = 0) -> Path:
    system = folder / "Windows/System32"
    (system / "config").mkdir(parents=True)
    kernel = bytearray(8192)
    kernel[:2], kernel[0x108:0x10C] = b"MZ", b"PE\0\0"
    struct.pack_into("<I", kernel, 60, 0x108)
    struct.pack_into("<H", kernel, 0x10C, 0x8664)
    (system / "ntoskrnl.exe").write_bytes(kernel)
    (system / "config/SOFTWARE").write_bytes(hive(values) if values is not None else b"not a hive")
    for number in range(libraries):
        (system / f"a-library-with-a-rather-long-name-{number}.dll").write_bytes(b"MZ")
    return folder


@contextmanager
def opened(path: Path) -> Iterator[Disk]:
    with path.open("rb") as file:
        yield Disk(lambda offset, length: os.pread(file.fileno(), length, offset), path.stat().st_size)


def searched(path: Path) -> Found | None:
    with opened(path) as disk:
        return search(disk)


class Damaged:
    """The bytes of a disk in memory, without those that are zeros, to be read with some of them changed."""

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        self._pages: dict[int, bytes] = {}
        with path.open("rb") as file:
            for number in range(-(-self.size // PAGE)):
                page = file.read(PAGE)
                if page.strip(b"\0"):
                    self._pages[number] = page.ljust(PAGE, b"\0")
        self.used = self._read_pages()

    def _read_pages(self) -> list[int]:
        """The pages that a search of the undamaged disk reads: elsewhere, damage would not be seen."""
        disk = _Watched(self._read_at({}), self.size)
        search(disk)
        return sorted(disk.seen & self._pages.keys())

    def disk(self, changes: Mapping[int, int], *, size: int | None = None, most_reads: int = MOST_READS) -> Disk:
        """`changes`: what is to be at an offset. `size`: where the disk ends."""
        size = self.size if size is None else size
        return Disk(self._read_at(changes), size, most_bytes=MOST_BYTES, most_reads=most_reads)

    def _read_at(self, changes: Mapping[int, int]) -> Callable[[int, int], bytes]:
        pages = dict(self._pages)
        for offset, value in changes.items():
            page = bytearray(pages.get(offset // PAGE, bytes(PAGE)))
            page[offset % PAGE] = value
            pages[offset // PAGE] = bytes(page)

        def read_at(offset: int, length: int) -> bytes:
            first, last = offset // PAGE, (offset + length - 1) // PAGE
            whole = b"".join(pages.get(number, bytes(PAGE)) for number in range(first, last + 1))
            return whole[offset % PAGE :][:length]

        return read_at


class _Watched(Disk):
    def __init__(self, read_at: Callable[[int, int], bytes], size: int) -> None:
        super().__init__(read_at, size)
        self.seen: set[int] = set()

    def read(self, offset: int, length: int) -> bytes:
        self.seen |= set(range(offset // PAGE, (offset + max(length, 1) - 1) // PAGE + 1))
        return super().read(offset, length)
