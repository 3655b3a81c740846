"""Signature Version 4 as AWS shows it: the examples of its documentation, with the keys of the examples."""

from datetime import UTC, datetime
from typing import Final

import pytest

from calotype.buckets.s3.signing import NOTHING, Keys, encoded_path, encoded_query, signed

KEYS: Final = Keys(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
HOST: Final = "examplebucket.s3.amazonaws.com"
NOW: Final = datetime(2013, 5, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "query", "headers", "signature"),
    [
        ("/test.txt", {}, {"Range": "bytes=0-9"}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("/", {"lifecycle": ""}, {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "/",
            {"prefix": "J", "max-keys": "2"},
            {},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
    ids=["object", "lifecycle", "listing"],
)
def test_the_examples_of_aws_have_their_signatures(
    path: str, query: dict[str, str], headers: dict[str, str], signature: str
) -> None:
    sent = signed(
        "GET",
        encoded_path(path),
        encoded_query(query),
        {"Host": HOST, **headers},
        payload_sha256=NOTHING,
        keys=KEYS,
        region="us-east-1",
        now=NOW,
    )

    assert sent["authorization"].endswith(f"Signature={signature}")
    assert sent["x-amz-date"] == "20130524T000000Z"


def test_a_session_token_is_signed_as_well() -> None:
    keys = Keys(access_key="A", secret_key="S", session_token="T")

    sent = signed("GET", "/", "", {"Host": HOST}, payload_sha256=NOTHING, keys=keys, region="eu-de", now=NOW)

    assert sent["x-amz-security-token"] == "T"
    assert "x-amz-security-token" in sent["authorization"]


def test_keys_do_not_show_themselves() -> None:
    assert "wJalr" not in repr(KEYS)
    assert "wJalr" not in str([KEYS])
