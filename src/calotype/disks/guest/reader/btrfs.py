"""Btrfs on one device: the default subvolume, extents plain or compressed by zlib or zstd. The log is not replayed.

Source: the project's own "On-disk Format".
"""

import os
import subprocess
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from calotype.disks.guest.reader.blocks import Unreadable, Volume, number, unpack
from calotype.disks.guest.reader.tree import Node, kind_of

SUPERBLOCK: Final = 64 * 1024
MAGIC: Final = b"_BHRfS_M"
NODE_HEADER: Final = 101
DEEPEST: Final = 8
STRIPED: Final = 1 << 3 | 1 << 6 | 1 << 7 | 1 << 8  # RAID 0, 10, 5 and 6
INODE, DIR_ITEM, DIR_INDEX, EXTENT, ROOT, CHUNK = 1, 84, 96, 108, 132, 228  # types of items
TOP_LEVEL: Final = 5  # the subvolume that is always there
FIRST_INODE: Final = 256  # of a subvolume, its root
INLINE, WRITTEN = 0, 1  # kinds of extents; 2: not written yet
MOST_CHUNKS: Final = 20_000
MOST_EXTENT: Final = 1024 * 1024  # that is unpacked at once; btrfs writes at most 128 KiB
MOST_EXTENTS: Final = 20_000
LAST: Final = 2**64 - 1


class Key(NamedTuple):
    owner: int
    type: int
    offset: int


class Chunk(NamedTuple):
    """A stretch of the file system's own addresses."""

    start: int
    size: int
    place: int


class Tree(NamedTuple):
    root: int
    level: int


class Inode(NamedTuple):
    tree: Tree
    id: int


