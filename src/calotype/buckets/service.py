"""Whose bucket is where, and what may be done to it."""

import asyncio
import base64
import binascii
import re
import uuid
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import Connection

from calotype.blobs.budget import BufferBudget
from calotype.blobs.local import BlobReader, sync_folder
from calotype.blobs.receive import store
from calotype.blobs.threads import to_the_end
from calotype.buckets import sql
from calotype.buckets.address import bucket_name
from calotype.buckets.folder import FolderStore, object_info
from calotype.buckets.model import Bucket, BucketName, ObjectInfo, ObjectPage
from calotype.buckets.s3.store import S3Store
from calotype.buckets.s3.uploads import Notes, end
from calotype.buckets.s3.wire import Wire
from calotype.db.engine import Database, now_ms
from calotype.errors import (
    BucketExists,
    BucketMapped,
    BucketNotEmpty,
    BucketNotFound,
    CalotypeError,
    DigestMismatch,
    Forbidden,
    Invalid,
    InvalidBucketName,
    TooManyBuckets,
    Unavailable,
)
from calotype.identity.directory import project_named_in
from calotype.identity.model import Caller, ProjectId
from calotype.settings import BucketMapping, Settings

log = structlog.get_logger()

S3_UPLOADS: Final = 8  # through the API, of one process at once; each has at most 2 parts of 8 or 16 MiB in memory
S3_WAIT_S: Final = 120.0  # how long another one waits for its turn
LEFT_AFTER_MS: Final = 3600 * 1000  # what nobody has written to for so long, nobody writes to any more
FOLDER_ID: Final = re.compile(r"[0-9a-f]{32}")


