"""Servers, their disks, backups and vaults, as a source tells of them."""

from enum import StrEnum
from typing import NewType

from msgspec import Struct

ServerId = NewType("ServerId", str)
VolumeId = NewType("VolumeId", str)
BackupId = NewType("BackupId", str)
VaultId = NewType("VaultId", str)

GIB = 1024**3


class Project(Struct, frozen=True, kw_only=True):
    """A project as sources know it: by its id or by its name."""

    id: str
    name: str


class ServerStatus(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    OTHER = "other"  # building, rebooting, broken, suspended …: no image can be made


class ServerKind(StrEnum):
    ECS = "ecs"  # a virtual machine
    BMS = "bms"  # a bare-metal server


class VolumeStatus(StrEnum):
    AVAILABLE = "available"  # of no server
    IN_USE = "in-use"  # of a server
    BUSY = "busy"  # something else works on it
    ERROR = "error"


class BackupKind(StrEnum):
    CBR = "CBR"
    CSBS = "CSBS"  # of the older service


class BackupStatus(StrEnum):
    AVAILABLE = "available"
    CREATING = "creating"
    ERROR = "error"


class Volume(Struct, frozen=True, kw_only=True):
    """A disk, of a server, of a backup, or on its own."""

    id: VolumeId
    name: str = ""
    size: int  # bytes that the guest sees
    status: VolumeStatus = VolumeStatus.AVAILABLE
    server_id: ServerId | None = None
    slot: int | None = None  # its place in the server: 0 is the system disk
    cmk_id: str | None = None  # of the key that it is encrypted with
    dedicated: bool = False  # lies on dedicated storage
    shareable: bool = False  # several servers may use it at once
    missing: bool = False  # described, but its data is not there

    @property
    def size_gb(self) -> int:
        return -(-self.size // GIB)


class Server(Struct, frozen=True, kw_only=True):
    id: ServerId
    name: str
    status: ServerStatus
    kind: ServerKind = ServerKind.ECS
    os_version: str | None = None  # by its name in the table of OS versions
    image_id: str | None = None  # the image that it was made from
    firmware: str = "bios"  # or uefi
    architecture: str = "x86"  # or arm
    task: str | None = None  # what is being done to it: "resizing" …
    being_backed_up: bool = False
    frozen: bool = False  # unpaid
    reclaimed: bool = False  # a spot server that is being taken back
    vault_id: VaultId | None = None  # the vault that its backups go to
    older_backups: bool = False  # covered by the older backup service
    volumes: tuple[Volume, ...] = ()  # by slot

    @property
    def system_disk(self) -> Volume | None:
        return next((volume for volume in self.volumes if volume.slot == 0), None)


class Backup(Struct, frozen=True, kw_only=True):
    id: BackupId
    name: str = ""
    kind: BackupKind = BackupKind.CBR
    status: BackupStatus = BackupStatus.AVAILABLE
    accessible: bool = True  # the project may use what it holds
    shared: bool = False  # shared with this project by another
    server: Server  # as it was
    created_at: int | None = None  # ms

    @property
    def has_os(self) -> bool:
        return self.server.system_disk is not None


class Vault(Struct, frozen=True, kw_only=True):
    id: VaultId
    type: str = "server"
    usable: bool = True
    free: int | None = None  # bytes; None: no limit
    servers: tuple[str, ...] = ()  # ids of those that it protects
    most_servers: int | None = None
