"""Sharing many images with many projects: what is refused before anything is done, and what each pair comes to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calotype.errors import (
    CalotypeError,
    EncryptedImageShare,
    NotImageOwner,
    NotShareable,
    SharedWithItself,
    TooManyMembers,
    UnknownImage,
    WholeImageShare,
)
from calotype.identity.model import Caller
from calotype.images import quota, sharing, sql
from calotype.images.model import Image, MemberStatus, Visibility
from tests.contract.catalogue import ADMIN, DATABASES, OTHER, OWNER, THIRD, Catalogue, caller, opened

WHOLE = {"__whole_image": "true", "__backup_id": "9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"}


@pytest.fixture(params=DATABASES)
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    with opened(request.param, tmp_path, members=3, whole_image_members=2) as made:
        yield made


def asked(catalogue: Catalogue, who: Caller, images: list[str], projects: list[str]) -> None:
    catalogue.read(lambda c: sharing.to_share_in(catalogue.images, c, who, images, projects))


def shared(catalogue: Catalogue, image: Image, projects: list[str]) -> list[type[CalotypeError] | None]:
    """What came of each pair."""
    done = catalogue.write(lambda c: sharing.share_in(catalogue.images, c, image.id, OWNER, projects, 5000))
    assert [pair.project_id for pair in done] == projects
    return [None if pair.error is None else type(pair.error) for pair in done]


def members(catalogue: Catalogue, image: Image) -> dict[str, MemberStatus]:
    return {member.member_id: member.status for member in catalogue.read(lambda c: sql.members(c, image.id))}


@pytest.mark.parametrize(
    ("made", "projects", "error"),
    [
        ({}, [OTHER, OWNER], SharedWithItself),
        ({"visibility": Visibility.PUBLIC}, [OTHER], NotShareable),
        ({"visibility": Visibility.COMMUNITY}, [OTHER], NotShareable),
        ({"properties": {"__system__cmkid": "key"}}, [OTHER], EncryptedImageShare),
        ({"properties": {"__whole_image": "true"}}, [OTHER], WholeImageShare),
        ({}, [OTHER, THIRD, "d" * 32, "e" * 32], TooManyMembers),
        ({"properties": WHOLE}, [OTHER, THIRD, "d" * 32], TooManyMembers),
    ],
)
def test_what_cannot_be_shared_is_refused_when_it_is_asked_and_when_it_is_done(
    catalogue: Catalogue, made: dict[str, Any], projects: list[str], error: type[CalotypeError]
) -> None:
    image = catalogue.queued(**made)

    with pytest.raises(error):
        asked(catalogue, caller(), [image.id], projects)

    assert shared(catalogue, image, projects)[-1] is error
    assert EncryptedImageShare.img == "IMG.0098"


def test_who_may_share_is_the_owner_and_an_admin(catalogue: Catalogue) -> None:
    image = catalogue.queued(visibility=Visibility.SHARED)
    shared(catalogue, image, [OTHER])

    with pytest.raises(NotImageOwner):
        asked(catalogue, caller(OTHER), [image.id], [THIRD])
    with pytest.raises(UnknownImage):
        asked(catalogue, caller(THIRD), [image.id], [THIRD])
    asked(catalogue, caller(), [image.id], [OTHER, THIRD])
    asked(catalogue, ADMIN, [image.id], [OTHER, THIRD])


def test_shared_again_a_project_keeps_its_answer_and_takes_no_room(catalogue: Catalogue) -> None:
    image = catalogue.queued(properties=WHOLE)

    assert shared(catalogue, image, [OTHER, THIRD]) == [None, None]
    catalogue.write(lambda c: sharing.answer_in(c, image.id, OTHER, MemberStatus.REJECTED, 6000))
    asked(catalogue, caller(), [image.id], [THIRD, OTHER])

    assert shared(catalogue, image, [OTHER, THIRD, "d" * 32]) == [None, None, TooManyMembers]
    assert members(catalogue, image) == {OTHER: MemberStatus.REJECTED, THIRD: MemberStatus.PENDING}
    assert catalogue.image(image.id).visibility is Visibility.SHARED


def test_nothing_is_done_for_an_image_that_is_gone_or_has_another_owner(catalogue: Catalogue) -> None:
    gone, given = catalogue.queued(), catalogue.queued(OTHER)
    catalogue.write(lambda c: catalogue.images.delete_in(c, caller(), gone.id, 2000))

    assert shared(catalogue, gone, [OTHER]) == [UnknownImage]
    assert shared(catalogue, given, [THIRD]) == [UnknownImage]
    catalogue.write(lambda c: sharing.unshare_in(c, gone.id, OWNER, [OTHER]))
    assert members(catalogue, given) == {}


def test_an_offer_that_was_withdrawn_cannot_be_answered(catalogue: Catalogue) -> None:
    image = catalogue.queued()
    shared(catalogue, image, [OTHER])

    catalogue.read(lambda c: sharing.offered_in(catalogue.images, c, caller(OTHER), [image.id]))
    catalogue.write(lambda c: sharing.unshare_in(c, image.id, OWNER, [OTHER, THIRD]))
    late = catalogue.write(lambda c: sharing.answer_in(c, image.id, OTHER, MemberStatus.ACCEPTED, 6000))

    assert isinstance(late.error, UnknownImage)
    with pytest.raises(UnknownImage):
        catalogue.read(lambda c: sharing.offered_in(catalogue.images, c, caller(OTHER), [image.id]))


def test_what_is_shared_counts_for_its_owner(catalogue: Catalogue) -> None:
    first, second = catalogue.queued(), catalogue.queued()
    catalogue.queued()
    shared(catalogue, first, [OTHER])
    shared(catalogue, second, [OTHER, THIRD])

    assert catalogue.read(lambda c: quota.shared(c, OWNER)) == (2, 2)
    assert catalogue.read(lambda c: quota.shared(c, OTHER)) == (0, 0)
