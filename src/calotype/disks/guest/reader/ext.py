"""ext2, ext3 and ext4. The journal is not replayed: a file that was written long ago is where the inodes say.

Source: Linux, Documentation/filesystems/ext4.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from calotype.disks.guest.reader.blocks import Stretch, Unreadable, Volume, gathered, number, unpack
from calotype.disks.guest.reader.tree import Kind, Node, kind_of

SUPERBLOCK: Final = 1024
MAGIC: Final = 0xEF53
ROOT: Final = 2
META_BG, WIDE, ENCRYPTED_NAMES = 0x10, 0x80, 0x10000
NOT_READ: Final = 0x1 | 0x8  # compressed, or a journal of another disk
SPARSE_SUPER: Final = 0x1
HAS_JOURNAL: Final = 0x4
EXTENTS, INLINE, ENCRYPTED = 0x80000, 0x10000000, 0x800
EXTENT_MAGIC: Final = 0xF30A
DEEPEST: Final = 5
UNWRITTEN: Final = 32768  # an extent longer than this is not written yet, and reads as zeros
DIRECT: Final = 12
MOST_FOLDER: Final = 16 * 1024 * 1024
MOST_STRETCHES: Final = 20_000
XATTR_MAGIC: Final = 0xEA020000
XATTR_SYSTEM: Final = 7


class Inode:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.mode = number("<H", raw, 0)
        self.flags = number("<I", raw, 0x20)
        self.block = raw[0x28 : 0x28 + 60]
        self.size = number("<I", raw, 4) | number("<I", raw, 0x6C) << 32


class Ext:
    ignores_case = False

    def __init__(self, volume: Volume) -> None:
        """Raises `Unreadable` if there is no such file system."""
        self._volume = volume
        block = volume.read(SUPERBLOCK, 1024)
        if number("<H", block, 0x38) != MAGIC:
            raise Unreadable("not ext")
        self._inodes = number("<I", block, 0)
        self._first_block: int
        self._first_block, log_size = unpack("<II", block, 0x14)
        self._per_group, self._blocks_per_group = number("<I", block, 0x28), number("<I", block, 0x20)
        if log_size > 6 or not self._per_group or not self._blocks_per_group:
            raise Unreadable("no sizes of ext")
        self._block_size = 1024 << log_size
        dynamic = number("<I", block, 0x4C) > 0
        self._inode_size = number("<H", block, 0x58) if dynamic else 128
        compatible, incompatible, read_only = unpack("<III", block, 0x5C) if dynamic else (0, 0, 0)
        if not 128 <= self._inode_size <= self._block_size or incompatible & NOT_READ:
            raise Unreadable("an ext that is not read")
        self._descriptor_size: int = number("<H", block, 0xFE) if incompatible & WIDE else 32
        if not 32 <= self._descriptor_size <= 1024:
            raise Unreadable("no sizes of ext")
        self._first_meta_group = number("<I", block, 0x104) if incompatible & META_BG else None
        self._sparse_super = bool(read_only & SPARSE_SUPER)
        extents = incompatible & 0x40
        self.name = "ext4" if extents or incompatible & WIDE else "ext3" if compatible & HAS_JOURNAL else "ext2"

    def root(self) -> Node:
        return self.node(ROOT)

    def node(self, reference: int) -> Node:
        if not 0 < reference <= self._inodes:
            raise Unreadable("no such inode")
        group, index = divmod(reference - 1, self._per_group)
        descriptor = self._volume.read(self._descriptor_at(group), self._descriptor_size)
        table = number("<I", descriptor, 8)
        if self._descriptor_size >= 64:
            table |= number("<I", descriptor, 0x28) << 32
        raw = self._volume.read(table * self._block_size + index * self._inode_size, self._inode_size)
        inode = Inode(raw)
        return Node(kind_of(inode.mode), inode.size, inode)

    def entries(self, folder: Node) -> Iterator[tuple[str, Any]]:
        """A folder with an index looks like one without: its index blocks hold no names."""
        inode: Inode = folder.inner
        if inode.flags & INLINE:
            yield from self._names(inode.block[4:])
            yield from self._names(_inline_rest(inode.raw))
            return
        for at in range(0, min(folder.size, MOST_FOLDER), self._block_size):
            yield from self._names(self.read(folder, at, self._block_size))

    def read(self, node: Node, offset: int, length: int) -> bytes:
        inode: Inode = node.inner
        if inode.flags & ENCRYPTED:
            raise Unreadable("an encrypted file")
        if node.kind is Kind.LINK and node.size < len(inode.block) and not inode.flags & EXTENTS:
            return inode.block[offset : offset + length]
        if inode.flags & INLINE:
            return (inode.block + _inline_rest(inode.raw))[offset : offset + length]
        if inode.flags & EXTENTS:
            found = self._extents(inode.block, offset, offset + length, DEEPEST)
        else:
            found = self._mapped(inode.block, offset, offset + length)
        return gathered(self._volume, list(islice(found, MOST_STRETCHES)), offset, length)

    def _descriptor_at(self, group: int) -> int:
        per_block = self._block_size // self._descriptor_size
        block, index = divmod(group, per_block)
        if self._first_meta_group is None or block < self._first_meta_group:
            start = self._first_block + 1 + block
        else:
            first_group = block * per_block
            start = self._first_block + first_group * self._blocks_per_group + self._has_superblock(first_group)
        return int(start * self._block_size + index * self._descriptor_size)

    def _has_superblock(self, group: int) -> bool:
        if group <= 1 or not self._sparse_super:
            return True
        for base in (3, 5, 7):
            power = base
            while power < group:
                power *= base
            if power == group:
                return True
        return False

    def _names(self, block: bytes) -> Iterator[tuple[str, Any]]:
        at = 0
        while at + 8 <= len(block):
            inode, length, name_length = unpack("<IHB", block, at)
            if length in (0, 65535) and len(block) == 65536:
                length = len(block) - at
            if length < 8 or length % 4:
                raise Unreadable("an entry of no length")
            name = block[at + 8 : at + 8 + name_length]
            if inode and name not in (b".", b"..") and name:
                yield name.decode(errors="surrogateescape"), inode
            at += length

    def _extents(self, node: bytes, start: int, end: int, deepest: int) -> Iterator[Stretch]:
        magic, count, _, depth = unpack("<HHHH", node)
        if magic != EXTENT_MAGIC or depth > deepest:
            raise Unreadable("no extents")
        size = self._block_size
        records = [12 + 12 * index for index in range(count)]
        if depth == 0:
            for at in records:
                first, length, high, low = unpack("<IHHI", node, at)
                written = length <= UNWRITTEN
                blocks = length if written else length - UNWRITTEN
                place = (high << 32 | low) * size
                if first * size < end and (first + blocks) * size > start:
                    yield Stretch(first * size, blocks * size, place if written else None)
            return
        firsts = [number("<I", node, at) * size for at in records]
        for at, first, following in zip(records, firsts, [*firsts[1:], end], strict=False):
            if first < end and (following > start or following <= first):
                low, high = unpack("<IH", node, at + 4)
                below = self._volume.read((high << 32 | low) * size, size)
                yield from self._extents(below, max(start, first), end, depth - 1)

    def _mapped(self, blocks: bytes, start: int, end: int) -> Iterator[Stretch]:
        """Of the old maps: twelve blocks, then blocks of numbers, up to three deep."""
        size = self._block_size
        for index in range(start // size, (end + size - 1) // size):
            place = self._block_of(blocks, index)
            yield Stretch(index * size, size, place * size if place else None)

    def _block_of(self, blocks: bytes, index: int) -> int:
        if index < DIRECT:
            return number("<I", blocks, 4 * index)
        index -= DIRECT
        per_block = self._block_size // 4
        for depth in (1, 2, 3):
            if index < per_block**depth:
                place = number("<I", blocks, 4 * (DIRECT + depth - 1))
                for level in range(depth - 1, -1, -1):
                    if not place:
                        return 0
                    at = index // per_block**level % per_block
                    place = number("<I", self._volume.read(place * self._block_size + 4 * at, 4))
                return place
            index -= per_block**depth
        raise Unreadable("past the end of a block map")


def _inline_rest(raw: bytes) -> bytes:
    """What does not fit into the 60 bytes: the attribute `system.data` in the rest of the inode."""
    if len(raw) < 132:
        return b""
    start = 128 + number("<H", raw, 128)
    if start + 4 > len(raw) or number("<I", raw, start) != XATTR_MAGIC:
        return b""
    first = at = start + 4
    while at + 16 <= len(raw) and any(raw[at : at + 4]):
        name_length, space, place, _, size = unpack("<BBHII", raw, at)
        if space == XATTR_SYSTEM and raw[at + 16 : at + 16 + name_length] == b"data":
            return raw[first + place : first + place + size]
        at += 16 + (name_length + 3) // 4 * 4
    return b""
