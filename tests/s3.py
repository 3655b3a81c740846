"""An S3 server on this machine for tests: moto's, behind a door that checks every signature with botocore, which shares
nothing with ours, counts what leaves, and can be told to misbehave."""

import hashlib
import io
import re
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

ACCESS_KEY: Final = "AKIAFORTESTSONLY0001"
SECRET_KEY: Final = "canary+secret/of+a+bucket/0123456789abcdef"
REGION: Final = "us-east-1"
AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,]+)/[^,]+,\s*SignedHeaders=([^,]+),\s*Signature=([0-9a-f]{64})"
)
PIECE_BYTES: Final = 64 * 1024
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class S3Server:
    def __init__(self) -> None:
        self.away = False  # every request is answered with 503
        self.cuts = 0  # how many of the next downloads end half-way
        self.lost = 0  # how many of the next requests that change something are done, and not answered
        self.hold_after: int | None = (
            None  # a download stands still once so many bytes have left in all, until `release`
        )
        self.held = threading.Event()
        self._released = threading.Event()
        self.sent: Counter[str] = Counter()  # path -> bytes of objects that have left
        self.requests: list[str] = []
        self._lock = threading.Lock()
        self._app = DomainDispatcherApplication(lambda _service: create_backend_app("s3"))
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Handler)
        self.port = int(self._server.server_port)
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def release(self) -> None:
        self.hold_after = None
        self._released.set()

    def rearm(self) -> None:
        self._released = threading.Event()

    def client(self) -> Any:
        """As another program uses the server."""
        return client(self.url, ACCESS_KEY, SECRET_KEY)

    def bucket(self) -> str:
        """A new one, empty."""
        name = f"b-{uuid.uuid4().hex[:16]}"
        self.client().create_bucket(Bucket=name)
        return name

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        path, method = unquote(environ["PATH_INFO"].encode("latin-1").decode()), environ["REQUEST_METHOD"]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        with self._lock:
            self.requests.append(f"{method} {environ['RAW_URI']}")
        if self.away:
            return _error(start, "503 Service Unavailable", "ServiceUnavailable")
        refusal = _refusal(environ, body)
        if refusal is not None:
            return _error(start, "403 Forbidden", refusal)
        answered: list[Any] = []
        content = b"".join(self._app(environ, lambda *given: answered.extend(given)))
        status, headers = answered[0], [one for one in answered[1] if one[0].lower() != "content-length"]
        length = next((value for name, value in answered[1] if name.lower() == "content-length"), str(len(content)))
        if method in ("PUT", "POST") and self._is_next("lost"):
            raise ConnectionResetError("lost, as the test wants it")
        start(status, [*headers, ("Content-Length", length)])
        if method != "GET" or path.count("/") < 2:
            return [] if method == "HEAD" else [content]
        return self._pieces(path, content)

    def _pieces(self, path: str, content: bytes) -> Iterator[bytes]:
        most = len(content) // 2 if self._is_next("cuts") else len(content)
        for at in range(0, most, PIECE_BYTES):
            piece = content[at : min(at + PIECE_BYTES, most)]
            with self._lock:
                self.sent[path] += len(piece)
                total = self.sent.total()
            if self.hold_after is not None and total > self.hold_after:
                self.held.set()
                released = self._released
                released.wait(timeout=120)
            yield piece
        if most < len(content):
            raise ConnectionResetError("cut, as the test wants it")

    def _is_next(self, fault: str) -> bool:
        with self._lock:
            left: int = getattr(self, fault)
            setattr(self, fault, max(0, left - 1))
            return left > 0


class _Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"

    def connection_dropped(self, *_: object) -> None:
        self.close_connection = True

    def log(self, *_: object) -> None:
        return None


def client(url: str, access_key: str, secret_key: str) -> Any:
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2})
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=REGION,
        config=config,
    )


def _refusal(environ: dict[str, Any], body: bytes) -> str | None:
    """The code of the error that S3 answers with; None: the request is signed as it is to be."""
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    headers |= {"content-length": environ.get("CONTENT_LENGTH", ""), "content-type": environ.get("CONTENT_TYPE", "")}
    given = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if given is None:
        return "AccessDenied"
    if given[1] != ACCESS_KEY:
        return "InvalidAccessKeyId"
    payload = headers["x-amz-content-sha256"]
    if payload != hashlib.sha256(body).hexdigest() and not payload.startswith("STREAMING-"):
        return "XAmzContentSHA256Mismatch"
    signed = {name: headers[name] for name in given[2].split(";")}
    request = AWSRequest(environ["REQUEST_METHOD"], f"http://{headers['host']}{environ['RAW_URI']}", signed, body)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", REGION)
    expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return None if expected == given[3] else "SignatureDoesNotMatch"


def _error(start: StartResponse, status: str, code: str) -> list[bytes]:
    content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))])
    return [content]


@contextmanager
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    try:
        yield server
    finally:
        server.close()


def mapping(url: str, *, prefix: str = "", **more: object) -> dict[str, object]:
    """The settings of a bucket of `url`, which names it."""
    keys: dict[str, object] = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    return {"s3": f"{url}/{prefix}".rstrip("/"), "read_only": False, **keys, **more}


def written(path: Path, buckets: dict[str, dict[str, object]]) -> Path:
    """A file of settings with these buckets."""
    lines = []
    for name, fields in buckets.items():
        lines.append(f"[buckets.{name}]")
        lines += [f"{field} = {_toml(value)}" for field, value in fields.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