class Btrfs:
    name = "btrfs"
    ignores_case = False

    def __init__(self, volume: Volume) -> None:
        """Raises `Unreadable` if there is no such file system, or if it is spread over devices."""
        self._volume = volume
        block = volume.read(SUPERBLOCK, 4096)
        if block[0x40:0x48] != MAGIC:
            raise Unreadable("not btrfs")
        self._sector_size, self._node_size = unpack("<II", block, 0x90)
        if not 4096 <= self._node_size <= 65536:
            raise Unreadable("no sizes of btrfs")
        self._device = number("<Q", block, 0xC9)
        self._chunks: list[Chunk] = []
        size = number("<I", block, 0xA0)
        at, array = 0, block[0x32B : 0x32B + min(size, 2048)]
        while at + 17 + 48 <= len(array):
            at = self._add_chunk(_key(array, at), array, at + 17)
        chunk_tree = Tree(number("<Q", block, 0x58), block[0xC7])
        for key, item in self._items(chunk_tree, Key(0, CHUNK, 0), Key(LAST, CHUNK, LAST)):
            if key.type == CHUNK and len(self._chunks) < MOST_CHUNKS:
                self._add_chunk(key, item, 0)
        self._roots = Tree(number("<Q", block, 0x50), block[0xC6])
        self._roots_folder = number("<Q", block, 0x80)
        self._top = self._subvolume(self._default())

    def root(self) -> Node:
        return self.node(Inode(self._top, FIRST_INODE))

    def subvolumes(self) -> Iterator["Btrfs"]:
        """The file system again, once for each subvolume at its top: distributions keep their root in one of them."""
        top = self._subvolume(TOP_LEVEL)
        for _, item in self._items(top, Key(FIRST_INODE, DIR_INDEX, 0), Key(FIRST_INODE, DIR_INDEX, LAST)):
            location, _ = _entry(item)
            if location.type == ROOT:
                other = object.__new__(Btrfs)
                other.__dict__.update(self.__dict__)
                other._top = self._subvolume(location.owner)
                yield other

    def node(self, reference: Inode) -> Node:
        for _, item in self._items(reference.tree, Key(reference.id, INODE, 0), Key(reference.id, INODE, LAST)):
            return Node(kind_of(number("<I", item, 52)), number("<Q", item, 16), reference)
        raise Unreadable("no such inode")

    def entries(self, folder: Node) -> Iterator[tuple[str, Any]]:
        tree, inode = folder.inner
        for _, item in self._items(tree, Key(inode, DIR_INDEX, 0), Key(inode, DIR_INDEX, LAST)):
            location, name = _entry(item)
            if location.type == ROOT:
                yield name, Inode(self._subvolume(location.owner), FIRST_INODE)
            else:
                yield name, Inode(tree, location.owner)

    def read(self, node: Node, offset: int, length: int) -> bytes:
        tree, inode = node.inner
        found = bytearray(length)
        end = offset + length
        for count, (key, item) in enumerate(self._items(tree, Key(inode, EXTENT, 0), Key(inode, EXTENT, end - 1))):
            if count > MOST_EXTENTS:
                raise Unreadable("extents without an end")
            size = number("<Q", item, 8) if item[20:21] == b"\0" else number("<Q", item, 45)
            if key.offset + size <= offset:
                continue
            first = max(offset, key.offset)
            piece = self._extent(item, first - key.offset, min(end, key.offset + size) - first)
            found[first - offset : first - offset + len(piece)] = piece
        return bytes(found[:length])

    def _extent(self, item: bytes, offset: int, length: int) -> bytes:
        """Bytes of an extent, from `offset` on."""
        unpacked, compression, encryption = unpack("<QBB", item, 8)
        if encryption:
            raise Unreadable("an encrypted extent")
        if number("B", item, 20) == INLINE:
            return _plain(compression, item[21:], unpacked)[offset : offset + length]
        place, stored, skipped, _ = unpack("<QQQQ", item, 21)
        if not place or item[20] != WRITTEN:
            return bytes(length)
        if not compression:
            return self._at(place + skipped + offset, length)
        if stored > MOST_EXTENT:
            raise Unreadable("an extent that is too large")
        return _plain(compression, self._at(place, stored), unpacked)[skipped + offset : skipped + offset + length]

    def _default(self) -> int:
        """The subvolume that is mounted when none is named."""
        first, last = Key(self._roots_folder, DIR_ITEM, 0), Key(self._roots_folder, DIR_ITEM, LAST)
        for _, item in self._items(self._roots, first, last):
            location, name = _entry(item)
            if name == "default" and location.type == ROOT:
                return location.owner
        return TOP_LEVEL

    def _subvolume(self, number_: int) -> Tree:
        for _, item in self._items(self._roots, Key(number_, ROOT, 0), Key(number_, ROOT, LAST)):
            return Tree(number("<Q", item, 176), number("B", item, 238))
        raise Unreadable("no such subvolume")

    def _items(self, tree: Tree, first: Key, last: Key) -> Iterator[tuple[Key, bytes]]:
        """The items of a tree from key to key, in order."""
        yield from self._below(tree.root, min(tree.level, DEEPEST), first, last)

    def _below(self, address: int, level: int, first: Key, last: Key) -> Iterator[tuple[Key, bytes]]:
        node = self._at(address, self._node_size)
        count, found = unpack("<IB", node, 96)
        if found != level or number("<Q", node, 48) != address:
            raise Unreadable("no node of btrfs")
        if level == 0:
            for index in range(count):
                at = NODE_HEADER + 25 * index
                key = _key(node, at)
                if first <= key <= last:
                    start, size = unpack("<II", node, at + 17)
                    yield key, node[NODE_HEADER + start : NODE_HEADER + start + size]
            return
        keys = [_key(node, NODE_HEADER + 33 * index) for index in range(count)]
        for index, key in enumerate(keys):
            if key <= last and (index + 1 == count or keys[index + 1] >= first):
                yield from self._below(number("<Q", node, NODE_HEADER + 33 * index + 17), level - 1, first, last)

    def _at(self, address: int, length: int) -> bytes:
        for chunk in self._chunks:
            if chunk.start <= address and address + length <= chunk.start + chunk.size:
                return self._volume.read(chunk.place + address - chunk.start, length)
        raise Unreadable("an address without a place")

    def _add_chunk(self, key: Key, item: bytes, at: int) -> int:
        """Take up where a chunk is, and return where the item ends."""
        size = number("<Q", item, at)
        kind = number("<Q", item, at + 24)
        stripes = number("<H", item, at + 44)
        for index in range(stripes):
            device, place = unpack("<QQ", item, at + 48 + 32 * index)
            if device == self._device and not kind & STRIPED:
                self._chunks.append(Chunk(key.offset, size, place))
                break
        return at + 48 + 32 * stripes


def _key(data: bytes, at: int) -> Key:
    return Key(*unpack("<QBQ", data, at))


def _entry(item: bytes) -> tuple[Key, str]:
    length = number("<H", item, 27)
    return _key(item, 0), item[30 : 30 + length].decode(errors="surrogateescape")


def _plain(compression: int, data: bytes, size: int) -> bytes:
    if size > MOST_EXTENT:
        raise Unreadable("an extent that is too large")
    return _METHODS.get(compression, _unknown)(data, size)


def _unknown(data: bytes, size: int) -> bytes:
    raise Unreadable("a compression that is not read")


def _zlib(data: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, size)
    except zlib.error as error:
        raise Unreadable("a damaged extent") from error


def _zstd(data: bytes, size: int) -> bytes:
    """By the program of that name; it complains of the zeros that fill up the last sector, after it gave all."""
    command = ["zstd", "--decompress", "--stdout", "--quiet", "--no-progress", "--memory=8MB"]
    try:
        with os.fdopen(os.memfd_create("extent"), "w+b") as packed:
            packed.write(data)
            packed.seek(0)
            process = subprocess.Popen(command, stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise Unreadable("zstd cannot be run") from error
    with process:
        plain = process.stdout.read(size) if process.stdout else b""
        process.kill()
    return plain


_METHODS: Final[dict[int, Callable[[bytes, int], bytes]]] = {0: lambda data, size: data[:size], 1: _zlib, 3: _zstd}
