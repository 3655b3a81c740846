"""Buckets as folders: objects whole or not at all, listings in order, and nothing outside ever reached."""

import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.buckets.descent import folder_below
from calotype.buckets.folder import FolderStore
from calotype.db.engine import now_ms
from calotype.errors import (
    BucketNotEmpty,
    BucketNotFound,
    BucketReadOnly,
    CalotypeError,
    InvalidObjectKey,
    ObjectChanged,
    ObjectExists,
    ObjectIsFolder,
    ObjectNotFound,
)
from tests.service import until

HOUR_MS = 3600 * 1000


def put(store: FolderStore, key: str, data: bytes, *, exclusive: bool = False) -> None:
    incoming = store.incoming()
    incoming.open()
    with incoming.abandoned_on_error():
        os.write(incoming.fd, data)
        incoming.publish(key, exclusive=exclusive)


def get(store: FolderStore, key: str) -> bytes:
    info, reader = store.open(key)
    with reader:
        return reader.read_at(0, info.size)


def keys(store: FolderStore, *, prefix: str = "", page: int = 1000) -> list[str]:
    found: list[str] = []
    marker: str | None = ""
    while marker is not None:
        part = store.page(prefix=prefix, marker=marker, limit=page)
        assert len(part.objects) <= page
        found += [info.key for info in part.objects]
        marker = part.next_marker
    return found


def temporary(store: FolderStore) -> list[str]:
    folder = store.root / ".calotype-tmp"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


@pytest.fixture
def owned(tmp_path: Path) -> FolderStore:
    (tmp_path / "owned").mkdir()
    return FolderStore(tmp_path / "owned", bucket="owned", owned=True)


@pytest.fixture
def mapped(tmp_path: Path) -> FolderStore:
    (tmp_path / "mapped").mkdir()
    return FolderStore(tmp_path / "mapped", bucket="mapped", owned=False)


@pytest.fixture(params=["owned", "mapped"])
def store(request: pytest.FixtureRequest) -> FolderStore:
    found: FolderStore = request.getfixturevalue(request.param)
    return found


# --- objects ----------------------------------------------------------------------------------------------------------


def test_what_was_put_is_read_and_deleted_with_its_folders(store: FolderStore) -> None:
    put(store, "disks/linux/web.qcow2", b"bytes")

    info = store.stat("disks/linux/web.qcow2")
    assert (info.key, info.size) == ("disks/linux/web.qcow2", 5)
    assert abs(info.modified_at - now_ms()) < HOUR_MS
    assert get(store, "disks/linux/web.qcow2") == b"bytes"

    store.delete("disks/linux/web.qcow2")

    assert keys(store) == []
    assert [path.name for path in store.root.iterdir()] == [".calotype-tmp"]
    assert temporary(store) == []


def test_a_new_version_replaces_the_old_one_and_has_another_etag(store: FolderStore) -> None:
    put(store, "disk", b"old")
    old = store.stat("disk")
    _, reader = store.open("disk")

    put(store, "disk", b"new")

    with reader:
        assert reader.read_at(0, 10) == b"old"  # who reads the old version reads it to its end
    assert get(store, "disk") == b"new"
    assert store.stat("disk").etag != old.etag


def test_an_exclusive_put_keeps_what_is_there(store: FolderStore) -> None:
    put(store, "disk", b"old", exclusive=True)

    with pytest.raises(ObjectExists):
        put(store, "disk", b"new", exclusive=True)
    with pytest.raises(ObjectExists):
        store.check_put("disk", exclusive=True)

    assert get(store, "disk") == b"old"
    assert temporary(store) == []


@pytest.mark.parametrize(("there", "wanted"), [("a", "a/b"), ("a/b", "a"), ("a", "a/b/c"), ("a/b/c", "a/b")])
@pytest.mark.parametrize("exclusive", [False, True])
def test_a_folder_and_an_object_cannot_have_one_name(
    store: FolderStore, there: str, wanted: str, exclusive: bool
) -> None:
    put(store, there, b"first")

    with pytest.raises(ObjectIsFolder):
        store.check_put(wanted, exclusive=exclusive)
    with pytest.raises(ObjectIsFolder):
        put(store, wanted, b"second", exclusive=exclusive)

    assert keys(store) == [there]
    assert temporary(store) == []


