"""The pipeline that uploads pass: right bytes and digests, bounded memory, nothing left behind on any failure."""

import asyncio
import hashlib
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from calotype.blobs.budget import BLOCK_BYTES, LEAST_BLOCK_BYTES, BufferBudget
from calotype.blobs.receive import GREW_BYTES, receive, store
from calotype.errors import ImageTooLarge, NoSpace, StorageQuotaExceeded, UploadCut

KIB = 1024
MIB = 1024 * 1024


@pytest.fixture
def budget() -> Iterator[BufferBudget]:
    made = BufferBudget(64 * MIB)
    yield made
    made.close()


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def cut_after(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    raise ClientDisconnect


async def taken(chunks: AsyncIterator[bytes], target: Path, budget: BufferBudget, **options: Any) -> Any:
    settings: dict[str, Any] = {"hash_algorithm": "sha512", "most_bytes": 1 << 40, "sparse": False, "idle_s": 60.0}
    return await receive(chunks, target, budget=budget, **(settings | options))


def assert_nothing_left(target: Path, budget: BufferBudget) -> None:
    assert not target.exists()
    assert budget.held_bytes == 0


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "sizes", [[], [0], [1], [1] * 3000, [417_792] * 30, [9 * MIB + 5], [5 * MIB, 1, 3, 4096, 70_000]]
)
async def test_the_file_and_the_digests_are_those_of_the_bytes(
    tmp_path: Path, budget: BufferBudget, sizes: list[int], sparse: bool
) -> None:
    chunks = [os.urandom(size) for size in sizes]
    whole = b"".join(chunks)

    digests = await taken(pieces(*chunks), tmp_path / "f", budget, sparse=sparse)

    assert (tmp_path / "f").read_bytes() == whole
    assert digests.size == len(whole)
    assert digests.md5 == hashlib.md5(whole, usedforsecurity=False).hexdigest()
    assert (digests.hash_algorithm, digests.hash_value) == ("sha512", hashlib.sha512(whole).hexdigest())
    assert budget.held_bytes == 0


async def test_the_other_hash_can_be_chosen(tmp_path: Path, budget: BufferBudget) -> None:
    digests = await taken(pieces(b"abc"), tmp_path / "f", budget, hash_algorithm="sha256")

    assert (digests.hash_algorithm, digests.hash_value) == ("sha256", hashlib.sha256(b"abc").hexdigest())


async def test_runs_of_zeros_become_holes(tmp_path: Path, budget: BufferBudget) -> None:
    head, tail = os.urandom(100 * KIB), os.urandom(3 * KIB + 1)
    whole = head + bytes(8 * MIB) + tail + bytes(2 * MIB)
    chunks = [whole[at : at + 300_001] for at in range(0, len(whole), 300_001)]

    await taken(pieces(*chunks), tmp_path / "f", budget, sparse=True)

    found = (tmp_path / "f").stat()
    assert (tmp_path / "f").read_bytes() == whole
    assert found.st_blocks * 512 < 2 * MIB


async def test_a_file_of_zeros_alone_has_its_length(tmp_path: Path, budget: BufferBudget) -> None:
    await taken(pieces(bytes(MIB)), tmp_path / "f", budget, sparse=True)

    assert (tmp_path / "f").read_bytes() == bytes(MIB)
    assert (tmp_path / "f").stat().st_blocks == 0


async def test_an_upload_stops_at_the_first_byte_past_the_limit(tmp_path: Path, budget: BufferBudget) -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield bytes(KIB)

    with pytest.raises(ImageTooLarge):
        await taken(endless(), tmp_path / "f", budget, most_bytes=10 * KIB)

    assert asked == 11
    assert_nothing_left(tmp_path / "f", budget)


async def test_an_upload_of_exactly_the_limit_is_whole(tmp_path: Path, budget: BufferBudget) -> None:
    assert (await taken(pieces(bytes(10 * KIB)), tmp_path / "f", budget, most_bytes=10 * KIB)).size == 10 * KIB


async def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path, budget: BufferBudget) -> None:
    with pytest.raises(UploadCut, match="went away"):
        await taken(cut_after(os.urandom(9 * MIB), b"rest"), tmp_path / "f", budget)

    assert_nothing_left(tmp_path / "f", budget)


@pytest.mark.parametrize("announced", [0, 9, 11, 1 << 50])
async def test_a_length_that_lies_leaves_nothing(tmp_path: Path, budget: BufferBudget, announced: int) -> None:
    with pytest.raises(UploadCut, match=f"{announced}"):
        await taken(pieces(b"01234", b"56789"), tmp_path / "f", budget, announced=announced)

    assert_nothing_left(tmp_path / "f", budget)


async def test_a_length_that_is_true_is_accepted(tmp_path: Path, budget: BufferBudget) -> None:
    assert (await taken(pieces(b"01234", b"56789"), tmp_path / "f", budget, announced=10)).size == 10


async def test_a_client_that_sends_nothing_for_too_long_is_cut(tmp_path: Path, budget: BufferBudget) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    with pytest.raises(UploadCut, match="no byte arrived"):
        await taken(stuck(), tmp_path / "f", budget, idle_s=0.05)

    assert_nothing_left(tmp_path / "f", budget)


async def test_a_cancelled_upload_leaves_nothing(tmp_path: Path, budget: BufferBudget) -> None:
    halfway = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield os.urandom(13 * MIB)
        halfway.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(taken(stuck(), tmp_path / "f", budget))
    await halfway.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    assert_nothing_left(tmp_path / "f", budget)


