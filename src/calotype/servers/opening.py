"""Which source of servers the settings name, and who asks it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sqlalchemy import Connection

from calotype.db.engine import Database
from calotype.disks.convert import Converter
from calotype.errors import BackupNotFound, ServerNotFound, VaultNotFound, VolumeUnusable
from calotype.identity.directory import project_in, project_named_in
from calotype.servers.flattening import flattening
from calotype.servers.inventory import Inventory
from calotype.servers.libvirt import Libvirt
from calotype.servers.model import Backup, Project, Server, Vault, Volume
from calotype.servers.source import Captured, ServerSource
from calotype.settings import Settings


def source_of(settings: Settings, converter: Converter | None = None) -> ServerSource:
    """`converter`: of who captures disks; a source that is only asked needs none."""
    if settings.servers.source == "inventory":
        own = settings.servers.inventory
        return Inventory(Path(own), must_exist=True) if own else Inventory(settings.folder / "inventory")
    if settings.servers.source == "libvirt":
        return Libvirt(settings.servers, flattening(converter) if converter else None)
    return NoServers()


class NoServers(ServerSource):
    """The source of a service that makes no images of servers: nothing exists in it."""

    def servers(self, project: Project) -> Sequence[Server]:
        return ()

    def volumes(self, project: Project) -> Sequence[Volume]:
        return ()

    def backups(self, project: Project) -> Sequence[Backup]:
        return ()

    def server(self, project: Project, server_id: str) -> NoReturn:
        raise ServerNotFound(f"no server {server_id}")

    def volume(self, project: Project, volume_id: str) -> NoReturn:
        raise VolumeUnusable(f"no volume {volume_id}")

    def backup(self, project: Project, backup_id: str) -> NoReturn:
        raise BackupNotFound(f"no backup {backup_id}")

    def vault(self, project: Project, vault_id: str | None) -> Vault | None:
        if vault_id is not None:
            raise VaultNotFound(f"no vault {vault_id}")
        return None

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
        if server_id is not None:
            return self.server(project, server_id)
        return [self.volume(project, volume_id) for volume_id in volume_ids]

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
        return self.backup(project, backup_id)

    def release(self, name: str) -> None:
        return


async def project_of(db: Database, project_id: str) -> Project:
    """Raises `IdentityNotFound`."""
    return await db.read(lambda connection: project_of_in(connection, project_id))


def project_of_in(connection: Connection, project_id: str) -> Project:
    """The project as a source knows it. Its name counts only where it names no other project, as that of a mapped
    bucket does: a namesake in another domain is known by its id alone. Raises `IdentityNotFound`."""
    found = project_in(connection, project_id)
    named = project_named_in(connection, found.name)
    return Project(id=found.id, name=found.name if named == found.id else found.id)
