"""Lists: what the parameters of a URL ask for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.errors import BadFilter
from calotype.images.model import ImageQuery, MemberStatus, TimeFilter, Visibility
from calotype.images.query import EXACT, NUMBERS, SORT_KEYS, parse


def query(*parameters: tuple[str, str]) -> ImageQuery:
    return parse(parameters, default_limit=25)


def test_nothing_asked_for_is_the_newest_first() -> None:
    assert query() == ImageQuery(limit=25)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("limit", "0", {"limit": 0}),
        ("limit", "100000000000", {"limit": 1000}),
        ("marker", "x", {"marker": "x"}),
        ("visibility", "all", {"visibility": "all"}),
        ("visibility", "public", {"visibility": Visibility.PUBLIC}),
        ("member_status", "all", {"member_status": "all"}),
        ("member_status", "pending", {"member_status": MemberStatus.PENDING}),
        ("os_hidden", "True", {"hidden": True}),
        ("protected", "false", {"protected": False}),
        ("tag", "a", {"tags": ("a",)}),
        ("name", "a:b", {"one_of": {"name": ("a:b",)}}),
        ("name", 'in:"glass, darkly", share me', {"one_of": {"name": ("glass, darkly", "share me")}}),
        ("owner", "in:a,b", {"one_of": {"owner": ("in:a,b",)}}),
        ("id", "not an id", {"one_of": {"id": ()}}),
        ("size_min", "5", {"numbers": {"size_min": 5}}),
        ("anything", "x", {"properties": (("anything", "x"),)}),
        ("sort", "name:asc,size", {"sort": (("name", "asc"), ("size", "desc"))}),
        ("sort_key", "name", {"sort": (("name", "desc"),)}),
        ("sort_dir", "asc", {"sort": (("created_at", "asc"),)}),
        ("created_at", "1970-01-01T00:00:02Z", {"times": (("created_at", TimeFilter(operator="eq", at=2000)),)}),
        ("updated_at", "gte:1970-01-01 00:00:02", {"times": (("updated_at", TimeFilter(operator="gte", at=2000)),)}),
        (
            "created_at",
            "lt:1970-01-01T01:00:02.7+01:00",
            {"times": (("created_at", TimeFilter(operator="lt", at=2000)),)},
        ),
    ],
)
def test_a_parameter_is_understood(name: str, value: str, expected: dict[str, Any]) -> None:
    assert query((name, value)) == ImageQuery(**{"limit": 25, **expected})


def test_several_sort_keys_take_one_direction_or_one_each() -> None:
    keys = [("sort_key", "name"), ("sort_key", "size")]

    assert query(*keys, ("sort_dir", "asc")).sort == (("name", "asc"), ("size", "asc"))
    assert query(*keys, ("sort_dir", "asc"), ("sort_dir", "desc")).sort == (("name", "asc"), ("size", "desc"))


@pytest.mark.parametrize(
    "parameters",
    [
        [("limit", "-1")],
        [("limit", "x")],
        [("limit", "9" * 5000)],
        [("limit", "")],
        [("visibility", "secret")],
        [("member_status", "maybe")],
        [("os_hidden", "perhaps")],
        [("protected", "")],
        [("size_min", "1.5")],
        [("size_max", "-1")],
        [("min_disk", str(2**63))],
        [("min_ram", "²")],
        [("created_at", "yesterday")],
        [("created_at", "after:2026-01-02T03:04:05Z")],
        [("updated_at", "gt:")],
        [("sort_key", "owner")],
        [("sort_key", "i.id; DROP TABLE images")],
        [("sort_dir", "up")],
        [("sort", "name:up")],
        [("sort", "")],
        [("sort", "name,name")],
        [("sort", "name"), ("sort_key", "name")],
        [("sort_key", "name"), ("sort_dir", "asc"), ("sort_dir", "desc")],
        [("name", 'in:"open')],
        [("name", "x\x00")],
        [("key\x00", "x")],
        [(f"key{n}", "x") for n in range(51)],
        [("id", "in:" + ",".join(str(n) for n in range(1001)))],
    ],
)
def test_a_wrong_parameter_is_refused(parameters: list[tuple[str, str]]) -> None:
    with pytest.raises(BadFilter):
        query(*parameters)


NAMES = st.sampled_from(
    [*EXACT, *NUMBERS, "created_at", "updated_at", "sort", "sort_key", "sort_dir", "limit", "marker", "tag",
     "visibility", "member_status", "os_hidden", "protected"]
) | st.text(max_size=8)  # fmt: skip
VALUES = st.text(max_size=12) | st.sampled_from(
    [
        "in:a,b",
        'in:"a',
        "gt:2026-01-02T03:04:05Z",
        "lte:9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "name:asc",
    ]
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_any_parameters_are_understood_or_refused(parameters: list[tuple[str, str]]) -> None:
    try:
        understood = query(*parameters)
    except BadFilter:
        return

    assert 0 <= understood.limit <= 1000
    assert all(key in SORT_KEYS and direction in ("asc", "desc") for key, direction in understood.sort)
