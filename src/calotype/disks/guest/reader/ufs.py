"""UFS2, as FreeBSD has it on x86 and ARM. Source: FreeBSD, sys/ufs/ffs/fs.h, sys/ufs/ufs/dinode.h and dir.h."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from calotype.disks.guest.reader.blocks import Stretch, Unreadable, Volume, gathered, number, unpack
from calotype.disks.guest.reader.tree import Kind, Node, kind_of

SUPERBLOCKS: Final = (65536, 8192)
MAGIC, MAGIC_AT, OWN_PLACE_AT = 0x19540119, 1372, 1000
ROOT: Final = 2
INODE: Final = 256
BLOCKS_AT: Final = 112  # in an inode: twelve places of blocks, then three of blocks of places
DIRECT: Final = 12
SHORT_LINK: Final = 120  # a shorter target is where the places would be
MOST_FOLDER: Final = 16 * 1024 * 1024
MOST_STRETCHES: Final = 20_000


class Ufs:
    name = "ufs"
    ignores_case = False

    def __init__(self, volume: Volume) -> None:
        """Raises `Unreadable` if there is no such file system."""
        self._volume = volume
        block = _superblock(volume)
        self._inodes_at = number("<i", block, 16)
        self._groups, self._block, self._fragment = unpack("<Iii", block, 44)
        self._per_group, self._fragments_per_group = unpack("<Ii", block, 184)
        if not 512 <= self._fragment <= self._block <= 65536 or self._block % self._fragment:
            raise Unreadable("no sizes of UFS2")
        if not self._per_group or self._fragments_per_group <= 0 or self._inodes_at < 0:
            raise Unreadable("no sizes of UFS2")

    def root(self) -> Node:
        return self.node(ROOT)

    def node(self, reference: int) -> Node:
        group, index = divmod(reference, self._per_group)
        if group >= self._groups:
            raise Unreadable("no such inode")
        start = (group * self._fragments_per_group + self._inodes_at) * self._fragment
        inode = self._volume.read(start + index * INODE, INODE)
        return Node(kind_of(number("<H", inode, 0)), number("<Q", inode, 16), inode)

    def entries(self, folder: Node) -> Iterator[tuple[str, Any]]:
        for start in range(0, min(folder.size, MOST_FOLDER), self._block):
            block = self.read(folder, start, min(self._block, folder.size - start))
            at = 0
            while at + 8 <= len(block):
                inode, length, _, name_length = unpack("<IHBB", block, at)
                if length < 8:
                    raise Unreadable("an entry of no length")
                name = block[at + 8 : at + 8 + name_length]
                if inode and name not in (b".", b"..", b""):
                    yield name.decode(errors="surrogateescape"), inode
                at += length

    def read(self, node: Node, offset: int, length: int) -> bytes:
        inode: bytes = node.inner
        if node.kind is Kind.LINK and node.size < SHORT_LINK:
            return inode[BLOCKS_AT + offset : BLOCKS_AT + offset + length]
        end = min(offset + length, node.size)
        stretches = list(islice(self._stretches(inode, offset, end, node.size), MOST_STRETCHES))
        return gathered(self._volume, stretches, offset, end - offset)

    def _stretches(self, inode: bytes, start: int, end: int, size: int) -> Iterator[Stretch]:
        for index in range(start // self._block, (end + self._block - 1) // self._block):
            place = self._place(inode, index)
            # The last block may be of fewer fragments.
            length = min(self._block, size - index * self._block)
            yield Stretch(index * self._block, length, place * self._fragment if place else None)

    def _place(self, inode: bytes, index: int) -> int:
        if index < DIRECT:
            return number("<q", inode, BLOCKS_AT + 8 * index)
        index -= DIRECT
        per_block = self._block // 8
        for depth in (1, 2, 3):
            if index < per_block**depth:
                place = number("<q", inode, BLOCKS_AT + 8 * (DIRECT + depth - 1))
                for level in range(depth - 1, -1, -1):
                    if not place:
                        return 0
                    at = index // per_block**level % per_block
                    place = number("<q", self._volume.read(place * self._fragment + 8 * at, 8))
                return place
            index -= per_block**depth
        raise Unreadable("past the end of the places of blocks")


def _superblock(volume: Volume) -> bytes:
    for place in SUPERBLOCKS:
        if place + 2048 <= volume.size:
            block = volume.read(place, 2048)
            if number("<I", block, MAGIC_AT) == MAGIC and number("<q", block, OWN_PLACE_AT) == place:
                return block
    raise Unreadable("not UFS2")
