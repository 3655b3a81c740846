"""How an image gets its bytes and loses them: every step, its refusals, and what is counted; on both databases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection

from calotype.blobs.model import BlobId
from calotype.errors import (
    CalotypeError,
    DuplicateImage,
    ImageInUse,
    ImageNotFound,
    ImageProtected,
    ImageQuotaExceeded,
    InvalidSize,
    NotImageOwner,
    StorageQuotaExceeded,
    UnknownOsVersion,
    WrongStatus,
)
from calotype.images.model import Image, ImageCreate, ImageId, ImageStatus, Visibility
from tests.contract.catalogue import ADMIN, DATABASES, OTHER, OWNER, Catalogue, blob_of, caller, opened

UPLOAD, LATER = "u" + "1" * 32, "u" + "2" * 32
JOB = "j" + "3" * 32


@pytest.fixture(params=DATABASES)
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    with opened(request.param, tmp_path, count_per_project=4, stored_bytes_per_project=1000) as made:
        yield made


def begin(catalogue: Catalogue, image: Image, upload_id: str = UPLOAD, *, reserve: int = 0, now: int = 2000) -> Image:
    return catalogue.write(lambda c: catalogue.images.begin_bytes_in(c, image.id, upload_id, reserve=reserve, now=now))


def delete(catalogue: Catalogue, image: Image, project_id: str = OWNER) -> BlobId | None:
    return catalogue.write(lambda c: catalogue.images.delete_in(c, caller(project_id), image.id, 5000))


# --- creating ---------------------------------------------------------------------------------------------------------


def test_a_new_image_waits_for_its_bytes_and_knows_its_operating_system(catalogue: Catalogue) -> None:
    image = catalogue.queued(os_version="Windows 10 64bit", name="desktop", tags=("a", "b=c"))

    assert catalogue.image(image.id) == image
    assert image.status is ImageStatus.QUEUED
    assert image.properties["__platform"] == "Windows"
    assert image.properties["virtual_env_type"] == "FusionCompute"


def test_a_data_disk_has_no_operating_system(catalogue: Catalogue) -> None:
    image = catalogue.queued(properties={"virtual_env_type": "DataImage"})

    assert not [name for name in image.properties if name.startswith("__os")]


def test_an_unknown_os_version_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(UnknownOsVersion):
        catalogue.queued(os_version="Plan 9")

    assert catalogue.usage() == (0, 0)


def test_images_beyond_the_quota_are_refused_and_deleting_makes_room(catalogue: Catalogue) -> None:
    images = [catalogue.queued() for _ in range(4)]

    with pytest.raises(ImageQuotaExceeded):
        catalogue.queued()

    delete(catalogue, images[0])
    catalogue.queued()
    assert catalogue.usage() == (4, 0)


def test_sixteen_at_once_get_exactly_the_images_that_the_quota_allows(catalogue: Catalogue) -> None:
    def create(_: int) -> bool:
        try:
            catalogue.queued()
        except ImageQuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        made = list(threads.map(create, range(16)))

    assert made.count(True) == 4
    assert catalogue.usage() == (4, 0)
    assert catalogue.count("images") == 4


def test_an_id_that_was_chosen_is_never_used_again(catalogue: Catalogue) -> None:
    chosen = ImageId("11111111-2222-4333-8444-555555555555")
    image = catalogue.queued(id=chosen)
    delete(catalogue, image)

    with pytest.raises(DuplicateImage):
        catalogue.queued(OTHER, id=chosen)

    assert catalogue.usage(OTHER) == (0, 0)


# --- finding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visibility", "seen"),
    [
        (Visibility.PRIVATE, False),
        (Visibility.SHARED, False),
        (Visibility.COMMUNITY, True),
        (Visibility.PUBLIC, True),
    ],
)
def test_a_foreign_image_is_seen_by_its_visibility_and_never_owned(
    catalogue: Catalogue, visibility: Visibility, seen: bool
) -> None:
    image = catalogue.queued(visibility=visibility)

    with pytest.raises(NotImageOwner if seen else ImageNotFound):
        catalogue.write(lambda c: catalogue.images.owned_in(c, caller(OTHER), image.id))
    assert catalogue.write(lambda c: catalogue.images.owned_in(c, ADMIN, image.id)) == image


async def test_a_member_sees_a_shared_image_whatever_it_answered(catalogue: Catalogue) -> None:
    image = catalogue.queued(visibility=Visibility.SHARED)

    await catalogue.images.add_member(caller(), image.id, OTHER)

    assert (await catalogue.images.get(caller(OTHER), image.id)).id == image.id
    with pytest.raises(NotImageOwner):
        await catalogue.images.delete(caller(OTHER), image.id)


@pytest.mark.parametrize("image_id", ["", "x", "name of an image", "9a1d8a5e", "'; DROP TABLE images; --"])
async def test_what_is_no_id_is_no_image(catalogue: Catalogue, image_id: str) -> None:
    with pytest.raises(ImageNotFound):
        await catalogue.images.get(caller(), image_id)


async def test_an_id_is_found_in_capitals_too(catalogue: Catalogue) -> None:
    image = catalogue.queued()

    assert (await catalogue.images.get(caller(), image.id.upper())).id == image.id


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_an_upload_takes_a_queued_image_and_reserves_its_bytes(catalogue: Catalogue) -> None:
    image = begin(catalogue, catalogue.queued(), reserve=300)

    assert image.status is ImageStatus.SAVING
    assert catalogue.usage() == (1, 300)


def test_a_second_upload_is_refused_and_the_first_goes_on(catalogue: Catalogue) -> None:
    image = begin(catalogue, catalogue.queued(), reserve=300)

    with pytest.raises(WrongStatus):
        begin(catalogue, image, LATER, reserve=100)

    begin(catalogue, image, UPLOAD, reserve=200)
    assert catalogue.usage() == (1, 200)


def test_of_sixteen_uploads_at_once_exactly_one_gets_the_image(catalogue: Catalogue) -> None:
    image = catalogue.queued()

    def upload(number: int) -> bool:
        try:
            begin(catalogue, image, f"u{number:032x}", reserve=10)
        except WrongStatus:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        won = list(threads.map(upload, range(16)))

    assert won.count(True) == 1
    assert catalogue.usage() == (1, 10)


def test_bytes_beyond_the_quota_are_refused_when_they_are_reserved(catalogue: Catalogue) -> None:
    image = catalogue.queued()

    with pytest.raises(StorageQuotaExceeded):
        begin(catalogue, image, reserve=1001)

    assert catalogue.image(image.id).status is ImageStatus.QUEUED
    assert catalogue.usage() == (1, 0)


def test_a_reservation_grows_with_the_bytes_and_not_beyond_the_quota(catalogue: Catalogue) -> None:
    image = begin(catalogue, catalogue.queued(), reserve=100)
    images = catalogue.images

    catalogue.write(lambda c: images.reserve_in(c, image.id, UPLOAD, 400, 2100))
    catalogue.write(lambda c: images.reserve_in(c, image.id, UPLOAD, 50, 2200))
    with pytest.raises(StorageQuotaExceeded):
        catalogue.write(lambda c: images.reserve_in(c, image.id, UPLOAD, 1001, 2300))

    assert catalogue.usage() == (1, 400)


def test_parallel_reservations_never_exceed_the_quota(catalogue: Catalogue) -> None:
    images = [catalogue.queued() for _ in range(4)]
    for number, image in enumerate(images):
        begin(catalogue, image, f"u{number:032x}")

    def grow(number: int) -> int:
        total = 0
        for _ in range(10):
            wanted = total + 50
            try:
                catalogue.write(
                    lambda c, wanted=wanted: catalogue.images.reserve_in(  # type: ignore[misc]  # bound at once
                        c, images[number].id, f"u{number:032x}", wanted, 2100
                    )
                )
            except StorageQuotaExceeded:
                return total
            total = wanted
        return total

    with ThreadPoolExecutor(4) as threads:
        totals = list(threads.map(grow, range(4)))

    assert sum(totals) == 1000
    assert catalogue.usage() == (4, 1000)


def test_an_image_becomes_active_with_what_was_found_in_its_bytes(catalogue: Catalogue) -> None:
    image = begin(catalogue, catalogue.queued(disk_format=None, container_format=None, min_ram=7), reserve=300)
    blob = blob_of("bytes", 200)

    used = catalogue.activate(
        image, UPLOAD, blob, disk_format="qcow2", virtual_size=2**31, properties={"found": "yes"}, min_disk=2, now=3000
    )

    active = catalogue.image(image.id)
    assert used == blob.id == active.blob_id
    assert (active.status, active.size, active.virtual_size) == (ImageStatus.ACTIVE, 200, 2**31)
    assert (active.checksum, active.hash_value) == (blob.digests.md5, blob.digests.hash_value)
    assert (active.disk_format, active.container_format) == ("qcow2", "bare")
    assert (active.min_disk, active.min_ram, active.properties["found"]) == (2, 7, "yes")
    assert (active.active_at, active.updated_at, active.created_at) == (3000, 3000, 1000)
    assert (active.upload_id, active.reserved_bytes) == (None, 0)
    assert catalogue.usage() == (1, 200)


def test_a_disk_that_is_too_small_for_the_image_is_refused(catalogue: Catalogue) -> None:
    image = begin(catalogue, catalogue.queued(min_disk=1), reserve=10)

    with pytest.raises(InvalidSize, match="needs 2 GB"):
        catalogue.activate(image, UPLOAD, blob_of("bytes"), virtual_size=2**30 + 1)

    assert catalogue.image(image.id).status is ImageStatus.SAVING
    assert catalogue.count("blobs") == 0


def test_more_bytes_than_reserved_are_settled_against_the_quota(catalogue: Catalogue) -> None:
    image = begin(catalogue, catalogue.queued(), reserve=10)

    with pytest.raises(StorageQuotaExceeded):
        catalogue.activate(image, UPLOAD, blob_of("bytes", 1001))

    assert catalogue.usage() == (1, 10)


def test_equal_bytes_are_kept_once(catalogue: Catalogue) -> None:
    first = catalogue.active(content="same", size=30)
    image = begin(catalogue, catalogue.queued(OTHER), reserve=30)

    used = catalogue.activate(image, UPLOAD, blob_of("same", 30))

    assert used == first.blob_id
    assert catalogue.count("blobs") == 1
    assert catalogue.usage(OTHER) == (1, 30)


def test_two_that_store_equal_bytes_at_once_both_end_with_bytes_that_are_there(catalogue: Catalogue) -> None:
    images = [begin(catalogue, catalogue.queued(), f"u{n:032x}", reserve=5) for n in range(4)]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: catalogue.activate(images[n], f"u{n:032x}", blob_of("same")), range(4)))

    rows = catalogue.read(lambda c: catalogue.images.known_blob_ids_in(c, [blob_id(catalogue, i) for i in images]))
    assert rows == {blob_id(catalogue, image) for image in images}


def blob_id(catalogue: Catalogue, image: Image) -> BlobId:
    found = catalogue.image(image.id).blob_id
    assert found is not None
    return found


def test_an_upload_that_lost_its_image_can_do_nothing_more(catalogue: Catalogue) -> None:
    image = begin(catalogue, catalogue.queued(), reserve=300)
    delete(catalogue, image)

    with pytest.raises(WrongStatus):
        catalogue.write(lambda c: catalogue.images.reserve_in(c, image.id, UPLOAD, 400, 2100))
    with pytest.raises(WrongStatus):
        catalogue.activate(image, UPLOAD, blob_of("bytes"))
    catalogue.write(lambda c: catalogue.images.abandon_in(c, image.id, UPLOAD, to="queued", now=2200))

    assert not catalogue.write(lambda c: catalogue.images.touch_in(c, image.id, UPLOAD, 2300))
    assert catalogue.usage() == (0, 0)
    assert catalogue.count("blobs") == 0


def test_a_failed_upload_gives_everything_back_and_can_be_tried_again(catalogue: Catalogue) -> None:
    image = begin(catalogue, catalogue.queued(), reserve=300)

    for _ in range(2):
        catalogue.write(lambda c: catalogue.images.abandon_in(c, image.id, UPLOAD, to="queued", now=2100))

    assert catalogue.usage() == (1, 0)
    assert begin(catalogue, image, LATER).upload_id == LATER


def test_an_abandoned_upload_leaves_the_next_one_alone(catalogue: Catalogue) -> None:
    image = begin(catalogue, catalogue.queued(), LATER, reserve=300)

    for target in ("queued", "deleted"):
        catalogue.write(
            lambda c, target=target: catalogue.images.abandon_in(  # type: ignore[misc]  # bound at once
                c, image.id, UPLOAD, to=target, now=2100
            )
        )

    assert catalogue.image(image.id).upload_id == LATER
    assert catalogue.usage() == (1, 300)


@pytest.mark.parametrize("begun", [True, False])
def test_an_image_that_a_job_made_goes_with_the_job(catalogue: Catalogue, begun: bool) -> None:
    image = catalogue.queued()
    if begun:
        begin(catalogue, image, JOB, reserve=300)

    catalogue.write(lambda c: catalogue.images.abandon_in(c, image.id, JOB, to="deleted", now=2100))

    assert catalogue.read(lambda c: catalogue.images.by_id_in(c, image.id)) is None
    assert catalogue.usage() == (0, 0)


# --- copies -----------------------------------------------------------------------------------------------------------


def test_a_copy_has_the_bytes_of_its_source_and_outlives_it(catalogue: Catalogue) -> None:
    source = catalogue.active(size=40, min_disk=1)
    copy = catalogue.queued(OTHER, disk_format=None, container_format=None)

    made = catalogue.write(lambda c: catalogue.images.adopt_blob_in(c, copy.id, source, 3000))

    assert made == catalogue.image(copy.id)
    assert (made.blob_id, made.checksum, made.size) == (source.blob_id, source.checksum, 40)
    assert catalogue.usage(OTHER) == (1, 40)
    assert delete(catalogue, source) is None
    assert delete(catalogue, made, OTHER) == source.blob_id


def test_a_copy_of_what_was_deleted_meanwhile_is_refused(catalogue: Catalogue) -> None:
    source = catalogue.active()
    copy = catalogue.queued()
    delete(catalogue, source)

    with pytest.raises(ImageNotFound):
        catalogue.write(lambda c: catalogue.images.adopt_blob_in(c, copy.id, source, 3000))

    assert catalogue.image(copy.id).status is ImageStatus.QUEUED


def test_a_copy_beyond_the_quota_is_refused(catalogue: Catalogue) -> None:
    source = catalogue.active(OTHER, size=900)
    catalogue.active(size=200, content="other")
    copy = catalogue.queued()

    with pytest.raises(StorageQuotaExceeded):
        catalogue.write(lambda c: catalogue.images.adopt_blob_in(c, copy.id, source, 3000))


# --- deleting ---------------------------------------------------------------------------------------------------------


def test_a_deleted_image_leaves_a_tombstone_and_nothing_else(catalogue: Catalogue) -> None:
    image = catalogue.active(tags=("a",), properties={"k": "v"})

    gone = delete(catalogue, image)

    assert gone == image.blob_id
    assert catalogue.count("images", "status = 'deleted' AND deleted_at = 5000") == 1
    for table in ("image_props", "image_tags", "image_members", "blobs"):
        assert catalogue.count(table) == 0
    assert catalogue.usage() == (0, 0)
    with pytest.raises(ImageNotFound):
        delete(catalogue, image)


def test_a_protected_image_is_not_deleted(catalogue: Catalogue) -> None:
    image = catalogue.active(protected=True)

    with pytest.raises(ImageProtected):
        delete(catalogue, image)

    assert catalogue.image(image.id).status is ImageStatus.ACTIVE


def test_an_image_that_a_job_is_filling_is_not_deleted(catalogue: Catalogue) -> None:
    image = begin(catalogue, catalogue.queued(), JOB)

    with pytest.raises(ImageInUse):
        delete(catalogue, image)


def test_bytes_go_exactly_with_the_last_of_sixteen_images_deleted_at_once(tmp_path: Path) -> None:
    with opened("sqlite", tmp_path) as catalogue:
        images = [catalogue.active(content="same") for _ in range(16)]

        with ThreadPoolExecutor(16) as threads:
            gone = [blob for blob in threads.map(lambda image: delete(catalogue, image), images) if blob]

        assert gone == [images[0].blob_id]
        assert catalogue.usage() == (0, 0)


def test_deleting_and_copying_at_once_never_leave_an_image_without_bytes(catalogue: Catalogue) -> None:
    """Whoever comes first: the copy has its blob, or it is refused and the blob is gone."""
    for round_ in range(8):
        source = catalogue.active(content=f"round {round_}")
        copy = catalogue.queued(OTHER)

        def adopt(c: Connection, copy: Image = copy, source: Image = source) -> None:
            catalogue.images.adopt_blob_in(c, copy.id, source, 3000)

        def copied(adopt: object = adopt) -> bool:
            try:
                catalogue.write(adopt)  # type: ignore[arg-type]  # bound at once
            except CalotypeError:
                return False
            return True

        with ThreadPoolExecutor(2) as threads:
            copying, deleting = threads.submit(copied), threads.submit(delete, catalogue, source)
            made, gone = copying.result(), deleting.result()

        assert made == (gone is None)
        assert catalogue.count("blobs") == int(made)
        delete(catalogue, copy, OTHER)


def test_an_image_cannot_be_active_without_bytes(catalogue: Catalogue) -> None:
    spec = ImageCreate(name="x")
    image = catalogue.write(lambda c: catalogue.images.create_in(c, project_id=OWNER, spec=spec, now=1))

    with pytest.raises(WrongStatus):
        image.moved_to(ImageStatus.DEACTIVATED)


# --- for the sweeper --------------------------------------------------------------------------------------------------


def test_only_uploads_that_are_silent_are_stale_and_all_that_are_open_are_told(catalogue: Catalogue) -> None:
    silent, alive, job = catalogue.queued(), catalogue.queued(), catalogue.queued()
    begin(catalogue, silent, UPLOAD, now=1000)
    begin(catalogue, alive, LATER, now=1000)
    begin(catalogue, job, JOB, now=1000)
    catalogue.write(lambda c: catalogue.images.touch_in(c, alive.id, LATER, 5000))

    stale = catalogue.read(lambda c: catalogue.images.stale_uploads_in(c, 5000))
    still_open = catalogue.read(lambda c: catalogue.images.open_uploads_in(c))

    assert stale == [(silent.id, UPLOAD)]
    assert still_open == {UPLOAD, LATER, JOB}


def test_blobs_with_a_row_are_told_from_those_without(catalogue: Catalogue) -> None:
    held = catalogue.active().blob_id
    assert held is not None

    assert catalogue.read(lambda c: catalogue.images.known_blob_ids_in(c, [held, BlobId("0" * 32)])) == {held}
    assert catalogue.read(lambda c: catalogue.images.known_blob_ids_in(c, [])) == set()
