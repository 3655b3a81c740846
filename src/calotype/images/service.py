"""The catalogue, as request handlers use it: who may see, create, change and delete which image."""

from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from typing import Final

import structlog
from msgspec.structs import replace
from sqlalchemy import Connection

from calotype.blobs.budget import BufferBudget
from calotype.blobs.local import BlobReader
from calotype.blobs.model import BlobId
from calotype.blobs.stores import Stores
from calotype.blobs.threads import to_the_end
from calotype.db.engine import Database, now_ms
from calotype.db.fast import FastReads
from calotype.errors import (
    Forbidden,
    ImageNotFound,
    MemberExists,
    MemberNotFound,
    NotShareable,
    TagNotFound,
    TooManyMembers,
    WrongStatus,
)
from calotype.identity.model import Caller
from calotype.identity.permissions import may, require
from calotype.images import attributes, pages, patch, quota, sql
from calotype.images.dialect import DIALECTS
from calotype.images.lifecycle import Lifecycle
from calotype.images.model import (
    Image,
    ImageCreate,
    ImageQuery,
    ImageStatus,
    Member,
    MemberStatus,
    Operation,
    Page,
    Staged,
    Visibility,
)
from calotype.images.sweep import Sweeper
from calotype.images.upload import NOT_SAID, Staging, Upload
from calotype.settings import LOCAL, Settings

log = structlog.get_logger()

PUBLISH: Final = "ims:images:publish"


