"""Patches of locations, by example and by property: an image's bytes stay what they are, whatever is sent."""

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from calotype.blobs.model import BlobId
from calotype.errors import CalotypeError, LastCopy, LocationConflict
from calotype.identity.model import ProjectId
from calotype.images import placing
from calotype.images.model import Image, ImageId, ImageStatus, Location, Operation
from calotype.images.placing import Placed, Survey

WEIGHTS: Final = {"fast": 2, "local": 1}
URLS: Final = ("http://a.test/1", "http://a.test/2", "http://a.test/3#x", "calotype://local/x", "", "gopher://x")
DIGESTS: Final = ("ab" * 64, "cd" * 64, "ab" * 32, "xy" * 64, "")
SURVEYS: Final = {url: Survey(size=100, virtual_size=512) for url in URLS}


def ordered(names: Any) -> tuple[str, ...]:
    return tuple(sorted(set(names), key=lambda name: (-WEIGHTS.get(name, 0), name)))


def image(*urls: str, stores: tuple[str, ...] = (), status: ImageStatus = ImageStatus.ACTIVE) -> Image:
    return Image(
        id=ImageId("00000000-0000-4000-8000-000000000000"),
        project_id=ProjectId("a" * 32),
        status=status,
        size=None if status is ImageStatus.QUEUED else 100,
        blob_id=None if status is ImageStatus.QUEUED else BlobId("b" * 32),
        stores=stores,
        locations=tuple(Location(url=url, store="web") for url in urls),
        created_at=0,
        updated_at=0,
    )


def applied(before: Image, *operations: Operation, surveys: dict[str, Survey] | None = None) -> Placed:
    return placing.apply(
        before,
        operations,
        surveys=SURVEYS if surveys is None else surveys,
        ordered=ordered,
        remote=("web",),
        hash_algorithm="sha512",
    )


def removing(position: str) -> Operation:
    return Operation(op="remove", name="locations", position=position)


VALUES: Final = st.one_of(
    st.fixed_dictionaries(
        {
            "url": st.sampled_from(URLS),
            "metadata": st.dictionaries(st.sampled_from(["store", "x"]), st.text(max_size=3)),
        },
        optional={
            "validation_data": st.dictionaries(
                st.sampled_from(["os_hash_algo", "os_hash_value", "checksum", "more"]),
                st.sampled_from(["sha512", "sha256", *DIGESTS]) | st.none(),
            )
        },
    ),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5),
)
POSITIONS: Final = st.sampled_from(["-", "0", "1", "2", "9", "00001", "-1", "x", "", "٣"]) | st.none()
OPERATIONS: Final = st.lists(
    st.one_of(
        st.builds(Operation, op=st.just("add"), name=st.just("locations"), value=VALUES, position=POSITIONS),
        st.builds(Operation, op=st.just("remove"), name=st.just("locations"), position=POSITIONS),
        st.builds(
            Operation,
            op=st.just("replace"),
            name=st.just("locations"),
            value=st.lists(VALUES, max_size=4) | VALUES,
            position=st.none() | st.just("0"),
        ),
    ),
    max_size=4,
)
IMAGES: Final = st.sampled_from(
    [
        image(status=ImageStatus.QUEUED),
        image("http://left.test/", status=ImageStatus.QUEUED),
        image("http://a.test/1"),
        image("http://a.test/1", "http://a.test/2"),
        image(stores=("local", "fast")),
        image(stores=("local",)),
        image(status=ImageStatus.SAVING),
        replace(image("http://a.test/1"), hash_algorithm="sha512", hash_value="ab" * 64, checksum="1" * 32),
    ]
)


@given(IMAGES, OPERATIONS)
def test_whatever_is_sent_is_done_or_refused_and_known_bytes_stay(before: Image, operations: list[Operation]) -> None:
    try:
        placing.new_urls(before, operations)
        done = applied(before, *operations)
    except CalotypeError:
        return

    after = done.image
    assert replace(after, locations=()) == replace(before, locations=())
    assert all(location.store == "web" for location in after.locations)
    assert len({location.url for location in after.locations}) == len(after.locations) <= placing.MOST_LOCATIONS
    if before.status is not ImageStatus.QUEUED:
        assert done.survey is None
        assert done.claim == placing.Claim()
    if before.status is ImageStatus.ACTIVE:
        assert len(before.stores) - len(done.dropped) + len(after.locations) > 0
    if before.stores:
        assert after.locations == ()


@given(IMAGES.filter(lambda one: one.status is ImageStatus.ACTIVE and not one.stores), OPERATIONS)
def test_bytes_of_another_size_never_come_to_an_active_image(before: Image, operations: list[Operation]) -> None:
    other = {url: Survey(size=101, virtual_size=512) for url in URLS}
    try:
        after = applied(before, *operations, surveys=other).image
    except CalotypeError:
        return

    assert {location.url for location in after.locations} <= {location.url for location in before.locations}


def test_a_store_is_a_place_that_can_be_removed_but_the_last() -> None:
    before = image(stores=("local", "fast"))

    done = applied(before, removing("0"))

    assert done.dropped == ("fast",)
    with pytest.raises(LastCopy):
        applied(before, removing("0"), removing("0"))


def test_the_heaviest_store_is_told_first_and_directly() -> None:
    told = placing.told(image(stores=("local", "fast")), ordered=ordered, several=True, policy="shown", mine=True)

    assert told["stores"] == "fast,local"
    assert [place["metadata"]["store"] for place in told["locations"]] == ["fast", "local"]
    assert told["direct_url"] == told["locations"][0]["url"]


def test_a_location_that_another_has_removed_meanwhile_is_a_conflict() -> None:
    value = {"url": "http://a.test/2", "metadata": {}}

    with pytest.raises(LocationConflict):
        applied(image("http://a.test/1"), Operation(op="add", name="locations", value=value, position="-"), surveys={})


def test_what_an_import_left_behind_is_not_taken_along() -> None:
    before = image("http://left.test/", status=ImageStatus.QUEUED)
    value = {"url": "http://a.test/1", "metadata": {}}

    done = applied(before, Operation(op="add", name="locations", value=value, position="-"))

    assert [location.url for location in done.image.locations] == ["http://a.test/1"]
    assert done.survey == SURVEYS["http://a.test/1"]
