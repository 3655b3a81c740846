"""The parsers, each as a function of bytes that returns, or raises what the parser is documented to raise.

A first byte chooses how the parser is called, where there is a choice. Whatever else is raised is a finding.
"""

import io
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct

from calotype.disks import gate, ova, ovf, unpack, zvhd
from calotype.disks.formats import partitions, qcow2, tar, vmdk_descriptor, xml
from calotype.disks.formats.reader import DiskFile
from calotype.disks.guest.reader import nbd as guest_nbd
from calotype.disks.guest.reader.blocks import Disk, Spent, Unreadable
from calotype.disks.guest.reader.hive import Hive
from calotype.disks.guest.reader.lvm import _parsed as lvm_text
from calotype.disks.guest.reader.search import PARSERS as FILE_SYSTEMS
from calotype.disks.guest.reader.search import search
from calotype.disks.guest.reader.system import system_on
from calotype.disks.model import DiskFormat, Window
from calotype.disks.unpack import Packing
from calotype.disks.writers.guest_bytes import BLOCK
from calotype.disks.writers.nbd import NbdDisk, ServerGone
from calotype.errors import CalotypeError, ConversionFailed, DiskRefused, TooManyDataImages
from calotype.servers import domain_xml, qcow2_header
from fuzz.repair import repaired
from fuzz.sparse import MOST_BYTES, ReadAt, reading, sectors_of

MOST_VIRTUAL: Final = 2**46
MOST_UNPACKED: Final = 4 * 1024 * 1024
MOST_GUEST_READS: Final = 20_000  # a whole search takes 300,000; so few end in time
MOST_GUEST_BYTES: Final = 512 * 1024 * 1024  # some file systems are never small
DECLARED: Final = (None, *gate.DECLARED, "ploop", "../../etc/passwd")
REPAIR: Final = 0x80  # of the first byte: checksums are made right


class Target(Struct, frozen=True, kw_only=True):
    run: Callable[[bytes], object]
    raises: tuple[type[Exception], ...]
    most_bytes: int = 64 * 1024  # of an input

    def __call__(self, data: bytes) -> None:
        """Raises what is a finding."""
        with suppress(*self.raises):
            self.run(data)


def file_of(data: bytes, *, most_bytes: int = MOST_BYTES) -> tuple[ReadAt, int]:
    """The file that an input stands for: its first byte says whether checksums are made right, the others are what
    `sparse` makes of them."""
    sectors, size = sectors_of(data[1:], most_bytes=most_bytes)
    return reading(repaired(sectors, size) if data[:1] >= bytes([REPAIR]) else sectors, size), size


def disk_of(data: bytes) -> DiskFile:
    read_at, size = file_of(data)
    return DiskFile(read_at, size, most_virtual_bytes=MOST_VIRTUAL)


def _gate(data: bytes) -> object:
    read_at, size = file_of(data)
    how = data[0] if data else 0
    declared = DECLARED[(how & 0x1F) % len(DECLARED)]
    if how & 0x20:
        return gate.keep_at(
            read_at, size, declared=declared, most_virtual_bytes=MOST_VIRTUAL, converted=bool(how & 0x40)
        )
    window = Window(offset=512, length=max(0, size - 512)) if how & 0x40 else None
    found = gate.inspect_at(read_at, size, declared=declared, most_virtual_bytes=MOST_VIRTUAL, window=window)
    assert found.self_contained
    assert 0 < found.virtual_size <= MOST_VIRTUAL, found
    return found


def _format(format_: DiskFormat) -> Target:
    def run(data: bytes) -> object:
        facts = gate.PARSERS[format_](disk_of(data))
        assert facts.format is format_
        assert 0 < facts.virtual_size <= MOST_VIRTUAL, facts
        return facts

    return Target(run=run, raises=(DiskRefused,))


def _ova(data: bytes) -> object:
    read_at, size = file_of(data)
    first = ova.is_ova(read_at, size)
    machine = ova.read(read_at, size, most_data_disks=3)
    assert first
    for disk in machine.disks:
        assert disk.window.offset + disk.window.length <= size
        with suppress(DiskRefused):
            ova.check_digest(read_at, disk, each=lambda _: None)
    return machine