class Images(Lifecycle):
    """Image ids come as they were sent: malformed, foreign and unknown ones are the same `ImageNotFound`."""

    def __init__(self, db: Database, blobs: Stores, settings: Settings) -> None:
        super().__init__(settings)
        self.settings = settings
        self.dialect = DIALECTS[settings.imagev2.dialect]
        self.most_tags = self.dialect.most_tags or settings.image.tags  # of one image, on the Image API
        self.db = db
        self.blobs = blobs
        self._sweeper = Sweeper(self, db, blobs)

    # --- one image ----------------------------------------------------------------------------------------------------

    async def create(self, caller: Caller, spec: ImageCreate, *, project_id: str | None = None) -> Image:
        """Create a queued image, for the caller's project; an admin may name another.

        Raises `Forbidden` for what the caller may not, and what `create_in` raises.
        """
        owner = project_id or caller.project_id or ""
        if owner != caller.project_id and not caller.is_admin:
            raise Forbidden("you may create images for your own project only")
        if spec.visibility is Visibility.PUBLIC:
            require(caller, PUBLISH)
        if not caller.is_admin:
            self.dialect.check_chosen(spec.visibility)
        attributes.properties_count(spec.properties, most=self.limits.properties)
        return await self.db.write(lambda c: self.create_in(c, project_id=owner, spec=spec, now=now_ms()))

    async def get(self, caller: Caller, image_id: str) -> Image:
        """Raises `ImageNotFound`."""
        return await self.db.read(lambda c: self.visible_in(c, caller, image_id))

    async def show(self, caller: Caller, image_id: str, fast: FastReads) -> Image:
        """As `get`, by the raw driver where the row alone tells that the caller may see it. Raises `ImageNotFound`."""
        if not attributes.IMAGE_ID.fullmatch(image_id):
            raise ImageNotFound(image_id)
        row = await fast.one(sql.QUERY, image_id.lower())
        image = None if row is None else sql.raw_image(row)
        if image is None or image.status is ImageStatus.DELETED:
            raise ImageNotFound(image_id)
        mine = caller.is_admin or image.project_id == caller.project_id
        if mine or image.visibility in (Visibility.PUBLIC, Visibility.COMMUNITY):
            return image
        return await self.get(caller, image_id)  # shared with the caller, or not to be seen

    async def list(self, caller: Caller, query: ImageQuery) -> Page:
        """Raises `BadFilter` when the marker is no image that the caller may see."""
        return await self.db.read(lambda c: pages.page(c, caller, query))

    async def patch(self, caller: Caller, image_id: str, operations: Sequence[Operation]) -> Image:
        """Do all the operations or none; return the image as it is then. Raises what `patch.apply` raises,
        `ImageNotFound`, `NotImageOwner`."""
        return await self.db.write(lambda c: self.patch_in(c, caller, image_id, operations))

    def patch_in(self, connection: Connection, caller: Caller, image_id: str, operations: Sequence[Operation]) -> Image:
        """As `patch`; the image is locked for this transaction."""
        before = self.owned_in(connection, caller, image_id)
        after = patch.apply(
            before,
            operations,
            is_admin=caller.is_admin,
            may_publish=may(caller, PUBLISH),
            most_tags=self.most_tags,
            most_properties=self.limits.properties,
        )
        if after.visibility is not before.visibility and not caller.is_admin:
            self.dialect.check_chosen(after.visibility)
        return self._changed(connection, before, after)

    async def delete(self, caller: Caller, image_id: str) -> None:
        """Raises `ImageNotFound`, `NotImageOwner`, `ImageProtected`, `ImageInUse`."""

        def work(c: Connection) -> tuple[BlobId | None, Staged | None]:
            staged = self.owned_in(c, caller, image_id).staged
            return self.delete_in(c, caller, image_id, now_ms()), staged

        blob_id, staged = await self.db.write(work)
        try:
            if staged is not None:
                await to_the_end(self.blobs.discard, staged.token)
            if blob_id is not None:
                await to_the_end(self.blobs.delete, blob_id)
        except OSError as error:  # the image is gone; its bytes, that nothing refers to, the sweeper removes
            log.warning("bytes_not_deleted", image_id=image_id, blob_id=blob_id, reason=error.strerror)

    async def usage(self, caller: Caller) -> quota.Usage:
        """What the images of the caller's project count for."""
        return await self.db.read(lambda c: quota.usage(c, caller.project_id or ""))

    async def arriving(self, caller: Caller) -> int:
        """How many images of the caller's project somebody is bringing bytes to."""
        return await self.db.read(lambda c: sql.count_arriving(c, caller.project_id or ""))

    async def deactivate(self, caller: Caller, image_id: str) -> None:
        """Withhold the bytes from everyone but admins; downloads under way end. Done twice it changes nothing.

        Raises `ImageNotFound`, `NotImageOwner`, and `Forbidden` for an image without bytes.
        """
        await self._switch(caller, image_id, ImageStatus.DEACTIVATED)

    async def reactivate(self, caller: Caller, image_id: str) -> None:
        """Undo `deactivate`. Raises as it does."""
        await self._switch(caller, image_id, ImageStatus.ACTIVE)

    # --- bytes --------------------------------------------------------------------------------------------------------

    async def expects_bytes(self, caller: Caller, image_id: str) -> Image:
        """An image of the caller's that waits for its bytes. Raises `ImageNotFound`, `NotImageOwner`, `WrongStatus`."""

        def work(c: Connection) -> Image:
            image = self.visible_in(c, caller, image_id)
            self.own(caller, image)
            if image.status is not ImageStatus.QUEUED:
                raise WrongStatus(now=image.status, wanted="its data can be brought only while it is queued")
            return image

        return await self.db.read(work)

    async def upload(
        self,
        caller: Caller,
        image_id: str,
        chunks: AsyncIterable[bytes],
        *,
        announced: int | None,
        budget: BufferBudget,
        store: str = LOCAL,
        expected: Mapping[str, str] = NOT_SAID,
    ) -> None:
        """Bring the bytes of a queued image; it is active on return. `announced`: how many the client said will come;
        `expected`: algorithm -> hex digest, what it said they are; `store`: the one that is to hold them. When not one
        came, the image is queued as before.

        The first chunk is asked for only after everything that can be known before was checked. Whatever is raised,
        no bytes stay and the image is queued again, or what became of it meanwhile. Raises `ImageNotFound`,
        `NotImageOwner`, `WrongStatus`, `ImageTooLarge`, `StorageQuotaExceeded`, `InvalidSize`, `UploadCut`,
        `ContentDigestMismatch`, the leaves of `DiskRefused`, `NoSpace`, `Unavailable`.
        """
        upload = Upload(self, self.db, self.blobs, self.settings, budget, store, expected)
        await upload.run(caller, image_id, chunks, announced)

    async def stage(
        self,
        caller: Caller,
        image_id: str,
        chunks: AsyncIterable[bytes],
        *,
        announced: int | None,
        expected: Mapping[str, str] = NOT_SAID,
        budget: BufferBudget,
    ) -> None:
        """Bring bytes that wait for an import; the image is `uploading` on return. They are looked at when imported.

        Otherwise as `upload`, and raises as it does.
        """
        staging = Staging(self, self.db, self.blobs, self.settings, budget, expected=expected)
        await staging.run(caller, image_id, chunks, announced)

    async def open(self, caller: Caller, image_id: str) -> tuple[Image, BlobReader | None]:
        """The image and its open bytes, which the caller of this closes; None when it has none yet, or when they lie
        elsewhere.

        Raises `ImageNotFound`, and `Forbidden` when the image is deactivated.
        """
        image = await self.get(caller, image_id)
        if image.status is ImageStatus.DEACTIVATED and not caller.is_admin:
            raise Forbidden("the image is deactivated: its data is withheld")
        if not image.has_bytes or image.blob_id is None or image.lies_elsewhere:
            return image, None
        return image, await to_the_end(self.blobs.open, image.blob_id)

    def sweep(self, now: int) -> None:
        """Take back what dead processes left: see `Sweeper`. Waits for disk and database: not for an event loop."""
        self._sweeper.run(now)

    # --- tags ---------------------------------------------------------------------------------------------------------

    async def add_tag(self, caller: Caller, image_id: str, tag: str) -> None:
        """Raises `InvalidTag`, `TooManyTags`, `ImageNotFound`, `NotImageOwner`. Adding it again changes nothing."""
        await self.retag(caller, image_id, lambda tags: (*tags, tag))

    async def remove_tag(self, caller: Caller, image_id: str, tag: str) -> None:
        """Raises `TagNotFound`, `ImageNotFound`, `NotImageOwner`."""

        def without(tags: tuple[str, ...]) -> tuple[str, ...]:
            if tag not in tags:
                raise TagNotFound(tag)
            return tuple(other for other in tags if other != tag)

        await self.retag(caller, image_id, without)

    async def retag(self, caller: Caller, image_id: str, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> None:
        """Give an image the tags that `change` makes of those that it has. Raises `InvalidTag`, `TooManyTags`,
        `ImageNotFound`, `NotImageOwner`, and what `change` raises."""

        def work(c: Connection) -> None:
            before = self.owned_in(c, caller, image_id)
            after = attributes.tags(change(before.tags), most=self.most_tags)
            self._changed(c, before, replace(before, tags=after))

        await self.db.write(work)

    # --- members ------------------------------------------------------------------------------------------------------

    async def add_member(self, caller: Caller, image_id: str, member_id: str) -> Member:
        """Offer the image to a project.

        Only a shared image has members; where the dialect has it so, a private one becomes shared by this. Raises
        `ImageNotFound`, `NotImageOwner`, `NotShareable`, `MemberExists`, `TooManyMembers`.
        """

        def work(c: Connection) -> Member:
            image = self.owned_in(c, caller, image_id)
            self._shareable(image)
            present = sql.members(c, image.id)
            if any(member.member_id == member_id for member in present):
                raise MemberExists(member_id)
            if len(present) >= self.limits.members:
                raise TooManyMembers(f"an image has at most {self.limits.members} members")
            sql.run(c, sql.INSERT_MEMBER, image_id=image.id, member_id=member_id, now=now_ms())
            sql.run(c, sql.SET_SHARED, id=image.id)
            return self._member_in(c, image.id, member_id)

        return await self.db.write(work)

    async def members(self, caller: Caller, image_id: str) -> tuple[Member, ...]:
        """All of them for the owner; a member sees itself only. Raises `ImageNotFound`, `NotShareable`."""

        def work(c: Connection) -> tuple[Member, ...]:
            image = self.visible_in(c, caller, image_id)
            self._shareable(image)
            everyone = caller.is_admin or image.project_id == caller.project_id
            return tuple(m for m in sql.members(c, image.id) if everyone or m.member_id == caller.project_id)

        return await self.db.read(work)

    async def member(self, caller: Caller, image_id: str, member_id: str) -> Member:
        """Raises `ImageNotFound`, `MemberNotFound`."""

        def work(c: Connection) -> Member:
            image = self.visible_in(c, caller, image_id)
            if not (caller.is_admin or caller.project_id in (image.project_id, member_id)):
                raise MemberNotFound(member_id)
            return self._member_in(c, image.id, member_id)

        return await self.db.read(work)

    async def answer_offer(self, caller: Caller, image_id: str, member_id: str, status: MemberStatus) -> Member:
        """Accept or reject; only the project that it was offered to. Raises `ImageNotFound`, `MemberNotFound`,
        `Forbidden` for the owner."""

        def work(c: Connection) -> Member:
            image = self.visible_in(c, caller, image_id)
            if not (caller.is_admin or caller.project_id == member_id):
                if image.project_id == caller.project_id:
                    raise Forbidden("only the project that the image is shared with can answer")
                raise MemberNotFound(member_id)
            params = {"image_id": image.id, "member_id": member_id}
            if not sql.run(c, sql.UPDATE_MEMBER, **params, status=status.value, now=now_ms()):
                raise MemberNotFound(member_id)
            return self._member_in(c, image.id, member_id)

        return await self.db.write(work)

    async def remove_member(self, caller: Caller, image_id: str, member_id: str) -> None:
        """Raises `ImageNotFound`, `NotImageOwner`, `MemberNotFound`."""

        def work(c: Connection) -> None:
            image = self.owned_in(c, caller, image_id)
            if not sql.run(c, sql.DELETE_MEMBER, image_id=image.id, member_id=member_id):
                raise MemberNotFound(member_id)

        await self.db.write(work)

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _switch(self, caller: Caller, image_id: str, wanted: ImageStatus) -> None:
        def work(c: Connection) -> None:
            image = self.owned_in(c, caller, image_id)
            if not image.has_bytes:
                raise Forbidden(f"the image is {image.status}: only one that is active or deactivated can be {wanted}")
            if image.status is not wanted:
                now = max(now_ms(), image.updated_at)
                image.moved_to(wanted)
                sql.run(c, sql.SET_STATUS, id=image.id, version=image.version, status=wanted.value, now=now)

        await self.db.write(work)

    def _shareable(self, image: Image) -> None:
        if image.visibility is Visibility.PRIVATE and not self.dialect.private_takes_members:
            raise NotShareable("a private image has no members; change its visibility to shared first")
        if image.visibility not in (Visibility.PRIVATE, Visibility.SHARED):
            raise NotShareable(f"a {image.visibility} image has no members; everyone can use it")

    def _changed(self, connection: Connection, before: Image, after: Image) -> Image:
        if after == before:
            return before
        now = max(now_ms(), before.updated_at)
        if after.name != before.name:
            quota.lock(connection, after.project_id)
            self.name_free(connection, after)
        if after.project_id != before.project_id:
            self._count_elsewhere(connection, before, after)
        sql.update_metadata(connection, before, after, now)
        return replace(after, updated_at=now, version=before.version + 1)

    def _member_in(self, connection: Connection, image_id: str, member_id: str) -> Member:
        member = sql.member(connection, image_id, member_id)
        if member is None:
            raise MemberNotFound(member_id)
        return member
