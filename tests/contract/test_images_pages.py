"""Lists: what each caller sees, every filter and order, page by page; compared with the same asked of a plain list."""

import itertools
import operator
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from calotype.errors import BadFilter
from calotype.identity.model import Caller
from calotype.images import pages
from calotype.images.model import Image, ImageQuery, MemberStatus, TimeFilter, Visibility
from calotype.images.query import parse
from tests.contract.catalogue import ADMIN, DATABASES, OTHER, OWNER, THIRD, Catalogue, caller, opened

PROJECTS = (OWNER, OTHER, THIRD)
Shares = dict[str, dict[str, MemberStatus]]  # image id -> project -> what it answered


@pytest.fixture(params=DATABASES)
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    with opened(request.param, tmp_path, count_per_project=1000) as made:
        yield made


@pytest.fixture
async def world(catalogue: Catalogue) -> tuple[Catalogue, Shares]:
    """Ninety images of three projects with everything that can be filtered by; many share a time or a name."""
    dice = random.Random(7)
    shares: Shares = {}
    for number in range(90):
        project = PROJECTS[number % 3]
        make: Callable[..., Image] = catalogue.active if dice.random() < 0.4 else catalogue.queued
        extra: dict[str, Any] = {"size": dice.randrange(5), "content": str(number)} if make == catalogue.active else {}
        image = make(
            project,
            now=1000 * dice.randrange(8) + dice.randrange(2) * 500,
            name=dice.choice([None, "a", "b", "ü", "B"]),
            visibility=dice.choice(list(Visibility)),
            protected=dice.random() < 0.3,
            hidden=dice.random() < 0.2,
            disk_format=dice.choice(["raw", "qcow2"]),
            min_disk=dice.randrange(2),
            min_ram=dice.randrange(2),
            tags=tuple(dice.sample(["x", "y", "z=1"], dice.randrange(3))),
            properties={key: dice.choice(["1", "2"]) for key in dice.sample(["k", "l"], dice.randrange(3))},
            **extra,
        )
        if image.visibility is Visibility.SHARED and dice.random() < 0.8:
            member = dice.choice([p for p in PROJECTS if p != project])
            await catalogue.images.add_member(caller(project), image.id, member)
            status = dice.choice(list(MemberStatus))
            await catalogue.images.answer_offer(caller(member), image.id, member, status)
            shares[image.id] = {member: status}
    return catalogue, shares


def all_images(catalogue: Catalogue) -> list[Image]:
    ids = catalogue.read(lambda c: c.execute(text("SELECT id FROM images WHERE status <> 'deleted'")).scalars().all())
    return [catalogue.image(image_id) for image_id in ids]


def expected(images: list[Image], shares: Shares, who: Caller, query: ImageQuery) -> list[str]:
    """The same list in a few plain lines, without a database."""
    kept = [image for image in images if _seen(image, shares, who, query) and _matches(image, query)]
    keys = [key for key, _ in query.sort]
    directions = {direction for _, direction in query.sort}
    rest = directions.pop() if len(directions) == 1 else "desc"
    order = [*query.sort, *((key, rest) for key in ("created_at", "id") if key not in keys)]
    for key, direction in reversed(order):
        kept.sort(key=lambda image: _sort_value(image, key), reverse=direction == "desc")
    return [image.id for image in kept]


def _sort_value(image: Image, key: str) -> Any:
    if key == "size":
        return -1 if image.size is None else image.size
    value = getattr(image, key)
    return value.encode() if isinstance(value, str) else value or (b"" if key == "name" else value)


def _seen(image: Image, shares: Shares, who: Caller, query: ImageQuery) -> bool:
    asked = query.visibility
    if asked not in (None, "all") and image.visibility != asked:
        return False
    mine = image.project_id == who.project_id
    if image.visibility is Visibility.COMMUNITY and asked is None:
        return mine
    if mine or who.is_admin or image.visibility in (Visibility.PUBLIC, Visibility.COMMUNITY):
        return True
    status = shares.get(image.id, {}).get(str(who.project_id)) if image.visibility is Visibility.SHARED else None
    return status is not None and query.member_status in ("all", status)


