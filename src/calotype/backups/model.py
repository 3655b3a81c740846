"""A backup that the service keeps: every disk that a server had at one moment."""

from enum import StrEnum

from msgspec import Struct

from calotype.blobs.model import Blob
from calotype.images.model import ImageId
from calotype.servers.model import BackupId, BackupKind, Server, VaultId


class Origin(StrEnum):
    SERVER = "server"  # taken of a server, by a job of this service
    SOURCE = "source"  # a copy of a backup that the source of servers has, under the same id


class State(StrEnum):
    CREATING = "creating"  # a job is bringing its disks; it goes when the job fails
    AVAILABLE = "available"


class KeptDisk(Struct, frozen=True, kw_only=True):
    """A disk of a backup, as it is stored."""

    slot: int  # 0: the system disk
    volume_id: str
    name: str
    blob: Blob
    virtual_size: int  # bytes that the guest saw
    disk_format: str

    @property
    def size(self) -> int:
        """Bytes stored: what it counts for in the quota."""
        return self.blob.digests.size


class KeptBackup(Struct, frozen=True, kw_only=True):
    """Of a project, in which no other has its id. It is the project's own, whatever becomes of the server, of the
    source's backup, or of the image."""

    id: BackupId
    project_id: str
    name: str
    kind: BackupKind = BackupKind.CBR
    origin: Origin
    state: State = State.CREATING
    shared: bool = False  # the source's backup was another project's, who shared it
    server: Server  # as it was
    vault_id: VaultId | None = None  # None: no described one
    image_id: ImageId | None = None  # the one image that is made from it; None where there is none, or no more
    created_at: int  # ms
    disks: tuple[KeptDisk, ...] = ()  # by slot; none while it is being created

    @property
    def server_bytes(self) -> int:
        """Bytes that the guest saw in all disks: what it takes of a vault."""
        return sum(volume.size for volume in self.server.volumes)

    @property
    def size(self) -> int:
        """Bytes stored."""
        return sum(disk.size for disk in self.disks)
