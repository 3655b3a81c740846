"""What dead processes left, taken back: images that wait for ever, staged bytes of no one, blobs without a row."""

from itertools import islice
from typing import TYPE_CHECKING, Final

import structlog

from calotype.blobs.model import BlobId, first_of
from calotype.blobs.stores import Stores
from calotype.db.engine import Database
from calotype.images.upload import HEARTBEAT_S

if TYPE_CHECKING:
    from calotype.images.lifecycle import Lifecycle

log = structlog.get_logger()

STALE_MS: Final = int(6 * HEARTBEAT_S * 1000)  # an upload that has missed so many beats has no process any more
STAGED_MS: Final = 10 * 60 * 1000  # staged bytes of an API upload that no image waits for
STAGED_BY_JOB_MS: Final = 24 * 3600 * 1000  # of a job: jobs clean up after themselves, and may pause for long
STRAY_MS: Final = 10 * 60 * 1000  # a blob is seen without a row for so long before it goes
BLOBS_EVERY_MS: Final = 5 * 60 * 1000  # how often every blob is looked at
HOUR_MS: Final = 3600 * 1000
BATCH: Final = 500

Copy = tuple[BlobId, str]  # of a blob, in a store


class Sweeper:
    """Remembers which copies it has seen that no image counts on: bytes are there a moment before the row that does."""

    def __init__(self, images: "Lifecycle", db: Database, blobs: Stores) -> None:
        self.images = images
        self.db = db
        self.blobs = blobs
        self._seen: dict[Copy, int] = {}  # copies that no image counts on -> when that was first seen, ms
        self._looked_at: int | None = None

    def run(self, now: int) -> None:
        self._end_stale_uploads(now)
        self._end_forgotten(now)
        self._clear_staging(now)
        if self._looked_at is None or now - self._looked_at >= BLOBS_EVERY_MS:
            self._looked_at = now
            self._clear_blobs(now)

    def _end_stale_uploads(self, now: int) -> None:
        with self.db.reading() as c:
            stale = self.images.stale_uploads_in(c, now - STALE_MS)
        for image_id, upload_id in stale:
            with self.db.writing() as c:
                # Seen again inside the transaction: the upload may have said meanwhile that it is alive.
                if (image_id, upload_id) not in self.images.stale_uploads_in(c, now - STALE_MS):
                    continue
                self.images.abandon_in(c, image_id, upload_id, to="queued", now=now)
            self.blobs.discard(upload_id)
            log.warning("upload_given_up", image_id=image_id, upload_id=upload_id)

    def _end_forgotten(self, now: int) -> None:
        """Staged bytes that no import has asked for in all the time that they may wait."""
        before = now - self.images.limits.staged_hours * HOUR_MS
        with self.db.reading() as c:
            forgotten = self.images.forgotten_in(c, before)
        for image_id, upload_id in forgotten:
            with self.db.writing() as c:
                # Seen again inside the transaction: an import may have taken them meanwhile.
                if (image_id, upload_id) not in self.images.forgotten_in(c, before):
                    continue
                self.images.abandon_in(c, image_id, upload_id, to="queued", now=now)
            self.blobs.discard(upload_id)
            log.warning("staged_bytes_forgotten", image_id=image_id, upload_id=upload_id)

    def _clear_staging(self, now: int) -> None:
        old = [
            staged.token
            for staged in self.blobs.list_staging()
            if now - staged.modified_at >= (STAGED_MS if staged.token.startswith("u") else STAGED_BY_JOB_MS)
        ]
        if not old:
            return
        with self.db.reading() as c:
            waited_for = self.images.open_uploads_in(c)
        for token in old:
            if token.partition("-")[0] not in waited_for:
                self.blobs.discard(token)
                log.warning("staged_bytes_removed", token=token)

    def _clear_blobs(self, now: int) -> None:
        unwanted: set[Copy] = set()
        stored = ((blob.id, blob.store) for blob in self.blobs.list_blobs())
        while some := list(islice(stored, BATCH)):
            with self.db.reading() as c:
                counted = self.images.counted_in(c, [blob_id for blob_id, _ in some])
            unwanted |= {(blob_id, store) for blob_id, store in some if store not in counted.get(blob_id, ())}
        self._seen = {copy: self._seen.get(copy, now) for copy in unwanted}
        due = [copy for copy, since in self._seen.items() if now - since >= STRAY_MS]
        if not due:
            return
        with self.db.reading() as c:
            begun = {first_of(name[1:]) for name in self.images.open_uploads_in(c) if name.startswith("j")}
        for blob_id, store in due:
            if first_of(blob_id) in begun:  # its job has not recorded it yet, or brings it to more stores still
                continue
            remove_copy(self.images, self.db, self.blobs, blob_id, store)
            del self._seen[blob_id, store]
            log.warning("stray_blob_removed", blob_id=blob_id, store=store)


def remove_copy(images: "Lifecycle", db: Database, blobs: Stores, blob_id: BlobId, store: str) -> None:
    """Remove a blob from a store, unless an image counts on it there. Waits for disk and database: for a thread."""
    with db.writing() as c:
        if not images.uncounted_in(c, blob_id, store):
            return
        token = blobs.set_aside(blob_id, store)
    blobs.discard(token)
