"""Where the bytes of images lie, in the catalogue: which stores count, what points elsewhere, what a node caches."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from calotype.blobs.model import BlobId, Digests
from calotype.cache import sql as cache
from calotype.errors import LiesElsewhere, WrongStatus
from calotype.images.model import Image, ImageStatus, Location
from calotype.images.sweep import BLOBS_EVERY_MS, STRAY_MS, remove_copy
from tests.contract.catalogue import ADMIN, DATABASES, Catalogue, caller, opened

LOCATION = Location(url="http://example.test/disk", store="web", metadata={"speed": "88mph"})
UNKNOWN = Digests(size=100, md5="", hash_algorithm="", hash_value="")
KNOWN = Digests(size=100, md5="1" * 32, hash_algorithm="sha512", hash_value="2" * 128)


@pytest.fixture(params=DATABASES)
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    with opened(request.param, tmp_path) as one:
        yield one


def pointing(catalogue: Catalogue, digests: Digests = UNKNOWN) -> Image:
    image = catalogue.queued()
    return catalogue.write(
        lambda c: catalogue.images.point_in(c, image, (LOCATION,), digests, virtual_size=512, now=2000)
    )


def in_stores(catalogue: Catalogue, image: Image, *stores: str) -> None:
    encoded = "[" + ",".join(f'"{store}"' for store in stores) + "]"
    statement = text("UPDATE images SET stores = :stores WHERE id = :id")
    catalogue.write(lambda c: c.execute(statement, {"stores": encoded, "id": image.id}))


def stored(catalogue: Catalogue, image: Image) -> BlobId:
    """A file for the blob of an active image."""
    blob_id = BlobId(str(image.blob_id))
    token = f"u{uuid.uuid4().hex}"
    catalogue.images.blobs.staging_path(token).write_bytes(b"12345")
    catalogue.images.blobs.publish(token, blob_id)
    return blob_id


def location_of(catalogue: Catalogue, blob_id: BlobId) -> str:
    statement = text("SELECT location FROM blobs WHERE id = :id")
    return str(catalogue.read(lambda c: c.execute(statement, {"id": blob_id}).scalar_one()))


def test_an_image_that_points_elsewhere_is_active_and_counts_nothing(catalogue: Catalogue) -> None:
    image = pointing(catalogue)

    kept = catalogue.image(image.id)
    assert kept == image
    assert kept.lies_elsewhere
    assert (kept.status, kept.size, kept.checksum, kept.hash_algorithm) == (ImageStatus.ACTIVE, 100, None, None)
    assert kept.locations == (LOCATION,)
    assert catalogue.usage() == (1, 0)

    catalogue.write(lambda c: catalogue.images.delete_in(c, caller(), image.id, 3000))
    assert catalogue.usage() == (0, 0)
    assert catalogue.count("blobs") == 0


def test_images_with_equal_digests_elsewhere_are_not_joined(catalogue: Catalogue) -> None:
    first, second = pointing(catalogue, KNOWN), pointing(catalogue, KNOWN)

    assert first.blob_id != second.blob_id


def test_an_image_that_points_elsewhere_cannot_be_copied(catalogue: Catalogue) -> None:
    source, copy = pointing(catalogue), catalogue.queued()

    with pytest.raises(LiesElsewhere):
        catalogue.write(lambda c: catalogue.images.adopt_blob_in(c, copy.id, source, 3000))


def test_bytes_elsewhere_are_pinned_by_the_first_that_read_them(catalogue: Catalogue) -> None:
    blob_id = BlobId(str(pointing(catalogue).blob_id))
    other = Digests(size=100, md5="3" * 32, hash_algorithm="sha256", hash_value="4" * 64)

    catalogue.write(lambda c: catalogue.images.pin_in(c, blob_id, KNOWN))
    catalogue.write(lambda c: catalogue.images.pin_in(c, blob_id, other))

    assert catalogue.read(lambda c: catalogue.images.digests_in(c, blob_id)) == KNOWN


def test_a_job_lists_its_location_and_keeps_it_listed_when_it_fails(catalogue: Catalogue) -> None:
    image, job = catalogue.queued(), f"j{uuid.uuid4().hex}"
    catalogue.write(lambda c: catalogue.images.begin_location_in(c, image.id, job, LOCATION, 2000))
    assert catalogue.image(image.id).status is ImageStatus.IMPORTING

    catalogue.write(lambda c: catalogue.images.abandon_in(c, image.id, job, to="queued", now=3000))

    after = catalogue.image(image.id)
    assert (after.status, after.locations) == (ImageStatus.QUEUED, (LOCATION,))
    assert catalogue.usage() == (1, 0)


def test_what_a_job_holds_no_longer_it_does_not_get(catalogue: Catalogue) -> None:
    image, job = catalogue.queued(), f"j{uuid.uuid4().hex}"
    catalogue.write(lambda c: catalogue.images.begin_location_in(c, image.id, job, LOCATION, 2000))
    catalogue.write(lambda c: catalogue.images.delete_in(c, caller(), image.id, 3000))

    with pytest.raises(WrongStatus):
        catalogue.write(lambda c: catalogue.images.held_in(c, image.id, job))


def test_a_copy_goes_only_where_no_image_counts_on_it(catalogue: Catalogue) -> None:
    first = catalogue.active()
    second = catalogue.active()
    assert first.blob_id == second.blob_id
    blob_id = stored(catalogue, first)
    blobs = catalogue.images.blobs

    in_stores(catalogue, first, "other")
    remove_copy(catalogue.images, catalogue.db, blobs, blob_id, "local")
    assert (blobs.holders(blob_id), location_of(catalogue, blob_id)) == (("local",), "local")

    in_stores(catalogue, second, "other")
    remove_copy(catalogue.images, catalogue.db, blobs, blob_id, "local")
    assert (blobs.holders(blob_id), location_of(catalogue, blob_id)) == ((), "other")


def test_the_sweeper_removes_a_copy_that_no_image_counts_on(catalogue: Catalogue) -> None:
    image = catalogue.active()
    blob_id = stored(catalogue, image)
    catalogue.images.sweep(0)
    catalogue.images.sweep(STRAY_MS + BLOBS_EVERY_MS)
    assert catalogue.images.blobs.holders(blob_id) == ("local",)

    in_stores(catalogue, image, "other")
    catalogue.images.sweep(STRAY_MS + 2 * BLOBS_EVERY_MS)
    catalogue.images.sweep(2 * STRAY_MS + 2 * BLOBS_EVERY_MS)

    assert catalogue.images.blobs.holders(blob_id) == ()


def test_the_sweeper_leaves_what_a_job_still_brings_to_more_stores(catalogue: Catalogue) -> None:
    image, job = catalogue.queued(), uuid.uuid4().hex
    catalogue.write(lambda c: catalogue.images.begin_bytes_in(c, image.id, f"j{job}", reserve=5, now=1000))
    token = f"j{job}-1"
    catalogue.images.blobs.staging_path(token).write_bytes(b"12345")
    catalogue.images.blobs.publish(token, BlobId(job))

    catalogue.images.sweep(0)
    catalogue.images.sweep(STRAY_MS + BLOBS_EVERY_MS)

    assert catalogue.images.blobs.holders(BlobId(job)) == ("local",)


def test_a_copy_is_on_the_stores_that_its_source_has_by_then(catalogue: Catalogue) -> None:
    source, copy = catalogue.active(), catalogue.queued()
    in_stores(catalogue, source, "other")

    catalogue.write(lambda c: catalogue.images.adopt_blob_in(c, copy.id, source, 3000))

    assert catalogue.image(copy.id).stores == ("other",)


# --- entries of caches ------------------------------------------------------------------------------------------------

NODE, OTHER_NODE = "http://one.test", "http://two.test"


def cached(catalogue: Catalogue, image: Image, node: str = NODE, *, at_once: bool = True) -> None:
    catalogue.write(lambda c: cache.add(c, node, image.id, size=5, cached=at_once, now=5000))


def entries(catalogue: Catalogue, node: str = NODE) -> list[cache.Entry]:
    return catalogue.read(lambda c: cache.entries(c, node))


def test_an_entry_is_of_one_node(catalogue: Catalogue) -> None:
    image = catalogue.active()

    cached(catalogue, image)
    cached(catalogue, image)

    assert [(one.image_id, one.cached, one.elsewhere) for one in entries(catalogue)] == [(image.id, True, False)]
    assert entries(catalogue, OTHER_NODE) == []
    assert catalogue.read(lambda c: cache.nodes(c, image.id)) == [NODE]


def test_an_entry_waits_until_it_is_filled(catalogue: Catalogue) -> None:
    image = pointing(catalogue)
    cached(catalogue, image, at_once=False)
    assert [(one.cached, one.cached_at, one.elsewhere) for one in entries(catalogue)] == [(False, None, True)]
    assert catalogue.read(lambda c: cache.nodes(c, image.id)) == []

    assert catalogue.write(lambda c: cache.filled(c, NODE, image.id, size=100, now=6000))

    assert [(one.cached, one.cached_at, one.size) for one in entries(catalogue)] == [(True, 6000, 100)]
    assert not catalogue.write(lambda c: cache.filled(c, OTHER_NODE, image.id, size=100, now=6000))


def test_only_what_is_cached_is_hit(catalogue: Catalogue) -> None:
    image, waiting = catalogue.active(), pointing(catalogue)
    cached(catalogue, image)
    cached(catalogue, waiting, at_once=False)

    hits = {image.id: 3, waiting.id: 4, str(uuid.uuid4()): 5}
    catalogue.write(lambda c: cache.count(c, NODE, hits, 7000))

    assert {one.image_id: (one.hits, one.read_at) for one in entries(catalogue)} == {
        image.id: (3, 7000),
        waiting.id: (0, None),
    }


def test_entries_of_deleted_images_are_neither_told_nor_kept(catalogue: Catalogue) -> None:
    image, kept = catalogue.active(), catalogue.active()
    cached(catalogue, image)
    cached(catalogue, kept)

    catalogue.write(lambda c: catalogue.images.delete_in(c, ADMIN, image.id, 8000))

    assert [one.image_id for one in entries(catalogue)] == [kept.id]
    assert catalogue.write(lambda c: cache.forget(c, NODE)) == 1
    assert catalogue.count("cached_images") == 1


def test_what_waits_and_what_is_cached_are_cleared_apart(catalogue: Catalogue) -> None:
    image, waiting = catalogue.active(), pointing(catalogue)
    cached(catalogue, image)
    cached(catalogue, waiting, at_once=False)
    cached(catalogue, image, OTHER_NODE)

    catalogue.write(lambda c: cache.clear(c, NODE, cached=True))
    assert [one.image_id for one in entries(catalogue)] == [waiting.id]
    catalogue.write(lambda c: cache.clear(c, NODE, cached=False))

    assert entries(catalogue) == []
    assert len(entries(catalogue, OTHER_NODE)) == 1