def _matches(image: Image, query: ImageQuery) -> bool:
    attributes = {"owner": image.project_id, "id": image.id, "name": image.name, "status": image.status.value,
                  "disk_format": image.disk_format}  # fmt: skip
    return (
        (query.hidden is None or image.hidden == query.hidden)
        and (query.protected is None or image.protected == query.protected)
        and all(attributes[name] in values for name, values in query.one_of.items())
        and set(query.tags) <= set(image.tags)
        and all(_property(image, name) == value for name, value in query.properties)
        and all(_counted(image, name, bound) for name, bound in query.numbers.items())
        and all(_timely(getattr(image, column), time) for column, time in query.times)
    )


def _counted(image: Image, name: str, bound: int) -> bool:
    column, _, end = name.rpartition("_")
    if end not in ("min", "max") or not column:
        return bool(getattr(image, name) == bound)
    value = getattr(image, column)
    return value is not None and (value >= bound if end == "min" else value <= bound)


def _property(image: Image, name: str) -> str | None:
    if name == "__imagetype":
        if image.visibility is Visibility.PUBLIC:
            return "gold"
        return "shared" if image.visibility is Visibility.SHARED and image.has_members else "private"
    constants = {"__isregistered": "true", "__image_size": str(image.size or 0)}
    return constants.get(name) or image.properties.get(name)


def _timely(value: int, time: TimeFilter) -> bool:
    shown, at = value // 1000, time.at // 1000
    return bool(getattr(operator, {"gte": "ge", "lte": "le", "neq": "ne"}.get(time.operator, time.operator))(shown, at))


QUERIES = [
    "",
    "visibility=public",
    "visibility=private",
    "visibility=shared",
    "visibility=shared&member_status=pending",
    "visibility=shared&member_status=all",
    "visibility=community",
    "visibility=all&os_hidden=true",
    "member_status=rejected",
    "protected=true",
    f"owner={OWNER}",
    f"owner={OTHER}&visibility=community",
    "name=a",
    "name=in:a,ü",
    "status=active",
    "status=in:active,queued&disk_format=raw",
    "size_min=2&size_max=3",
    "min_disk=1&min_ram=0",
    "size=3",
    "virtual_size=3",
    "min_ram_min=1",
    "virtual_size_min=1&virtual_size_max=2&min_disk_max=0",
    "tag=x",
    "tag=x&tag=z=1",
    "k=1",
    "k=1&l=2",
    "k=1&tag=x",
    "k=no such value",
    "__imagetype=gold",
    "__imagetype=shared",
    "__imagetype=private&__isregistered=true",
    "__imagetype=unknown",
    "__isregistered=false",
    "__image_size=2",
    "__os_type=Linux",
    "created_at=gt:1970-01-01T00:00:03Z",
    "created_at=lte:1970-01-01T00:00:03Z&updated_at=neq:1970-01-01 00:00:01",
    "created_at=1970-01-01T00:00:02%2B00:00",
    "sort_key=name&sort_dir=asc",
    "sort_key=name&sort_key=size&sort_dir=asc&sort_dir=desc",
    "sort=size:asc,name",
    "sort=created_at:asc",
    "sort=id&k=1",
    "sort=status,updated_at:asc&tag=y",
]


def asked(query: str, **more: Any) -> ImageQuery:
    pairs = [tuple(part.split("=", 1)) for part in query.replace("%2B", "+").split("&") if part]
    return parse([*pairs, *((name, str(value)) for name, value in more.items())], default_limit=1000)  # type: ignore[list-item]  # pairs


