"""Which images may be exported, and copied, by what they were made of; on both databases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from calotype.errors import ChargedImage, NotAccepted, NotExportable, OpaqueFormat
from calotype.images.model import Image, MemberStatus, Visibility
from calotype.jobs.kinds.copy_image import check_accepted_in
from calotype.jobs.kinds.export import CHARGED, MOST_ORIGINS, check_exportable, check_origins_in
from tests.contract.catalogue import ADMIN, DATABASES, OTHER, OWNER, THIRD, Catalogue, caller, opened

ORIGIN: Final = "__originalimagename"
NOWHERE: Final = "9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"


@pytest.fixture(params=DATABASES)
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    with opened(request.param, tmp_path, count_per_project=100) as made:
        yield made


def public(catalogue: Catalogue, platform: str) -> Image:
    return catalogue.queued(OTHER, visibility=Visibility.PUBLIC, properties={"__platform": platform})


def made_of(catalogue: Catalogue, origin: str, project_id: str = OWNER) -> Image:
    return catalogue.queued(project_id, properties={ORIGIN: origin})


def check_origins(catalogue: Catalogue, image: Image) -> None:
    catalogue.read(lambda c: check_origins_in(c, image, catalogue.images))


@pytest.mark.parametrize("platform", sorted(CHARGED))
def test_what_was_made_of_a_charged_public_image_is_refused_through_any_images_between(
    catalogue: Catalogue, platform: str
) -> None:
    first = made_of(catalogue, public(catalogue, platform).id)
    second = made_of(catalogue, first.id, THIRD)
    third = made_of(catalogue, second.id)

    for image in (first, second, third):
        with pytest.raises(ChargedImage, match=platform):
            check_origins(catalogue, image)


def test_windows_is_known_by_the_type_alone(catalogue: Catalogue) -> None:
    origin = catalogue.queued(OTHER, visibility=Visibility.PUBLIC, properties={"__os_type": "Windows"})

    with pytest.raises(ChargedImage):
        check_origins(catalogue, made_of(catalogue, origin.id))


@pytest.mark.parametrize("platform", ["Debian", "CentOS", "Fedora", "Other", ""])
def test_other_platforms_are_not_charged(catalogue: Catalogue, platform: str) -> None:
    check_origins(catalogue, made_of(catalogue, public(catalogue, platform).id))


def test_a_private_image_of_a_charged_platform_is_its_owners(catalogue: Catalogue) -> None:
    origin = catalogue.queued(properties={"__platform": "Ubuntu"})

    check_origins(catalogue, made_of(catalogue, origin.id))
    check_origins(catalogue, origin)


def test_the_way_back_ends_where_an_image_is_gone(catalogue: Catalogue) -> None:
    check_origins(catalogue, made_of(catalogue, NOWHERE))
    check_origins(catalogue, made_of(catalogue, ""))
    check_origins(catalogue, catalogue.queued())


def test_images_that_name_each_other_are_gone_through_once(catalogue: Catalogue) -> None:
    one = catalogue.queued(id=NOWHERE, properties={ORIGIN: NOWHERE})
    check_origins(catalogue, one)
    two = made_of(catalogue, one.id)
    properties = f'{{"{ORIGIN}": "{two.id}"}}'
    statement = text("UPDATE images SET properties = :p WHERE id = :id")
    catalogue.write(lambda c: c.execute(statement, {"p": properties, "id": one.id}))

    check_origins(catalogue, catalogue.image(one.id))
    check_origins(catalogue, made_of(catalogue, two.id))


def test_a_way_back_that_is_too_long_is_refused(catalogue: Catalogue) -> None:
    image = catalogue.queued()
    for _ in range(MOST_ORIGINS - 1):
        image = made_of(catalogue, image.id)
    check_origins(catalogue, image)

    with pytest.raises(ChargedImage, match="more than"):
        check_origins(catalogue, made_of(catalogue, image.id))


def test_an_encrypted_image_has_no_quick_export(catalogue: Catalogue) -> None:
    image = catalogue.active(properties={"__system__cmkid": "a-key"})
    settings = catalogue.images.settings

    check_exportable(image, caller(), settings, quick=False)
    with pytest.raises(NotExportable):
        check_exportable(image, caller(), settings, quick=True)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("disk_format", ["zvhd", "zvhd2"])
def test_what_was_never_looked_into_is_not_exported(catalogue: Catalogue, disk_format: str, quick: bool) -> None:
    known = replace(catalogue.active(), disk_format=disk_format)
    unseen = replace(known, virtual_size=None)

    check_exportable(known, caller(), catalogue.images.settings, quick=quick)
    with pytest.raises(OpaqueFormat, match=disk_format):
        check_exportable(unseen, caller(), catalogue.images.settings, quick=quick)


async def test_an_offer_is_copied_when_it_was_accepted_only(catalogue: Catalogue) -> None:
    image = catalogue.active(visibility=Visibility.SHARED)
    await catalogue.images.add_member(caller(), image.id, OTHER)
    member = caller(OTHER)

    def check() -> None:
        catalogue.read(lambda c: check_accepted_in(c, member, catalogue.image(image.id), catalogue.images))

    for answer in (MemberStatus.PENDING, MemberStatus.REJECTED):
        await catalogue.images.answer_offer(member, image.id, OTHER, answer)
        with pytest.raises(NotAccepted):
            check()
    await catalogue.images.answer_offer(member, image.id, OTHER, MemberStatus.ACCEPTED)
    check()
    for anyone in (caller(), ADMIN):
        catalogue.read(lambda c, who=anyone: check_accepted_in(c, who, image, catalogue.images))  # type: ignore[misc]