def _tar(data: bytes) -> object:
    disk = disk_of(data)
    found = tar.members(disk, most=100)
    for member in found:
        assert member.offset + member.size <= disk.size
        assert "/" not in member.name
    return found


def _unpack(data: bytes) -> object:
    packings = (Packing.GZIP, Packing.XZ, Packing.BZIP2)
    packing = packings[(data[0] if data else 0) % len(packings)]
    total = 0
    for piece in unpack.unpacked(io.BytesIO(data[1:]), packing, most_bytes=MOST_UNPACKED, progress=lambda _: None):
        total += len(piece)
        assert total <= MOST_UNPACKED
    return total


def _zvhd(data: bytes) -> object:
    kind = zvhd.kind_in(io.BytesIO(data))
    for _ in zvhd.unpacked_zvhd(io.BytesIO(data), most_bytes=MOST_UNPACKED, progress=lambda _: None):
        pass
    return kind


def _guest(data: bytes) -> object:
    read_at, size = file_of(data, most_bytes=MOST_GUEST_BYTES)
    which = (data[0] if data else 0) & 0x0F

    def disk() -> Disk:
        return Disk(read_at, size, most_reads=MOST_GUEST_READS)

    if which < len(FILE_SYSTEMS):
        return system_on(FILE_SYSTEMS[which](disk()))
    if which == len(FILE_SYSTEMS):
        return Hive(disk().read, size).values("Microsoft\\Windows NT\\CurrentVersion")
    return search(disk())


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("utf-8", "surrogateescape" if data[:1] == b"\0" else "replace"))


def _domain(text: str) -> object:
    with suppress(domain_xml.Unreadable):
        domain_xml.backup_targets(text)
    return domain_xml.parse(text)


def _header(head: bytes) -> object:
    made = qcow2_header.detached(head)
    assert len(made) == len(head)
    if len(head) >= qcow2.HEADER_V2:
        assert not qcow2_header.names_backing(made)
    return made


def _served(said: bytes, ask: Callable[[socket.socket], Any]) -> object:
    """What the client makes of a server that says this, hears nothing, and goes away."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024 * 1024)
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        return ask(ours)


def _nbd(data: bytes) -> object:
    def ask(connection: socket.socket) -> object:
        disk = NbdDisk(connection)
        try:
            if data[:1] >= b"\x80":
                return sum(length for _, length in disk.extents())
            length = min(disk.size, BLOCK)
            return [len(bytes(load())) for _, _, load in disk.read([(0, length)] if length else [], lambda: 4)]
        finally:
            disk.close()

    return _served(data[1:], ask)


def _guest_nbd(data: bytes) -> object:
    return _served(data, lambda connection: search(guest_nbd._disk(connection)))


TARGETS: Final[Mapping[str, Target]] = {
    "gate": Target(run=_gate, raises=(DiskRefused,)),
    **{str(format_): _format(format_) for format_ in gate.PARSERS},
    "partitions": Target(run=lambda data: partitions.table_of(disk_of(data)), raises=(DiskRefused,)),
    "vmdk_descriptor": Target(
        run=lambda data: (vmdk_descriptor.looks_like_descriptor(data), vmdk_descriptor.parse(data)),
        raises=(DiskRefused,),
    ),
    "tar": Target(run=_tar, raises=(DiskRefused,)),
    "ova": Target(run=_ova, raises=(DiskRefused, TooManyDataImages)),
    "ovf": Target(run=ovf.read, raises=(DiskRefused,)),
    "xml": Target(run=xml.parse, raises=(DiskRefused,)),
    "unpack": Target(run=_unpack, raises=(DiskRefused,)),
    "zvhd": Target(run=_zvhd, raises=(DiskRefused,)),
    "guest": Target(run=_guest, raises=(Unreadable, Spent), most_bytes=512 * 1024),
    "guest_lvm": Target(run=_text(lvm_text), raises=(Unreadable,)),
    "guest_nbd": Target(run=_guest_nbd, raises=(Unreadable, Spent, OSError)),
    "domain_xml": Target(run=_text(_domain), raises=(domain_xml.Unreadable,)),
    "qcow2_header": Target(run=_header, raises=()),
    "nbd": Target(run=_nbd, raises=(ServerGone, ConversionFailed)),
}
assert issubclass(DiskRefused, CalotypeError)