class Buckets:
    """Buckets of the API are folders of the service's own, with generated names. Those of the settings are mapped
    folders, or lie on S3 servers; where both have a name, the one of the settings is meant.

    A bucket that the caller's project does not have is `BucketNotFound`, like one whose folder is gone.
    """

    def __init__(self, db: Database, settings: Settings) -> None:
        self.db = db
        self.settings = settings
        self._folder = settings.folder / "buckets"
        self._wires: dict[str, Wire] = {
            name: Wire(name, mapping) for name, mapping in settings.buckets.items() if mapping.s3
        }
        self._notes = Notes(self._folder / "uploads")
        self._s3_uploads = asyncio.Semaphore(S3_UPLOADS)

    def close(self) -> None:
        """End the connections to S3 servers that wait for the next request."""
        for wire in self._wires.values():
            wire.close()

    # --- buckets ------------------------------------------------------------------------------------------------------

    async def create(self, caller: Caller, name: str) -> Bucket:
        """Raises `InvalidBucketName`, `BucketExists`, `TooManyBuckets`."""
        project_id, wanted = _project(caller), bucket_name(name)
        if await self.db.read(lambda c: self._mapped_in(c, project_id, wanted)) is not None:
            raise BucketExists(wanted)
        folder_id = uuid.uuid4().hex
        await to_the_end(self._make_folder, folder_id)  # the folder first: a row without one would be a broken bucket
        try:
            return await self.db.write(lambda c: self._create_in(c, project_id, wanted, folder_id))
        except CalotypeError:
            await to_the_end(self._store(wanted, folder_id).remove)
            raise

    def _create_in(self, c: Connection, project_id: ProjectId, name: BucketName, folder_id: str) -> Bucket:
        sql.lock_project(c, project_id)
        values = {"project_id": project_id, "name": name, "folder_id": folder_id, "now": now_ms()}
        found = c.execute(sql.ONE, values).one_or_none()
        if found is not None:
            gone = not self._store(name, found.folder_id).exists()  # deleting it was cut off after its folder went
            if not gone or not c.execute(sql.REPLACE, {**values, "gone": found.folder_id}).rowcount:
                raise BucketExists(name)
        else:
            if c.execute(sql.COUNT, values).scalar_one() >= self.settings.image.buckets_per_project:
                raise TooManyBuckets(self.settings.image.buckets_per_project)
            if not c.execute(sql.ADD, values).rowcount:
                raise BucketExists(name)
        return sql.bucket(c.execute(sql.ONE, values).one())

    async def list(self, caller: Caller) -> list[Bucket]:
        """Every bucket that the caller's project sees, by name."""
        project_id = _project(caller)

        def find(c: Connection) -> list[Bucket]:
            created = [
                sql.bucket(row)
                for row in c.execute(sql.OF_PROJECT, {"project_id": project_id})
                if self._store(row.name, row.folder_id).exists()
            ]
            mapped = [
                _mapped(BucketName(name), mapping, project_id)
                for name, mapping in self.settings.buckets.items()
                if _sees(c, project_id, mapping) and (mapping.s3 or Path(mapping.folder).is_dir())
            ]
            seen = {bucket.name: bucket for bucket in (*created, *mapped)}
            return [seen[name] for name in sorted(seen)]

        return await self.db.read(find)

    async def get(self, caller: Caller, name: str) -> Bucket:
        bucket, _ = await self._find(_project(caller), name)
        return bucket

    async def delete(self, caller: Caller, name: str) -> None:
        """Raises `BucketNotEmpty`, `BucketMapped`."""
        project_id = _project(caller)
        bucket, folder = await self._find(project_id, name)
        if bucket.mapped or isinstance(folder, S3Store):
            raise BucketMapped(bucket.name)
        # The folder first: only removing it tells for certain that the bucket is empty, and stays so.
        await to_the_end(folder.remove)
        values = {"project_id": project_id, "name": bucket.name, "folder_id": folder.root.name}
        await self.db.write(lambda c: c.execute(sql.REMOVE, values).rowcount)

    async def resolve(self, project_id: str, name: str, *, writable: bool = False) -> FolderStore | S3Store:
        """Where the bytes of a project's bucket are. Raises `BucketNotFound`, and `BucketReadOnly` if asked."""
        _, folder = await self._find(ProjectId(project_id), name)
        if writable:
            folder.check_writable()
        return folder

    # --- objects ------------------------------------------------------------------------------------------------------

    async def objects(self, caller: Caller, name: str, *, prefix: str, limit: int, marker: str) -> ObjectPage:
        """The objects whose keys begin with `prefix` and come after `marker`, in order."""
        folder = await self.resolve(_project(caller), name)
        return await asyncio.to_thread(folder.page, prefix=prefix, limit=limit, marker=marker)

    async def put(
        self,
        caller: Caller,
        name: str,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        budget: BufferBudget,
        most_bytes: int,
        overwrite: bool = True,
        announced: int | None = None,
        expected_md5: str | None = None,
    ) -> ObjectInfo:
        """Store an object, all or nothing; durable on return. What can be refused is, before the first chunk is read.

        `announced`: how many bytes the client said would come; `expected_md5`: their digest, hex.
        Raises `BucketReadOnly`, the leaves of `InvalidObjectKey`, `ObjectExists` without `overwrite`, `ObjectIsFolder`,
        `DigestMismatch`, and what `blobs.receive` raises.
        """
        folder = await self.resolve(_project(caller), name)
        await asyncio.to_thread(folder.check_put, key, exclusive=not overwrite)
        if isinstance(folder, S3Store):
            async with self._s3_turn():
                return await folder.put(
                    chunks,
                    key,
                    exclusive=not overwrite,
                    most_bytes=most_bytes,
                    idle_s=self.settings.image.upload_idle_s,
                    announced=announced,
                    expected_md5=expected_md5,
                )
        incoming = folder.incoming()
        try:
            await to_the_end(incoming.open)
            arrived = await store(
                chunks,
                incoming.fd,
                algorithms=("md5",) if expected_md5 else (),
                most_bytes=most_bytes,
                budget=budget,
                sparse=False,
                direct=False,  # an import is likely to read it soon
                idle_s=self.settings.image.upload_idle_s,
                announced=announced,
            )
            if expected_md5 and arrived.digests["md5"] != expected_md5:
                raise DigestMismatch("the bytes that arrived do not have the announced MD5")
            return object_info(key, await to_the_end(lambda: incoming.publish(key, exclusive=not overwrite)))
        finally:
            await to_the_end(incoming.abandon)

    @asynccontextmanager
    async def _s3_turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(S3_WAIT_S):
                await self._s3_uploads.acquire()
        except TimeoutError:
            raise Unavailable("too many uploads to S3 servers are under way; try again later") from None
        try:
            yield
        finally:
            self._s3_uploads.release()

    async def read(self, caller: Caller, name: str, key: str) -> tuple[ObjectInfo, BlobReader]:
        """What is known of an object, and its open bytes, which the caller of this closes. Raises `ObjectNotFound`."""
        folder = await self.resolve(_project(caller), name)
        return await asyncio.to_thread(folder.open, key)

    async def stat(self, caller: Caller, name: str, key: str) -> ObjectInfo:
        """Raises `ObjectNotFound`."""
        folder = await self.resolve(_project(caller), name)
        return await asyncio.to_thread(folder.stat, key)

    async def delete_object(self, caller: Caller, name: str, key: str) -> None:
        """Raises `ObjectNotFound`, `BucketReadOnly`."""
        folder = await self.resolve(_project(caller), name)
        await asyncio.to_thread(folder.delete, key)

    # --- what dead processes left -------------------------------------------------------------------------------------

    def sweep(self, now: int) -> None:
        """Remove temporary files that nobody writes to any more, and folders that never became a bucket. Waits for disk
        and database: not for an event loop."""
        self._sweep_uploads()
        for name, mapping in self.settings.buckets.items():
            folder = Path(mapping.folder)
            if not mapping.s3 and not mapping.read_only and folder.is_dir():
                _swept(FolderStore(folder, bucket=name, owned=False))
        if not self._folder.is_dir():
            return
        for entry in self._folder.iterdir():
            if not FOLDER_ID.fullmatch(entry.name) or entry.is_symlink():
                continue
            folder_store = self._store("", entry.name)
            _swept(folder_store)
            with suppress(FileNotFoundError, BucketNotFound, BucketNotEmpty):
                if now - entry.stat().st_mtime * 1000 > LEFT_AFTER_MS and not self._known(entry.name):
                    folder_store.remove()
                    log.info("bucket_folder_swept", folder_id=entry.name)

    def _sweep_uploads(self) -> None:
        """End what processes that died have begun on S3 servers."""
        for path, note in self._notes.left(LEFT_AFTER_MS):
            wire = None if note is None else self._wires.get(note.bucket)
            if note is not None and wire is not None:
                try:
                    end(wire, note.key, note.upload_id)
                except CalotypeError as error:
                    log.warning("bucket_upload_left", bucket=note.bucket, reason=error.message)
                    continue
                log.info("bucket_upload_swept", bucket=note.bucket)
            path.unlink(missing_ok=True)

    def _known(self, folder_id: str) -> bool:
        with self.db.reading() as c:
            return c.execute(sql.KNOWN, {"folder_id": folder_id}).one_or_none() is not None

    # --- parts --------------------------------------------------------------------------------------------------------

    async def _find(self, project_id: ProjectId, name: str) -> tuple[Bucket, FolderStore | S3Store]:
        try:
            wanted = bucket_name(name)
        except InvalidBucketName as error:
            raise BucketNotFound(name) from error

        def find(c: Connection) -> tuple[Bucket, FolderStore | S3Store] | None:
            mapping = self._mapped_in(c, project_id, wanted)
            if mapping is not None and mapping.s3:
                store = S3Store(self._wires[wanted], bucket=wanted, notes=self._notes, read_only=mapping.read_only)
                return _mapped(wanted, mapping, project_id), store
            if mapping is not None:
                root = Path(mapping.folder).absolute()
                found = FolderStore(root, bucket=wanted, owned=False, read_only=mapping.read_only)
                return _mapped(wanted, mapping, project_id), found
            row = c.execute(sql.ONE, {"project_id": project_id, "name": wanted}).one_or_none()
            return None if row is None else (sql.bucket(row), self._store(wanted, row.folder_id))

        found = await self.db.read(find)
        if found is None:
            raise BucketNotFound(wanted)
        if not await asyncio.to_thread(found[1].exists):
            log.warning("bucket_folder_missing", bucket=wanted, mapped=found[0].mapped)
            raise BucketNotFound(wanted)
        return found

    def _mapped_in(self, c: Connection, project_id: ProjectId, name: BucketName) -> BucketMapping | None:
        mapping = self.settings.buckets.get(name)
        return mapping if mapping is not None and _sees(c, project_id, mapping) else None

    def _store(self, name: str, folder_id: str) -> FolderStore:
        return FolderStore(self._folder / folder_id, bucket=name, owned=True)

    def _make_folder(self, folder_id: str) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / folder_id).mkdir(mode=0o700)
        sync_folder(self._folder)


def md5_of_header(text: str | None) -> str | None:
    """The digest of a `Content-MD5` header, base64 (RFC 1864) or hex, as hex. Raises `Invalid` for anything else."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9a-fA-F]{32}", text):
        return text.lower()
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 16:
        raise Invalid("Content-MD5 wants the 16 bytes of a digest, in base64 or hexadecimal")
    return raw.hex()


def _project(caller: Caller) -> ProjectId:
    if caller.project_id is None:
        raise Forbidden("buckets belong to projects: this wants a token that is scoped to one")
    return caller.project_id


def _sees(c: Connection, project_id: ProjectId, mapping: BucketMapping) -> bool:
    return mapping.project in ("", project_id) or project_named_in(c, mapping.project) == project_id


def _mapped(name: BucketName, mapping: BucketMapping, project_id: ProjectId) -> Bucket:
    whose = project_id if mapping.project else None
    return Bucket(name=name, project_id=whose, created_at=None, mapped=True, read_only=mapping.read_only)


def _swept(folder: FolderStore) -> None:
    removed = folder.sweep_temporary(LEFT_AFTER_MS)
    if removed:
        log.info("bucket_temporary_swept", folder=folder.root.name, files=removed)