@pytest.mark.parametrize("key", ["none", "none/at/all", "disk/below", "folder"])
def test_what_is_no_object_is_not_found(store: FolderStore, key: str) -> None:
    put(store, "disk", b"")
    put(store, "folder/disk", b"")

    for attempt in (store.stat, store.open, store.delete):
        with pytest.raises(ObjectNotFound):
            attempt(key)

    assert keys(store) == ["disk", "folder/disk"]


def test_an_abandoned_one_leaves_nothing(store: FolderStore) -> None:
    incoming = store.incoming()
    incoming.open()
    os.write(incoming.fd, b"half")

    incoming.abandon()
    incoming.abandon()

    assert temporary(store) == []
    assert keys(store) == []


def test_a_read_only_bucket_is_read_and_never_written(mapped: FolderStore) -> None:
    put(mapped, "disk", b"bytes")
    before = sorted(mapped.root.rglob("*"))
    read_only = FolderStore(mapped.root, bucket="mapped", owned=False, read_only=True)

    assert get(read_only, "disk") == b"bytes"
    for attempt in (
        lambda: read_only.check_put("x", exclusive=False),
        lambda: read_only.delete("disk"),
        read_only.incoming,
    ):
        with pytest.raises(BucketReadOnly):
            attempt()
    with pytest.raises(BucketReadOnly):
        read_only.put_file(mapped.root / "disk", "copy", exclusive=True)

    assert sorted(mapped.root.rglob("*")) == before


def test_a_bucket_whose_folder_is_gone_is_not_found(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "gone", bucket="gone", owned=True)

    for attempt in (
        lambda: store.stat("a"),
        lambda: store.open("a/b"),
        lambda: store.delete("a"),
        lambda: store.page(),
        lambda: store.incoming().open(),
        lambda: store.snapshot("a", tmp_path / "t", ""),
    ):
        with pytest.raises(BucketNotFound):
            attempt()

    assert not (tmp_path / "gone").exists()


def test_putting_goes_on_while_others_delete_the_folder_it_goes_to(owned: FolderStore) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for _ in range(60):
                put(owned, f"a/b/c/{name}", b"x")
                owned.delete(f"a/b/c/{name}")
        except BaseException as error:  # noqa: BLE001 - told by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert keys(owned) == []
    assert temporary(owned) == []


# --- listing ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "a-b", "a.b", "a0", "z", "é", "A"]), min_size=1, max_size=4).map("/".join),
        max_size=14,
    ),
    st.integers(1, 6),
    st.sampled_from(["", "a", "a/", "a-", "a/b", "z/a", "none"]),
)
@settings(max_examples=60, deadline=None)
def test_pages_of_any_size_give_every_object_once_in_order(wanted: list[str], page: int, prefix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder), bucket="bucket", owned=True)
        there = set()
        for key in wanted:
            with suppress(ObjectIsFolder):
                put(store, key, key.encode())
                there.add(key)

        listed = keys(store, prefix=prefix, page=page)

    assert listed == sorted((key for key in there if key.startswith(prefix)), key=str.encode)


def test_a_page_begins_after_any_marker_whether_there_or_not(store: FolderStore) -> None:
    for key in ("a", "b/1", "b/2", "c"):
        put(store, key, b"")

    after = {
        marker: [info.key for info in store.page(marker=marker).objects] for marker in ("a", "b", "b/1", "b/15", "d")
    }

    assert after["a"] == ["b/1", "b/2", "c"]
    assert after["b"] == ["b/1", "b/2", "c"]
    assert after["b/1"] == ["b/2", "c"]
    assert after["b/15"] == ["b/2", "c"]
    assert after["d"] == []


def test_a_page_is_bounded_whatever_is_asked(store: FolderStore) -> None:
    for number in range(1005):
        (store.root / f"{number:04}").write_bytes(b"")

    page = store.page(limit=10**9)

    assert len(page.objects) == 1000
    assert page.next_marker == "0999"
    assert len(store.page(limit=0).objects) == 1


