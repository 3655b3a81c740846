"""Imports point down, and what is pure does no I/O. Read from the source, so that a new module is held to it too."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2] / "src" / "calotype"
MODULES: Final = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py"))

# Folder -> the folders of the domain it may import. `db`, `errors`, `settings` and `calotype` itself are below all.
MAY_IMPORT: Final = {
    "db": set(),
    "identity": {"db"},
    "blobs": {"db"},
    "buckets": {"db", "blobs", "identity"},
    "disks": set(),
    "fetch": {"blobs"},
    "images": {"db", "blobs", "disks", "fetch", "identity"},
    "cache": {"db", "blobs", "fetch", "identity", "images"},
    "servers": {"db", "blobs", "buckets", "disks", "identity"},
    "backups": {"db", "blobs", "identity", "images", "servers"},
    "regions": {"identity"},
    "jobs": {"backups", "db", "blobs", "buckets", "disks", "fetch", "identity", "images", "regions", "servers"},
    "metadefs": {"db", "identity"},
    "web": {
        "backups",
        "db",
        "blobs",
        "buckets",
        "cache",
        "disks",
        "fetch",
        "identity",
        "images",
        "jobs",
        "metadefs",
        "regions",
        "servers",
    },
    "cli": {"db", "disks", "identity"},  # the commands of users go over HTTP; `serve` starts the service
}
I_O: Final = {
    "os",
    "socket",
    "subprocess",
    "pathlib",
    "sqlalchemy",
    "asyncio",
    "httpx",
    "starlette",
    "shutil",
    "sqlite3",
}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    folder = module.split("/")[0]
    if folder not in MAY_IMPORT:
        return  # compose, supervisor and the like stand above the folders, errors and settings below

    inside = {name.split(".")[1] for name in imported(ROOT / module) if name.startswith("calotype.")}
    upward = {name for name in inside & set(MAY_IMPORT) if name != folder and name not in MAY_IMPORT[folder]}

    assert not upward, f"{module} imports {upward}"


@pytest.mark.parametrize(
    "module",
    [m for m in MODULES if m.endswith("/model.py") or m.startswith(("errors/", "disks/formats/"))],
)
def test_values_errors_and_parsers_import_nothing_that_does_io(module: str) -> None:
    assert not {name.split(".")[0] for name in imported(ROOT / module)} & I_O


def test_only_one_place_composes() -> None:
    """Services are made in compose.py, and by nobody else inside the package."""
    made = {"Jobs(", "Images(", "Buckets(", "Stores(", "Performer(", "Reaper("}
    others = [m for m in MODULES if m != "compose.py" and any(f" {one}" in (ROOT / m).read_text() for one in made)]

    assert [m for m in others if any(f"= {one}" in (ROOT / m).read_text() for one in made)] == []
