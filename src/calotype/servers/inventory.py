"""The source of servers that is a folder: a person, or a program, describes them there and lays their disks beside.

Nothing is ever written into it. Who writes the descriptions is trusted; what is in the disks is not. A description that
cannot be used is nobody else's trouble: lists leave it out, the log says why, and so does asking for it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Final, TypeVar

import structlog
from msgspec import Struct

from calotype.errors import (
    BackupNotFound,
    BackupUnusable,
    CalotypeError,
    ServerBusy,
    ServerNotFound,
    SourceUnreadable,
    VaultNotFound,
    VolumeBusy,
    VolumeUnusable,
)
from calotype.servers.copying import DiskFile, copied, open_below
from calotype.servers.describing import (
    BackupForm,
    DiskForm,
    F,
    ServerForm,
    VaultForm,
    VolumeForm,
    segments_of,
    slots_of,
    volume_id,
)
from calotype.servers.disk_sizes import DiskSizes
from calotype.servers.model import (
    GIB,
    Backup,
    BackupId,
    BackupStatus,
    Project,
    Server,
    ServerId,
    ServerStatus,
    Vault,
    VaultId,
    Volume,
    VolumeId,
    VolumeStatus,
)
from calotype.servers.shelves import Described, Shelf
from calotype.servers.source import Captured, ServerSource

log = structlog.get_logger()

RETRY_S: Final = 1.0  # until a copy is tried again that others wrote into
MOST_TOLD: Final = 10_000  # problems that are remembered, so that each is logged once
T = TypeVar("T")
V = TypeVar("V")


class _OwnDisk(Struct, frozen=True, kw_only=True):
    """A disk as it is described: of a server or backup, or on its own."""

    id: VolumeId
    form: DiskForm | VolumeForm
    folder: tuple[str, ...]
    server_id: ServerId | None = None
    slot: int | None = None

    @property
    def segments(self) -> tuple[str, ...]:
        return (*self.folder, *segments_of(self.form.file))


class Inventory(ServerSource):
    """`must_exist`: without the folder the source does not answer; otherwise there is nothing in it then."""

    def __init__(self, root: Path, *, must_exist: bool = False, retry_s: float = RETRY_S) -> None:
        self._root = root
        self._must_exist = must_exist
        self._retry_s = retry_s
        self._servers = Shelf(root, "servers", ServerForm, "server.toml")
        self._volumes = Shelf(root, "volumes", VolumeForm, "volume.toml")
        self._backups = Shelf(root, "backups", BackupForm, "backup.toml")
        self._vaults = Shelf(root, "vaults", VaultForm, None)
        self._sizes = DiskSizes()
        self._told: set[str] = set()

    # --- what there is ------------------------------------------------------------------------------------------------

    def servers(self, project: Project) -> Sequence[Server]:
        return self._usable(self._known(self._servers, project), self._server)

    def volumes(self, project: Project) -> Sequence[Volume]:
        by_id: dict[VolumeId, list[_OwnDisk]] = {}
        for disk in self._disks(project):
            by_id.setdefault(disk.id, []).append(disk)
        once = [disks[0] for _, disks in sorted(by_id.items()) if len(disks) == 1]
        return self._usable(once, self._volume)

    def backups(self, project: Project) -> Sequence[Backup]:
        return self._usable(self._known(self._backups, project), lambda found: self._backup(found, project))

    def server(self, project: Project, server_id: str) -> Server:
        return self._server(self._one(self._servers, project, server_id, ServerNotFound(f"no server {server_id}")))

    def volume(self, project: Project, volume_id: str) -> Volume:
        return self._volume(self._disk(project, volume_id))

    def backup(self, project: Project, backup_id: str) -> Backup:
        found = self._one(self._backups, project, backup_id, BackupNotFound(f"no backup {backup_id}"))
        return self._backup(found, project)

    def vault(self, project: Project, vault_id: str | None) -> Vault | None:
        """The project's own one is that which names the project, before one of every project; the first by id."""
        if vault_id is not None:
            return _vault(self._one(self._vaults, project, vault_id, VaultNotFound(f"no vault {vault_id}")))
        own = min(self._known(self._vaults, project), key=lambda entry: (entry.project is None, entry.id), default=None)
        return None if own is None else _vault(own)

    # --- the bytes ----------------------------------------------------------------------------------------------------

    def capture(
        self,
        project: Project,
        server_id: str | None,
        volume_ids: Sequence[str],
        folder: Path,
        *,
        name: str,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> Sequence[Captured]:
        disks = self._chosen(project, server_id, volume_ids)
        return self._copied([self._file(disk) for disk in disks], folder, name, progress, cancelled)

    def capture_backup(
        self,
        project: Project,
        backup_id: str,
        folder: Path,
        *,
        name: str,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> Sequence[Captured]:
        found = self._one(self._backups, project, backup_id, BackupNotFound(f"no backup {backup_id}"))
        form = found.known()
        if form.status is not BackupStatus.AVAILABLE or not form.accessible:
            state = f"is {form.status}" if form.accessible else "is not accessible"
            raise BackupUnusable(f"backup {backup_id} {state}")
        try:
            files = [self._file(disk) for disk in _disks_of(found)]
        except VolumeUnusable as error:
            raise BackupUnusable(f"backup {backup_id}: {error}") from error
        return self._copied(files, folder, name, progress, cancelled)

    def release(self, name: str) -> None:
        """A capture leaves nothing here."""

    def _copied(
        self,
        files: Sequence[DiskFile],
        folder: Path,
        name: str,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> Sequence[Captured]:
        return copied(
            self._root, files, folder, name=name, retry_s=self._retry_s, progress=progress, cancelled=cancelled
        )

    def _chosen(self, project: Project, server_id: str | None, volume_ids: Sequence[str]) -> list[_OwnDisk]:
        if server_id is None:
            disks = [self._disk(project, volume_id) for volume_id in volume_ids]
            for disk in disks:
                if disk.server_id is not None:
                    raise VolumeUnusable(f"volume {disk.id} is a disk of the server {disk.server_id}")
            return disks
        server = self._one(self._servers, project, server_id, ServerNotFound(f"no server {server_id}"))
        _check_idle(server)
        its = {str(disk.id): disk for disk in _disks_of(server)}
        for wanted in volume_ids:
            if wanted not in its:
                raise VolumeUnusable(f"the server {server_id} has no disk {wanted}")
        return [its[wanted] for wanted in volume_ids]

    def _file(self, disk: _OwnDisk) -> DiskFile:
        """Raises `VolumeBusy`, `VolumeUnusable`."""
        volume = self._volume(disk)
        if volume.status is VolumeStatus.BUSY:
            raise VolumeBusy(f"volume {volume.id} is busy")
        if volume.status is VolumeStatus.ERROR:
            raise VolumeUnusable(f"volume {volume.id} has the status error")
        if volume.missing:
            raise VolumeUnusable(f"volume {volume.id}: its file is not there")
        return DiskFile(volume=volume, segments=disk.segments, format=disk.form.format)

    # --- finding ------------------------------------------------------------------------------------------------------

    def _seen(self, shelf: Shelf[F], project: Project) -> list[Described[F]]:
        if self._must_exist and not self._root.is_dir():
            raise SourceUnreadable("the folder of the inventory is not there")
        return [entry for entry in shelf.everything() if entry.seen_by(project)]

    def _known(self, shelf: Shelf[F], project: Project) -> list[Described[F]]:
        return [entry for entry in self._seen(shelf, project) if entry.form is not None]

    def _one(self, shelf: Shelf[F], project: Project, wanted: str, missing: CalotypeError) -> Described[F]:
        """Raises `missing`, and `SourceUnreadable` for one that cannot be used."""
        found = next((entry for entry in self._seen(shelf, project) if entry.id == wanted), None)
        if found is None:
            raise missing
        found.known()
        return found

    def _disks(self, project: Project) -> Iterator[_OwnDisk]:
        """All that the project sees and that can be used, without their sizes."""
        for server in self._known(self._servers, project):
            yield from _disks_of(server)
        for volume in self._known(self._volumes, project):
            yield from _disks_of(volume)

    def _disk(self, project: Project, wanted: str) -> _OwnDisk:
        """Raises `VolumeUnusable`; `SourceUnreadable` for one whose description cannot be used, or of several."""
        found = [disk for disk in self._disks(project) if disk.id == wanted]
        if len(found) > 1:
            raise SourceUnreadable(f"{len(found)} disks have the id {wanted}")
        if not found:
            missing = VolumeUnusable(f"no volume {wanted}")
            self._one(self._volumes, project, wanted, missing)
            raise missing
        return found[0]

    def _usable(self, found: Iterable[T], value: Callable[[T], V]) -> list[V]:
        """The values of what can be used; what else there is, is logged once."""
        values = []
        for one in found:
            try:
                values.append(value(one))
            except SourceUnreadable as error:
                if error.message not in self._told and len(self._told) < MOST_TOLD:
                    self._told.add(error.message)
                    log.warning("inventory_unusable", reason=error.message)
        return values

    # --- as values ----------------------------------------------------------------------------------------------------

    def _server(self, described: Described[ServerForm]) -> Server:
        form = described.known()
        return Server(
            id=ServerId(described.id),
            name=form.name or described.id,
            status=form.status,
            kind=form.kind,
            os_version=form.os_version,
            image_id=form.image_id,
            firmware=form.firmware,
            architecture=form.architecture,
            task=form.task,
            being_backed_up=form.being_backed_up,
            frozen=form.frozen,
            reclaimed=form.reclaimed,
            vault_id=None if form.vault is None else VaultId(form.vault),
            older_backups=form.older_backups,
            volumes=self._by_slot(described),
        )

    def _backup(self, described: Described[BackupForm], project: Project) -> Backup:
        form = described.known()
        created = form.created_at
        if created is not None and created.tzinfo is None:
            created = created.replace(tzinfo=UTC)
        server = Server(
            id=ServerId(form.server.id or described.id),
            name=form.server.name or form.name or described.id,
            status=ServerStatus.STOPPED,
            kind=form.server.kind,
            os_version=form.server.os_version,
            image_id=form.server.image_id,
            firmware=form.server.firmware,
            architecture=form.server.architecture,
            volumes=self._by_slot(described),
        )
        return Backup(
            id=BackupId(described.id),
            name=form.name or described.id,
            kind=form.kind,
            status=form.status,
            accessible=form.accessible,
            shared=form.project is not None and form.project not in (project.id, project.name),
            server=server,
            created_at=None if created is None else round(created.timestamp() * 1000),
        )

    def _by_slot(self, described: Described[ServerForm] | Described[BackupForm]) -> tuple[Volume, ...]:
        volumes = [self._volume(disk) for disk in _disks_of(described)]
        return tuple(sorted(volumes, key=lambda volume: volume.slot or 0))

    def _volume(self, disk: _OwnDisk) -> Volume:
        """Raises `SourceUnreadable` where its file is there but cannot be looked at."""
        form = disk.form
        described_size = None if form.size_gb is None else form.size_gb * GIB
        status = form.status or (VolumeStatus.AVAILABLE if disk.server_id is None else VolumeStatus.IN_USE)
        found = self._found(disk)
        size = (described_size or 0) if found is None else (found[0] or described_size or found[1])
        return Volume(
            id=disk.id,
            name=form.name,
            size=size,
            status=status,
            server_id=disk.server_id,
            slot=disk.slot,
            cmk_id=form.cmk_id,
            dedicated=form.dedicated,
            shareable=form.shareable,
            missing=found is None,
        )

    def _found(self, disk: _OwnDisk) -> tuple[int | None, int] | None:
        """What its format says that the disk's size is, and the size of its file; None where there is none."""
        try:
            fd = open_below(self._root, disk.segments)
        except (FileNotFoundError, NotADirectoryError) as error:
            if os.path.lexists(self._root.joinpath(*disk.segments)):
                problem = "is a symbolic link, below one, or no regular file; lay the file itself into the inventory"
                raise SourceUnreadable(f"volume {disk.id}: {disk.form.file} {problem}") from error
            return None
        except OSError as error:
            raise SourceUnreadable(f"volume {disk.id}: {disk.form.file} cannot be read: {error.strerror}") from error
        try:
            return self._sizes.of(fd, disk.form.format), os.fstat(fd).st_size
        except OSError as error:
            raise SourceUnreadable(f"volume {disk.id}: {disk.form.file} cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)


def _disks_of(
    described: Described[ServerForm] | Described[BackupForm] | Described[VolumeForm],
) -> Iterator[_OwnDisk]:
    form = described.known()
    if isinstance(form, VolumeForm):
        yield _OwnDisk(id=VolumeId(described.id), form=form, folder=described.place)
        return
    server_id = form.server.id or described.id if isinstance(form, BackupForm) else described.id
    for slot, disk in zip(slots_of(form.disks), form.disks, strict=True):
        yield _OwnDisk(
            id=VolumeId(volume_id(disk, described.id, slot)),
            form=disk,
            folder=described.place,
            server_id=ServerId(server_id),
            slot=slot,
        )


def _vault(described: Described[VaultForm]) -> Vault:
    form = described.known()
    return Vault(
        id=VaultId(described.id),
        type=form.type,
        usable=form.usable,
        free=None if form.free_gb is None else form.free_gb * GIB,
        servers=form.servers,
        most_servers=form.most_servers,
    )


def _check_idle(server: Described[ServerForm]) -> None:
    form = server.known()
    if form.task is not None:
        raise ServerBusy(f"the server {server.id} is busy: {form.task}")
    if form.status is ServerStatus.OTHER:
        raise ServerBusy(f"the server {server.id} is neither running nor stopped")
