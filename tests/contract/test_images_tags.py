"""Images found by their tags, on both databases; compared with the same asked of a plain list."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from calotype.errors import TooManyTags
from calotype.images import pages, sql, tags, tags_sql
from calotype.images.model import Image, ImageQuery, MemberStatus, TagFilter, Visibility
from calotype.images.tagging import Tag, TagQuery, asked, of_key, of_values, read
from tests.contract.catalogue import ADMIN, DATABASES, OTHER, OWNER, Catalogue, caller, opened

SETS: Final[list[tuple[str, ...]]] = [
    *((), ("k",), ("k=1",), ("k.1",), ("k=2", "x"), ("K=1",), ("kk",), ("k-1",), ("k=",), ("k/1",)),
    *(("a.b=c",), ("a.c",)),
]
KEYS = ["k", "K", "kk", "x", "a", "a.b", "", "k=1", "ü"]


@pytest.fixture(params=DATABASES)
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    with opened(request.param, tmp_path, count_per_project=1000) as made:
        yield made


@pytest.fixture
def tagged(catalogue: Catalogue) -> list[Image]:
    return [catalogue.queued(now=1000 + n, tags=given, name=f"n{n}") for n, given in enumerate(SETS)]


def has(image: Image, key: str, values: tuple[str, ...] = ()) -> bool:
    return any(tag.key == key and (not values or tag.value in values) for tag in map(read, image.tags))


def found(catalogue: Catalogue, query: TagQuery) -> set[str]:
    images = catalogue.read(lambda c: tags_sql.find(c, OWNER, query, limit=100, offset=0))
    assert catalogue.read(lambda c: tags_sql.count(c, OWNER, query)) == len(images)
    return {image.id for image in images}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("values", [(), ("1",), ("",), ("1", "2", "c")])
def test_a_key_finds_the_images_that_have_it(
    catalogue: Catalogue, tagged: list[Image], key: str, values: tuple[str, ...]
) -> None:
    wanted = of_values(key, values)
    with_it = {image.id for image in tagged if has(image, key, values)}

    assert found(catalogue, TagQuery(all_of=(wanted,))) == found(catalogue, TagQuery(any_of=(wanted,))) == with_it
    without = {image.id for image in tagged} - with_it
    assert found(catalogue, TagQuery(not_all_of=(wanted,))) == found(catalogue, TagQuery(none_of=(wanted,))) == without


@pytest.mark.parametrize("text", [*KEYS, "k.1", "a.b=c", "k="])
@pytest.mark.parametrize("few", [0, 500])
def test_the_filter_of_a_list_finds_the_same_by_either_way(
    catalogue: Catalogue, tagged: list[Image], text: str, few: int
) -> None:
    query = ImageQuery(tagged=(asked(text),), limit=100)

    def expected(image: Image) -> bool:
        if "=" in text:
            return text in image.tags or read(text) in map(read, image.tags)
        return text in image.tags or has(image, text)

    for who in (caller(), ADMIN):
        page = catalogue.read(lambda c, who=who: pages.page(c, who, query, few=few))  # type: ignore[misc]  # bound in the loop
        assert {image.id for image in page.images} == {image.id for image in tagged if expected(image)}
    others = catalogue.read(lambda c: pages.page(c, caller(OTHER), query, few=few))
    assert others.images == ()


def test_pages_of_what_is_found_follow_one_another(catalogue: Catalogue, tagged: list[Image]) -> None:
    parts = [
        catalogue.read(lambda c, at=at: tags_sql.find(c, OWNER, TagQuery(), limit=5, offset=at))  # type: ignore[misc]  # bound in the loop
        for at in (0, 5, 10)
    ]

    assert [image.id for image in itertools.chain(*parts)] == [image.id for image in reversed(tagged)]
    assert found(catalogue, TagQuery(untagged=True)) == {tagged[0].id}
    assert found(catalogue, TagQuery(name="n1")) == {image.id for image in tagged if "n1" in str(image.name)}
    assert found(catalogue, TagQuery(image_id=tagged[3].id)) == {tagged[3].id}


async def test_tags_of_a_project_and_of_a_list(catalogue: Catalogue, tagged: list[Image]) -> None:
    catalogue.queued(OTHER, tags=("foreign",))
    every = sorted({text for given in SETS for text in given}, key=str.encode)

    assert await tags.of_project(catalogue.images, caller()) == {
        "K": ["1"], "a": ["c"], "a.b": ["c"], "k": ["", "1", "2"], "k-1": [""], "k/1": [""], "kk": [""], "x": [""],
    }  # fmt: skip
    assert await tags.of_list(catalogue.images, caller(), ImageQuery(), limit=100, offset=0) == every
    assert await tags.of_list(catalogue.images, caller(), ImageQuery(), limit=3, offset=2) == every[2:5]


async def test_as_many_tags_as_an_image_may_have(catalogue: Catalogue) -> None:
    most = catalogue.images.limits.tags
    image = catalogue.queued(tags=tuple(f"k{n}" for n in range(most + 1)))  # as Image v2 allows

    await tags.add(catalogue.images, caller(), image.id, [Tag("k0", "v")])
    with pytest.raises(TooManyTags):
        await tags.add(catalogue.images, caller(), image.id, [Tag("new")])
    await tags.remove(catalogue.images, caller(), image.id, ["k0", "k1"])
    await tags.add(catalogue.images, caller(), image.id, [Tag("new")])

    assert len(catalogue.image(image.id).tags) == most


@pytest.mark.parametrize("few", [0, 500])
def test_visibility_as_ims_has_it_goes_by_members(catalogue: Catalogue, few: int) -> None:
    kinds = {
        kind: catalogue.queued(visibility=kind, properties={"p": "1"})
        for kind in (Visibility.PRIVATE, Visibility.SHARED, Visibility.PUBLIC, Visibility.COMMUNITY)
    }
    with_member = catalogue.queued(visibility=Visibility.SHARED, properties={"p": "1"})
    offered = catalogue.queued(OTHER, visibility=Visibility.SHARED, properties={"p": "1"})
    for image, member in ((with_member, OTHER), (offered, OWNER)):
        given = {"image_id": image.id, "member_id": member, "now": 1}
        catalogue.write(lambda c, given=given: sql.run(c, sql.INSERT_MEMBER, **given))  # type: ignore[misc]  # bound in the loop

    def listed(who: str = OWNER, **query: Any) -> set[str]:
        wanted = ImageQuery(by_members=True, properties=(("p", "1"),), limit=100, **query)
        given = ADMIN if who == "admin" else caller(who)
        return {image.id for image in catalogue.read(lambda c: pages.page(c, given, wanted, few=few)).images}

    private = {kinds[Visibility.PRIVATE].id, kinds[Visibility.SHARED].id}
    assert listed(visibility=Visibility.PRIVATE) == listed("admin", visibility=Visibility.PRIVATE) == private
    assert listed(visibility=Visibility.SHARED) == {with_member.id}
    assert listed("admin", visibility=Visibility.SHARED) == {with_member.id, offered.id}
    pending: dict[str, Any] = {"visibility": Visibility.SHARED, "member_status": MemberStatus.PENDING, "offered": True}
    assert listed(**pending) == {offered.id}
    assert listed(OTHER, **pending) == {with_member.id}
    assert listed("admin", **pending) == set()
    assert listed(OTHER, visibility=Visibility.PUBLIC) == {kinds[Visibility.PUBLIC].id}


@pytest.mark.parametrize("few", [0, 500])
def test_a_default_is_found_where_nothing_is_said(catalogue: Catalogue, few: int) -> None:
    said = [catalogue.queued(properties=given, name="d") for given in ({}, {"flag": "false"}, {"flag": "true"})]
    query = ImageQuery(one_of={"name": ("d",)}, defaulted=(("flag", "false"),), limit=10)

    page = catalogue.read(lambda c: pages.page(c, caller(), query, few=few))

    assert {image.id for image in page.images} == {image.id for image in said[:2]}


def test_a_filter_that_nothing_can_match_finds_nothing(catalogue: Catalogue, tagged: list[Image]) -> None:
    assert of_key("a=b") == TagFilter()
    assert found(catalogue, TagQuery(all_of=(TagFilter(),))) == set()
