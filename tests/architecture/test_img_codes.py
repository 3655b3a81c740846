"""The codes of the IMS API: one table has them all, each stands for an error that a test sees, or says why for none."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from calotype.errors import CalotypeError, Unauthenticated
from calotype.web.problems import img_codes

TESTS: Final = Path(__file__).parents[1]
CODES: Final = sorted(img_codes())
CODE: Final = re.compile(r"IMG\.\d{4}")


def kinds(kind: type[CalotypeError] = CalotypeError) -> Iterator[type[CalotypeError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from kinds(one)


def raised() -> set[str]:
    """Who is not known gets an answer without such a code."""
    return {kind.img for kind in kinds() if not issubclass(kind, Unauthenticated)}


def seen() -> set[str]:
    """The codes that stand as words in the tests of the service, its parts and its jobs."""
    words: set[str] = set()
    for folder in ("acceptance", "contract", "services", "chaos", "units"):
        for path in (TESTS / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    words |= set(CODE.findall(node.value))
    return words


def test_the_table_has_all_177_codes_each_with_its_status_and_message() -> None:
    assert len(CODES) == 177
    assert {told["status"] for told in img_codes().values()} == {400, 403}
    assert all(told["message"] for told in img_codes().values())


@pytest.mark.parametrize("code", CODES)
def test_a_code_stands_for_an_error_or_says_why_it_is_never_answered(code: str) -> None:
    assert (code in raised()) != ("unreachable" in img_codes()[code])


def test_every_code_that_can_be_answered_is_seen_by_a_test() -> None:
    assert sorted(raised() - seen()) == []


def test_no_test_waits_for_a_code_that_is_never_answered() -> None:
    assert sorted(seen() - raised()) == []
