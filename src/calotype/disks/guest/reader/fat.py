"""FAT12, FAT16 and FAT32, by the short names. Source: Microsoft, "FAT: General Overview of On-Disk Format"."""

from collections.abc import Iterator
from typing import Any, Final

from calotype.disks.guest.reader.blocks import Unreadable, Volume, number, unpack
from calotype.disks.guest.reader.tree import Kind, Node

ENTRY: Final = 32
LABEL, FOLDER = 0x08, 0x10  # attributes; a part of a long name has LABEL, too
END, DELETED = 0x00, 0xE5
MOST_FOLDER: Final = 2 * 1024 * 1024
FAT12_BELOW, FAT16_BELOW = 4085, 65525  # clusters


class Fat:
    ignores_case = True

    def __init__(self, volume: Volume) -> None:
        """Raises `Unreadable` if there is no such file system."""
        self._volume = volume
        boot = volume.read(0, 512)
        self._sector, per_cluster, reserved, copies, roots, few, _, short = unpack("<HBHBHHBH", boot, 11)
        if boot[0] not in (0xEB, 0xE9) or boot[510:] != b"\x55\xaa" or boot[3:11] == b"NTFS    ":
            raise Unreadable("not FAT")
        if self._sector not in (512, 1024, 2048, 4096) or not per_cluster or per_cluster & (per_cluster - 1):
            raise Unreadable("not FAT")
        long = short or number("<I", boot, 36)
        sectors = few or number("<I", boot, 32)
        if not reserved or not 1 <= copies <= 4 or not long or not sectors:
            raise Unreadable("not FAT")
        self._table = reserved * self._sector
        self._roots_at = (reserved + copies * long) * self._sector
        self._roots_size = roots * ENTRY
        root_sectors = (self._roots_size + self._sector - 1) // self._sector
        self._data = self._roots_at + root_sectors * self._sector
        self._cluster = per_cluster * self._sector
        self._clusters = (sectors - self._data // self._sector) // per_cluster
        if self._clusters <= 0:
            raise Unreadable("not FAT")
        self._bits = 32 if not short else 12 if self._clusters < FAT12_BELOW else 16
        self.name = f"fat{self._bits}"
        self._root = number("<I", boot, 44) if self._bits == 32 else 0

    def root(self) -> Node:
        return Node(Kind.FOLDER, 0, self._root)

    def entries(self, folder: Node) -> Iterator[tuple[str, Any]]:
        for block in self._folder(folder.inner):
            for at in range(0, len(block) - ENTRY + 1, ENTRY):
                entry = block[at : at + ENTRY]
                if entry[0] == END:
                    return
                if entry[0] != DELETED and not entry[11] & LABEL and entry[0] != ord("."):
                    stem, suffix = entry[:8].decode("latin-1").rstrip(), entry[8:11].decode("latin-1").rstrip()
                    yield f"{stem}.{suffix}" if suffix else stem, entry

    def node(self, reference: bytes) -> Node:
        high, low, size = unpack("<HxxxxHI", reference, 20)
        kind = Kind.FOLDER if reference[11] & FOLDER else Kind.FILE
        return Node(kind, size, low | (high << 16 if self._bits == 32 else 0))

    def read(self, node: Node, offset: int, length: int) -> bytes:
        found = bytearray()
        skipped, offset = divmod(offset, self._cluster)
        for index, place in enumerate(self._chain(node.inner)):
            if index >= skipped:
                found += self._volume.read(place, self._cluster)
                if len(found) >= offset + length:
                    break
        return bytes(found[offset : offset + length])

    def _folder(self, first: int) -> Iterator[bytes]:
        if first == 0 and self._bits != 32:
            yield self._volume.read(self._roots_at, self._roots_size)
            return
        for index, place in enumerate(self._chain(first or self._root)):
            if index * self._cluster > MOST_FOLDER:
                raise Unreadable("a folder without an end")
            yield self._volume.read(place, self._cluster)

    def _chain(self, cluster: int) -> Iterator[int]:
        """Where each cluster of a file lies. A loop ends after as many as there are."""
        for _ in range(self._clusters):
            if not 2 <= cluster < self._clusters + 2:
                return
            yield self._data + (cluster - 2) * self._cluster
            cluster = self._following(cluster)

    def _following(self, cluster: int) -> int:
        if self._bits == 12:
            pair = number("<H", self._volume.read(self._table + cluster * 3 // 2, 2))
            return pair >> 4 if cluster % 2 else pair & 0xFFF
        if self._bits == 16:
            return number("<H", self._volume.read(self._table + cluster * 2, 2))
        return number("<I", self._volume.read(self._table + cluster * 4, 4)) & 0x0FFFFFFF
