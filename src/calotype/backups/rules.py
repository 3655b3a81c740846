"""Which servers and backups a full-server image can be made from now, and which vaults take the backup of a server.
Each function passes, or raises the reason against it. Contract: images-ims.md §4."""

from collections.abc import Set
from typing import Final

from calotype.errors import (
    BackupForbidden,
    BackupKindMismatch,
    BackupUnusable,
    BackupWithoutOs,
    DedicatedStorage,
    NoSystemDisk,
    OlderBackupService,
    OlderBackupUnusable,
    OtherDiskBusy,
    ServerBackingUp,
    ServerBusy,
    ServerInOtherVault,
    ServerKindUnsupported,
    ServerReclaimed,
    ServerStateWhole,
    SharedBackupForbidden,
    SystemDiskMissing,
    SystemDiskTooLarge,
    SystemDiskUnusable,
    VaultFull,
    VaultKind,
    VaultServers,
    VaultUnavailable,
    VolumeTooLarge,
    VolumeUnusable,
)
from calotype.servers.model import (
    Backup,
    BackupKind,
    BackupStatus,
    Server,
    ServerKind,
    ServerStatus,
    Vault,
    VolumeStatus,
)
from calotype.servers.rules import not_encrypted

MOST_DISKS: Final = 64  # of one server; the ids of their blobs are told apart by one byte


def whole(server: Server, *, most: int) -> None:
    """A server whose disks may all be read. `most`: bytes that a disk may have."""
    if server.reclaimed:
        raise ServerReclaimed(f"the server {server.id} is being taken back")
    if server.frozen or server.kind is not ServerKind.ECS:
        why = "frozen" if server.frozen else "no virtual machine"
        raise ServerKindUnsupported(f"the server {server.id} is {why}")
    if server.status is ServerStatus.OTHER:
        raise ServerStateWhole(f"the server {server.id} is neither running nor stopped")
    if server.being_backed_up:
        raise ServerBackingUp(f"the server {server.id} is being backed up; wait until that has ended")
    if server.task is not None:
        raise ServerBusy(f"the server {server.id} is busy: {server.task}")
    if server.older_backups:
        raise OlderBackupService(f"the server {server.id} is covered by the older backup service")
    _system_disk(server, most)
    _other_disks(server, most)


def _system_disk(server: Server, most: int) -> None:
    disk = server.system_disk
    if disk is None:
        raise NoSystemDisk(f"the server {server.id} has no system disk")
    if disk.missing:
        raise SystemDiskMissing(f"the data of the system disk {disk.id} is not there")
    if disk.shareable or disk.status in (VolumeStatus.ERROR, VolumeStatus.BUSY):
        why = "shared between servers" if disk.shareable else f"in the state {disk.status}"
        raise SystemDiskUnusable(f"the system disk {disk.id} is {why}")
    if disk.dedicated:
        raise DedicatedStorage(f"the system disk {disk.id} lies on dedicated storage")
    if disk.size > most:
        raise SystemDiskTooLarge(f"the system disk has {disk.size} bytes; at most {most} are allowed")
    not_encrypted(disk)


def _other_disks(server: Server, most: int) -> None:
    if len(server.volumes) > MOST_DISKS:
        raise VolumeUnusable(f"the server has {len(server.volumes)} disks; at most {MOST_DISKS} are allowed")
    for disk in server.volumes:
        if disk.slot == 0:
            continue
        if disk.status is VolumeStatus.BUSY:
            raise OtherDiskBusy(f"the disk {disk.id} of the server is busy")
        if disk.missing or disk.shareable or disk.status is VolumeStatus.ERROR:
            why = (
                "without data" if disk.missing else "shared between servers" if disk.shareable else "in the state error"
            )
            raise VolumeUnusable(f"the disk {disk.id} of the server is {why}")
        if disk.dedicated:
            raise DedicatedStorage(f"the disk {disk.id} lies on dedicated storage")
        if disk.size > most:
            raise VolumeTooLarge(f"the disk {disk.id} has {disk.size} bytes; at most {most} are allowed")
        not_encrypted(disk)


def open_for_servers(vault: Vault) -> None:
    """A vault that backups of servers may go to."""
    if not vault.usable:
        raise VaultUnavailable(f"the vault {vault.id} cannot be used now")
    if vault.type != "server":
        raise VaultKind(f"the vault {vault.id} is of the type {vault.type}, not server")


def takes(vault: Vault, server: Server, *, held: int, protected: Set[str]) -> None:
    """A vault that the backup of a server may go to. `held`: bytes that backups kept here take of it already, and
    `protected` the servers that they are of; the vault's own numbers know nothing of them."""
    open_for_servers(vault)
    wanted = sum(disk.size for disk in server.volumes)
    if vault.free is not None and held + wanted > vault.free:
        left = max(0, vault.free - held)
        raise VaultFull(f"the disks have {wanted} bytes, and the vault {vault.id} has room for {left}")
    if server.vault_id is not None and server.vault_id != vault.id:
        raise ServerInOtherVault(f"the backups of the server {server.id} go to the vault {server.vault_id}")
    members = protected | set(vault.servers)
    if server.id not in members and vault.most_servers is not None and len(members) >= vault.most_servers:
        raise VaultServers(f"the vault {vault.id} protects {len(members)} servers, as many as it may")


def usable(backup: Backup, wanted: BackupKind, *, most: int) -> None:
    """A backup of the source that an image can be made from. `most`: bytes that a disk may have."""
    of_kind(backup.kind, wanted, str(backup.id))
    if backup.status is not BackupStatus.AVAILABLE:
        raise unusable(wanted, f"the backup {backup.id} is in the state {backup.status}")
    if not backup.accessible:
        refused = SharedBackupForbidden if backup.shared else BackupForbidden
        raise refused(f"the project may not use what the backup {backup.id} holds")
    if not backup.has_os:
        raise BackupWithoutOs(f"the backup {backup.id} has no system disk")
    if len(backup.server.volumes) > MOST_DISKS:
        raise unusable(wanted, f"the backup {backup.id} has more than {MOST_DISKS} disks")
    for disk in backup.server.volumes:
        if disk.shareable or disk.missing:
            why = "was shared between servers" if disk.shareable else "has no data"
            raise unusable(wanted, f"the disk {disk.id} of the backup {why}")
        if disk.size > most:
            raise VolumeTooLarge(f"the disk {disk.id} has {disk.size} bytes; at most {most} are allowed")
        not_encrypted(disk)


def of_kind(kind: BackupKind, wanted: BackupKind, backup_id: str) -> None:
    if kind is not wanted:
        raise BackupKindMismatch(f"the backup {backup_id} is of the kind {kind}, not {wanted}")


def unusable(kind: BackupKind, message: str) -> BackupUnusable:
    return (BackupUnusable if kind is BackupKind.CBR else OlderBackupUnusable)(message)
