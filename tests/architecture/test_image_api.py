"""docs/reference/image-api.md tells of every operation that upstream has, and what it tells is so."""

import re
from pathlib import Path
from typing import Final

import pytest

from calotype.web.imagev2 import ROUTES

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "image-api.md"
ROW: Final = re.compile(r"^\| `([A-Z]+) (/\S*)` \| (same|different|absent) \| ?(.*?) ?\|$", re.MULTILINE)
BEYOND: Final = re.compile(r"`([A-Z]+) (/\S*)`")

_NAMESPACE: Final = "/v2/metadefs/namespaces/{}"
_IMAGE: Final = "/v2/images/{}"
# The operations of Glance 33: path -> methods.
UPSTREAM: Final = {
    **{f"/v2/schemas/{name}": "GET" for name in ("image", "images", "member", "members", "task", "tasks")},
    **{
        f"/v2/schemas/metadefs/{name}": "GET"
        for one, many in (
            ("namespace", "namespaces"),
            ("resource_type", "resource_types"),
            ("property", "properties"),
            ("object", "objects"),
            ("tag", "tags"),
        )
        for name in (one, many)
    },
    "/v2/metadefs/resource_types": "GET",
    "/v2/metadefs/namespaces": "GET POST",
    _NAMESPACE: "GET PUT DELETE",
    f"{_NAMESPACE}/resource_types": "GET POST",
    f"{_NAMESPACE}/resource_types/{{}}": "DELETE",
    f"{_NAMESPACE}/properties": "GET POST DELETE",
    f"{_NAMESPACE}/properties/{{}}": "GET PUT DELETE",
    f"{_NAMESPACE}/objects": "GET POST DELETE",
    f"{_NAMESPACE}/objects/{{}}": "GET PUT DELETE",
    f"{_NAMESPACE}/tags": "GET POST DELETE",
    f"{_NAMESPACE}/tags/{{}}": "GET POST PUT DELETE",
    "/v2/images": "GET POST",
    _IMAGE: "GET PATCH DELETE",
    f"{_IMAGE}/tasks": "GET",
    f"{_IMAGE}/import": "POST",
    f"{_IMAGE}/actions/deactivate": "POST",
    f"{_IMAGE}/actions/reactivate": "POST",
    f"{_IMAGE}/file": "GET PUT",
    f"{_IMAGE}/stage": "PUT",
    f"{_IMAGE}/locations": "GET POST",
    f"{_IMAGE}/tags/{{}}": "PUT DELETE",
    f"{_IMAGE}/members": "GET POST",
    f"{_IMAGE}/members/{{}}": "GET PUT DELETE",
    "/v2/stores/{}/{}": "DELETE",
    "/v2/tasks": "GET POST",
    "/v2/tasks/{}": "GET DELETE",
    "/v2/info/import": "GET",
    "/v2/info/stores": "GET",
    "/v2/info/stores/detail": "GET",
    "/v2/info/usage": "GET",
    "/v2/cache": "GET DELETE",
    "/v2/cache/{}": "PUT DELETE",
    "/v2/cache/nodes/{}": "GET",
    "/v2/cache/clean": "POST",
    "/v2/cache/prune": "POST",
}
OPERATIONS: Final = {(method, path) for path, methods in UPSTREAM.items() for method in methods.split()}
# Upstream has them only to answer 405, which a path without the method does here.
REFUSED: Final = {("DELETE", "/v2/tasks/{}")}


def plain(path: str) -> str:
    """A path without the names of its parameters."""
    return re.sub(r"\{[^}]*\}", "{}", path)


SERVED: Final = {(route.method, plain(route.path)) for route in ROUTES}


def told() -> dict[tuple[str, str], tuple[str, str]]:
    rows = ROW.findall(PAGE.read_text())
    found = {(method, plain(path)): (verdict, why) for method, path, verdict, why in rows}
    assert len(found) == len(rows), "an operation has two rows"
    return found


def test_the_page_tells_of_every_operation_of_upstream_and_of_no_other() -> None:
    assert set(told()) == OPERATIONS


@pytest.mark.parametrize("operation", sorted(OPERATIONS), ids=" ".join)
def test_what_the_page_tells_of_an_operation_is_so(operation: tuple[str, str]) -> None:
    verdict, why = told()[operation]

    assert (operation in SERVED) == (verdict != "absent" and operation not in REFUSED)
    assert verdict == "same" or why, "a difference wants its reason"


def test_the_page_tells_of_everything_that_is_beyond_upstream() -> None:
    section = PAGE.read_text().partition("## Beyond upstream")[2].partition("\n## ")[0]
    named = {(method, plain(path)) for method, path in BEYOND.findall(section)}
    versions = {(method, path) for method, path in SERVED if re.fullmatch(r"/v\d+\.\d+/?", path)}

    assert named - {("GET", "/v2.N"), ("GET", "/v2.N/")} == SERVED - OPERATIONS - versions
