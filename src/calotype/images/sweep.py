"""What dead processes left, taken back: images that wait for ever, staged bytes of no one, blobs without a row."""

from itertools import islice
from typing import TYPE_CHECKING, Final

import structlog

from calotype.blobs.model import BlobId
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
BATCH: Final = 500


class Sweeper:
    """Remembers which blobs it has seen without a row: bytes are there a moment before the row that names them."""

    def __init__(self, images: "Lifecycle", db: Database, blobs: Stores) -> None:
        self.images = images
        self.db = db
        self.blobs = blobs
        self._seen: dict[BlobId, int] = {}  # blobs without a row -> when that was first seen, ms
        self._looked_at: int | None = None

    def run(self, now: int) -> None:
        self._end_stale_uploads(now)
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
        without_row: set[BlobId] = set()
        stored = (blob.id for blob in self.blobs.list_blobs())
        while ids := list(islice(stored, BATCH)):
            with self.db.reading() as c:
                without_row |= set(ids) - self.images.known_blob_ids_in(c, ids)
        self._seen = {blob_id: self._seen.get(blob_id, now) for blob_id in without_row}
        due = [blob_id for blob_id, since in self._seen.items() if now - since >= STRAY_MS]
        for blob_id in due:
            self.blobs.delete(blob_id)
            del self._seen[blob_id]
            log.warning("stray_blob_removed", blob_id=blob_id)