@pytest.mark.parametrize("few", [pages.RARE, 0])
async def test_every_list_holds_what_the_caller_may_see_in_order(world: tuple[Catalogue, Shares], few: int) -> None:
    """Also where a value is so common that sources are walked: here one that any image has is."""
    catalogue, shares = world
    images = all_images(catalogue)

    for query in QUERIES:
        for who in (caller(OWNER), caller(OTHER), ADMIN):
            wanted = asked(query)
            found = catalogue.read(lambda c, who=who, wanted=wanted: pages.page(c, who, wanted, few=few))  # type: ignore[misc]  # bound at once

            assert [image.id for image in found.images] == expected(images, shares, who, wanted), query
            assert found.next_marker is None


async def test_pages_put_together_are_the_list(world: tuple[Catalogue, Shares]) -> None:
    catalogue, _ = world

    for query in QUERIES:
        for who in (caller(OWNER), ADMIN):
            whole = [image.id for image in (await catalogue.images.list(who, asked(query))).images]
            gathered: list[str] = []
            marker: dict[str, Any] = {}
            while True:
                page = await catalogue.images.list(who, asked(query, limit=7, **marker))
                gathered += [image.id for image in page.images]
                if page.next_marker is None:
                    break
                assert len(page.images) == 7
                marker = {"marker": page.next_marker}

            assert gathered == whole, query


async def test_paging_goes_on_when_the_marker_was_deleted_meanwhile(catalogue: Catalogue) -> None:
    images = [catalogue.queued(now=1000 * n) for n in range(5)]
    first = await catalogue.images.list(caller(), asked("", limit=2))
    await catalogue.images.delete(caller(), str(first.next_marker))

    rest = await catalogue.images.list(caller(), asked("", marker=first.next_marker))

    assert [image.id for image in rest.images] == [images[2].id, images[1].id, images[0].id]


async def test_a_marker_that_the_caller_may_not_see_is_refused_as_an_unknown_one(catalogue: Catalogue) -> None:
    foreign = catalogue.queued(OTHER)
    gone = catalogue.queued(OTHER)
    await catalogue.images.delete(caller(OTHER), gone.id)

    for marker in (foreign.id, gone.id, "9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111", "x"):
        with pytest.raises(BadFilter, match="marker"):
            await catalogue.images.list(caller(), asked("", marker=marker))


async def test_none_are_listed_when_none_are_asked_for(catalogue: Catalogue) -> None:
    catalogue.queued()

    assert await catalogue.images.list(caller(), asked("", limit=0)) == (
        await catalogue.images.list(caller(OTHER), asked(""))
    )


async def test_long_values_of_properties_are_found_too(catalogue: Catalogue) -> None:
    image = catalogue.queued(properties={"long": "v" * 5000})
    catalogue.queued(properties={"long": "v" * 5001})

    found = await catalogue.images.list(caller(), ImageQuery(properties=(("long", "v" * 5000),)))

    assert [one.id for one in found.images] == [image.id]


# --- how the database finds them --------------------------------------------------------------------------------------

FILTERS = (
    "",
    "name=a",
    "name=in:a,b",
    "status=active",
    "status=in:active,queued",
    "id=in:9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111,9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d112",
    f"owner={OTHER}",
    "checksum=d41d8cd98f00b204e9800998ecf8427e",
    "os_hash_value=d41d8cd98f00b204e9800998ecf8427e",
    "os_hash_algo=sha512",
    "tag=x",
    "tag=x&tag=y",
    "k=1",
    "k=1&l=2&tag=x",
    "disk_format=raw",
    "container_format=in:bare,ova",
    "protected=true",
    "os_hidden=true",
    "member_status=all",
    "visibility=all",
    *(f"visibility={kind}" for kind in Visibility),
    *(f"visibility={kind}&tag=x" for kind in Visibility),
    "size_min=1&size_max=9&virtual_size=3&min_disk=1&min_ram_max=4",
    "created_at=gt:2026-01-02T03:04:05Z",
    "updated_at=lte:2026-01-02T03:04:05Z",
    "__imagetype=shared",
    "__image_size=5",
    "__isregistered=true",
)


