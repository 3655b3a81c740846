"""Accepting full-server images, of a server and of a backup: what must hold, and the rows that exist from then on. The
steps are in `whole_server.py`."""

import asyncio
from collections.abc import Mapping
from uuid import uuid4

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from calotype.backups import rules
from calotype.backups.model import KeptBackup, Origin
from calotype.backups.service import Backups
from calotype.db.engine import now_ms
from calotype.errors import BackupNotFound, OlderBackupNotFound, VaultNotFound
from calotype.identity.model import Caller
from calotype.images.model import DEFAULT_OS_VERSION, Image, ImageCreate
from calotype.images.service import Images
from calotype.jobs.kinds.capture import of_server
from calotype.jobs.model import JobId, JobType
from calotype.jobs.service import Jobs
from calotype.servers.model import Backup, BackupId, BackupKind, Project, Server, Vault
from calotype.servers.opening import project_of
from calotype.servers.source import ServerSource
from calotype.settings import Settings


class Whole(Struct, frozen=True, kw_only=True):
    """What full-server images are accepted with."""

    images: Images
    backups: Backups
    jobs: Jobs
    servers: ServerSource
    settings: Settings

    async def of_server(self, caller: Caller, server_id: str, vault_id: str | None, spec: ImageCreate) -> JobId:
        """Raises the first reason against it."""
        project = await project_of(self.images.db, str(caller.project_id))
        server = await asyncio.to_thread(self.servers.server, project, server_id)
        rules.whole(server, most=self.settings.image.virtual_bytes_per_image)
        vault = await asyncio.to_thread(self._vault, project, server, vault_id)

        def work(c: Connection) -> JobId:
            now = now_ms()
            if vault is not None:
                self.backups.check_vault_in(c, vault, server)
            backup_id = BackupId(str(uuid4()))
            image = self._create_in(c, caller, spec, server, backup_id, f"instance,{server.id}", now)
            kept = KeptBackup(
                id=backup_id,
                project_id=image.project_id,
                name=image.name or "",
                origin=Origin.SERVER,
                server=server,
                vault_id=None if vault is None else vault.id,
                image_id=image.id,
                created_at=now,
            )
            self.backups.begin_in(c, kept)
            request = {"server": str(server.id), "backup": backup_id, **_brought(server)}
            return self._submit_in(c, caller, JobType.WHOLE_FROM_SERVER, request, image)

        return await self.images.db.write(work)

    def _vault(self, project: Project, server: Server, vault_id: str | None) -> Vault | None:
        """The one that is named, the server's, or the project's. None: where none is described, the service keeps
        backups without one, unless the settings want one."""
        vault = self.servers.vault(project, vault_id or server.vault_id)
        if vault is None and self.settings.servers.vault_required:
            raise VaultNotFound("vault_id: wants the id of a vault; the project has none that it could go to without")
        return vault

    async def of_backup(self, caller: Caller, backup_id: str, kind: BackupKind, spec: ImageCreate) -> JobId:
        """Raises the first reason against it."""
        kept = await self.backups.find(caller, backup_id)
        found = await self._of_source(caller, backup_id, kind) if kept is None else None
        if kept is not None:
            rules.of_kind(kept.kind, kind, backup_id)

        def work(c: Connection) -> JobId:
            now, project_id = now_ms(), str(caller.project_id)
            origin = f"server_backup,{backup_id}"
            kept = self.backups.use_in(c, project_id, backup_id)
            if kept is not None:
                image = self._create_in(c, caller, spec, kept.server, kept.id, origin, now)
                self.backups.give_in(c, kept, image.id)
                return self._submit_in(
                    c, caller, JobType.WHOLE_FROM_BACKUP, {"backup": backup_id, "volumes": []}, image
                )
            if found is None:
                raise _missing(kind, backup_id)  # it was deleted just now
            image = self._create_in(c, caller, spec, found.server, found.id, origin, now)
            self.backups.begin_in(c, _copy_of(found, image, now))
            request = {"backup": backup_id, **_brought(found.server)}
            return self._submit_in(c, caller, JobType.WHOLE_FROM_BACKUP, request, image)

        return await self.images.db.write(work)

    async def _of_source(self, caller: Caller, backup_id: str, kind: BackupKind) -> Backup:
        project = await project_of(self.images.db, str(caller.project_id))
        try:
            found = await asyncio.to_thread(self.servers.backup, project, backup_id)
        except BackupNotFound as error:
            raise _missing(kind, backup_id) from error
        rules.usable(found, kind, most=self.settings.image.virtual_bytes_per_image)
        return found

    # --- what both have in common -------------------------------------------------------------------------------------

    def _create_in(
        self, c: Connection, caller: Caller, spec: ImageCreate, server: Server, backup_id: str, origin: str, now: int
    ) -> Image:
        """`server`: as it is, or was when it was backed up."""
        disk = server.system_disk
        properties = {
            **{name: value for name, value in of_server(server).items() if name != "__originalimagename"},
            "__data_origin": origin,
            "__whole_image": "true",
            "__backup_id": backup_id,
            **spec.properties,
        }
        made = replace(
            spec,
            min_disk=0 if disk is None else disk.size_gb,
            os_version=server.os_version or DEFAULT_OS_VERSION,
            properties=properties,
        )
        return self.images.create_in(c, project_id=str(caller.project_id), spec=made, now=now)

    def _submit_in(
        self, c: Connection, caller: Caller, kind: JobType, request: Mapping[str, object], image: Image
    ) -> JobId:
        entities = {"image_name": image.name or "", "image_id": image.id}
        return self.jobs.submit_in(c, caller, kind, request=request, entities=entities, image_id=image.id)


def _copy_of(backup: Backup, image: Image, now: int) -> KeptBackup:
    return KeptBackup(
        id=backup.id,
        project_id=image.project_id,
        name=backup.name,
        kind=backup.kind,
        origin=Origin.SOURCE,
        shared=backup.shared,
        server=backup.server,
        image_id=image.id,
        created_at=now if backup.created_at is None else backup.created_at,
    )


def _brought(server: Server) -> dict[str, object]:
    """The disks that the job is to bring, the system disk first; and whether it is known what runs there."""
    return {
        "volumes": [str(volume.id) for volume in server.volumes],
        "os_known": server.os_version is not None,
    }


def _missing(kind: BackupKind, backup_id: str) -> BackupNotFound:
    return (BackupNotFound if kind is BackupKind.CBR else OlderBackupNotFound)(f"no backup {backup_id}")
