"""What jobs and the API ask of a bucket holds wherever it lies: a folder of the service, a mapped folder, an S3 server,
and a real Ceph with the tests of services."""

import hashlib
import os
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from calotype.blobs.sparse import data_extents
from calotype.buckets.folder import FolderStore
from calotype.buckets.s3.store import S3Store
from calotype.buckets.s3.uploads import Notes
from calotype.buckets.s3.wire import Wire
from calotype.errors import (
    BucketReadOnly,
    InvalidObjectKey,
    JobCancelled,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
)
from calotype.settings import BucketMapping
from tests.ceph import Ceph
from tests.s3 import S3Server, mapping, s3_server

Store = FolderStore | S3Store
MIB: Final = 1024**2
# More than one part, and more than one range of a transfer; the last of them shorter.
LARGE: Final = random.Random(7).randbytes(MIB) * 19 + b"the end"
ODD_KEYS: Final = ("a b.img", "50%25.img", "ünï/cödé 漢字", "a+b&c=d?e#f", 'it\'s "quoted"', "<x>&amp;", "~t!*(),;:@$")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(
    params=["owned", "mapped", "s3", "s3-below", pytest.param("ceph", marks=pytest.mark.services)], scope="module"
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Opens the same bucket each time."""
    if kind in ("owned", "mapped"):
        (tmp_path / "bucket").mkdir()
        yield lambda read_only=False: FolderStore(
            tmp_path / "bucket", bucket="disks", owned=kind == "owned", read_only=read_only
        )
        return
    fields = _of_ceph(request.getfixturevalue("ceph")) if kind == "ceph" else _of_moto(request, kind)
    wires: list[Wire] = []

    def opened(read_only: bool = False) -> S3Store:
        wires.append(Wire("disks", msgspec.convert(fields, BucketMapping)))
        return S3Store(wires[-1], bucket="disks", notes=Notes(tmp_path / "notes"), read_only=read_only)

    yield opened
    for wire in wires:
        wire.close()
    assert not list((tmp_path / "notes").glob("*"))


def _of_moto(request: pytest.FixtureRequest, kind: str) -> dict[str, Any]:
    server: S3Server = request.getfixturevalue("s3")
    prefix = "" if kind == "s3" else "some%20where/below"
    return mapping(f"{server.url}/{server.bucket()}", prefix=prefix)


def _of_ceph(ceph: Ceph) -> dict[str, Any]:
    return ceph.mapping(ceph.bucket(f"b-{uuid.uuid4().hex[:16]}"))


@pytest.fixture
def store(make: Callable[..., Store]) -> Store:
    return make()


@pytest.fixture
def put(store: Store, tmp_path: Path) -> Callable[..., Any]:
    def puts(key: str, data: bytes, *, exclusive: bool = False) -> Any:
        source = tmp_path / f"source-{uuid.uuid4().hex}"
        source.write_bytes(data)
        return store.put_file(source, key, exclusive=exclusive, token="t")

    return puts


def get(store: Store, key: str) -> bytes:
    info, reader = store.open(key)
    with reader:
        return reader.read_at(0, info.size + 1)


def test_what_was_put_is_told_read_and_deleted(store: Store, put: Callable[..., Any]) -> None:
    made = put("disks/linux/web.qcow2", b"bytes")

    assert (made.key, made.size) == ("disks/linux/web.qcow2", 5)
    assert store.stat("disks/linux/web.qcow2") == made
    assert get(store, "disks/linux/web.qcow2") == b"bytes"
    assert store.page().objects == [made]

    store.delete("disks/linux/web.qcow2")

    assert store.page().objects == []
    for ask in (store.stat, store.open, store.delete):
        with pytest.raises(ObjectNotFound):
            ask("disks/linux/web.qcow2")


@pytest.mark.parametrize("data", [b"", b"x", LARGE], ids=["empty", "small", "large"])
def test_the_bytes_are_those_that_were_put(store: Store, put: Callable[..., Any], data: bytes) -> None:
    made = put("disk", data)

    assert made.size == len(data)
    assert hashlib.sha256(get(store, "disk")).digest() == hashlib.sha256(data).digest()


def test_any_part_of_an_object_is_read(store: Store, put: Callable[..., Any]) -> None:
    put("disk", LARGE)
    places = random.Random(3)

    with store.open("disk")[1] as reader:
        assert reader.size == len(LARGE)
        for _ in range(30):
            at, n = places.randrange(len(LARGE) + 10), places.choice((0, 1, 512, 70_000, 5 * MIB))
            assert reader.read_at(at, n) == LARGE[at : at + n]


@pytest.mark.parametrize("key", ODD_KEYS, ids=range(len(ODD_KEYS)))
def test_a_key_may_have_any_characters_that_keys_may_have(store: Store, put: Callable[..., Any], key: str) -> None:
    put(key, key.encode())

    assert get(store, key) == key.encode()
    assert [info.key for info in store.page(prefix=key[:3]).objects] == [key]
    store.delete(key)
    assert store.page().objects == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a\nb", "x" * 1025])
def test_what_is_no_key_is_refused_before_anything_is_asked(store: Store, put: Callable[..., Any], key: str) -> None:
    for ask in (store.stat, store.open, store.delete, lambda one: store.check_put(one, exclusive=False)):
        with pytest.raises(InvalidObjectKey):
            ask(key)


def test_a_listing_is_in_order_and_goes_on_after_any_key(store: Store, put: Callable[..., Any]) -> None:
    keys = ["a", "a.b", "a/b", "a0", "b/c/d", "b/c/e", "b-", "ba", "z", "é"]
    keys = [key for key in keys if key not in ("a", "b/c/e")] if isinstance(store, FolderStore) else keys
    for key in keys:
        put(key, b"x")
    ordered = sorted(keys, key=str.encode)

    for limit in (1, 3, 100):
        found, marker = [], ""
        while True:
            page = store.page(marker=marker, limit=limit)
            assert len(page.objects) <= limit
            found += [info.key for info in page.objects]
            if page.next_marker is None:
                break
            marker = page.next_marker
        assert found == ordered
    assert [info.key for info in store.page(prefix="b").objects] == [key for key in ordered if key.startswith("b")]
    assert [info.key for info in store.page(prefix="b", marker="b/c/d").objects] == [
        key for key in ordered if key.startswith("b") and key.encode() > b"b/c/d"
    ]


def test_an_exclusive_put_keeps_what_is_there_unless_it_is_the_same(store: Store, put: Callable[..., Any]) -> None:
    first = put("disk", b"old", exclusive=True)

    with pytest.raises(ObjectExists):
        put("disk", b"new", exclusive=True)
    with pytest.raises(ObjectExists):
        store.check_put("disk", exclusive=True)

    assert put("disk", b"old", exclusive=True) == first
    assert get(store, "disk") == b"old"


def test_a_large_exclusive_put_is_done_twice_with_the_same_end(store: Store, put: Callable[..., Any]) -> None:
    first = put("disk", LARGE, exclusive=True)

    assert put("disk", LARGE, exclusive=True) == first
    with pytest.raises(ObjectExists):
        put("disk", LARGE[:-1] + b"!", exclusive=True)


def test_another_version_has_another_etag_and_is_told_from_the_first(
    store: Store, put: Callable[..., Any], tmp_path: Path
) -> None:
    old = put("disk", b"old")
    new = put("disk", b"new")

    assert new.etag != old.etag
    with pytest.raises(ObjectChanged):
        store.hold("disk", old.etag)
    with pytest.raises(ObjectChanged):
        store.snapshot("disk", tmp_path / "target", old.etag)
    assert not list(tmp_path.glob("target*"))
    with store.hold("disk", new.etag) as held:
        assert held.read_at(0, 9) == b"new"


def test_who_reads_while_an_object_is_replaced_never_gets_a_mixture(store: Store, put: Callable[..., Any]) -> None:
    old = b"o" * len(LARGE)
    info = put("disk", old)

    with store.hold("disk", info.etag) as held:
        assert held.read_at(0, 1) == b"o"
        put("disk", LARGE)
        try:
            seen = held.read_at(0, len(LARGE))
        except ObjectChanged:
            seen = old
    assert seen == old


@pytest.mark.parametrize("part", [None, (0, 10), (8 * MIB - 3, 3 * MIB), (len(LARGE) - 7, 7)])
def test_a_snapshot_holds_the_object_or_the_part_that_is_wanted(
    store: Store, put: Callable[..., Any], tmp_path: Path, part: tuple[int, int] | None
) -> None:
    info, told = put("disk", LARGE), [0]

    linked = store.snapshot("disk", tmp_path / "target", info.etag, part=part, progress=told.append)

    start, length = (0, len(LARGE)) if linked or part is None else part
    assert (tmp_path / "target").read_bytes() == LARGE[start : start + length]
    assert linked or told[-1] == length
    assert told == sorted(told)


def test_zeros_take_no_room_in_a_snapshot(store: Store, put: Callable[..., Any], tmp_path: Path) -> None:
    data = b"begin" + bytes(9 * MIB) + b"end" + bytes(5 * MIB)
    source = tmp_path / "sparse"
    source.write_bytes(b"begin")
    with source.open("r+b") as file:
        file.seek(9 * MIB + 5)
        file.write(b"end")
        file.truncate(len(data))
    info = store.put_file(source, "disk", exclusive=True)

    store.snapshot("disk", tmp_path / "target", info.etag)

    assert (tmp_path / "target").read_bytes() == data
    fd = os.open(tmp_path / "target", os.O_RDONLY)
    try:
        assert sum(length for _, length in data_extents(fd, len(data))) < MIB
    finally:
        os.close(fd)


def test_a_snapshot_that_is_cancelled_leaves_nothing(store: Store, put: Callable[..., Any], tmp_path: Path) -> None:
    info = put("disk", LARGE)

    if not store.owned:  # there nothing is copied
        with pytest.raises(JobCancelled):
            store.snapshot("disk", tmp_path / "target", info.etag, cancelled=lambda: True)
        assert not list(tmp_path.glob("target*"))


def test_a_read_only_bucket_is_read_only(
    store: Store, make: Callable[..., Store], put: Callable[..., Any], tmp_path: Path
) -> None:
    put("disk", b"bytes")
    closed = make(read_only=True)
    (tmp_path / "new").write_bytes(b"new")

    with pytest.raises(BucketReadOnly):
        closed.put_file(tmp_path / "new", "disk", exclusive=False)
    with pytest.raises(BucketReadOnly):
        closed.check_put("other", exclusive=True)
    with pytest.raises(BucketReadOnly):
        closed.delete("disk")
    assert get(closed, "disk") == b"bytes"
