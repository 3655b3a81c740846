"""What every source of servers can do: tell about them, and bring the bytes of their disks.

A source belongs to the operator: a folder that describes servers (`inventory.py`), or a hypervisor (`libvirt.py`). The
service reads from it and never changes a server. Ids are those of the source; they come from requests as they were
sent, and one that the project does not have is unknown, whoever else has it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from calotype.servers.model import Backup, Project, Server, Vault, Volume


class Captured(Struct, frozen=True, kw_only=True):
    """The bytes of a volume in a file that is the caller's. Its content is as little trusted as an upload."""

    volume: Volume
    path: Path
    size: int  # bytes of the file
    format: str | None = None  # `raw`, `qcow2` … where the source knows it: content that looks otherwise is refused


class ServerSource(Protocol):
    """Every method waits for disks or processes, each wait with a limit: for a thread. `Unavailable`: the source does
    not answer."""

    def servers(self, project: Project) -> Sequence[Server]: ...

    def volumes(self, project: Project) -> Sequence[Volume]:
        """Those of servers, and those of none."""
        ...

    def backups(self, project: Project) -> Sequence[Backup]: ...

    def server(self, project: Project, server_id: str) -> Server:
        """Raises `ServerNotFound`."""
        ...

    def volume(self, project: Project, volume_id: str) -> Volume:
        """Raises `VolumeUnusable` for one that is not there."""
        ...

    def backup(self, project: Project, backup_id: str) -> Backup:
        """Raises `BackupNotFound`."""
        ...

    def vault(self, project: Project, vault_id: str | None) -> Vault | None:
        """The vault of that id; the project's own one for None, or None where it has none. Raises `VaultNotFound`."""
        ...

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
        """Bring the bytes of volumes, all of one moment, into `folder`, which exists and is the caller's.

        `server_id` is that of the server they belong to; None for volumes of no server. `name` names the job: whatever
        an earlier capture of that name left anywhere, here or in the source, is taken back first, so that it can be
        run again after a kill. `progress` gets bytes done and in all. The source is as before on return, and when
        anything is raised: `ServerNotFound`, `ServerBusy`, `VolumeUnusable`, `VolumeBusy`, `NoSpace`, `Unavailable`;
        `JobCancelled` soon after `cancelled()` is true.
        """
        ...

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
        """As `capture`, of all disks of a backup. Raises `BackupNotFound`, `BackupUnusable`, and as `capture` does."""
        ...

    def release(self, name: str) -> None:
        """Take back whatever a capture of that name left in the source. Harmless when there is nothing."""
        ...
