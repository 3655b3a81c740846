"""The catalogue of metadata definitions over a real database: pages, exactness at once, what the service brings."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.db.engine import Database
from calotype.errors import (
    CalotypeError,
    Invalid,
    MetadefExists,
    MetadefNotFound,
    NamespaceExists,
    NamespaceNotFound,
    ReadOnlyAttribute,
)
from calotype.metadefs import defaults, forms
from calotype.metadefs.forms import AssociationForm, NamedPropertyForm, NamespaceForm, ObjectForm, TagsForm, is_name
from calotype.metadefs.model import DefinitionQuery, Kind, NamespaceQuery, Visibility
from calotype.metadefs.service import Metadefs
from tests.contract.catalogue import ADMIN, DATABASES, OTHER, OWNER, caller, opened


@pytest.fixture(params=DATABASES)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened(request.param, tmp_path) as made:
        yield made.db


@pytest.fixture
def metadefs(db: Database) -> Metadefs:
    return Metadefs(db)


def form(namespace: str, **fields: Any) -> NamespaceForm:
    return forms.read({"namespace": namespace, **fields}, NamespaceForm)


async def names(metadefs: Metadefs, who: Any = ADMIN, **asked: Any) -> list[str]:
    page = await metadefs.list(who, NamespaceQuery(**{"limit": 1000, **asked}))
    return [content.namespace.name for content in page.namespaces]


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("key", ["namespace", "display_name", "visibility", "protected", "owner", "created_at", "id"])
async def test_pages_together_are_the_whole_list_in_order(metadefs: Metadefs, key: Any, descending: bool) -> None:
    for number in range(12):
        given = form(
            f"n{number * 7 % 12:02}",
            display_name=None if number % 3 else f"d{number % 2}",
            visibility="public" if number % 2 else "private",
            protected=number % 4 == 0,
        )
        # Many at the same time: only the id keeps them apart.
        with metadefs.db.writing() as c:
            metadefs.create_in(c, given, owner=(OWNER, OTHER)[number % 2], now=1000 + number // 5)
    whole = await names(metadefs, sort_key=key, descending=descending)

    walked: list[str] = []
    marker = None
    while True:
        page = await metadefs.list(ADMIN, NamespaceQuery(sort_key=key, descending=descending, limit=5, marker=marker))
        walked += [content.namespace.name for content in page.namespaces]
        marker = page.next_marker
        if marker is None:
            break

    assert walked == whole
    assert len(set(walked)) == 12
    if key == "namespace":
        assert whole == sorted(whole, reverse=descending)


async def test_a_page_that_ends_exactly_is_the_last(metadefs: Metadefs) -> None:
    for number in range(4):
        await metadefs.create(ADMIN, form(f"n{number}", tags=[{"name": "a"}, {"name": "b"}]))

    assert (await metadefs.list(ADMIN, NamespaceQuery(limit=4))).next_marker is None
    assert (await metadefs.list(ADMIN, NamespaceQuery(limit=3))).next_marker == "n1"
    assert (await metadefs.definitions(ADMIN, "n0", Kind.TAG, DefinitionQuery(limit=2))).next_marker is None
    assert (await metadefs.definitions(ADMIN, "n0", Kind.TAG, DefinitionQuery(limit=0))).definitions == ()


async def test_everyone_sees_public_and_own_namespaces(metadefs: Metadefs) -> None:
    for owner in (OWNER, OTHER):
        for visibility in Visibility:
            await metadefs.create(ADMIN, form(f"{visibility}-{owner[0]}", visibility=visibility.value, owner=owner))

    assert sorted(await names(metadefs, caller(OWNER, "reader"))) == ["private-a", "public-a", "public-b"]
    assert await names(metadefs, caller(OWNER), visibility=Visibility.PRIVATE) == ["private-a"]
    assert len(await names(metadefs)) == 4
    with pytest.raises(NamespaceNotFound):
        await metadefs.get(caller(OWNER), "private-b")
    with pytest.raises(NamespaceNotFound):
        await metadefs.list(caller(OWNER), NamespaceQuery(marker="private-b"))


# --- many at once -----------------------------------------------------------------------------------------------------


async def outcomes(*calls: Any) -> list[str]:
    """Names of the errors, sorted; `done` of those that did not fail."""
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, CalotypeError) for one in ended if isinstance(one, BaseException)), ended
    return sorted(type(one).__name__ if isinstance(one, Exception) else "done" for one in ended)


async def test_of_many_that_create_one_name_one_does(metadefs: Metadefs) -> None:
    full = {"tags": [{"name": "a"}], "resource_type_associations": [{"name": "new type"}]}

    ended = await outcomes(*(metadefs.create(ADMIN, form("same", **full)) for _ in range(6)))

    assert ended == ["NamespaceExists"] * 5 + ["done"]
    assert len((await metadefs.get(ADMIN, "same")).tags) == 1


async def test_of_many_that_take_one_name_by_renaming_one_does(metadefs: Metadefs) -> None:
    for number in range(5):
        await metadefs.create(ADMIN, form(f"n{number}", tags=[{"name": f"t{n}"} for n in range(5)]))

    renamed = await outcomes(*(metadefs.update(ADMIN, f"n{number}", form("same")) for number in range(5)))
    tags = await outcomes(*(metadefs.replace(ADMIN, "same", Kind.TAG, f"t{n}", "t", {}) for n in range(5)))

    assert renamed == ["NamespaceExists"] * 4 + ["done"]
    assert tags == ["MetadefExists"] * 4 + ["done"]


async def test_adding_while_the_namespace_is_deleted_adds_or_finds_it_gone(metadefs: Metadefs) -> None:
    for _ in range(3):
        await metadefs.create(ADMIN, form("same"))
        adding = [metadefs.add(ADMIN, "same", Kind.TAG, f"t{n}", {}) for n in range(4)]
        associating = metadefs.associate(ADMIN, "same", AssociationForm(name="type"))

        ended = await outcomes(metadefs.delete(ADMIN, "same"), *adding, associating)

        assert set(ended) <= {"done", "NamespaceNotFound"}
        with pytest.raises(NamespaceNotFound):
            await metadefs.get(ADMIN, "same")


async def test_the_bound_of_a_namespace_is_exact_however_many_add_to_it(metadefs: Metadefs) -> None:
    await metadefs.create(ADMIN, form("full", tags=[{"name": f"t{n}"} for n in range(998)]))

    ended = await outcomes(*(metadefs.add(ADMIN, "full", Kind.TAG, f"more{n}", {}) for n in range(6)))

    assert ended == ["TooManyMetadefs"] * 4 + ["done"] * 2


async def test_what_fails_half_way_changes_nothing(metadefs: Metadefs) -> None:
    await metadefs.create(ADMIN, form("there", tags=[{"name": "a"}, {"name": "b"}]))
    before = await metadefs.get(ADMIN, "there")

    with pytest.raises(MetadefExists):
        await metadefs.create(ADMIN, form("new", objects=[{"name": "o"}, {"name": "o"}]))
    with pytest.raises(MetadefExists):
        await metadefs.add_tags(ADMIN, "there", ["c", "c"], append=False)
    with pytest.raises(NamespaceExists):
        await metadefs.create(ADMIN, form("there", resource_type_associations=[{"name": "never seen"}]))
    with pytest.raises(MetadefNotFound):
        await metadefs.replace(ADMIN, "there", Kind.TAG, "missing", "a", {})

    assert await metadefs.get(ADMIN, "there") == before
    assert await names(metadefs) == ["there"]
    assert await metadefs.resource_types() == ()


# --- what the service brings ------------------------------------------------------------------------------------------


async def test_what_the_service_brings_is_brought_once(db: Database, metadefs: Metadefs) -> None:
    await metadefs.create(ADMIN, form("OS::Glance::Signatures", description="the operator's own"))

    first = defaults.load(db)
    brought = sorted(await names(metadefs))
    await metadefs.update(ADMIN, "OS::Compute::TPM", form("OS::Compute::TPM", description="ours"))
    await metadefs.update(ADMIN, "OS::Compute::Firmware", form("renamed"))
    await metadefs.update(ADMIN, "OS::Compute::Watchdog", form("OS::Compute::Watchdog"))
    await metadefs.delete(ADMIN, "OS::Compute::Watchdog")
    again = defaults.load(db)

    wanted = [one.namespace for one in defaults.namespaces()]
    assert brought == sorted(wanted)
    assert (first, again) == (len(wanted) - 1, 0)
    left = {*wanted, "renamed"} - {"OS::Compute::Watchdog", "OS::Compute::Firmware"}
    assert set(await names(metadefs)) == left
    assert (await metadefs.get(ADMIN, "OS::Compute::TPM")).namespace.description == "ours"
    assert (await metadefs.get(ADMIN, "OS::Glance::Signatures")).namespace.description == "the operator's own"
    assert tuple(each.name for each in await metadefs.resource_types()) == defaults.RESOURCE_TYPES


async def test_nodes_that_start_at_once_bring_it_once(db: Database, metadefs: Metadefs) -> None:
    loaded = await asyncio.gather(*(asyncio.to_thread(defaults.load, db) for _ in range(3)))

    assert sorted(loaded) == [0, 0, len(defaults.namespaces())]
    assert len(await names(metadefs)) == len(defaults.namespaces())


def test_what_the_service_brings_says_of_each_property_what_it_is() -> None:
    for one in defaults.namespaces():
        assert one.description, one.namespace
        assert one.resource_type_associations, one.namespace
        for called, described in (one.properties or {}).items():
            assert described.description, called


# --- documents --------------------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=15,
)
LEAST: dict[Any, dict[str, Any]] = {
    NamespaceForm: {"namespace": "n"},
    NamedPropertyForm: {"name": "n", "title": "t", "type": "string"},
    ObjectForm: {"name": "n"},
    TagsForm: {"tags": []},
    AssociationForm: {"name": "n"},
}


@pytest.mark.parametrize("kind", LEAST)
@given(data=st.data())
def test_a_document_is_read_or_refused(kind: Any, data: st.DataObject) -> None:
    fields = st.sampled_from([*kind.__struct_encode_fields__, "self", "other"])
    document = {**LEAST[kind], **data.draw(st.dictionaries(fields, ANYTHING, max_size=4))}

    try:
        read = forms.read(document, kind)
        kept = forms.object_document(read) if kind is ObjectForm else {}
    except (Invalid, ReadOnlyAttribute):
        return

    assert set(document) <= set(kind.__struct_encode_fields__)
    assert set(kept) <= {"description", "required", "properties"}


@given(
    fields=st.fixed_dictionaries(
        {"title": st.text(max_size=10), "type": st.sampled_from(["string", "array", "number"])},
        optional={
            "default": ANYTHING,
            "enum": st.lists(st.none() | st.booleans() | st.integers() | st.text()),
            "minimum": st.integers() | st.floats(allow_nan=False, allow_infinity=False),
            "maxLength": st.integers(),
            "description": st.text() | st.none(),
            "items": st.fixed_dictionaries({"type": st.just("string")}, optional={"enum": st.none() | st.just(["a"])}),
        },
    )
)
def test_what_is_kept_of_a_property_is_what_was_sent_without_nulls(fields: dict[str, Any]) -> None:
    try:
        kept = forms.property_document(forms.read({"name": "p", **fields}, forms.NamedPropertyForm))
    except Invalid:
        return

    sent = {field: value for field, value in fields.items() if value is not None}
    if sent.get("items", {}).get("enum", "") is None:
        sent["items"] = {"type": "string"}
    assert kept == sent


@given(st.text())
def test_a_name_has_no_control_characters_and_is_no_step_of_a_path(text: str) -> None:
    wanted = 0 < len(text) <= 80 and text not in (".", "..") and all(c >= " " and c != "\x7f" for c in text)

    assert is_name(text) == wanted
