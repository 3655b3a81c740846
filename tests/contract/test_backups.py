"""The backups that the service keeps: their tables, the blobs and the quota that they count for, one image a backup; on
both databases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from calotype.backups.model import KeptBackup, KeptDisk, Origin, State
from calotype.backups.service import Backups, abandon_in
from calotype.blobs.model import Blob, BlobId, nth_of
from calotype.errors import BackupInUse, BackupNotFound, BackupUsed, OlderBackupUsed, StorageQuotaExceeded, VaultFull
from calotype.images.model import Image, ImageCreate, ImageStatus, Operation
from calotype.images.sweep import BLOBS_EVERY_MS, STRAY_MS
from calotype.servers.model import (
    BackupId,
    BackupKind,
    Server,
    ServerId,
    ServerStatus,
    Vault,
    VaultId,
    Volume,
    VolumeId,
)
from tests.contract.catalogue import ADMIN, DATABASES, OTHER, OWNER, Catalogue, blob_of, caller, opened

JOB = "j" + "3" * 32
LIMIT = 1000


class Kept:
    """`Backups` over a catalogue, and the shortest way to a backup."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.backups = Backups(catalogue.db, catalogue.blobs, catalogue.images)

    def begun(self, backup_id: str = "b-1", project_id: str = OWNER, **told: Any) -> tuple[Image, KeptBackup]:
        """An image that a job brings the disks of, and its backup."""
        image = self.catalogue.queued(project_id, properties={"__whole_image": "true", "__backup_id": backup_id})
        facts: dict[str, Any] = {"name": "saved", "origin": Origin.SERVER, "server": server(), **told}
        kept = KeptBackup(id=BackupId(backup_id), project_id=project_id, image_id=image.id, created_at=1000, **facts)

        def work(c: Connection) -> Image:
            self.backups.begin_in(c, kept)
            return self.catalogue.images.begin_bytes_in(c, image.id, JOB, reserve=0, now=1000)

        return self.catalogue.write(work), kept

    def finish(self, image: Image, kept: KeptBackup, *blobs: Blob) -> frozenset[BlobId]:
        disks = [
            KeptDisk(
                slot=slot, volume_id=f"v{slot}", name="", blob=blob, virtual_size=blob.digests.size, disk_format="raw"
            )
            for slot, blob in enumerate(blobs)
        ]

        def work(c: Connection) -> frozenset[BlobId]:
            self.catalogue.images.held_in(c, image.id, JOB)
            activate = partial(_activated, self.catalogue, c, image)
            return self.backups.keep_in(c, kept, disks, activate, 2000)

        return self.catalogue.write(work)

    def made(self, *blobs: Blob, backup_id: str = "b-1", project_id: str = OWNER) -> tuple[Image, KeptBackup]:
        image, kept = self.begun(backup_id, project_id)
        self.finish(image, kept, *(blobs or (blob_of("system", 10), blob_of("data", 20))))
        return self.catalogue.image(image.id), kept

    def abandon(self, image: Image) -> None:
        """As a job that failed."""

        def work(c: Connection) -> None:
            self.catalogue.images.abandon_in(c, image.id, JOB, to="deleted", now=3000)
            abandon_in(c, image.id)

        self.catalogue.write(work)

    def use(self, backup_id: str = "b-1", project_id: str = OWNER) -> Image:
        """Another image of a backup that is here."""

        def work(c: Connection) -> str:
            kept = self.backups.use_in(c, project_id, backup_id)
            assert kept is not None
            image = self.catalogue.images.create_in(
                c, project_id=project_id, spec=ImageCreate(disk_format="raw"), now=3000
            )
            self.backups.give_in(c, kept, image.id)
            return image.id

        return self.catalogue.image(self.catalogue.write(work))

    def rows(self) -> tuple[int, int, int]:
        return tuple(self.catalogue.count(table) for table in ("backups", "backup_disks", "blobs"))  # type: ignore[return-value]  # three


def _activated(catalogue: Catalogue, c: Connection, image: Image, blob: Blob) -> BlobId:
    return catalogue.images.activate_in(
        c,
        image.id,
        JOB,
        blob,
        disk_format="raw",
        virtual_size=blob.digests.size,
        properties={},
        now=2000,
    )


