"""Requests to an S3 server: signed, bounded in time, bytes and tries; what goes wrong is told in the service's errors.

What a server says in an error may hold keys and signatures: of it, only the code is logged or told.
"""

import configparser
import hashlib
import http.client
import re
import ssl
import threading
import time
from collections.abc import Callable, Container, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

import structlog
from msgspec import Struct

from calotype.buckets.s3.signing import NOTHING, Keys, encoded_path, encoded_query, signed
from calotype.errors import (
    BucketDenied,
    BucketNotFound,
    CalotypeError,
    ObjectKeyTooLong,
    ObjectNotFound,
    Unavailable,
)
from calotype.settings import BucketMapping, WrongSetting

log = structlog.get_logger()
T = TypeVar("T")

MOST_BODY_BYTES: Final = 16 * 1024**2  # of an answer: a range, or a page of a listing
PIECE_BYTES: Final = 256 * 1024  # that are handed to the operating system at once
TRIES: Final = 4  # of one request
FIRST_PAUSE_S: Final = 0.1  # between them; doubles each time
FIRST_WAIT_S: Final = 1.0  # of a transfer whose server is away; doubles each time
LONGEST_WAIT_S: Final = 15.0
CONNECT_S: Final = 10.0
SLOWEST_BYTES_PER_S: Final = 64 * 1024  # a body that is slower on the whole is given up
MOST_IDLE: Final = 8  # connections that are kept for the next request
PROFILE: Final = "default"  # of a file of credentials
CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may be another one later
LATER_CODES: Final = frozenset({"RequestTimeout", "OperationAborted", "ConditionalRequestConflict"})
SUCCESS: Final = frozenset({200, 201, 204, 206})


class Answer(Struct, frozen=True, kw_only=True):
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def code(self) -> str:
        """The server's name of an error; "" where there is none, as of a HEAD."""
        found = CODE.search(self.body)
        return found[1].decode() if found else ""