def test_names_that_are_no_keys_are_not_listed(mapped: FolderStore) -> None:
    put(mapped, "good", b"")
    (mapped.root / "back\\slash").write_bytes(b"")
    (mapped.root / "line\nbreak").write_bytes(b"")
    (Path(os.fsdecode(os.fsencode(mapped.root) + b"/\xff"))).write_bytes(b"")
    (mapped.root / "empty" / "folders").mkdir(parents=True)

    assert keys(mapped) == ["good"]
    assert keys(mapped, page=1) == ["good"]


def test_the_deepest_object_leaves_no_descriptor_open(store: FolderStore) -> None:
    key = "d/" * 31 + "disk"
    put(store, key, b"deep")
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only counted

    assert keys(store) == [key]
    assert get(store, key) == b"deep"

    store.delete(key)
    assert keys(store) == []
    assert len(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208 - only counted


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_snapshot_of_an_own_bucket_is_the_same_file(owned: FolderStore, tmp_path: Path) -> None:
    put(owned, "disk", b"bytes")
    etag = owned.stat("disk").etag

    assert owned.snapshot("disk", tmp_path / "target", etag) is True
    assert owned.snapshot("disk", tmp_path / "target", etag) is True  # a step may run twice

    assert (tmp_path / "target").samefile(owned.root / "disk")
    assert owned.stat("disk").etag == etag
    put(owned, "disk", b"other")
    owned.delete("disk")
    assert (tmp_path / "target").read_bytes() == b"bytes"


def test_a_snapshot_of_a_mapped_folder_does_not_change_when_the_file_does(mapped: FolderStore, tmp_path: Path) -> None:
    put(mapped, "disk", b"bytes")
    with (mapped.root / "disk").open("ab") as file:
        file.truncate(10_000_000)
    told: list[int] = []

    linked = mapped.snapshot("disk", tmp_path / "target", mapped.stat("disk").etag, progress=told.append)
    with (mapped.root / "disk").open("r+b") as file:
        file.write(b"BYTES")

    assert linked is False
    assert (tmp_path / "target").read_bytes() == b"bytes" + bytes(10_000_000 - 5)
    assert (tmp_path / "target").stat().st_blocks * 512 < 1_000_000
    assert told[-1] == 10_000_000


def test_a_snapshot_has_its_name_only_when_it_is_whole(mapped: FolderStore, tmp_path: Path) -> None:
    put(mapped, "disk", b"x" * 9_000_000)
    seen: list[set[str]] = []

    def look(_done: int) -> None:
        seen.append({path.name for path in tmp_path.iterdir() if path.name.startswith("target")})

    mapped.snapshot("disk", tmp_path / "target", mapped.stat("disk").etag, progress=look)

    assert len(seen) > 1
    assert all(names == {"target.part"} for names in seen)
    assert not (tmp_path / "target.part").exists()
    assert (tmp_path / "target").stat().st_size == 9_000_000


def test_a_changed_object_has_no_snapshot(store: FolderStore, tmp_path: Path) -> None:
    put(store, "disk", b"bytes")
    etag = store.stat("disk").etag
    put(store, "disk", b"BYTES")

    with pytest.raises(ObjectChanged):
        store.snapshot("disk", tmp_path / "target", etag)

    assert not (tmp_path / "target").exists()


def test_an_object_that_changes_while_it_is_copied_has_no_snapshot(mapped: FolderStore, tmp_path: Path) -> None:
    put(mapped, "disk", b"bytes")
    etag = mapped.stat("disk").etag

    def rewrite(_done: int) -> None:
        with (mapped.root / "disk").open("ab") as file:
            file.write(b"more")

    with pytest.raises(ObjectChanged):
        mapped.snapshot("disk", tmp_path / "target", etag, progress=rewrite)

    assert not (tmp_path / "target").exists()


def test_a_missing_object_has_no_snapshot(store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound):
        store.snapshot("none", tmp_path / "target", "etag")


def test_a_file_becomes_an_object_and_may_do_so_twice(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(b"exported")

    first = store.put_file(tmp_path / "made", "out/disk.vmdk", exclusive=True)
    again = store.put_file(tmp_path / "made", "out/disk.vmdk", exclusive=True)
    over = store.put_file(tmp_path / "made", "out/disk.vmdk", exclusive=False)

    assert get(store, "out/disk.vmdk") == b"exported"
    assert first == again
    assert over.size == 8
    assert (tmp_path / "made").read_bytes() == b"exported"
    assert temporary(store) == []


def test_a_mapped_folder_never_shares_a_file_with_the_service(mapped: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(b"exported")
    (tmp_path / "made").chmod(0o400)

    mapped.put_file(tmp_path / "made", "disk", exclusive=True)

    assert not (mapped.root / "disk").samefile(tmp_path / "made")
    assert stat.S_IMODE((mapped.root / "disk").stat().st_mode) & 0o600 == 0o600


def test_a_file_does_not_replace_another_object(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(b"exported")
    put(store, "disk", b"other by")

    with pytest.raises(ObjectExists):
        store.put_file(tmp_path / "made", "disk", exclusive=True)

    assert get(store, "disk") == b"other by"
    assert temporary(store) == []


# --- the bucket -------------------------------------------------------------------------------------------------------


def test_an_empty_bucket_is_removed_with_what_uploads_left(owned: FolderStore) -> None:
    put(owned, "a/b", b"")
    owned.delete("a/b")
    (owned.root / "left" / "over").mkdir(parents=True)
    incoming = owned.incoming()
    incoming.open()

    owned.remove()

    assert not owned.root.exists()
    with pytest.raises(BucketNotFound):
        incoming.publish("disk", exclusive=False)
    incoming.abandon()
    assert not owned.root.exists()


def test_a_bucket_with_an_object_is_not_removed(owned: FolderStore) -> None:
    put(owned, "a/b", b"bytes")

    with pytest.raises(BucketNotEmpty):
        owned.remove()

    assert get(owned, "a/b") == b"bytes"


def test_only_old_temporary_files_are_swept(store: FolderStore) -> None:
    incoming = store.incoming(token="j" + "0" * 32 + "-1")
    incoming.open()

    assert store.sweep_temporary(HOUR_MS) == 0
    assert len(temporary(store)) == 1
    assert store.sweep_temporary(-HOUR_MS) == 1
    assert temporary(store) == []
    incoming.abandon()


# --- nothing outside --------------------------------------------------------------------------------------------------

CANARY = b"canary"


@pytest.fixture
def trapped(tmp_path: Path) -> Iterator[FolderStore]:
    """A mapped folder full of ways out, and the outside that they lead to."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    (outside / "folder").mkdir(parents=True)
    (outside / "canary").write_bytes(CANARY)
    (outside / "folder" / "canary").write_bytes(CANARY)
    root.mkdir()
    (root / "file-link").symlink_to(outside / "canary")
    (root / "folder-link").symlink_to(outside)
    (root / "up-link").symlink_to("..")
    (root / "self-link").symlink_to("self-link")
    (root / "inner").mkdir()
    (root / "inner" / "link").symlink_to("../../outside/canary")
    os.mkfifo(root / "fifo")
    fd = os.open(root, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"/proc/self/fd/{fd}/socket")  # the path of a socket must be short
    os.close(fd)
    yield FolderStore(root, bucket="trapped", owned=False)
    assert sorted(path.relative_to(outside).as_posix() for path in outside.rglob("*")) == [
        "canary",
        "folder",
        "folder/canary",
    ]
    assert (outside / "canary").read_bytes() == (outside / "folder" / "canary").read_bytes() == CANARY


WAYS_OUT = [
    "file-link",
    "folder-link",
    "folder-link/canary",
    "folder-link/folder/canary",
    "folder-link/new",
    "up-link/outside/canary",
    "up-link/new",
    "self-link",
    "self-link/x",
    "inner/link",
    "inner/link/x",
    "fifo",
    "fifo/x",
    "socket",
]


@pytest.mark.parametrize("key", WAYS_OUT)
def test_no_link_and_no_special_file_is_followed(trapped: FolderStore, tmp_path: Path, key: str) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: trapped.stat(key),
        lambda: trapped.open(key),
        lambda: trapped.delete(key),
        lambda: trapped.snapshot(key, tmp_path / "target", "etag"),
    ]

    for attempt in attempts:
        with pytest.raises(ObjectNotFound):
            attempt()
    with pytest.raises(ObjectIsFolder):
        put(trapped, key, b"written through")
    with pytest.raises(ObjectIsFolder):
        trapped.check_put(key, exclusive=False)
    assert keys(trapped) == []
    assert temporary(trapped) == []


def test_a_temporary_folder_that_is_a_link_is_not_used(trapped: FolderStore, tmp_path: Path) -> None:
    (trapped.root / ".calotype-tmp").symlink_to(tmp_path / "outside")

    with pytest.raises(CalotypeError):
        trapped.incoming().open()
    assert trapped.sweep_temporary(-HOUR_MS) == 0


def test_a_step_down_follows_no_link_in_the_middle(trapped: FolderStore) -> None:
    with pytest.raises(NotADirectoryError), folder_below(trapped.root, ["folder-link", "folder"]):
        pass


SEGMENTS = st.sampled_from(
    [
        "..",
        ".",
        "",
        "a",
        "link",
        "up",
        "canary",
        ".calotype-tmp",
        "%2e%2e",
        "..\0",
        "\\..",
        "\u2025",
        "a" * 256,
        "~",
        "CON",
    ]
) | st.text(max_size=6)


@given(st.lists(SEGMENTS, min_size=1, max_size=6).map("/".join), st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_key_reaches_anything_outside(key: str, exclusive: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        root = base / "data" / "root"
        root.mkdir(parents=True)
        (base / "canary").write_bytes(CANARY)
        (base / "data" / "canary").write_bytes(CANARY)
        (root / "link").symlink_to(base)
        (root / "up").symlink_to("..")
        store = FolderStore(root, bucket="bucket", owned=False)

        with suppress(CalotypeError):
            put(store, key, b"new", exclusive=exclusive)
        with suppress(CalotypeError):
            assert get(store, key) == b"new"
        listed = keys(store) + keys(store, prefix=key)
        with suppress(CalotypeError):
            store.snapshot(key, base / "snapshot", "etag")
        with suppress(CalotypeError):
            store.delete(key)

        assert set(listed) <= {key}
        assert sorted(path.name for path in base.iterdir()) == ["canary", "data"]
        assert sorted(path.name for path in (base / "data").iterdir()) == ["canary", "root"]
        assert (base / "canary").read_bytes() == (base / "data" / "canary").read_bytes() == CANARY
        assert (root / "link").is_symlink()
        assert (root / "up").is_symlink()


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a\0b", ".calotype-tmp/x"])
def test_a_key_that_is_none_is_refused_before_anything_is_looked_at(tmp_path: Path, key: str) -> None:
    store = FolderStore(tmp_path / "missing", bucket="bucket", owned=True)

    for attempt in (store.stat, store.open, store.delete):
        with pytest.raises(InvalidObjectKey):
            attempt(key)
    with pytest.raises(InvalidObjectKey):
        store.check_put(key, exclusive=False)


# --- held while it is read --------------------------------------------------------------------------------------------


def test_a_held_object_is_the_same_file_whatever_has_its_name(store: FolderStore) -> None:
    put(store, "disk", b"old")

    with store.hold("disk", store.stat("disk").etag) as held:
        put(store, "disk", b"new")

        assert held.read_at(0, 10) == b"old"


def test_another_version_than_was_meant_is_not_held(store: FolderStore) -> None:
    put(store, "disk", b"old")
    etag = store.stat("disk").etag
    put(store, "disk", b"other")

    with pytest.raises(ObjectChanged):
        store.hold("disk", etag)
    with pytest.raises(ObjectNotFound):
        store.hold("missing", etag)


def test_a_held_object_that_is_written_to_is_another_version_whatever_its_times_say(mapped: FolderStore) -> None:
    path = mapped.root / "disk"
    path.write_bytes(b"bytes of a disk")
    state = path.stat()
    with mapped.hold("disk", mapped.stat("disk").etag) as held:
        held.check()
        version = held.version

        def is_later() -> bool:
            """The times of files go by ticks of the kernel's clock."""
            path.write_bytes(b"other bytes !!!")
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
            return path.stat().st_ctime_ns > state.st_ctime_ns

        until(is_later, "the next tick of the clock")

        with pytest.raises(ObjectChanged):
            held.check()
        with pytest.raises(ObjectChanged):
            held.check(version)
    assert mapped.stat("disk").etag == held.info.etag
