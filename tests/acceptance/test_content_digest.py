"""The header Content-Digest of an upload: bytes that are others never become an active image."""

import base64
import hashlib
from typing import Final

import pytest

from tests.importing import OCTETS, create
from tests.service import Client

DISK: Final = b"\x33\xc0 a raw disk " * 1000


def header(data: bytes, *names: str) -> str:
    known = {"sha-512": hashlib.sha512, "sha-256": hashlib.sha256, "md5": hashlib.md5}
    return ", ".join(f"{name}=:{base64.b64encode(known[name](data).digest()).decode()}:" for name in names)


@pytest.mark.parametrize("names", [("sha-512",), ("md5",), ("sha-512", "md5", "sha-256")])
def test_the_right_bytes_become_an_image(demo: Client, names: tuple[str, ...]) -> None:
    image = create(demo)

    told = {**OCTETS, "Content-Digest": header(DISK, *names)}
    answer = demo.http.put(image["file"], content=DISK, headers=told)

    assert answer.status_code == 204, answer.text
    assert demo.image(image["id"])["status"] == "active"


@pytest.mark.parametrize("names", [("sha-512",), ("sha-256",), ("md5",)])
def test_other_bytes_are_refused_and_the_image_waits_for_the_right_ones(demo: Client, names: tuple[str, ...]) -> None:
    image = create(demo)
    told = {**OCTETS, "Content-Digest": header(DISK, *names)}

    refused = demo.http.put(image["file"], content=DISK[:-1] + b"?", headers=told)

    assert refused.status_code == 400
    assert "differs" in refused.json()["error"]["message"]
    assert demo.image(image["id"])["status"] == "queued"
    assert demo.http.put(image["file"], content=DISK, headers=told).status_code == 204


@pytest.mark.parametrize("told", ["md5", "sha-512=:AAAA:", "sha-512=abc", "x" * 5000])
def test_a_header_that_is_none_is_refused_before_a_byte_is_read(demo: Client, told: str) -> None:
    image = create(demo)

    refused = demo.http.put(image["file"], content=DISK, headers={**OCTETS, "Content-Digest": told})

    assert refused.status_code == 400
    assert demo.image(image["id"])["status"] == "queued"


def test_bytes_that_are_staged_are_those_that_were_told(demo: Client) -> None:
    image = create(demo)
    told = {**OCTETS, "Content-Digest": header(DISK, "sha-256")}

    malformed = demo.http.put(f"{image['self']}/stage", content=DISK, headers={**OCTETS, "Content-Digest": "md5"})
    refused = demo.http.put(f"{image['self']}/stage", content=DISK[:-1] + b"?", headers=told)
    assert (malformed.status_code, refused.status_code) == (400, 400)
    assert demo.image(image["id"])["status"] == "queued"

    assert demo.http.put(f"{image['self']}/stage", content=DISK, headers=told).status_code == 204
    assert demo.image(image["id"])["status"] == "uploading"
