"""The ways by which bytes come in, counted from the source: none is without an attack, or a reason why none can be."""

import ast
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from calotype.jobs.model import JobType
from calotype.jobs.plan import PLANS
from calotype.settings import ImageV2Settings
from calotype.web.app import ROUTES
from tests import entry_paths
from tests.entry_paths import PATHS, Ways

ROOT: Final = Path(__file__).parents[2] / "src" / "calotype"
# Methods and functions by which bytes become an image's, or are read by a child. Those with a receiver count only where
# its name ends so: `convert` and `run` are the names of much else.
SINKS: Final[Mapping[str, str]] = {
    "activate_in": "",
    "point_in": "",
    "keep_in": "",
    "insert_blob": "",
    "publish": "",
    "flatten": "converter",
    "convert": "converter",
    "compare": "converter",
    "check": "converter",
    "run": "sandbox",
}
FUNCTIONS: Final = frozenset({"detect", "unpack_zstd"})


class Uses(ast.NodeVisitor):
    """`MODULE SCOPE NAME` of each use of a sink. A function within a function is of the outer one's scope."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.scopes: list[tuple[str, bool]] = []  # name, whether a class
        self.found: set[str] = set()

    def visit(self, node: ast.AST) -> None:
        within = any(not is_class for _, is_class in self.scopes)
        if within or not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            super().visit(node)
            return
        self.scopes.append((node.name, isinstance(node, ast.ClassDef)))
        super().visit(node)
        self.scopes.pop()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Also where it is handed on, and not called: `partial(blobs.publish, …)`."""
        receiver = ast.unparse(node.value).lower()
        if (node.attr in FUNCTIONS and receiver != "sandbox") or (
            node.attr in SINKS and receiver.endswith(SINKS[node.attr])
        ):
            self._add(node.attr)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in FUNCTIONS and isinstance(node.ctx, ast.Load):
            self._add(node.id)

    def _add(self, name: str) -> None:
        self.found.add(f"{self.module} {'.'.join(scope for scope, _ in self.scopes)} {name}")


def uses(source: str, module: str) -> set[str]:
    visitor = Uses(module)
    visitor.visit(ast.parse(source))
    return visitor.found


def all_uses() -> set[str]:
    return {
        use
        for path in ROOT.rglob("*.py")
        for use in uses(path.read_text(), str(path.relative_to(ROOT)))
    }  # fmt: skip


METHODS: Final = frozenset(
    typing.get_args(typing.get_args(typing.get_type_hints(ImageV2Settings)["import_methods"])[0])
)
LISTS: Final[Mapping[str, tuple[frozenset[str], Mapping[str, Ways]]]] = {
    "job types": (frozenset(PLANS), {str(kind): ways for kind, ways in entry_paths.JOBS.items()}),
    "routes": (frozenset(f"{route.method} {route.path}" for route in ROUTES if route.streams), entry_paths.ROUTES),
    "import methods": (METHODS, entry_paths.METHODS),
    "calls": (frozenset(all_uses()), entry_paths.CALLS),
}


@pytest.mark.parametrize("name", LISTS)
def test_every_way_in_has_an_attack_or_a_reason_and_nothing_else_has(name: str) -> None:
    there, told = LISTS[name]

    assert there - told.keys() == set(), "not in tests/entry_paths.py: add a way, or say why no bytes come in"
    assert told.keys() - there == set(), "in tests/entry_paths.py, and no longer there"


@pytest.mark.parametrize("name", LISTS)
def test_what_is_told_are_ways_that_are_attacked_or_a_reason_in_words(name: str) -> None:
    _, told = LISTS[name]

    for member, ways in told.items():
        if isinstance(ways, str):
            assert len(ways.split()) > 5, member
        else:
            assert ways, member
            assert set(ways) <= PATHS.keys(), member


def test_every_way_is_one_of_some_job_or_route() -> None:
    named = {way for table in (entry_paths.JOBS, entry_paths.ROUTES) for ways in table.values()
             if not isinstance(ways, str) for way in ways}  # fmt: skip
    alone = PATHS.keys() - named

    assert alone == {"location-patch"}  # done while the request waits, and its body is JSON


def test_the_lists_are_not_empty() -> None:
    assert {str(kind) for kind in JobType} == set(PLANS)
    assert all(there for there, _ in LISTS.values())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def new(self):\n    self.images.activate_in(c)", "m.py new activate_in"),
        ("class A:\n  async def b(self):\n    await to(partial(self.blobs.publish, x))", "m.py A.b publish"),
        ("class A:\n  def b(self):\n    def c():\n      converter.convert(x)", "m.py A.b convert"),
        ("async def f(s):\n    await s._sandbox.run(['qemu-img'])", "m.py f run"),
        ("def f():\n    return partial(detect, sandbox)", "m.py f detect"),
        ("def f():\n    return unpacking.unpack_zstd(sandbox)", "m.py f unpack_zstd"),
        ("x = Blobs.publish", "m.py  publish"),
    ],
)
def test_a_use_is_found_however_it_is_written(source: str, found: str) -> None:
    assert uses(source, "m.py") == {found}


def test_what_only_has_the_same_name_is_none() -> None:
    assert uses("msgspec.convert(x, T)\nrunner.run(main())\nfound.check()", "m.py") == set()
