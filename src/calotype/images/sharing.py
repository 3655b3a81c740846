"""Sharing as IMS has it: many images with many projects at once, by the owner; the answers, by the recipient.

What is asked for is checked whole before anything is done, and again for each pair when it is done. The functions take
the catalogue.
"""

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import Connection

from calotype.errors import (
    CalotypeError,
    EncryptedImageShare,
    ImageNotFound,
    NotShareable,
    SharedWithItself,
    TooManyMembers,
    UnknownImage,
    WholeImageShare,
)
from calotype.identity.model import Caller
from calotype.images import sql
from calotype.images.model import Image, ImageId, Member, MemberStatus, Visibility
from calotype.images.service import Images


class Pair(Struct, frozen=True, kw_only=True):
    """What became of one image and one project."""

    image_id: str
    project_id: str
    error: CalotypeError | None = None


# --- what is asked for ------------------------------------------------------------------------------------------------


def to_share_in(
    images: Images, c: Connection, caller: Caller, image_ids: Sequence[str], projects: Sequence[str]
) -> tuple[Image, ...]:
    """The images, all of which the caller may share with all the projects; these are known to exist.

    Raises `UnknownImage`, `NotImageOwner`, `NotShareable`, `SharedWithItself`, `EncryptedImageShare`,
    `WholeImageShare`, `TooManyMembers`.
    """
    found = own_in(images, c, caller, image_ids)
    for image in found:
        present = {member.member_id for member in sql.members(c, image.id)}
        for project_id in projects:
            _shareable_in(c, image, project_id)
        _room(images, image, len(present.union(projects)))
    return found


def own_in(images: Images, c: Connection, caller: Caller, image_ids: Sequence[str]) -> tuple[Image, ...]:
    """Images that the caller may change. Raises `UnknownImage`, `NotImageOwner`."""
    found = tuple(_named_in(images, c, caller, image_id) for image_id in image_ids)
    for image in found:
        images.own(caller, image)
    return found


def offered_in(images: Images, c: Connection, caller: Caller, image_ids: Sequence[str]) -> tuple[Image, ...]:
    """Images that others share with the caller's project. Raises `UnknownImage`."""
    found = tuple(_named_in(images, c, caller, image_id) for image_id in image_ids)
    for image in found:
        if sql.member(c, image.id, caller.project_id or "") is None:
            raise UnknownImage(f"image {image.id} is not shared with your project")
    return found


def _named_in(images: Images, c: Connection, caller: Caller, image_id: str) -> Image:
    try:
        return images.visible_in(c, caller, image_id)
    except ImageNotFound as error:
        raise UnknownImage(error.message) from error


def _shareable_in(c: Connection, image: Image, project_id: str) -> None:
    """Pass for an image that can be shared with the project."""
    if image.visibility not in (Visibility.PRIVATE, Visibility.SHARED):
        raise NotShareable(f"a {image.visibility} image has no members; everyone can use it")
    if image.project_id == project_id:
        raise SharedWithItself(f"image {image.id} belongs to project {project_id} already")
    if image.properties.get("__system__cmkid"):
        raise EncryptedImageShare(f"image {image.id} is encrypted")
    if image.is_whole and (not image.properties.get("__backup_id") or sql.backup_is_unshareable(c, image.id)):
        raise WholeImageShare(f"image {image.id} is not made from a CBR backup of your project")


def _room(images: Images, image: Image, members: int) -> None:
    most = images.limits.whole_image_members if image.is_whole else images.limits.members
    if members > most:
        raise TooManyMembers(f"image {image.id} can be shared with at most {most} projects; this would be {members}")


# --- doing it ---------------------------------------------------------------------------------------------------------


def share_in(
    images: Images, c: Connection, image_id: str, owner: str, projects: Sequence[str], now: int
) -> tuple[Pair, ...]:
    """Share an image with projects, unless its owner or its state changed since it was asked for. A project that it is
    shared with already keeps its answer."""
    image = _still_in(c, image_id, owner)
    if image is None:
        gone = UnknownImage(f"image {image_id} was deleted, or handed to another project")
        return tuple(Pair(image_id=image_id, project_id=project_id, error=gone) for project_id in projects)
    present = {str(member.member_id) for member in sql.members(c, image.id)}
    done = []
    for project_id in projects:
        error: CalotypeError | None = None
        try:
            _shareable_in(c, image, project_id)
            _room(images, image, len(present | {project_id}))
        except CalotypeError as refused:
            error = refused
        else:
            present.add(project_id)
            sql.run(c, sql.INSERT_MEMBER, image_id=image.id, member_id=project_id, now=now)
        done.append(Pair(image_id=image_id, project_id=project_id, error=error))
    if present:
        sql.run(c, sql.SET_SHARED, id=image.id)
    return tuple(done)


def unshare_in(c: Connection, image_id: str, owner: str, projects: Sequence[str]) -> None:
    """Stop sharing an image with projects; those that it is not shared with are no matter."""
    if _still_in(c, image_id, owner) is not None:
        for project_id in projects:
            sql.run(c, sql.DELETE_MEMBER, image_id=image_id, member_id=project_id)


def answer_in(c: Connection, image_id: str, project_id: str, status: MemberStatus, now: int) -> Pair:
    """Answer an offer, unless it was withdrawn meanwhile."""
    params = {"image_id": image_id, "member_id": project_id}
    done = sql.run(c, sql.UPDATE_MEMBER, **params, status=status.value, now=now)
    gone = None if done else UnknownImage(f"image {image_id} is not shared with your project any more")
    return Pair(image_id=image_id, project_id=project_id, error=gone)


def _still_in(c: Connection, image_id: str, owner: str) -> Image | None:
    """The image, locked for this transaction; None when it is no more its owner's."""
    image = sql.locked_image(c, image_id)
    return None if image is None or image.project_id != owner or image.deleted_at is not None else image


# --- who it is shared with --------------------------------------------------------------------------------------------


async def members(images: Images, caller: Caller, image_id: str) -> tuple[Member, ...]:
    """All for the owner, in the order in which they came; a member sees itself only. Raises `ImageNotFound`,
    `NotShareable` for an image that everyone can use."""

    def work(c: Connection) -> tuple[Member, ...]:
        image = images.visible_in(c, caller, image_id)
        if image.visibility not in (Visibility.PRIVATE, Visibility.SHARED):
            raise NotShareable(f"a {image.visibility} image has no members; everyone can use it")
        everyone = caller.is_admin or image.project_id == caller.project_id
        return tuple(m for m in sql.members(c, ImageId(image.id)) if everyone or m.member_id == caller.project_id)

    return await images.db.read(work)
