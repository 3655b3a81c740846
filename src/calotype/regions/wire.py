"""Requests to the services of one region: what they answer, bounded in time and bytes, and what goes wrong on the way.

Redirects are not followed: the credential is for the hosts of the settings alone.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterable, Mapping
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Final

import httpx
import msgspec
from msgspec import Struct

from calotype.errors import RegionFailed, RegionUnavailable
from calotype.regions.sending import put

MOST_ANSWER_BYTES: Final = 1024 * 1024
MOST_SAID: Final = 300  # characters of what the other side says that are passed on
CONNECT_S: Final = 10.0
SLOWEST_BYTES_PER_S: Final = 64 * 1024  # a transfer that is slower on the whole is given up
# Answers that may be another one later.
LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Answer(Struct, frozen=True, kw_only=True):
    """`region`: for the words of errors."""

    region: str
    status: int
    headers: Mapping[str, str]  # names in lower case
    raw: bytes

    def document(self) -> dict[str, Any]:
        """Raises `RegionFailed` for anything but a JSON object."""
        try:
            return msgspec.json.decode(self.raw, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RegionFailed(f"region {self.region} does not answer as an image service does") from error

    @property
    def said(self) -> str:
        """The status and the other side's own words, in whichever form it tells errors."""
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = ""
        told = _message(self.raw)
        return f"{self.status} {phrase}".rstrip() + (f": {told}" if told else "")


def _message(raw: bytes) -> str:
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        document = document["error"]
    if not isinstance(document, dict):
        return ""
    words = [document.get(name) for name in ("message", "detail", "error_msg")]
    text = " ".join(dict.fromkeys(word for word in words if isinstance(word, str)))
    return "".join(character if character.isprintable() else " " for character in text)[:MOST_SAID].strip()


class Wire:
    """For one task of one event loop. Close it."""

    def __init__(self, region: str, tls: ssl.SSLContext, timeout_s: float) -> None:
        self.region = region
        self._timeout_s = timeout_s
        self._tls = tls
        self._http = httpx.AsyncClient(
            verify=tls,
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            follow_redirects=False,
            trust_env=False,  # neither a proxy nor a netrc: what is sent holds a credential
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "calotype"},
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def exchange(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes = b"") -> Answer:
        """The whole answer, of any status but those that say "later" or lead elsewhere.

        Raises `RegionUnavailable`; `RegionFailed` for a redirect, a certificate that is not valid, and an answer above
        `MOST_ANSWER_BYTES`.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                request = self._http.build_request(method, url, headers=dict(headers), content=content)
                response = await self._http.send(request, stream=True)
                try:
                    answer = await self._read(response)
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.TimeoutException) as error:
            raise RegionUnavailable(f"region {self.region} does not answer in time") from error
        except httpx.HTTPError as error:
            raise self._fault(error) from error
        return self._accepted(answer)

    async def send(self, url: str, chunks: AsyncIterable[bytes], size: int, *, headers: Mapping[str, str]) -> Answer:
        """PUT `size` bytes. As `exchange`; it takes as long as the bytes do at `SLOWEST_BYTES_PER_S`, at most."""
        told = {**self._http.headers, **headers, "content-length": str(size)}
        try:
            async with asyncio.timeout(self._timeout_s + size / SLOWEST_BYTES_PER_S):
                sent = await put(
                    url,
                    told,
                    chunks,
                    tls=self._tls,
                    connect_s=min(CONNECT_S, self._timeout_s),
                    silent_s=self._timeout_s,
                    most_bytes=MOST_ANSWER_BYTES,
                )
        except TimeoutError as error:
            raise RegionUnavailable(f"region {self.region} does not take the bytes in time") from error
        except (OSError, HTTPException) as error:
            raise self._fault(error) from error
        return self._accepted(Answer(region=self.region, status=sent.status, headers=sent.headers, raw=sent.raw))

    def _accepted(self, answer: Answer) -> Answer:
        if answer.status in LATER:
            raise RegionUnavailable(f"region {self.region} answered {answer.said}")
        if 300 <= answer.status < 400:
            raise RegionFailed(f"region {self.region} answered {answer.said}; redirects are not followed")
        return answer

    async def _read(self, response: httpx.Response) -> Answer:
        raw = b""
        async for chunk in response.aiter_raw():
            raw += chunk
            if len(raw) > MOST_ANSWER_BYTES:
                raise RegionFailed(f"region {self.region} answers with more than {MOST_ANSWER_BYTES} bytes")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(region=self.region, status=response.status_code, headers=headers, raw=raw)

    def _fault(self, error: Exception) -> RegionFailed:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return RegionFailed(f"the certificate of region {self.region} is not valid: {cause.verify_message}")
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx.ConnectError | ConnectionRefusedError | socket.gaierror):
            return RegionUnavailable(f"region {self.region} cannot be reached")
        return RegionUnavailable(f"the connection to region {self.region} broke")