async def test_an_error_of_the_source_passes_and_leaves_nothing(tmp_path: Path, budget: BufferBudget) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield os.urandom(5 * MIB)
        raise TimeoutError("of the source's own")

    with pytest.raises(TimeoutError, match="own"):
        await taken(broken(), tmp_path / "f", budget)

    assert_nothing_left(tmp_path / "f", budget)


async def test_a_full_disk_ends_the_upload_although_the_client_is_slow(budget: BufferBudget) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield os.urandom(BLOCK_BYTES)
        await asyncio.Event().wait()

    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(NoSpace):
            await store(
                slow(),
                fd,
                algorithms=("md5",),
                most_bytes=1 << 40,
                budget=budget,
                sparse=False,
                direct=False,
                idle_s=600,
            )
    finally:
        os.close(fd)

    assert budget.held_bytes == 0


async def test_a_file_that_exists_is_not_touched(tmp_path: Path, budget: BufferBudget) -> None:
    (tmp_path / "f").write_bytes(b"someone else's")

    with pytest.raises(FileExistsError):
        await taken(pieces(b"ours"), tmp_path / "f", budget)

    assert (tmp_path / "f").read_bytes() == b"someone else's"


async def test_growth_is_told_before_more_than_a_step_is_stored(tmp_path: Path, budget: BufferBudget) -> None:
    told: list[int] = []
    chunk = bytes(10 * MIB)

    async def grew(total: int) -> None:
        told.append(total)

    await taken(pieces(*[chunk] * 15), tmp_path / "f", budget, sparse=True, grew=grew)

    steps = [0, *told, 150 * MIB]
    assert told
    assert all(after - before <= GREW_BYTES + len(chunk) for before, after in itertools.pairwise(steps))
    assert told == sorted(told)


async def test_what_the_told_one_raises_ends_the_upload(tmp_path: Path, budget: BufferBudget) -> None:
    async def refuses(total: int) -> None:
        raise StorageQuotaExceeded(f"{total} bytes are too many")

    with pytest.raises(StorageQuotaExceeded):
        await taken(pieces(*[bytes(MIB)] * 70), tmp_path / "f", budget, sparse=True, grew=refuses)

    assert_nothing_left(tmp_path / "f", budget)


async def test_many_uploads_never_hold_more_than_the_budget(tmp_path: Path) -> None:
    budget = BufferBudget(600 * KIB)
    most_held = 0

    async def watched(number: int) -> AsyncIterator[bytes]:
        nonlocal most_held
        for _ in range(30):
            most_held = max(most_held, budget.held_bytes)
            yield bytes([number]) * 100_000
            await asyncio.sleep(0)

    done = await asyncio.gather(*(taken(watched(n), tmp_path / str(n), budget) for n in range(20)))

    assert [digests.size for digests in done] == [3_000_000] * 20
    assert all((tmp_path / str(n)).read_bytes() == bytes([n]) * 3_000_000 for n in range(20))
    assert 0 < most_held <= budget.total_bytes
    assert budget.held_bytes == 0
    budget.close()


async def test_a_client_that_stalls_holds_no_memory_that_others_want(tmp_path: Path) -> None:
    budget = BufferBudget(256 * KIB)
    gone = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield bytes(60 * KIB)
        await gone.wait()

    stalled = asyncio.create_task(taken(stalls(), tmp_path / "slow", budget))
    fast = await asyncio.gather(*(taken(pieces(*[bytes(KIB)] * 2000), tmp_path / str(n), budget) for n in range(4)))
    while budget.held_bytes:  # noqa: ASYNC110 - until its bytes are written, although it is still there
        await asyncio.sleep(0.01)

    assert [digests.size for digests in fast] == [2000 * KIB] * 4
    assert not stalled.done()
    gone.set()
    assert (await stalled).size == 60 * KIB
    budget.close()


def test_blocks_shrink_as_uploads_come_and_grow_again() -> None:
    budget = BufferBudget(64 * MIB)
    alone = budget.block_bytes

    with budget.upload(), budget.upload(), budget.upload(), budget.upload(), budget.upload():
        among_five = budget.block_bytes

    assert alone == BLOCK_BYTES
    assert LEAST_BLOCK_BYTES < among_five < BLOCK_BYTES
    assert budget.block_bytes == BLOCK_BYTES
    budget.close()


async def test_who_waits_for_memory_is_served_in_order() -> None:
    budget = BufferBudget(100)
    served: list[str] = []

    async def wants(name: str, n: int) -> None:
        await budget.take(n)
        served.append(name)

    await budget.take(100)
    waiting = [asyncio.create_task(wants(name, n)) for name, n in (("large", 80), ("small", 1), ("other", 1))]
    await asyncio.sleep(0)
    budget.give(50)
    await asyncio.sleep(0)
    early = list(served)
    budget.give(50)
    await asyncio.gather(*waiting)

    assert early == []  # a small one does not overtake: a large one would wait for ever
    assert served == ["large", "small", "other"]
    budget.close()


async def test_who_stops_waiting_for_memory_is_out_of_the_way() -> None:
    budget = BufferBudget(100)
    await budget.take(100)
    first = asyncio.create_task(budget.take(100))
    second = asyncio.create_task(budget.take(10))
    await asyncio.sleep(0)

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    budget.give(10)
    await second

    assert budget.held_bytes == 100
    budget.close()


async def test_memory_that_came_too_late_is_given_back() -> None:
    budget = BufferBudget(100)
    await budget.take(100)
    waiting = asyncio.create_task(budget.take(40))
    await asyncio.sleep(0)

    budget.give(100)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert budget.held_bytes == 0
    budget.close()