def plan_of(catalogue: Catalogue, statement: str, values: Mapping[str, object]) -> str:
    """How the database would run a statement, one step a line; PostgreSQL may walk a table only if it must."""

    def explained(c: Connection) -> str:
        if c.dialect.name == "sqlite":
            return "\n".join(str(row[-1]) for row in c.execute(text(f"EXPLAIN QUERY PLAN {statement}"), values))
        c.execute(text("SET LOCAL enable_seqscan = off"))
        return "\n".join(str(row[0]) for row in c.execute(text(f"EXPLAIN {statement}"), values))

    return catalogue.read(explained)


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("who", [caller(), caller(OTHER, "reader"), ADMIN], ids=["member", "reader", "admin"])
def test_no_list_walks_the_table_of_images(catalogue: Catalogue, who: Caller, common: bool) -> None:
    """Whatever is asked for, by whomever, at the first page and at a later one."""
    marker = catalogue.queued(name="a")
    for query in (asked(text_) for text_ in FILTERS):
        few = pages.lookups(query)
        if not common and not few:
            continue
        for after in (None, marker):
            plan = plan_of(catalogue, *pages.listing(who, query, after, None if common else few[0]))

            assert "SCAN i" not in plan, f"{query}\n{plan}"
            assert "Seq Scan on images" not in plan, f"{query}\n{plan}"
            assert "Seq Scan on image_" not in plan, f"{query}\n{plan}"
        for lookup in few:
            plan = plan_of(catalogue, lookup.ids, lookup.values)
            assert "SCAN i" not in plan, f"{query}\n{plan}"
            assert "Seq Scan" not in plan, f"{query}\n{plan}"


# Of each filter: the index that an admin's list of all projects walks, in order, when many images have the value.
WALKED = {
    "name=a": "ix_images_name_page",
    "status=active": "ix_images_status_page",
    "tag=x": "ix_image_tags_page",
    "k=1": "ix_image_props_page",
    "": "ix_images_visibility_page",
    f"owner={OTHER}": "ix_images_project_page",
}


@pytest.mark.parametrize("query", WALKED)
def test_an_admins_list_walks_the_index_of_its_filter_and_sorts_nothing(tmp_path: Path, query: str) -> None:
    with opened("sqlite", tmp_path) as catalogue:
        statement, values = pages.listing(ADMIN, asked(query, limit=25), None, None)
        plan = plan_of(catalogue, statement, values)

        assert WALKED[query] in plan
        sorts = [before for before, step in itertools.pairwise(plan.splitlines()) if "TEMP B-TREE" in step]
        assert all(before.startswith("SCAN s") for before in sorts), plan  # pages that are merged, nothing else


@pytest.mark.parametrize("status", [*MemberStatus, "all"])
def test_images_that_are_shared_are_read_a_page_at_a_time(tmp_path: Path, status: str) -> None:
    with opened("sqlite", tmp_path) as catalogue:
        wanted = asked(f"visibility=shared&member_status={status}", limit=25)
        plan = plan_of(catalogue, *pages.listing(caller(), wanted, None, None))

        assert "SEARCH i USING INDEX ix_images_project_visibility (project_id=? AND visibility=?)" in plan, plan
        assert "SEARCH m USING COVERING INDEX ix_image_members_page (member_id=? AND status=?)" in plan, plan
        sorts = [before for before, step in itertools.pairwise(plan.splitlines()) if "TEMP B-TREE" in step]
        assert all(before.startswith("SCAN s") for before in sorts), plan


@pytest.mark.parametrize("query", ["", "k=1", "tag=x", "name=a", "status=active"])
def test_a_list_of_own_images_walks_an_index_and_sorts_nothing(tmp_path: Path, query: str) -> None:
    """Whatever is asked of it in the default order, SQLite walks the page's index, or that of properties or tags."""
    with opened("sqlite", tmp_path) as catalogue:
        wanted = asked(f"visibility=private&{query}", limit=25)  # of a user: nothing but own images
        plan = plan_of(catalogue, *pages.listing(caller(), wanted, None, None))

        assert "TEMP B-TREE" not in plan, plan
        assert "SCAN i" not in plan, plan
