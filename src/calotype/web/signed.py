"""Requests that are signed with an access key instead of carrying a token.

What is signed includes a hash of the body. A body that is a document is read first, and the handler gets it from
memory. Bytes of any length are hashed while they pass: the handler works with a caller who has proved nothing until
the last piece, which it does not get when the signature is wrong; and what it says before is not told.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request

from calotype.errors import CalotypeError, SignatureRefused, TooLarge
from calotype.identity.keys import AccessKeys, Claim
from calotype.identity.model import Caller
from calotype.identity.signatures import EMPTY, UNSIGNED, Message, hashes_before_body, is_signed
from calotype.web.request import MOST_BODY_BYTES, app_of

MOST_LEFT_BYTES: Final = 12 * 1024 * 1024  # of a body that a handler left, read to prove that its answer may be told
PROVED_WITHIN_S: Final = 10.0  # how long that may take
IN_LOOP_BYTES: Final = 16 * 1024  # larger pieces are hashed in a thread
CHANGED: Final = "the body is not the one that was signed"
UNPROVED: Final = (
    "the request was refused before the end of the body that proves its signature; "
    "sign it with X-Sdk-Content-Sha256 to be told why"
)

Piece = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Piece]]


def by_key(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request without a token is signed."""
    return any(name == b"authorization" and is_signed(value.decode("latin-1")) for name, value in scope["headers"])


def message_of(scope: MutableMapping[str, Any]) -> Message:
    path = scope.get("raw_path") or quote(scope["path"], safe="/~").encode()
    return Message(
        method=scope["method"],
        path=path.decode("latin-1").partition("?")[0],
        query=scope["query_string"].decode("latin-1"),
        headers=[(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]],
    )


async def admitted(request: Request, *, path_project: str | None, streams: bool = False) -> tuple[Caller, Request]:
    """Who signed the request, and the request as its handler is to have it. `streams`: the body is no document.

    Raises `SignatureRefused`, `TooLarge` for a document that is above the limit of all, and as `AccessKeys.caller`.
    """
    keys = app_of(request).identity.access_keys
    message = message_of(request.scope)
    claim = await keys.claim(message)
    empty = _is_empty(message)
    hashes = hashes_before_body(claim.authorization, message, empty=empty)
    proved = await keys.proved(claim, *hashes) if hashes else None
    if empty and proved not in (EMPTY, UNSIGNED):
        raise SignatureRefused(CHANGED)
    if empty or proved == UNSIGNED:
        return await keys.caller(claim, path_project=path_project), request
    receive = request.receive
    if streams:
        proof = _Proof(keys, claim, proved, receive)
        request.state.proof = proof
        caller = await keys.caller(claim, path_project=path_project)
        return caller, Request(request.scope, proof.receive)
    body = await _whole(receive)
    await _check(keys, claim, proved, hashlib.sha256(body).hexdigest())
    return await keys.caller(claim, path_project=path_project), Request(request.scope, _again(body, receive))


async def settled(request: Request) -> None:
    """Pass when nothing is left to prove. Raises `SignatureRefused`; reads at most `MOST_LEFT_BYTES` for it."""
    proof: _Proof | None = getattr(request.state, "proof", None)
    if proof is not None:
        await proof.settle()


async def told(request: Request, error: CalotypeError) -> CalotypeError:
    """The error as its caller may know it: to who has not proved to hold the key, nothing but that."""
    try:
        await settled(request)
    except ClientDisconnect:
        return error  # no one reads it
    except CalotypeError as first:
        return first
    return error


class _Proof:
    """A body on its way to a handler. `expected`: the proved hash in hex; None: the signature is of what comes."""

    def __init__(self, keys: AccessKeys, claim: Claim, expected: str | None, receive: Receive) -> None:
        self._keys = keys
        self._claim = claim
        self._expected = expected
        self._receive = receive
        self._hash = hashlib.sha256()
        self._hashing: asyncio.Future[None] | None = None  # of the piece that the handler has
        self._ended = False
        self._refused: SignatureRefused | None = None

    async def receive(self) -> Piece:
        """The next piece; the last one only when the signature is right. Raises `SignatureRefused` otherwise."""
        piece = await self._receive()
        if self._ended or piece["type"] != "http.request":
            return piece
        await self._add(piece.get("body", b""))
        if not piece.get("more_body", False):
            await self._end()
        return piece

    async def settle(self) -> None:
        if not self._ended and self._expected is None:
            try:
                async with asyncio.timeout(PROVED_WITHIN_S):
                    await self._read_on()
            except TimeoutError as error:
                raise SignatureRefused(UNPROVED) from error
        if self._refused is not None:
            raise self._refused

    async def _read_on(self) -> None:
        left = MOST_LEFT_BYTES
        while not self._ended:
            piece = await self.receive()
            if piece["type"] != "http.request":
                raise ClientDisconnect
            left -= len(piece.get("body", b""))
            if left < 0:
                raise SignatureRefused(UNPROVED)

    async def _add(self, data: bytes) -> None:
        if self._hashing is not None:
            await self._hashing
            self._hashing = None
        if len(data) <= IN_LOOP_BYTES:
            self._hash.update(data)
        else:
            self._hashing = asyncio.get_running_loop().run_in_executor(None, self._hash.update, data)

    async def _end(self) -> None:
        if self._hashing is not None:
            await self._hashing
            self._hashing = None
        self._ended = True
        try:
            await _check(self._keys, self._claim, self._expected, self._hash.hexdigest())
        except SignatureRefused as refused:
            self._refused = refused
            raise


async def _check(keys: AccessKeys, claim: Claim, expected: str | None, hashed: str) -> None:
    """Raises `SignatureRefused` unless a body with this hash is what was signed."""
    if expected is None:
        await keys.proved(claim, hashed)
    elif expected.lower() != hashed:
        raise SignatureRefused(CHANGED)


async def _whole(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        piece = await receive()
        if piece["type"] != "http.request":
            raise ClientDisconnect
        size += len(piece.get("body", b""))
        if size > MOST_BODY_BYTES:
            raise TooLarge(f"the body is above {MOST_BODY_BYTES} bytes")
        parts.append(piece.get("body", b""))
        more = piece.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """What gives the body once, and then what comes after it."""
    left: list[Piece] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Piece:
        return left.pop() if left else await receive()

    return give


def _is_empty(message: Message) -> bool | None:
    """Whether there is no body; None: only its end tells."""
    if message.header("transfer-encoding") is not None:
        return None
    return (message.header("content-length") or "0").strip("0") == ""
