"""Writing objects to an S3 server: in one request, or in parts that are nobody's object until all are there.

What is begun in parts is noted in a file until it has ended: what a process that died has begun is ended from there,
since a server keeps, and bills, parts for ever.
"""

import hashlib
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import msgspec
import structlog
from msgspec import Struct

from calotype.blobs.local import sync_folder
from calotype.buckets.s3.wire import SUCCESS, Answer, Wire
from calotype.errors import CalotypeError, ObjectExists, ObjectNotFound, Unavailable

log = structlog.get_logger()

PART_BYTES: Final = 8 * 1024**2  # what is not larger goes in one request
UNKNOWN_PART_BYTES: Final = 16 * 1024**2  # where nobody said how much will come
MOST_PARTS: Final = 10_000  # of one object, as S3 has it
MIB: Final = 1024**2
NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
TAKEN: Final = frozenset({HTTPStatus.PRECONDITION_FAILED})
UNKNOWN: Final = HTTPStatus.NOT_IMPLEMENTED  # of a server that does not know a header


def part_bytes(size: int) -> int:
    """How large the parts of an object of `size` bytes are: whole MiB."""
    return max(PART_BYTES, -(-size // (MOST_PARTS * MIB)) * MIB)


class Note(Struct, frozen=True, kw_only=True):
    bucket: str
    key: str
    upload_id: str


class Notes:
    """Of uploads under way, in a folder of the service's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, note: Note) -> Path:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = self.folder / uuid.uuid4().hex
        made.write_bytes(msgspec.json.encode(note))
        sync_folder(self.folder)
        return made

    def left(self, older_than_ms: int) -> Iterator[tuple[Path, Note | None]]:
        """Those that nothing was added to for so long. None: it cannot be read."""
        with suppress(FileNotFoundError):
            for path in sorted(self.folder.iterdir()):
                with suppress(FileNotFoundError):
                    if time.time() * 1000 - path.stat().st_mtime * 1000 > older_than_ms:
                        yield path, _read(path)


def _read(path: Path) -> Note | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except msgspec.DecodeError:
        return None


class Upload:
    """One object that arrives in parts. Parts may be sent by several threads at once."""

    def __init__(self, wire: Wire, key: str, notes: Notes) -> None:
        self._wire = wire
        self.key = key
        self._notes = notes
        self._note: Path | None = None
        self._id = ""
        self._parts: dict[int, str] = {}  # number -> etag
        self._digests: dict[int, bytes] = {}  # number -> MD5

    def begin(self) -> None:
        answer = self._wire.request("POST", self.key, query={"uploads": ""})
        found = _element(answer, "UploadId")
        if not found:
            raise Unavailable(f"the S3 server of bucket {self._wire.bucket} does not begin an upload")
        self._id = found
        self._note = self._notes.begin(Note(bucket=self._wire.bucket, key=self.key, upload_id=self._id))

    def send(self, number: int, data: bytes) -> None:
        """`number`: from 1 on."""
        query = self._query(partNumber=str(number))
        accept = {*SUCCESS, HTTPStatus.NOT_FOUND}
        answer = self._wire.request("PUT", self.key, query=query, body=data, accept=accept)
        if answer.status not in SUCCESS:
            raise self._ended()
        self._digests[number] = hashlib.md5(data, usedforsecurity=False).digest()
        self._parts[number] = answer.headers.get("etag", "")
        if self._note is not None:
            with suppress(FileNotFoundError):
                self._note.touch()

    @property
    def expected(self) -> str:
        """What the object's etag is on a server that makes etags as AWS does."""
        return expected_etag([self._digests[number] for number in sorted(self._digests)], in_parts=True)

    def complete(self, *, exclusive: bool) -> None:
        """Make the parts an object. Raises `ObjectExists` for an exclusive one, where the server looks at that; it was
        looked at before, too. What a server said that was not heard is found out by looking at what is there."""
        lines = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{_escaped(self._parts[number])}</ETag></Part>"
            for number in sorted(self._parts)
        )
        body = f'<CompleteMultipartUpload xmlns="{NAMESPACE}">{lines}</CompleteMultipartUpload>'.encode()
        ask = partial(
            self._wire.request,
            "POST",
            self.key,
            query=self._query(),
            body=body,
            accept={*SUCCESS, *TAKEN, UNKNOWN, HTTPStatus.NOT_FOUND},
        )
        answer = ask(headers={"if-none-match": "*"}) if exclusive else ask()
        if answer.status == UNKNOWN and exclusive:
            answer = ask()
        if answer.status in TAKEN:
            raise ObjectExists(self._wire.bucket, self.key)
        if answer.status == HTTPStatus.NOT_FOUND:  # done already by a request whose answer was lost, or ended by others
            with suppress(ObjectNotFound):
                told = self._wire.request("HEAD", self.key).headers.get("etag", "").strip('"')
                if told == self.expected:
                    self._forget()
                    return
            raise self._ended()
        if answer.code or answer.status not in SUCCESS:  # with status 200 as well
            raise Unavailable(f"the S3 server of bucket {self._wire.bucket} did not put the parts together; try again")
        self._forget()

    def abort(self) -> None:
        """Leave nothing on the server. Where that cannot be now, the note stays, and it is done later."""
        if self._id and self._note is not None:
            try:
                end(self._wire, self.key, self._id)
            except CalotypeError as error:
                log.warning("bucket_upload_left", bucket=self._wire.bucket, reason=error.message)
                return
            self._forget()

    @contextmanager
    def aborted_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.abort()
            raise

    def _ended(self) -> Unavailable:
        return Unavailable(f"the upload of {self._wire.bucket}:{self.key} was ended by someone else; try again")

    def _query(self, **more: str) -> dict[str, str]:
        return {"uploadId": self._id, **more}

    def _forget(self) -> None:
        if self._note is not None:
            self._note.unlink(missing_ok=True)
            self._note = None


def end(wire: Wire, key: str, upload_id: str) -> None:
    """Remove the parts of an upload, if they are there."""
    accept = {*SUCCESS, HTTPStatus.NOT_FOUND}
    wire.request("DELETE", key, query={"uploadId": upload_id}, accept=accept)


def put_whole(wire: Wire, key: str, data: bytes, *, exclusive: bool) -> None:
    """Make `data` an object, in one request. Raises `ObjectExists` for an exclusive one, as the server says."""
    condition = {"if-none-match": "*"} if exclusive else {}
    accept = {*SUCCESS, *TAKEN, UNKNOWN}
    answer = wire.request("PUT", key, headers=condition, body=data, accept=accept)
    if answer.status == UNKNOWN:
        answer = wire.request("PUT", key, body=data, accept={*SUCCESS, *TAKEN})
    if answer.status in TAKEN:
        raise ObjectExists(wire.bucket, key)


def expected_etag(digests: list[bytes], *, in_parts: bool) -> str:
    if not in_parts:
        return digests[0].hex()
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def _element(answer: Answer, name: str) -> str:
    try:
        root = ElementTree.fromstring(answer.body)  # noqa: S314 - of the operator's server; expat bounds what it grows to
    except ElementTree.ParseError:
        return ""
    found = next((one for one in root.iter() if one.tag.rpartition("}")[2] == name), None)
    return (found.text or "") if found is not None else ""


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
