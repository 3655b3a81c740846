"""NTFS. The log is not replayed, compressed files are not read.

Source: the documentation of the Linux-NTFS project.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from calotype.disks.guest.reader.blocks import Stretch, Unreadable, Volume, gathered, number, unpack
from calotype.disks.guest.reader.tree import Kind, Node

ROOT: Final = 5
ATTRIBUTE_LIST, FILE_NAME, DATA, INDEX_ROOT, INDEX_ALLOCATION = 0x20, 0x30, 0x80, 0x90, 0xA0
END: Final = 0xFFFFFFFF
PACKED: Final = 0x1 | 0x4000  # flags of an attribute: compressed, encrypted
FOLDER, IN_USE = 2, 1  # flags of a record
HAS_BELOW, LAST = 1, 2  # flags of an entry of an index
DOS_NAMES: Final = 2  # the name space of the short names, which are listed beside the long ones
RECORD_NUMBER: Final = 2**48 - 1
SECTOR: Final = 512
MOST_LIST: Final = 256 * 1024  # bytes of an attribute list
MOST_ATTRIBUTES: Final = 4096
MOST_RUNS: Final = 20_000
DEEPEST: Final = 12


class Attribute(NamedTuple):
    """A piece of a file: its bytes, or the places of some of them."""

    type: int
    name: str
    flags: int
    value: bytes | None  # None: it is not in the record
    first: int  # the number of the first cluster of those that `runs` tells of
    size: int  # of the whole; known in the first piece only
    runs: bytes


class Record(NamedTuple):
    flags: int
    attributes: list[Attribute]


class Ntfs:
    name = "ntfs"
    ignores_case = True

    def __init__(self, volume: Volume) -> None:
        """Raises `Unreadable` if there is no such file system."""
        self._volume = volume
        boot = volume.read(0, 512)
        if boot[3:11] != b"NTFS    ":
            raise Unreadable("not NTFS")
        sector, per_cluster = unpack("<HB", boot, 11)
        # Clusters of more than 64 KiB are told as a power of two, like the sizes below.
        self._cluster = sector * (per_cluster if per_cluster <= 0x80 else 1 << min(256 - per_cluster, 16))
        if not 512 <= self._cluster <= 2 * 1024 * 1024:
            raise Unreadable("no sizes of NTFS")
        start, record_size, index_size = number("<Q", boot, 48), boot[64], boot[68]
        self._record = _amount(record_size, self._cluster)
        self._index = _amount(index_size, self._cluster)
        if not 256 <= self._record <= 65536 or not 512 <= self._index <= 65536:
            raise Unreadable("no sizes of NTFS")
        # The table of records is described by its own first record.
        self._table = [Stretch(0, self._record, start * self._cluster)]
        self._table = self._stretches(self._raw(0).attributes)
        self._table = self._stretches(self._file(0).attributes)

    def root(self) -> Node:
        return self.node(ROOT)

    def node(self, reference: int) -> Node:
        record = self._file(reference & RECORD_NUMBER)
        if not record.flags & IN_USE:
            raise Unreadable("a deleted file")
        if record.flags & FOLDER:
            return Node(Kind.FOLDER, 0, record)
        data = _unnamed(record.attributes)
        size = (len(data[0].value) if data[0].value is not None else data[0].size) if data else 0
        return Node(Kind.FILE, size, record)

    def entries(self, folder: Node) -> Iterator[tuple[str, Any]]:
        attributes: list[Attribute] = folder.inner.attributes
        for root in attributes:
            if root.type == INDEX_ROOT and root.name == "$I30" and root.value is not None:
                below = [one for one in attributes if one.type == INDEX_ALLOCATION and one.name == "$I30"]
                yield from self._names(root.value, 16, self._all_runs(below), DEEPEST)

    def read(self, node: Node, offset: int, length: int) -> bytes:
        data = _unnamed(node.inner.attributes)
        if not data or any(one.flags & PACKED for one in data):
            raise Unreadable("a file that is not read: compressed or encrypted")
        if data[0].value is not None:
            return data[0].value[offset : offset + length]
        return gathered(self._volume, self._stretches(data), offset, length)

    def _names(self, node: bytes, header: int, index: list[Stretch], deepest: int) -> Iterator[tuple[str, Any]]:
        """The entries of an index: of this node, and of those below it."""
        if not deepest:
            raise Unreadable("too deep")
        start, end = unpack("<II", node, header)
        at, end = header + start, min(header + end, len(node))
        while at + 16 <= end:
            reference, length, key_length, flags = unpack("<QHHB", node, at)
            if flags & HAS_BELOW:
                number_ = number("<Q", node, at + length - 8)
                yield from self._names(self._index_block(number_, index), 24, index, deepest - 1)
            if flags & LAST or length < 16:
                return
            if key_length >= 66 and node[at + 16 + 65] != DOS_NAMES:
                name = node[at + 16 + 66 : at + 16 + 66 + 2 * node[at + 16 + 64]]
                yield name.decode("utf-16-le", "replace"), reference
            at += length

    def _index_block(self, number_: int, index: list[Stretch]) -> bytes:
        # Counted in clusters, or in sectors where a block is smaller than a cluster.
        place = number_ * (self._cluster if self._index >= self._cluster else SECTOR)
        if place > 2**40:
            raise Unreadable("no such block of an index")
        return _mended(gathered(self._volume, index, place, self._index), b"INDX")

    def _file(self, number_: int) -> Record:
        """A record, with the attributes of the records that it goes on in."""
        record = self._raw(number_)
        attributes = []
        for one in record.attributes:
            if one.type != ATTRIBUTE_LIST:
                attributes.append(one)
                continue
            if one.size > MOST_LIST:
                raise Unreadable("a list of attributes without an end")
            whole = gathered(self._volume, self._runs_of(one), 0, one.size) if one.value is None else one.value
            for other in sorted(_listed(whole) - {number_}):
                attributes += self._raw(other).attributes
                if len(attributes) > MOST_ATTRIBUTES:
                    raise Unreadable("attributes without an end")
        return Record(record.flags, attributes)

    def _raw(self, number_: int) -> Record:
        record = _mended(gathered(self._volume, self._table, number_ * self._record, self._record), b"FILE")
        at, flags = unpack("<HH", record, 20)
        attributes = []
        while at + 16 <= len(record) and number("<I", record, at) != END:
            length = number("<I", record, at + 4)
            if length < 16 or at + length > len(record):
                raise Unreadable("an attribute of no length")
            attributes.append(_attribute(record[at : at + length]))
            at += length
        return Record(flags, attributes)

    def _stretches(self, attributes: list[Attribute]) -> list[Stretch]:
        """Of the data of a file."""
        return self._all_runs(_unnamed(attributes))

    def _all_runs(self, pieces: list[Attribute]) -> list[Stretch]:
        found: list[Stretch] = []
        for one in pieces:
            found += self._runs_of(one)
            if len(found) > MOST_RUNS:
                raise Unreadable("a file in too many pieces")
        return found

    def _runs_of(self, attribute: Attribute) -> list[Stretch]:
        runs, at, cluster, place = attribute.runs, 0, attribute.first, 0
        found: list[Stretch] = []
        while at < len(runs) and runs[at] and len(found) <= MOST_RUNS:
            of_length, of_place = runs[at] & 15, runs[at] >> 4
            length = int.from_bytes(runs[at + 1 : at + 1 + of_length], "little")
            at += 1 + of_length
            place += int.from_bytes(runs[at : at + of_place], "little", signed=True)
            at += of_place
            found.append(
                Stretch(cluster * self._cluster, length * self._cluster, place * self._cluster if of_place else None)
            )
            cluster += length
        return found


def _amount(value: int, unit: int) -> int:
    """A number of units, or, if negative, the power of two that is the size."""
    return value * unit if value < 0x80 else 1 << min(256 - value, 32)


def _mended(block: bytes, magic: bytes) -> bytes:
    """A record as it was before the last bytes of its sectors were taken for a check of whole writes."""
    if block[:4] != magic:
        raise Unreadable("no record of NTFS")
    at, count = unpack("<HH", block, 4)
    mended = bytearray(block)
    if count == 0 or (count - 1) * SECTOR > len(block):
        raise Unreadable("no record of NTFS")
    for index in range(1, count):
        end = index * SECTOR
        if block[end - 2 : end] != block[at : at + 2] or at + 2 * index + 2 > len(block):
            raise Unreadable("a record that was written in part")
        mended[end - 2 : end] = block[at + 2 * index : at + 2 * index + 2]
    return bytes(mended)


def _attribute(data: bytes) -> Attribute:
    kind, _, elsewhere, name_length, name_at, flags = unpack("<IIBBHH", data)
    name = data[name_at : name_at + 2 * name_length].decode("utf-16-le", "replace")
    if not elsewhere:
        size, at = unpack("<IH", data, 16)
        return Attribute(kind, name, flags, data[at : at + size], 0, size, b"")
    first, at = number("<Q", data, 16), number("<H", data, 32)
    size = number("<Q", data, 48) if not first else 0
    return Attribute(kind, name, flags, None, first, size, data[at:])


def _listed(data: bytes) -> set[int]:
    """The records that an attribute list names."""
    records: set[int] = set()
    at = 0
    while at + 26 <= len(data) and len(records) < MOST_ATTRIBUTES:
        length, reference = number("<H", data, at + 4), number("<Q", data, at + 16)
        if length < 26:
            break
        records.add(reference & RECORD_NUMBER)
        at += length
    return records


def _unnamed(attributes: list[Attribute]) -> list[Attribute]:
    """The pieces of a file's data, in order."""
    return sorted((one for one in attributes if one.type == DATA and not one.name), key=lambda one: one.first)
