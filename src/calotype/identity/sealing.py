"""Secrets that have to be read again, kept encrypted: AES-256-GCM, with a key that is derived from a signing key.

Who sees one row, or the table, has no secret; who has the whole database has the signing keys too.
"""

import base64
import secrets
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from calotype.identity.tokens import SigningKey

PURPOSE: Final = b"calotype access key"  # so that the derived key is another than any that signs tokens
NONCE_BYTES: Final = 12


def sealed(secret: str, owner: str, key: SigningKey) -> str:
    """Text that `opened` reads again with the same `owner`, and with no other: `KEY_ID.BASE64URL`."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    data = nonce + _cipher(key).encrypt(nonce, secret.encode(), owner.encode())
    return f"{key.id}.{base64.urlsafe_b64encode(data).decode()}"


def opened(text: str, owner: str, keys: Mapping[str, SigningKey]) -> str | None:
    """None when the key is gone, or the text is not what was sealed for `owner`."""
    key_id, _, encoded = text.partition(".")
    key = keys.get(key_id)
    if key is None:
        return None
    try:
        data = base64.urlsafe_b64decode(encoded)
        return _cipher(key).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], owner.encode()).decode()
    except (InvalidTag, ValueError):
        return None


def _cipher(key: SigningKey) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=PURPOSE).derive(key.secret))