def server(size: int = 100, name: str = "srv") -> Server:
    volume = Volume(id=VolumeId("v0"), size=size, slot=0)
    return Server(id=ServerId(name), name="web", status=ServerStatus.RUNNING, volumes=(volume,))


@pytest.fixture(params=DATABASES)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    with opened(request.param, tmp_path, stored_bytes_per_project=LIMIT) as catalogue:
        yield Kept(catalogue)


async def test_a_backup_is_creating_until_its_disks_are_there(kept: Kept) -> None:
    image, begun = kept.begun()
    before = await kept.backups.get(caller(), "b-1")

    kept.finish(image, begun, blob_of("system", 10), blob_of("data", 20))

    after = await kept.backups.get(caller(), "b-1")
    assert (before.state, before.disks) == (State.CREATING, ())
    assert (after.state, [disk.slot for disk in after.disks], after.size) == (State.AVAILABLE, [0, 1], 30)
    assert (after.server, after.image_id) == (server(), image.id)
    active = kept.catalogue.image(image.id)
    assert (active.status, active.blob_id) == (ImageStatus.ACTIVE, after.disks[0].blob.id)


def test_image_and_backup_count_each_for_itself(kept: Kept) -> None:
    kept.made()

    assert kept.catalogue.usage() == (1, 10 + 30)


def test_disks_of_equal_bytes_share_a_blob_with_each_other_and_with_images(kept: Kept) -> None:
    other = kept.catalogue.active(content="data", size=20)
    first, again, data = blob_of("system", 10), blob_of("system", 10), blob_of("data", 20)
    image, begun = kept.begun()

    used = kept.finish(image, begun, first, again, data)

    assert used == {first.id, other.blob_id}
    assert kept.rows() == (1, 3, 2)
    assert kept.catalogue.usage() == (2, 20 + 10 + 40)


def test_nothing_is_kept_where_the_quota_has_no_room(kept: Kept) -> None:
    image, begun = kept.begun()

    with pytest.raises(StorageQuotaExceeded):
        kept.finish(image, begun, blob_of("system", 400), blob_of("data", 300))

    assert kept.rows() == (1, 0, 0)
    kept.abandon(image)
    assert (kept.rows(), kept.catalogue.usage()) == ((0, 0, 0), (0, 0))


def test_a_job_that_failed_meanwhile_keeps_nothing(kept: Kept) -> None:
    image, begun = kept.begun()
    kept.catalogue.write(lambda c: abandon_in(c, image.id))

    with pytest.raises(BackupNotFound):
        kept.finish(image, begun, blob_of("system", 10))

    assert kept.rows() == (0, 0, 0)


# --- one image a backup -----------------------------------------------------------------------------------------------


def test_a_backup_of_one_id_is_begun_once_in_a_project_and_once_in_each(kept: Kept) -> None:
    kept.begun("b-1")
    kept.begun("b-1", OTHER)

    with pytest.raises(BackupUsed):
        kept.begun("b-1")
    with pytest.raises(OlderBackupUsed):
        kept.begun("b-1", kind=BackupKind.CSBS)

    assert kept.rows()[0] == 2


def test_a_backup_is_used_while_its_image_is_there_and_free_when_that_is_gone(kept: Kept) -> None:
    image, _ = kept.made()
    with pytest.raises(BackupUsed):
        kept.use()

    kept.catalogue.write(lambda c: kept.catalogue.images.delete_in(c, caller(), image.id, 4000))

    second = kept.use()
    with pytest.raises(BackupUsed):
        kept.use()
    kept.abandon(second)
    kept.use()


def test_a_backup_that_is_being_created_is_used_although_its_image_was_deleted(kept: Kept) -> None:
    image, _ = kept.begun()
    kept.catalogue.write(lambda c: kept.catalogue.images.abandon_in(c, image.id, JOB, to="deleted", now=4000))

    with pytest.raises(BackupUsed):
        kept.use()


def test_of_sixteen_who_use_a_backup_at_once_one_does(kept: Kept) -> None:
    image, _ = kept.made()
    kept.catalogue.write(lambda c: kept.catalogue.images.delete_in(c, caller(), image.id, 4000))

    def use(_: int) -> bool:
        try:
            kept.use()
        except BackupUsed:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(use, range(16))).count(True) == 1


# --- deleting ---------------------------------------------------------------------------------------------------------


