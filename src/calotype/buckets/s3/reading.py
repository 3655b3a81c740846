"""Reading objects of an S3 server by ranges: every read names the version that it is of, and one that is cut or finds
the server away is done again, from where it was."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Final

from calotype.blobs.local import BlobReader
from calotype.blobs.sparse import Cancelled
from calotype.buckets.model import ObjectInfo
from calotype.buckets.s3.wire import Wire
from calotype.errors import JobCancelled, ObjectChanged, ObjectNotFound, Unavailable

LEAST_BYTES: Final = 64 * 1024  # of one read here and there
MOST_BYTES: Final = 4 * 1024**2  # of one read when reads follow each other; so many are kept as well
RANGE_BYTES: Final = 8 * 1024**2  # of one request of a transfer
AT_ONCE: Final = 3  # requests of a transfer; one more range waits to be written
LOOK_EVERY_S: Final = 0.2  # whether a transfer that waits is still wanted
READ: Final = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})


def read_range(wire: Wire, info: ObjectInfo, start: int, length: int) -> bytes:
    """Exactly these bytes of this version. Raises `ObjectChanged` when there is another one or none, and as `Wire`."""
    headers = {"range": f"bytes={start}-{start + length - 1}", "if-match": f'"{info.etag}"'}
    changed = ObjectChanged(f"object {wire.bucket}:{info.key} was changed meanwhile")
    accept = {*READ, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}
    whole = (start, length) == (0, info.size)
    try:
        answer = wire.request("GET", info.key, headers=headers, accept=accept, most_bytes=length)
    except ObjectNotFound as error:
        raise changed from error
    told = answer.headers.get("etag", "").strip('"')
    if answer.status not in READ or (told and told != info.etag):
        raise changed
    if len(answer.body) != length or (answer.status == HTTPStatus.OK and not whole):
        raise Unavailable(f"the S3 server of bucket {wire.bucket} does not send the range that was asked for")
    return answer.body


class S3Object(BlobReader):
    """An object that is read where it lies, one version of it. Holds `2 * MOST_BYTES` at most; has no descriptor. Used
    by one thread at a time."""

    def __init__(self, wire: Wire, info: ObjectInfo) -> None:
        super().__init__(-1, info.size)
        self.info = info
        self._wire = wire
        self._kept: deque[tuple[int, bytes]] = deque()  # offset, bytes; the newest last
        self._end = -1  # of the last range that was read
        self._ahead = LEAST_BYTES

    def fileno(self) -> int:
        raise OSError("an object of an S3 server has no descriptor")

    def again(self) -> "S3Object":
        """The same version, for another thread."""
        return S3Object(self._wire, self.info)

    def read_at(self, offset: int, n: int) -> bytes:
        """At most `n` bytes from `offset`; fewer only at the end. Raises as `read_range`."""
        end = min(offset + n, self.size)
        pieces: list[bytes] = []
        while offset < end:
            start, block = self._block(offset, end - offset)
            pieces.append(block[offset - start : end - start])
            offset += len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        self._kept.clear()

    def _block(self, offset: int, wanted: int) -> tuple[int, bytes]:
        for start, block in self._kept:
            if start <= offset < start + len(block):
                return start, block
        self._ahead = min(2 * self._ahead, MOST_BYTES) if offset == self._end else LEAST_BYTES
        length = min(max(wanted, self._ahead), MOST_BYTES, self.size - offset)
        while self._kept and length + sum(len(block) for _, block in self._kept) > MOST_BYTES:
            self._kept.popleft()
        found = offset, read_range(self._wire, self.info, offset, length)
        self._kept.append(found)
        self._end = offset + length
        return found


def ranges(
    wire: Wire, info: ObjectInfo, start: int, length: int, *, cancelled: Cancelled | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of `length` bytes from `start`, in order, a few ranges ahead: `AT_ONCE + 1` of them are in
    memory. While the server is away it is tried again for the bucket's `patience_s`, from the range that was missed.

    Raises as `read_range`, and `JobCancelled`. Close it if it is not read to its end.
    """
    stop = threading.Event()
    todo = deque((at, min(RANGE_BYTES, start + length - at)) for at in range(start, start + length, RANGE_BYTES))
    threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="s3-read")
    coming: deque[tuple[int, Future[bytes]]] = deque()
    try:
        while todo or coming:
            while todo and len(coming) < AT_ONCE:
                at, n = todo.popleft()
                coming.append((at, threads.submit(wire.patiently, partial(read_range, wire, info, at, n), stop)))
            at, reading = coming.popleft()
            yield at, _result(reading, cancelled)
    finally:
        stop.set()
        threads.shutdown(wait=True, cancel_futures=True)


def _result(reading: Future[bytes], cancelled: Cancelled | None) -> bytes:
    while True:
        if cancelled is not None and cancelled():
            raise JobCancelled("cancelled while an object was read")
        try:
            return reading.result(LOOK_EVERY_S)
        except TimeoutError:
            if reading.done():
                raise
