"""What only buckets on an S3 server have: answers that are lost, servers that are away or refuse, parts that are left,
and keys that other programs made."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from calotype.buckets.s3.store import S3Store
from calotype.buckets.s3.uploads import Notes, Upload, part_bytes
from calotype.buckets.s3.wire import Wire
from calotype.buckets.service import LEFT_AFTER_MS, Buckets
from calotype.db.engine import now_ms
from calotype.errors import (
    BucketDenied,
    BucketNotFound,
    DigestMismatch,
    ImageTooLarge,
    ObjectExists,
    ObjectNotFound,
    Unavailable,
    UploadCut,
)
from calotype.settings import BucketMapping, Settings, WrongSetting
from tests.contract.catalogue import opened
from tests.s3 import ACCESS_KEY, SECRET_KEY, S3Server, mapping, s3_server
from tests.service import free_port

MIB: Final = 1024**2
LARGE: Final = random.Random(9).randbytes(MIB) * 18
Make = Callable[..., S3Store]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def name(s3: S3Server) -> str:
    return s3.bucket()


@pytest.fixture
def make(s3: S3Server, name: str, tmp_path: Path) -> Iterator[Make]:
    wires: list[Wire] = []

    def made(url: str = "", **fields: object) -> S3Store:
        given = mapping(url or f"{s3.url}/{name}", **fields)  # type: ignore[arg-type]  # of the settings
        wires.append(Wire("disks", msgspec.convert(given, BucketMapping)))
        return S3Store(wires[-1], bucket="disks", notes=Notes(tmp_path / "notes"), read_only=False)

    yield made
    s3.away, s3.lost, s3.cuts = False, 0, 0
    for wire in wires:
        wire.close()


@pytest.fixture
def store(make: Make) -> S3Store:
    return make()


def file(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "file").write_bytes(data)
    return tmp_path / "file"


def uploads(s3: S3Server, name: str) -> list[Any]:
    found: list[Any] = s3.client().list_multipart_uploads(Bucket=name).get("Uploads", [])
    return found


def notes(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "notes").glob("*"))


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["whole", "in-parts"])
@pytest.mark.parametrize("lost", [1, 2])
def test_an_answer_that_is_lost_changes_nothing(
    store: S3Store, s3: S3Server, name: str, tmp_path: Path, data: bytes, lost: int
) -> None:
    s3.lost = lost

    made = store.put_file(file(tmp_path, data), "disk", exclusive=True)

    assert (made.size, s3.lost) == (len(data), 0)
    assert s3.client().get_object(Bucket=name, Key="disk")["Body"].read() == data
    assert notes(tmp_path) == []


def test_the_answer_to_the_end_of_an_upload_may_be_lost(
    store: S3Store, s3: S3Server, name: str, tmp_path: Path
) -> None:
    upload = Upload(store.wire, "disk", Notes(tmp_path / "notes"))
    upload.begin()
    upload.send(1, LARGE)
    s3.lost = 1

    upload.complete(exclusive=True)

    assert store.stat("disk").etag == upload.expected
    assert (uploads(s3, name), notes(tmp_path)) == ([], [])


def test_an_exclusive_upload_in_parts_sees_who_came_first(
    store: S3Store, s3: S3Server, name: str, tmp_path: Path
) -> None:
    upload = Upload(store.wire, "disk", Notes(tmp_path / "notes"))
    upload.begin()
    upload.send(1, LARGE)
    s3.client().put_object(Bucket=name, Key="disk", Body=b"first")

    with pytest.raises(ObjectExists), upload.aborted_on_error():
        upload.complete(exclusive=True)

    assert store.stat("disk").size == 5
    assert (uploads(s3, name), notes(tmp_path)) == ([], [])


def test_parts_that_a_dead_process_left_are_removed(s3: S3Server, name: str, tmp_path: Path) -> None:
    settings = Settings(
        data_dir=str(tmp_path / "data"),
        buckets={"disks": msgspec.convert(mapping(f"{s3.url}/{name}"), BucketMapping)},
    )
    with opened("sqlite", tmp_path / "data") as catalogue:
        buckets = Buckets(catalogue.db, settings)
        ours = Notes(settings.folder / "buckets" / "uploads")
        wire = Wire("disks", settings.buckets["disks"])
        left, under_way = Upload(wire, "left", ours), Upload(wire, "under way", ours)
        left.begin()
        left.send(1, LARGE)
        old = time.time() - LEFT_AFTER_MS / 1000 - 60
        for note in ours.folder.iterdir():
            os.utime(note, (old, old))
        under_way.begin()

        buckets.sweep(now_ms())

        assert [one["Key"] for one in uploads(s3, name)] == ["under way"]
        assert len(list(ours.folder.iterdir())) == 1
        wire.close()
        buckets.close()


def test_keys_that_other_programs_made_and_are_none_here_are_passed_over(
    store: S3Store, make: Make, s3: S3Server, name: str
) -> None:
    for key in ("dir/", "dir/disk", "dir2/disk", "back\\slash", "plus+space here"):
        s3.client().put_object(Bucket=name, Key=key, Body=b"x")

    assert [info.key for info in store.page().objects] == ["dir/disk", "dir2/disk", "plus+space here"]
    assert [info.key for info in make(f"{s3.url}/{name}/dir").page().objects] == ["disk"]
    assert [info.key for info in store.page(limit=1).objects] == ["dir/disk"]


def test_only_what_is_looked_at_leaves_the_server(store: S3Store, s3: S3Server, name: str, tmp_path: Path) -> None:
    store.put_file(file(tmp_path, LARGE), "disk", exclusive=True)

    with store.open("disk")[1] as reader:
        assert reader.read_at(0, 512) == LARGE[:512]
        assert reader.read_at(len(LARGE) - 512, 512) == LARGE[-512:]
        assert reader.read_at(1024, 512) == LARGE[1024:1536]  # of what was read already

    assert s3.sent[f"/{name}/disk"] <= 2 * 64 * 1024


def test_a_server_that_is_away_or_nowhere_is_unavailable_after_a_few_tries(
    store: S3Store, make: Make, s3: S3Server
) -> None:
    s3.away = True
    before = len(s3.requests)

    with pytest.raises(Unavailable, match="503 ServiceUnavailable"):
        store.page()
    assert len(s3.requests) == before + 4
    with pytest.raises(Unavailable, match="ConnectionRefusedError"):
        make(f"http://127.0.0.1:{free_port()}/bucket").stat("disk")


def test_a_bucket_that_is_not_there_is_not_found(make: Make, s3: S3Server) -> None:
    missing = make(f"{s3.url}/b-not-there")

    for ask in (lambda: missing.stat("disk"), missing.page, lambda: missing.check_put("disk", exclusive=True)):
        with pytest.raises(BucketNotFound):
            ask()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"secret_key": "canary-wrong"}, "SignatureDoesNotMatch"),
        ({"access_key": "AKIANOBODY"}, "InvalidAccessKeyId"),
    ],
    ids=["secret", "access"],
)
def test_wrong_keys_are_refused_with_the_servers_code_and_no_secret(
    make: Make, keys: dict[str, str], told: str
) -> None:
    with pytest.raises(BucketDenied, match=told) as raised:
        make(**keys).page()

    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_file_of_credentials_is_read_again_when_it_changes(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    form = "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
    path.write_text(form.format(ACCESS_KEY, "not yet"))
    fields = {"access_key": "", "secret_key": "", "credentials_file": str(path)}
    store = make(**fields)
    with pytest.raises(BucketDenied):
        store.page()

    path.write_text(form.format(ACCESS_KEY, SECRET_KEY))
    os.utime(path, (1, 1))  # another time, whatever the clock of the file system

    assert store.page().objects == []
    path.write_text("canary, no section")
    os.utime(path, (2, 2))
    with pytest.raises(BucketDenied, match="NoCredentials") as raised:
        store.page()
    assert "canary" not in str(raised.value)
    with pytest.raises(WrongSetting, match=r"buckets\.disks\.credentials_file: wants a file") as wrong:
        make(**fields)
    assert "canary" not in str(wrong.value)


# --- objects that arrive through the API ------------------------------------------------------------------------------


async def chunks(data: bytes, *, then: Callable[[], Any] | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1_000_003):
        yield data[at : at + 1_000_003]
    if then is not None:
        await then()


async def never() -> None:
    await asyncio.Event().wait()


async def put(store: S3Store, coming: AsyncIterator[bytes], **fields: Any) -> Any:
    given = {"exclusive": False, "most_bytes": 100 * MIB, "idle_s": 30.0, **fields}
    return await store.put(coming, "disk", **given)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("size", [0, 5, 8 * MIB, 8 * MIB + 1, 16 * MIB, 16 * MIB + 1])
async def test_an_object_arrives_whole(store: S3Store, s3: S3Server, name: str, size: int, announced: bool) -> None:
    data = LARGE[:size]

    made = await put(store, chunks(data), announced=size if announced else None)

    assert made.size == size
    assert s3.client().get_object(Bucket=name, Key="disk")["Body"].read() == data


@pytest.mark.parametrize("data", [LARGE[: 2 * MIB], LARGE], ids=["whole", "in-parts"])
@pytest.mark.parametrize(
    ("fields", "then", "error"),
    [
        ({"announced": len(LARGE) + 1}, None, UploadCut),
        ({"announced": 1}, None, UploadCut),
        ({"most_bytes": MIB}, None, ImageTooLarge),
        ({"expected_md5": "0" * 32}, None, DigestMismatch),
        ({"idle_s": 0.2}, never, UploadCut),
    ],
    ids=["short", "long", "large", "digest", "idle"],
)
async def test_an_object_that_does_not_arrive_as_it_is_to_leaves_nothing(
    store: S3Store,
    s3: S3Server,
    name: str,
    tmp_path: Path,
    data: bytes,
    fields: dict[str, Any],
    then: Callable[[], Any] | None,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        await put(store, chunks(data, then=then), **fields)

    with pytest.raises(ObjectNotFound):
        store.stat("disk")
    assert (uploads(s3, name), notes(tmp_path)) == ([], [])


def test_no_object_has_more_parts_than_there_may_be() -> None:
    for size in (0, 1, 8 * MIB, 128 * 1024**3, 5 * 1024**4):
        assert part_bytes(size) * 10_000 >= size
        assert part_bytes(size) % MIB == 0
    assert part_bytes(78 * 1024**3) == 8 * MIB