async def test_a_backup_outlives_its_image_and_then_goes_with_its_blobs(kept: Kept) -> None:
    image, _ = kept.made()
    with pytest.raises(BackupInUse):
        await kept.backups.delete(caller(), "b-1")

    await kept.catalogue.images.delete(caller(), image.id)

    assert (kept.rows(), kept.catalogue.usage()) == ((1, 2, 2), (0, 30))
    assert (await kept.backups.get(caller(), "b-1")).image_id is None
    await kept.backups.delete(caller(), "b-1")
    assert (kept.rows(), kept.catalogue.usage()) == ((0, 0, 0), (0, 0))


async def test_an_image_and_its_backup_go_together_and_what_others_have_stays(kept: Kept) -> None:
    other = kept.catalogue.active(OTHER, content="data", size=20)
    image, _ = kept.made()

    await kept.backups.delete_image(caller(), image.id)

    assert (kept.rows(), kept.catalogue.usage()) == ((0, 0, 1), (0, 0))
    assert kept.catalogue.image(other.id).blob_id == other.blob_id


async def test_a_backup_that_another_project_has_stays_when_the_image_that_was_handed_over_goes(kept: Kept) -> None:
    image, _ = kept.made()
    handed = [Operation(op="replace", name="owner", value=OTHER)]
    await kept.catalogue.images.patch(ADMIN, image.id, handed)

    await kept.backups.delete_image(caller(OTHER), image.id)

    assert (kept.catalogue.usage(), kept.catalogue.usage(OTHER)) == ((0, 30), (0, 0))
    assert kept.rows() == (1, 2, 2)


@pytest.mark.parametrize("backup_id", ["b-2", "", "x" * 100, "'; DROP TABLE backups; --"])
async def test_what_a_project_does_not_have_is_not_found(kept: Kept, backup_id: str) -> None:
    kept.made()

    for who, wanted in ((caller(), backup_id), (caller(OTHER), "b-1"), (ADMIN, "b-1")):
        with pytest.raises(BackupNotFound):
            await kept.backups.get(who, wanted)
        with pytest.raises(BackupNotFound):
            await kept.backups.delete(who, wanted)


async def test_pages_are_in_the_order_of_ids_by_their_bytes(kept: Kept) -> None:
    ids = ["b-1", "B-2", "_c", "a", "Z", "é"]
    for name in ids:
        kept.made(blob_of("system", 1), backup_id=name)
    kept.made(backup_id="other", project_id=OTHER)

    first = await kept.backups.page(caller(), after="", limit=4)
    rest = await kept.backups.page(caller(), after=first[-1].id, limit=4)

    assert [one.id for one in first + rest] == sorted(ids)
    assert {len(one.disks) for one in first + rest} == {1}


# --- what the rest of the service knows of them -----------------------------------------------------------------------


async def test_bytes_of_a_backup_are_never_swept_and_those_of_a_running_job_wait(kept: Kept) -> None:
    system, data = blob_of("system", 6), blob_of("data", 4)
    image, _ = kept.made(system, data)
    await kept.catalogue.images.delete(caller(), image.id)
    running, _ = kept.begun("b-2")
    working = [nth_of(BlobId(JOB[1:]), number) for number in (0, 1, 63)]
    stray = BlobId("0" * 32)
    for blob_id in (system.id, data.id, *working, stray):
        token = f"u{blob_id}"
        kept.catalogue.blobs.staging_path(token).write_bytes(b"bytes")
        kept.catalogue.blobs.publish(token, blob_id)

    for now in range(10**9, 10**9 + 2 * STRAY_MS + 2 * BLOBS_EVERY_MS, BLOBS_EVERY_MS):
        kept.catalogue.images.sweep(now)

    assert {blob.id for blob in kept.catalogue.blobs.list_blobs()} == {system.id, data.id, *working}
    kept.abandon(running)


def test_what_backups_take_of_a_vault_is_counted_over_all_projects(kept: Kept) -> None:
    vault = Vault(id=VaultId("safe"), free=250)
    kept.begun("b-1", vault_id=vault.id)
    kept.begun("b-2", OTHER, vault_id=vault.id)

    with pytest.raises(VaultFull):
        kept.catalogue.write(lambda c: kept.backups.check_vault_in(c, vault, server(size=51)))
    kept.catalogue.write(lambda c: kept.backups.check_vault_in(c, vault, server(size=50)))
