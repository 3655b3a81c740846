"""XFS, of versions 4 and 5. The log is not replayed.

Source: "XFS Filesystem Structure", the algorithms and data structures of the project xfs-documentation.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from calotype.disks.guest.reader.blocks import Stretch, Unreadable, Volume, gathered, number, unpack
from calotype.disks.guest.reader.tree import Kind, Node, kind_of

LOCAL, EXTENTS, BTREE = 1, 2, 3  # forms of an inode's data fork
TYPED_V4, TYPED_V5 = 0x200, 0x1  # feature bits: names are stored with a type
LARGE_COUNTS: Final = 0x10  # flag of an inode: the number of extents has 64 bits
LEAVES_AT: Final = 32 * 1024**3  # a folder's names lie below this offset, its index above
FOLDER_BLOCKS: Final = frozenset({b"XD2B", b"XDB3", b"XD2D", b"XDD3"})
WITH_TAIL: Final = frozenset({b"XD2B", b"XDB3"})  # one block that holds the index, too
UNUSED: Final = 0xFFFF
LINK_HEADER: Final = 56
DEEPEST: Final = 8
MOST_STRETCHES: Final = 20_000
MOST_FOLDER: Final = 16 * 1024 * 1024


class Inode:
    def __init__(self, raw: bytes) -> None:
        magic, self.mode, version, self.form = unpack(">2sHBB", raw)
        if magic != b"IN":
            raise Unreadable("no inode of XFS")
        self.size = number(">Q", raw, 56)
        large = version >= 3 and number(">Q", raw, 120) & LARGE_COUNTS
        self.extents = number(">Q", raw, 24) if large else number(">I", raw, 76)
        start = 176 if version >= 3 else 100
        forked = raw[82] * 8
        self.fork = raw[start : start + forked] if forked else raw[start:]


class Xfs:
    name = "xfs"
    ignores_case = False

    def __init__(self, volume: Volume) -> None:
        """Raises `Unreadable` if there is no such file system."""
        self._volume = volume
        block = volume.read(0, 512)
        if block[:4] != b"XFSB":
            raise Unreadable("not XFS")
        self._block_size = number(">I", block, 4)
        self._root = number(">Q", block, 56)
        self._group_blocks: int
        self._group_blocks, self._groups = unpack(">II", block, 84)
        version, _, self._inode_size = unpack(">HHH", block, 100)
        self._inode_bits, self._group_bits = block[123], block[124]
        self._v5 = version & 0xF == 5
        typed = number(">I", block, 216) & TYPED_V5 if self._v5 else number(">I", block, 200) & TYPED_V4
        self._type_bytes = 1 if typed else 0
        if not 512 <= self._block_size <= 65536 or not 256 <= self._inode_size <= 2048 or block[192] > 7:
            raise Unreadable("no sizes of XFS")
        if self._group_bits > 32 or self._inode_bits > 8:
            raise Unreadable("no sizes of XFS")
        self._folder_block = self._block_size << block[192]
        if self._folder_block > 65536:
            raise Unreadable("no sizes of XFS")

    def root(self) -> Node:
        return self.node(self._root)

    def node(self, reference: int) -> Node:
        group = reference >> self._group_bits + self._inode_bits
        block = reference >> self._inode_bits & (1 << self._group_bits) - 1
        index = reference & (1 << self._inode_bits) - 1
        if group >= self._groups:
            raise Unreadable("no such inode")
        place = (group * self._group_blocks + block) * self._block_size + index * self._inode_size
        inode = Inode(self._volume.read(place, self._inode_size))
        return Node(kind_of(inode.mode), inode.size, inode)

    def entries(self, folder: Node) -> Iterator[tuple[str, Any]]:
        inode: Inode = folder.inner
        if inode.form == LOCAL:
            yield from self._short(inode.fork)
            return
        stretches, end = self._list(inode), 0
        for stretch in stretches:
            if stretch.at >= LEAVES_AT or end > MOST_FOLDER:
                return
            # Read by the offset in the folder: one of its blocks may be of several pieces.
            start = max(end, stretch.at // self._folder_block * self._folder_block)
            for at in range(start, min(stretch.at + stretch.size, MOST_FOLDER), self._folder_block):
                yield from self._block(gathered(self._volume, stretches, at, self._folder_block))
                end = at + self._folder_block

    def read(self, node: Node, offset: int, length: int) -> bytes:
        inode: Inode = node.inner
        if inode.form == LOCAL:
            return inode.fork[offset : offset + length]
        if node.kind is Kind.LINK and self._v5:
            if node.size > self._block_size - LINK_HEADER:
                raise Unreadable("a link of several blocks")
            whole = gathered(self._volume, self._list(inode), 0, LINK_HEADER + node.size)
            return whole[LINK_HEADER + offset : LINK_HEADER + offset + length]
        return gathered(self._volume, self._list(inode), offset, length)

    def _list(self, inode: Inode) -> list[Stretch]:
        return list(islice(self._stretches(inode), MOST_STRETCHES))

    def _stretches(self, inode: Inode) -> Iterator[Stretch]:
        if inode.form == EXTENTS:
            if inode.extents * 16 > len(inode.fork):
                raise Unreadable("more extents than there is room for")
            yield from self._records(inode.fork, 0, inode.extents)
        elif inode.form == BTREE:
            level, count = unpack(">HH", inode.fork)
            most = (len(inode.fork) - 4) // 16
            yield from self._below(inode.fork, 4 + most * 8, min(count, most), level)
        else:
            raise Unreadable("a file without data")

    def _below(self, node: bytes, pointers: int, count: int, level: int) -> Iterator[Stretch]:
        if not 0 < level <= DEEPEST:
            raise Unreadable("too deep")
        header = 72 if self._v5 else 24
        for index in range(count):
            block = self._volume.read(self._place(number(">Q", node, pointers + 8 * index)), self._block_size)
            magic, below, inner = unpack(">4sHH", block)
            if magic not in (b"BMAP", b"BMA3") or below != level - 1:
                raise Unreadable("no block of extents")
            if below == 0:
                yield from self._records(block, header, inner)
            else:
                most = (self._block_size - header) // 16
                yield from self._below(block, header + most * 8, min(inner, most), below)

    def _records(self, data: bytes, at: int, count: int) -> Iterator[Stretch]:
        for index in range(count):
            high, low = unpack(">QQ", data, at + 16 * index)
            first = (high >> 9) & (1 << 54) - 1
            place = (high & 0x1FF) << 43 | low >> 21
            size = (low & (1 << 21) - 1) * self._block_size
            written = not high >> 63
            yield Stretch(first * self._block_size, size, self._place(place) if written else None)

    def _place(self, block: int) -> int:
        group = block >> self._group_bits
        return (group * self._group_blocks + (block & (1 << self._group_bits) - 1)) * self._block_size

    def _short(self, fork: bytes) -> Iterator[tuple[str, Any]]:
        count, wide = unpack(">BB", fork)
        form, size = (">Q", 8) if wide else (">I", 4)
        at = 2 + size
        for _ in range(count):
            length = number("B", fork, at)
            name = fork[at + 3 : at + 3 + length]
            at += 3 + length + self._type_bytes
            yield name.decode(errors="surrogateescape"), number(form, fork, at)
            at += size

    def _block(self, block: bytes) -> Iterator[tuple[str, Any]]:
        if block[:4] not in FOLDER_BLOCKS:
            return  # a hole
        at, end = 64 if self._v5 else 16, len(block)
        if block[:4] in WITH_TAIL:
            end -= 8 + 8 * number(">I", block, len(block) - 8)
        while at + 11 <= end:
            if number(">H", block, at) == UNUSED:
                length = number(">H", block, at + 2)
                if length < 8:
                    raise Unreadable("an entry of no length")
                at += length
                continue
            inode, length = unpack(">QB", block, at)
            name = block[at + 9 : at + 9 + length]
            if name not in (b".", b"..", b""):
                yield name.decode(errors="surrogateescape"), inode
            at += (11 + length + self._type_bytes + 7) // 8 * 8
