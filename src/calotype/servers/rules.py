"""Which servers and disks an image can be made from now. Each function passes, or raises the reason against it."""

from collections.abc import Sequence

from calotype.errors import (
    DedicatedStorage,
    DifferentServers,
    DiskEncrypted,
    NoSystemDisk,
    OtherDiskBusy,
    ServerBusy,
    ServerKindUnsupported,
    ServerReclaimed,
    ServerState,
    SystemDiskMissing,
    SystemDiskTooLarge,
    SystemDiskUnusable,
    VolumeBusy,
    VolumeTooLarge,
    VolumeUnusable,
)
from calotype.servers.model import Server, ServerStatus, Volume, VolumeStatus


def at_rest(server: Server) -> None:
    """A server whose disks may be read: running or stopped, and nothing being done to it."""
    if server.reclaimed:
        raise ServerReclaimed(f"the server {server.id} is being taken back")
    if server.frozen:
        raise ServerKindUnsupported(f"the server {server.id} is frozen")
    if server.status is ServerStatus.OTHER:
        raise ServerState(f"the server {server.id} is neither running nor stopped")
    if server.task is not None:
        raise ServerBusy(f"the server {server.id} is busy: {server.task}")
    if server.being_backed_up:
        raise ServerBusy(f"the server {server.id} is being backed up")


def system_disk(server: Server, *, most: int) -> Volume:
    """The disk that a system disk image is made of. `most`: bytes that it may have."""
    at_rest(server)
    disk = server.system_disk
    if disk is None:
        raise NoSystemDisk(f"the server {server.id} has no system disk")
    if disk.missing:
        raise SystemDiskMissing(f"the data of the system disk {disk.id} is not there")
    if disk.status in (VolumeStatus.ERROR, VolumeStatus.BUSY) or disk.shareable:
        why = "shared between servers" if disk.shareable else f"in the state {disk.status}"
        raise SystemDiskUnusable(f"the system disk {disk.id} is {why}")
    if disk.dedicated:
        raise DedicatedStorage(f"the system disk {disk.id} lies on dedicated storage")
    if disk.size > most:
        raise SystemDiskTooLarge(f"the system disk has {disk.size} bytes; at most {most} are allowed")
    for other in server.volumes:
        if other.slot != 0 and other.status is VolumeStatus.BUSY:
            raise OtherDiskBusy(f"the disk {other.id} of the server is busy")
    not_encrypted(disk)
    return disk


def readable(volume: Volume, *, most: int) -> None:
    """A disk that an image can be made of. `most`: bytes that it may have."""
    if volume.missing:
        raise VolumeUnusable(f"the data of the disk {volume.id} is not there")
    if volume.status in (VolumeStatus.ERROR, VolumeStatus.BUSY):
        raise VolumeBusy(f"the disk {volume.id} is in the state {volume.status}")
    if volume.dedicated:
        raise DedicatedStorage(f"the disk {volume.id} lies on dedicated storage")
    if volume.size > most:
        raise VolumeTooLarge(f"the disk has {volume.size} bytes; at most {most} are allowed")
    not_encrypted(volume)


def data_disk(volume: Volume, *, most: int) -> None:
    if volume.slot == 0:
        raise VolumeUnusable(f"{volume.id} is a system disk; make a system disk image of its server")
    readable(volume, most=most)


def of_one_server(volumes: Sequence[Volume]) -> None:
    if len({volume.server_id for volume in volumes}) > 1:
        raise DifferentServers("the disks belong to several servers; send one request for each")


def not_encrypted(volume: Volume) -> None:
    """An image of an encrypted disk would have its key, which this service does not hold."""
    if volume.cmk_id is not None:
        raise DiskEncrypted(f"the disk {volume.id} is encrypted with a key that this service does not hold")
