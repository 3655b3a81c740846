"""How an image gets its bytes and loses them: steps inside a caller's transaction, for uploads and jobs alike.

Each is guarded on what it found, so that of two that race exactly one goes on; the other gets `WrongStatus`. Bytes are
stored before the row that names them, and removed after it: functions that return a `BlobId` say which bytes the
caller deletes, and when.
"""

from collections.abc import Mapping
from typing import Final, Literal
from uuid import uuid4

from msgspec.structs import replace
from sqlalchemy import Connection, text

from calotype.blobs.model import Blob, BlobId, Digests
from calotype.errors import (
    DuplicateImage,
    ImageInUse,
    ImageNotFound,
    ImageProtected,
    LiesElsewhere,
    NameTaken,
    NotImageOwner,
    WrongStatus,
)
from calotype.identity.model import Caller, ProjectId
from calotype.images import attributes, quota, sql
from calotype.images.model import (
    Image,
    ImageCreate,
    ImageId,
    ImageStatus,
    Location,
    MemberStatus,
    Staged,
    UploadId,
    Visibility,
)
from calotype.images.os_versions import os_attributes
from calotype.settings import LOCAL, ImageSettings, Settings

# States of an image whose bytes somebody is bringing: the upload or the job in `upload_id`.
ARRIVING: Final = frozenset({ImageStatus.SAVING, ImageStatus.UPLOADING, ImageStatus.IMPORTING})