class Wire:
    """One location of the settings. Used by any number of threads at once; each request has a connection of its own."""

    def __init__(self, bucket: str, mapping: BucketMapping) -> None:
        """Raises `WrongSetting` for a file that cannot be read."""
        self.bucket = bucket
        self.patience_s = mapping.patience_s
        self._mapping = mapping
        place = urlsplit(mapping.s3)
        name, _, prefix = unquote(place.path).strip("/").partition("/")
        self.prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        self._secure = place.scheme == "https"
        self._host = f"{name}.{place.netloc}" if mapping.virtual_host else place.netloc
        self._root = "/" if mapping.virtual_host else f"/{name}/"
        parts = urlsplit(f"//{self._host}")
        self._address = parts.hostname or "", parts.port or (443 if self._secure else 80)
        self._tls = _tls(bucket, mapping) if self._secure else None
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._keys: tuple[int, Keys] | None = None
        self.keys()

    def keys(self) -> Keys:
        """What requests are signed with now: a file of credentials is read again when it has changed."""
        mapping = self._mapping
        if not mapping.credentials_file:
            return Keys(access_key=mapping.access_key, secret_key=mapping.secret_key)
        path = Path(mapping.credentials_file)
        wrong = WrongSetting(
            f"buckets.{self.bucket}.credentials_file: wants a file with aws_access_key_id and aws_secret_access_key "
            f"in the section [{PROFILE}], which the service may read"
        )
        try:
            changed = path.stat().st_mtime_ns
            if self._keys is None or self._keys[0] != changed:
                parser = configparser.RawConfigParser()
                parser.read_string(path.read_text())
                section = parser[PROFILE]
                keys = Keys(
                    access_key=section["aws_access_key_id"],
                    secret_key=section["aws_secret_access_key"],
                    session_token=section.get("aws_session_token", ""),
                )
                self._keys = changed, keys
            return self._keys[1]
        except (OSError, UnicodeDecodeError, configparser.Error, KeyError):
            raise wrong from None  # what a parser says of a file with secrets holds lines of it

    def request(
        self,
        method: str,
        key: str | None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        accept: Container[int] = SUCCESS,
        most_bytes: int = MOST_BODY_BYTES,
    ) -> Answer:
        """What the server answers, if its status is one of `accept`. `key` None: the bucket itself. A request that
        may pass another time is sent again, `TRIES` times in all.

        Raises `Unavailable`; `BucketNotFound`, `ObjectNotFound`, `ObjectKeyTooLong`; `BucketDenied` for whatever else
        the server refuses.
        """
        pause, reason = FIRST_PAUSE_S, ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(pause)
                pause *= 2
            try:
                answer = self._once(method, key, query or {}, headers or {}, body, most_bytes)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, ssl.SSLCertVerificationError):
                    reason = f"its certificate is not trusted: {error.verify_message}"
                    break
                reason = type(error).__name__
                continue
            if answer.status in accept:
                return answer
            if answer.status not in LATER and answer.code not in LATER_CODES:
                raise self._refused(answer, key)
            reason = f"{answer.status} {answer.code}".rstrip()
        log.warning("bucket_s3_away", bucket=self.bucket, reason=reason)
        raise Unavailable(f"the S3 server of bucket {self.bucket} does not answer ({reason}); try again later")

    def patiently(self, work: Callable[[], T], stop: threading.Event) -> T:
        """What `work` returns, tried again while the server is away, for `patience_s`, or until `stop` is set."""
        until, pause = time.monotonic() + self.patience_s, FIRST_WAIT_S
        while True:
            try:
                return work()
            except Unavailable:
                if stop.is_set() or time.monotonic() + pause > until:
                    raise
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_WAIT_S)

    def _refused(self, answer: Answer, key: str | None) -> CalotypeError:
        code = answer.code
        if code == "NoSuchBucket" or (answer.status == HTTPStatus.NOT_FOUND and key is None):
            log.warning("bucket_s3_missing", bucket=self.bucket)
            return BucketNotFound(self.bucket)
        if answer.status == HTTPStatus.NOT_FOUND and key is not None:
            return ObjectNotFound(self.bucket, key)
        if code == "KeyTooLongError":
            return ObjectKeyTooLong("the key is longer than the S3 server of the bucket allows")
        log.warning("bucket_s3_refused", bucket=self.bucket, status=answer.status, code=code)
        return BucketDenied(self.bucket, code or str(answer.status))

    def _once(
        self,
        method: str,
        key: str | None,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        most_bytes: int,
    ) -> Answer:
        path = encoded_path(self._root + (self.prefix + key if key is not None else ""))
        asked = encoded_query(query)
        try:
            keys = self.keys()
        except WrongSetting as error:
            log.warning("bucket_s3_no_keys", bucket=self.bucket, reason=str(error))
            raise BucketDenied(self.bucket, "NoCredentials") from None
        sent = signed(
            method,
            path,
            asked,
            {"host": self._host, **headers},
            payload_sha256=hashlib.sha256(body).hexdigest() if body else NOTHING,
            keys=keys,
            region=self._mapping.region,
            now=datetime.now(UTC),
        )
        if body or method in ("PUT", "POST"):
            sent["content-length"] = str(len(body))
        target = f"{path}?{asked}" if asked else path
        connection, was_idle = self._connection()
        try:
            try:
                answer = self._exchange(connection, method, target, sent, body, most_bytes)
            except (ConnectionError, http.client.RemoteDisconnected):
                if not was_idle:
                    raise
                connection.close()  # the server had ended it meanwhile: that says nothing about the server
                connection = self._new_connection()
                answer = self._exchange(connection, method, target, sent, body, most_bytes)
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)
        return answer

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        most_bytes: int,
    ) -> Answer:
        if connection.sock is None:
            self._connect(connection)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        end = time.monotonic() + self._mapping.timeout_s + len(body) / SLOWEST_BYTES_PER_S
        view = memoryview(body)
        try:
            while view:
                _in_time(end)
                connection.send(view[:PIECE_BYTES])
                view = view[PIECE_BYTES:]
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server that refuses a body need not read it: what it says counts, if it said anything
        response = connection.getresponse()
        return Answer(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            body=self._body(response, most_bytes),
        )

    def _body(self, response: http.client.HTTPResponse, most_bytes: int) -> bytes:
        """Raises `OSError` for a body that is cut, slow or too long."""
        end = time.monotonic() + self._mapping.timeout_s + most_bytes / SLOWEST_BYTES_PER_S
        pieces: list[bytes] = []
        total = 0
        while piece := response.read1(PIECE_BYTES):
            _in_time(end)
            total += len(piece)
            if total > most_bytes:
                raise OSError("the answer is longer than what was asked for")
            pieces.append(piece)
        if response.length:  # so many bytes were announced beside those that came
            raise ConnectionError("the answer was cut")
        return b"".join(pieces)

    # --- connections --------------------------------------------------------------------------------------------------

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """One, and whether it was used before."""
        with self._lock:
            if self._idle:
                return self._idle.pop(), True
        return self._new_connection(), False

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        connection.timeout = min(CONNECT_S, self._mapping.timeout_s)
        connection.connect()
        connection.sock.settimeout(self._mapping.timeout_s)

    def _new_connection(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._tls is not None:
            return http.client.HTTPSConnection(host, port, context=self._tls)
        return http.client.HTTPConnection(host, port)

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _in_time(end: float) -> None:
    if time.monotonic() > end:
        raise TimeoutError("the S3 server is too slow")


def _tls(bucket: str, mapping: BucketMapping) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if mapping.ca_file:
        try:
            context.load_verify_locations(mapping.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise WrongSetting(f"buckets.{bucket}.ca_file: cannot be read: {error}") from None
    return context
