"""Transfers over HTTP, with a server that cuts, lies and refuses as it is told to."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from calotype.cli import transfer
from calotype.cli.failure import Failure
from calotype.cli.session import Api
from calotype.cli.show import Meter
from calotype.cli.transfer import OutgoingFile, Source

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WHOLE = Source(path="/object", size=len(CONTENT), version='"v1"', hash_algorithm="sha256", digest=SHA256)
SILENT = Meter(lambda _percent, _words: None)


class Server(ThreadingHTTPServer):
    """Serves `content` by ranges. `cuts` are how many bytes it sends before it hangs up, one a request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag = '"v1"'
        self.cuts: list[int] = []
        self.ranges = True
        self.asked: list[str] = []
        self.received = b""
        self.refusal: tuple[int, bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("range", "")
        self.server.asked.append(asked)
        if self._refused():
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        part = self.server.content[start:]
        self.send_response(206 if asked and self.server.ranges else 200)
        self.send_header("content-length", str(len(part)))
        self.send_header("etag", self.server.etag)
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(part)
        self.wfile.write(part[:cut])
        self.close_connection = True

    def do_PUT(self) -> None:
        self.server.received = self.rfile.read(int(self.headers["content-length"]))
        if self._refused():
            return
        self.send_response(201)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def _refused(self) -> bool:
        if self.server.refusal is None:
            return False
        status, body = self.server.refusal
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return True

    def log_message(self, *_: object) -> None:
        """Nothing: the test says what matters."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def api(server: Server) -> Iterator[Api]:
    with closing(Api(server.url, Session(auth=Token(server.url, "a-token")))) as opened:
        yield opened


def unfinished(folder: Path) -> list[Path]:
    return list(folder.glob(".calotype-*.part"))


def test_a_download_is_whole_and_leaves_only_the_file(api: Api, tmp_path: Path) -> None:
    transfer.fetch(api, WHOLE, tmp_path / "disk", SILENT)

    assert [path.name for path in tmp_path.iterdir()] == ["disk"]
    assert (tmp_path / "disk").read_bytes() == CONTENT


def test_a_download_that_is_cut_goes_on_where_it_stopped(api: Api, server: Server, tmp_path: Path) -> None:
    server.content = CONTENT * 4
    server.cuts = [2 * len(CONTENT) + 5]
    source = Source(path="/object", size=len(server.content), version='"v1"')

    transfer.fetch(api, source, tmp_path / "disk", SILENT, pause_s=0)

    assert (tmp_path / "disk").read_bytes() == server.content
    assert server.asked == ["bytes=0-", f"bytes={2 * len(CONTENT)}-"]


def test_a_later_command_goes_on_with_what_an_earlier_one_left(api: Api, server: Server, tmp_path: Path) -> None:
    server.content = CONTENT * 2
    server.cuts = [len(CONTENT), 0, 0, 0, 0, 0]
    digest = hashlib.sha256(server.content).hexdigest()
    source = Source(path="/object", size=len(server.content), version='"v1"', hash_algorithm="sha256", digest=digest)
    with pytest.raises(Failure) as told:
        transfer.fetch(api, source, tmp_path / "disk", SILENT, pause_s=0)
    assert told.value.next_step == transfer.AGAIN
    server.cuts, server.asked = [], []

    transfer.fetch(api, source, tmp_path / "disk", SILENT, pause_s=0)

    assert server.asked == [f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "disk").read_bytes() == server.content
    assert unfinished(tmp_path) == []


def test_bytes_of_another_digest_are_thrown_away(api: Api, server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"!"

    with pytest.raises(Failure, match="not those the service announced") as told:
        transfer.fetch(api, WHOLE, tmp_path / "disk", SILENT)

    assert told.value.code == "digest_mismatch"
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_file_that_was_spoiled_is_found_by_the_digest(api: Api, server: Server, tmp_path: Path) -> None:
    server.content = CONTENT * 2
    digest = hashlib.sha256(server.content).hexdigest()
    source = Source(path="/object", size=len(server.content), version="", hash_algorithm="sha256", digest=digest)
    server.cuts = [len(CONTENT), *[0] * transfer.TRIES]
    with pytest.raises(Failure):
        transfer.fetch(api, source, tmp_path / "disk", SILENT, pause_s=0)
    (part,) = unfinished(tmp_path)
    part.write_bytes(b"x" * part.stat().st_size)

    with pytest.raises(Failure) as told:
        transfer.fetch(api, source, tmp_path / "disk", SILENT, pause_s=0)

    assert told.value.code == "digest_mismatch"
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_changed_meanwhile_is_refused(api: Api, server: Server, tmp_path: Path) -> None:
    server.etag = '"v2"'

    with pytest.raises(Failure) as told:
        transfer.fetch(api, WHOLE, tmp_path / "disk", SILENT)

    assert told.value.code == "object_changed"
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_sends_too_much_is_stopped(api: Api, server: Server, tmp_path: Path) -> None:
    server.content = CONTENT + b"more"

    with pytest.raises(Failure) as told:
        transfer.fetch(api, WHOLE, tmp_path / "disk", SILENT)

    assert told.value.code == "wrong_size"
    assert not (tmp_path / "disk").exists()


def test_an_empty_object_becomes_an_empty_file(api: Api, tmp_path: Path) -> None:
    transfer.fetch(api, Source(path="/object", size=0, version=""), tmp_path / "disk", SILENT)

    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("disk", 0)]


def test_a_refused_download_leaves_nothing_and_tells_the_services_words(
    api: Api, server: Server, tmp_path: Path
) -> None:
    server.refusal = (404, b'{"error": {"code": "object_not_found", "message": "object b:k not found"}}')

    with pytest.raises(Failure, match="object b:k not found") as told:
        transfer.fetch(api, WHOLE, tmp_path / "disk", SILENT)

    assert told.value.code == "object_not_found"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b'{"error": {"code": "IMG.0057", "message": "Bad.", "detail": "no b:k"}}', "IMG.0057", "Bad. (no b:k)"),
        (b'{"error": {"code": 409, "message": "taken", "title": "Conflict"}}', "http_409", "taken"),
        (b'{"error_msg": "bad token", "error_code": "APIGW.0301", "request_id": ""}', "APIGW.0301", "bad token"),
        (b"<html>proxy</html>", "http_409", "HTTP 409 Conflict"),
        (b"", "http_409", "HTTP 409 Conflict"),
        (b"[]", "http_409", "HTTP 409 Conflict"),
        (b'{"error": "x"}', "http_409", "HTTP 409 Conflict"),
    ],
)
def test_every_form_of_refusal_is_told_by_code_and_message(
    body: bytes, code: str, message: str, api: Api, server: Server
) -> None:
    server.refusal = (409, body)

    with pytest.raises(Failure) as told:
        api.call("GET", "/object")

    assert (told.value.code, told.value.message, told.value.status) == (code, message, 409)


def test_an_answer_that_is_no_json_is_told_as_another_service(api: Api) -> None:
    with pytest.raises(Failure) as told:
        api.call("GET", "/object")

    assert told.value.code == "not_calotype"


def test_a_file_that_exists_is_replaced_only_when_that_was_said(api: Api, tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("mine")

    with pytest.raises(Failure) as told:
        transfer.fetch(api, WHOLE, tmp_path / "disk", SILENT)
    transfer.fetch(api, WHOLE, tmp_path / "disk", SILENT, overwrite=True)

    assert told.value.code == "file_exists"
    assert (tmp_path / "disk").read_bytes() == CONTENT


def test_a_symbolic_link_in_the_place_of_the_file_is_not_written_through(api: Api, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "disk").symlink_to(victim)

    transfer.fetch(api, WHOLE, tmp_path / "disk", SILENT, overwrite=True)

    assert victim.read_text() == "mine"
    assert (tmp_path / "disk").read_bytes() == CONTENT


@pytest.mark.parametrize("place", [".", "missing/disk", "file/disk"])
def test_a_place_that_cannot_be_written_is_told(place: str, api: Api, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Failure) as told:
        transfer.fetch(api, WHOLE, tmp_path / place, SILENT)

    assert told.value.code in ("is_a_folder", "cannot_write")


def test_two_commands_do_not_write_the_same_download(api: Api, server: Server, tmp_path: Path) -> None:
    second: list[Failure] = []

    def at_once(_percent: float | None, _words: str) -> None:
        if not second:
            with pytest.raises(Failure) as told:
                transfer.fetch(api, WHOLE, tmp_path / "disk", SILENT)
            second.append(told.value)

    transfer.fetch(api, WHOLE, tmp_path / "disk", Meter(at_once))

    assert second[0].code == "busy"
    assert (tmp_path / "disk").read_bytes() == CONTENT


def test_a_file_is_sent_whole_with_its_length_and_digest(api: Api, server: Server, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(CONTENT)
    file = OutgoingFile(tmp_path / "disk", "sha256")

    answer = transfer.send(api, "PUT", "/object", file, SILENT, {})

    assert answer == b"{}"
    assert server.received == CONTENT
    assert file.digest == SHA256


@pytest.mark.parametrize("spoil", [b"short", CONTENT + b"+"])
def test_a_file_that_changes_while_it_is_sent_is_told(spoil: bytes, api: Api, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(CONTENT)
    file = OutgoingFile(tmp_path / "disk")
    (tmp_path / "disk").write_bytes(spoil)

    with pytest.raises(Failure) as told:
        transfer.send(api, "PUT", "/object", file, SILENT, {})

    assert told.value.code == "file_changed"


def test_a_folder_or_a_missing_file_is_not_sent(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(Failure):
            OutgoingFile(path)
