"""The tests of others that are skipped here, each with its reason: `*_skips.toml`."""

import tomllib
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent
SUITES: Final = ("tempest", "client")


def entries(suite: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((FOLDER / f"{suite}_skips.toml").read_text()).get("skip", [])
    return found


def skips(suite: str, *when: str) -> set[str]:
    """Names of the tests that are skipped, of those that depend on something where it is one of `when`."""
    return {skip["test"] for skip in entries(suite) if skip.get("when") in (None, *when)}