class Lifecycle:
    """The building blocks. `service.Images` is one, with what request handlers await on top."""

    def __init__(self, settings: Settings) -> None:
        self.limits: ImageSettings = settings.image

    # --- finding ------------------------------------------------------------------------------------------------------

    def by_id_in(self, connection: Connection, image_id: str) -> Image | None:
        """The image whoever owns it; None when there is none or it was deleted."""
        image = sql.image(connection, image_id)
        return None if image is None or image.status is ImageStatus.DELETED else image

    def visible_in(self, connection: Connection, caller: Caller, image_id: str) -> Image:
        """An image that the caller may see: own, public, community, shared with the caller's project; an admin all.

        Raises `ImageNotFound`, for foreign, deleted and malformed ids alike.
        """
        if not attributes.IMAGE_ID.fullmatch(image_id):
            raise ImageNotFound(image_id)
        project_id = caller.project_id or ""
        image = sql.visible_image(connection, image_id.lower(), project_id, is_admin=caller.is_admin)
        if image is None:
            raise ImageNotFound(image_id)
        return image

    def owned_in(self, connection: Connection, caller: Caller, image_id: str) -> Image:
        """An image that the caller may change, locked for this transaction. Raises `ImageNotFound`, `NotImageOwner`."""
        seen = self.visible_in(connection, caller, image_id)
        self.own(caller, seen)
        return self._locked(connection, seen.id)

    def own(self, caller: Caller, image: Image) -> None:
        """Pass for an image that the caller may change. Raises `NotImageOwner`."""
        if not caller.is_admin and image.project_id != caller.project_id:
            raise NotImageOwner("the image belongs to another project; only its owner may do this")

    def is_accepted_in(self, connection: Connection, caller: Caller, image: Image) -> bool:
        """Whether an image that the caller sees is more than an offer to the caller's project, which waits for its
        answer or was rejected."""
        if caller.is_admin or image.visibility is not Visibility.SHARED or image.project_id == caller.project_id:
            return True
        member = sql.member(connection, image.id, caller.project_id or "")
        return member is not None and member.status is MemberStatus.ACCEPTED

    # --- creating -----------------------------------------------------------------------------------------------------

    def create_in(
        self,
        connection: Connection,
        *,
        project_id: str,
        spec: ImageCreate,
        now: int,
        image_id: str | None = None,
    ) -> Image:
        """Store a queued image. Raises `ImageQuotaExceeded`, `DuplicateImage`, `NameTaken`, `UnknownOsVersion`, and the
        leaves of `Invalid` for attributes that exclude each other."""
        system = {"virtual_env_type": "FusionCompute"}
        if spec.os_version is not None and spec.properties.get("virtual_env_type") != "DataImage":
            system |= os_attributes(spec.os_version)
        image = Image(
            id=ImageId(image_id or spec.id or str(uuid4())),
            project_id=ProjectId(project_id),
            name=spec.name,
            visibility=spec.visibility,
            protected=spec.protected,
            hidden=spec.hidden,
            disk_format=spec.disk_format,
            container_format=spec.container_format,
            min_disk=spec.min_disk,
            min_ram=spec.min_ram,
            properties={**system, **spec.properties},
            tags=spec.tags,
            created_at=now,
            updated_at=now,
        )
        attributes.combination(image.properties, image.min_ram)
        quota.change(connection, project_id, self.limits, images=1)
        self.name_free(connection, image)
        if not sql.insert_image(connection, image):
            raise DuplicateImage(image.id)
        return image

    def name_free(self, connection: Connection, image: Image) -> None:
        """Pass unless the settings want names to differ and another image of the project has this one's. Called with
        the project's usage locked. Raises `NameTaken`."""
        if not self.limits.unique_names or not image.name:
            return
        values = {"project_id": image.project_id, "name": image.name, "id": image.id}
        if connection.execute(text(sql.NAME_TAKEN), values).one_or_none() is not None:
            raise NameTaken(f"the project has an image with the name {image.name!r} already")

    # --- bytes --------------------------------------------------------------------------------------------------------

    def begin_bytes_in(self, connection: Connection, image_id: str, upload_id: str, *, reserve: int, now: int) -> Image:
        """Take a queued image for an upload: it is `saving`, and `reserve` bytes are counted. Run again by the same
        upload it goes on, with the new reservation. Raises `WrongStatus`, `ImageNotFound`, `StorageQuotaExceeded`."""
        return self._begin(connection, image_id, upload_id, ImageStatus.SAVING, reserve, now)

    def begin_staging_in(
        self, connection: Connection, image_id: str, upload_id: str, *, reserve: int, now: int
    ) -> Image:
        """Take a queued image for staging: it is `uploading`, and `reserve` bytes are counted as staged.

        Raises as `begin_bytes_in`.
        """
        return self._begin(connection, image_id, upload_id, ImageStatus.UPLOADING, reserve, now)

    def staged_in(self, connection: Connection, image_id: str, upload_id: str, digests: Digests, now: int) -> None:
        """All bytes are in the staging folder, under the upload's id: they wait for an import.

        Raises `WrongStatus` when the image was deleted or taken meanwhile, `StorageQuotaExceeded`.
        """
        image = self.held_in(connection, image_id, upload_id)
        quota.change(connection, image.project_id, self.limits, staged_bytes=digests.size - image.reserved_bytes)
        staged = sql.encoded(Staged(token=upload_id, digests=digests))
        sql.run(connection, sql.STAGED, id=image.id, version=image.version, staged=staged, now=now)

    def begin_import_in(
        self, connection: Connection, image_id: str, upload_id: str, *, reserve: int, now: int
    ) -> Image:
        """Take a queued image, or one with staged bytes, for an import job: it is `importing`, and `reserve` bytes are
        counted as stored. Run again by the same job it goes on. Raises as `begin_bytes_in`."""
        return self._begin(connection, image_id, upload_id, ImageStatus.IMPORTING, reserve, now)

    def begin_location_in(
        self, connection: Connection, image_id: str, upload_id: str, location: Location, now: int
    ) -> Image:
        """Take a queued image for a job that looks at `location`, which is listed from now on in place of others.

        Raises `WrongStatus`, `ImageNotFound`.
        """
        begun = self.begin_import_in(connection, image_id, upload_id, reserve=0, now=now)
        after = replace(begun, locations=(location,))
        sql.place(connection, after, now)
        return replace(after, version=begun.version + 1)

    def _begin(
        self, connection: Connection, image_id: str, upload_id: str, status: ImageStatus, reserve: int, now: int
    ) -> Image:
        image = self._locked(connection, image_id)
        if image.status is status and image.upload_id == upload_id:
            return self._hold(connection, image, reserve, now)
        takes_staged = status is ImageStatus.IMPORTING and image.staged is not None
        if image.status is not ImageStatus.QUEUED and not takes_staged:
            raise WrongStatus(now=image.status, wanted="its data can be brought only while it is queued")
        after = replace(image.moved_to(status), upload_id=UploadId(upload_id), reserved_bytes=reserve)
        self._count(connection, after, reserve)
        params = {"id": image.id, "version": image.version, "upload_id": upload_id, "reserved": reserve, "now": now}
        sql.run(connection, sql.BEGIN, status=status.value, **params)
        return replace(after, version=image.version + 1)

    def reserve_in(self, connection: Connection, image_id: str, upload_id: str, total: int, now: int) -> None:
        """Say that the upload is alive and wants `total` bytes in all; a smaller number than before changes nothing.

        Raises `WrongStatus` when the image was deleted or taken meanwhile, `StorageQuotaExceeded`.
        """
        image = self.held_in(connection, image_id, upload_id)
        self._hold(connection, image, max(total, image.reserved_bytes), now)

    def touch_in(self, connection: Connection, image_id: str, upload_id: str, now: int) -> bool:
        """Say that the upload is alive; return whether the image is still its own."""
        return bool(sql.run(connection, sql.TOUCH, id=image_id, upload_id=upload_id, now=now))

    def activate_in(
        self,
        connection: Connection,
        image_id: str,
        upload_id: str,
        blob: Blob,
        *,
        disk_format: str,
        virtual_size: int | None,
        properties: Mapping[str, str],
        min_disk: int | None = None,
        container_format: str | None = None,
        stores: tuple[str, ...] = (LOCAL,),
        now: int,
    ) -> BlobId:
        """Make the image active with the bytes of `blob`, that all of `stores` hold already. `properties` are added to
        its own. Of bytes that were staged the quota is given back; the file is the caller's to remove.

        Returns the blob that the image now has: one of equal bytes when there was one. If it is not `blob`, the caller
        deletes the bytes of `blob` after the commit. Raises `WrongStatus`, `StorageQuotaExceeded`, `InvalidSize` when
        `min_disk` does not hold the virtual disk.
        """
        image = self.held_in(connection, image_id, upload_id)
        smallest = image.min_disk if min_disk is None else min_disk
        attributes.min_disk_holds(smallest, virtual_size)
        digests = blob.digests
        self._count(connection, image, digests.size - image.reserved_bytes)
        self._unstage(connection, image)
        blob_id = sql.equal_blob(connection, blob) if stores == (LOCAL,) else None
        if blob_id is None:
            sql.insert_blob(connection, blob, now)
            blob_id = blob.id
        after = replace(
            image.moved_to(ImageStatus.ACTIVE),
            size=digests.size,
            virtual_size=virtual_size,
            checksum=digests.md5,
            hash_algorithm=digests.hash_algorithm,
            hash_value=digests.hash_value,
            blob_id=blob_id,
            disk_format=disk_format,
            container_format=container_format or image.container_format,
            min_disk=smallest,
            stores=stores,
            locations=(),
            properties={**image.properties, **properties},
        )
        self._activate(connection, image, after, now)
        return blob_id

    def adopt_blob_in(self, connection: Connection, image_id: str, source: Image, now: int) -> Image:
        """Make a queued image active on the blob of `source`: a copy, at no cost in bytes stored, counted in the quota.

        Raises `ImageNotFound` when the source was deleted meanwhile, `WrongStatus`, `StorageQuotaExceeded`.
        """
        image = self._locked(connection, image_id)
        if image.status is not ImageStatus.QUEUED:
            raise WrongStatus(now=image.status, wanted="only a queued image can become a copy")
        if not sql.lock_blob(connection, source.blob_id or ""):
            raise ImageNotFound(source.id)
        origin = sql.image(connection, source.id)  # after the lock: its stores are those that hold it until the end
        if origin is None or not origin.has_bytes or origin.blob_id != source.blob_id:
            raise ImageNotFound(source.id)
        if origin.lies_elsewhere:
            raise LiesElsewhere("the bytes of the image lie at a URL; upload it as an image of its own, then copy that")
        attributes.min_disk_holds(image.min_disk, origin.virtual_size)
        quota.change(connection, image.project_id, self.limits, stored_bytes=origin.size or 0)
        after = replace(
            image.moved_to(ImageStatus.ACTIVE),
            size=origin.size,
            virtual_size=origin.virtual_size,
            checksum=origin.checksum,
            hash_algorithm=origin.hash_algorithm,
            hash_value=origin.hash_value,
            blob_id=origin.blob_id,
            stores=origin.stores,
            disk_format=origin.disk_format,
            container_format=image.container_format or origin.container_format,
        )
        return self._activate(connection, image, after, now)

    def point_in(
        self,
        connection: Connection,
        image: Image,
        locations: tuple[Location, ...],
        digests: Digests,
        *,
        virtual_size: int | None,
        now: int,
    ) -> Image:
        """Make an image, queued or held by the caller's job, active on bytes that lie at URLs. They count nothing in
        the quota and are joined with no others. Of `digests`, all but the size may be empty: not known.

        Raises `WrongStatus`, `InvalidSize` when `min_disk` does not hold the virtual disk.
        """
        attributes.min_disk_holds(image.min_disk, virtual_size)
        self._count(connection, image, -image.reserved_bytes)
        blob = Blob(id=BlobId(uuid4().hex), digests=digests, location=locations[0].store)
        sql.insert_blob(connection, blob, now)
        after = replace(
            image.moved_to(ImageStatus.ACTIVE),
            size=digests.size,
            virtual_size=virtual_size,
            checksum=digests.md5 or None,
            hash_algorithm=digests.hash_algorithm or None,
            hash_value=digests.hash_value or None,
            blob_id=blob.id,
            stores=(),
            locations=locations,
        )
        return self._activate(connection, image, after, now)

    def uncounted_in(self, connection: Connection, blob_id: BlobId, store: str) -> bool:
        """Whether no image counts on the copy of a blob in a store. If so its row no longer names the store, and no
        image begins to count on it before this transaction ends."""
        sql.lock_blob(connection, blob_id)
        counted = sql.stores_of_blobs(connection, [blob_id]).get(blob_id, set())
        if store in counted:
            return False
        if counted:
            sql.run(connection, sql.MOVE_BLOB, id=blob_id, gone=store, location=min(counted))
        return True

    def abandon_in(
        self,
        connection: Connection,
        image_id: str,
        upload_id: str,
        *,
        to: Literal["queued", "deleted"],
        now: int,
    ) -> None:
        """End an upload or an import that failed: what was reserved or staged for it is given back; the staged file is
        the caller's to remove. Does nothing when the image is no longer its own.

        With `deleted` an image that is still queued, whose upload never began, goes as well: it was made for it.
        """
        image = sql.locked_image(connection, image_id)
        if image is None:
            return
        held = image.status in ARRIVING and image.upload_id == upload_id
        if to == "deleted" and (held or image.status is ImageStatus.QUEUED):
            self._bury(connection, image, now)
        elif held:
            self._count(connection, image, -image.reserved_bytes)
            self._unstage(connection, image)
            sql.run(connection, sql.REQUEUE, id=image.id, version=image.version, now=now)

    def delete_in(self, connection: Connection, caller: Caller, image_id: str, now: int) -> BlobId | None:
        """Delete an image: a tombstone stays, so that its id is never used again.

        Returns the blob that no image has any more: the caller deletes its bytes after the commit. Raises
        `ImageNotFound`, `NotImageOwner`, `ImageProtected`, and `ImageInUse` while a job is bringing its bytes.
        """
        image = self.owned_in(connection, caller, image_id)
        if image.protected:
            raise ImageProtected(image.id)
        if image.status is ImageStatus.SAVING and (image.upload_id or "").startswith("j"):
            raise ImageInUse("a job is bringing the bytes of the image; wait for it or cancel it")
        return self._bury(connection, image, now)

    def held_in(self, connection: Connection, image_id: str, upload_id: str) -> Image:
        """An image that this upload or job brings the bytes of, locked for this transaction. Raises `ImageNotFound`,
        `WrongStatus`."""
        image = sql.locked_image(connection, image_id)
        if image is None:
            raise ImageNotFound(image_id)
        if image.status not in ARRIVING or image.upload_id != upload_id:
            raise WrongStatus(now=image.status, wanted="it was deleted or taken by another while its data arrived")
        return image

    def digests_in(self, connection: Connection, blob_id: BlobId) -> Digests:
        """Of a blob that lies elsewhere, as far as they are known. Raises `BlobNotFound`."""
        return sql.blob_digests(connection, blob_id)

    def pin_in(self, connection: Connection, blob_id: BlobId, digests: Digests) -> None:
        """Record what bytes that lie elsewhere are, once they were read whole. Who says it first has said it."""
        given = {"md5": digests.md5, "hash_algorithm": digests.hash_algorithm, "hash_value": digests.hash_value}
        sql.run(connection, sql.PIN_BLOB, id=blob_id, **given)

    # --- for the sweeper ----------------------------------------------------------------------------------------------

    def stale_uploads_in(self, connection: Connection, before_ms: int) -> list[tuple[ImageId, UploadId]]:
        """Uploads through the API (not jobs) that have not been heard of since `before_ms`, the oldest first."""
        rows = connection.execute(text(sql.STALE_UPLOADS), {"before": before_ms})
        return [(ImageId(row.id), UploadId(row.upload_id)) for row in rows]

    def forgotten_in(self, connection: Connection, before_ms: int) -> list[tuple[ImageId, UploadId]]:
        """Staged bytes that were complete before `before_ms`, and that no import has asked for."""
        rows = connection.execute(text(sql.FORGOTTEN), {"before": before_ms})
        return [(ImageId(row.id), UploadId(row.upload_id)) for row in rows]

    def open_uploads_in(self, connection: Connection) -> set[str]:
        """Uploads and jobs that are bringing bytes to an image, and names of staged bytes that are waited for."""
        rows = connection.execute(text(sql.OPEN_UPLOADS)).all()
        return {name for row in rows for name in (row.upload_id, sql.staged_token(row.staged)) if name}

    def counted_in(self, connection: Connection, ids: list[BlobId]) -> dict[BlobId, set[str]]:
        """In which stores images count on these blobs. Give at most a few thousand at once."""
        return sql.stores_of_blobs(connection, ids)

    def known_blob_ids_in(self, connection: Connection, ids: list[BlobId]) -> set[BlobId]:
        """Which of these blobs have a row. Give at most a few thousand at once."""
        return sql.known_blobs(connection, ids)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _locked(self, connection: Connection, image_id: str) -> Image:
        image = sql.locked_image(connection, image_id)
        if image is None or image.status is ImageStatus.DELETED:
            raise ImageNotFound(image_id)
        return image

    def _count(self, connection: Connection, image: Image, more: int) -> None:
        """Count what an image that is `saving` or `importing` stores, or what one that is `uploading` stages."""
        kind = "staged_bytes" if image.is_staging else "stored_bytes"
        quota.change(connection, image.project_id, self.limits, **{kind: more})

    def _count_elsewhere(self, connection: Connection, before: Image, after: Image) -> None:
        """Another project owns the image from now on: everything it counts for is counted there.

        Raises `ImageQuotaExceeded`, `StorageQuotaExceeded`. The projects' rows are changed in the order of their ids,
        so that two that move images to each other wait instead of blocking each other.
        """
        staged = before.staged.digests.size if before.staged is not None else 0
        stored = before.stored_bytes
        if before.is_staging:
            staged += before.reserved_bytes
        else:
            stored += before.reserved_bytes
        for project_id, sign in sorted([(before.project_id, -1), (after.project_id, 1)]):
            counts = {"images": sign, "stored_bytes": sign * stored, "staged_bytes": sign * staged}
            quota.change(connection, project_id, self.limits, **counts)

    def _unstage(self, connection: Connection, image: Image) -> None:
        if image.staged is not None:
            quota.change(connection, image.project_id, self.limits, staged_bytes=-image.staged.digests.size)

    def _hold(self, connection: Connection, image: Image, total: int, now: int) -> Image:
        self._count(connection, image, total - image.reserved_bytes)
        sql.run(connection, sql.HOLD, id=image.id, upload_id=image.upload_id, reserved=total, now=now)
        return replace(image, reserved_bytes=total)

    def _activate(self, connection: Connection, before: Image, after: Image, now: int) -> Image:
        after = replace(
            after,
            container_format=after.container_format or "bare",
            upload_id=None,
            reserved_bytes=0,
            staged=None,
            active_at=now,
            updated_at=now,
            version=before.version + 1,
        )
        sql.run(
            connection,
            sql.ACTIVATE,
            id=after.id,
            version=before.version,
            size=after.size,
            virtual_size=after.virtual_size,
            checksum=after.checksum,
            hash_algorithm=after.hash_algorithm,
            hash_value=after.hash_value,
            blob_id=after.blob_id,
            disk_format=after.disk_format,
            container_format=after.container_format,
            min_disk=after.min_disk,
            properties=sql.encoded(after.properties),
            stores=sql.encoded(after.stores),
            locations=sql.encoded(after.locations),
            now=now,
        )
        if after.properties != before.properties:
            sql.rewrite_properties(connection, after)
        return after

    def _bury(self, connection: Connection, image: Image, now: int) -> BlobId | None:
        image.moved_to(ImageStatus.DELETED)
        self._count(connection, image, -image.reserved_bytes)
        self._unstage(connection, image)
        quota.change(connection, image.project_id, self.limits, images=-1, stored_bytes=-image.stored_bytes)
        sql.run(connection, sql.BURY, id=image.id, version=image.version, now=now)
        sql.clear_details(connection, image.id)
        if image.blob_id is None:
            return None
        sql.lock_blob(connection, image.blob_id)
        gone = sql.run(connection, sql.DELETE_UNUSED_BLOB, id=image.blob_id)
        return image.blob_id if gone else None
