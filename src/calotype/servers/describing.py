"""What a person writes about servers, volumes, backups and vaults: the forms of the inventory's TOML files.

Reference for those who write them: docs/reference/inventory.md.
"""

import hashlib
import re
import tomllib
from collections import Counter
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from calotype.errors import SourceUnreadable
from calotype.servers.model import BackupKind, BackupStatus, ServerKind, ServerStatus, VolumeStatus

MOST_BYTES: Final = 64 * 1024  # of one TOML file
MOST_DISKS: Final = 64  # of one server or backup
ID: Final = r"^(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,64}\Z"
Id = Annotated[str, Meta(pattern=ID)]
ONE_LINE: Final = r"^[^\x00-\x1f\x7f]*\Z"
Text = Annotated[str, Meta(max_length=255, pattern=ONE_LINE)]
ProjectText = Annotated[str, Meta(min_length=1, max_length=255, pattern=ONE_LINE)]  # a name or an id
FilePath = Annotated[str, Meta(min_length=1, max_length=1024)]  # below the folder of the TOML file
Slot = Annotated[int, Meta(ge=0, lt=MOST_DISKS)]
Gib = Annotated[int, Meta(ge=0, le=2**30)]
Disks = Annotated[tuple["DiskForm", ...], Meta(max_length=MOST_DISKS)]
DiskFormatName = Literal["raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi"]


class DiskForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    file: FilePath
    id: Id | None = None
    name: Text = ""
    slot: Slot | None = None  # None: its place in the list
    format: DiskFormatName | None = None  # None: what the content looks like
    size_gb: Gib | None = None  # where the file does not tell
    status: VolumeStatus | None = None
    cmk_id: Text | None = None
    dedicated: bool = False
    shareable: bool = False


class VolumeForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    file: FilePath
    id: Id | None = None
    project: ProjectText | None = None  # None: every project sees it
    name: Text = ""
    format: DiskFormatName | None = None
    size_gb: Gib | None = None
    status: VolumeStatus = VolumeStatus.AVAILABLE
    cmk_id: Text | None = None
    dedicated: bool = False
    shareable: bool = False


class ServerForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Text = ""  # empty: its id
    id: Id | None = None
    project: ProjectText | None = None
    status: ServerStatus = ServerStatus.STOPPED
    kind: ServerKind = ServerKind.ECS
    os_version: Text | None = None
    image_id: Text | None = None
    firmware: Literal["bios", "uefi"] = "bios"
    architecture: Literal["x86", "arm"] = "x86"
    task: Text | None = None
    being_backed_up: bool = False
    frozen: bool = False
    reclaimed: bool = False
    vault: Id | None = None
    older_backups: bool = False
    disks: Disks = ()


class BackedUpForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server of a backup, as it was."""

    id: Id | None = None  # None: that of the backup
    name: Text = ""
    kind: ServerKind = ServerKind.ECS
    os_version: Text | None = None
    image_id: Text | None = None
    firmware: Literal["bios", "uefi"] = "bios"
    architecture: Literal["x86", "arm"] = "x86"


class BackupForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Text = ""
    id: Id | None = None
    project: ProjectText | None = None
    shared_with: Annotated[tuple[ProjectText, ...], Meta(max_length=256)] = ()
    kind: BackupKind = BackupKind.CBR
    status: BackupStatus = BackupStatus.AVAILABLE
    accessible: bool = True
    created_at: datetime | None = None  # without a zone: UTC
    server: BackedUpForm = BackedUpForm()
    disks: Disks = ()


class VaultForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Id | None = None
    project: ProjectText | None = None
    type: Text = "server"
    usable: bool = True
    free_gb: Gib | None = None
    servers: Annotated[tuple[Id, ...], Meta(max_length=10_000)] = ()
    most_servers: Annotated[int, Meta(ge=0, le=10_000)] | None = None


Form = ServerForm | VolumeForm | BackupForm | VaultForm
F = TypeVar("F", ServerForm, VolumeForm, BackupForm, VaultForm)


def tables_of(data: bytes, file: str) -> dict[str, Any]:
    """The TOML document `data`. Raises `SourceUnreadable`, which names `file`, as `form_of` does."""
    if len(data) > MOST_BYTES:
        raise SourceUnreadable(f"{file} is above {MOST_BYTES} bytes")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise SourceUnreadable(f"{file} is not text in UTF-8") from error
    except (ValueError, RecursionError) as error:  # a ValueError also for numbers of thousands of digits
        raise SourceUnreadable(f"{file} is not TOML: {error}") from error


def form_of(tables: dict[str, Any], kind: type[F], file: str) -> F:
    try:
        form = msgspec.convert(tables, kind)
    except msgspec.ValidationError as error:
        raise SourceUnreadable(f"{file}: {_explained(str(error))}") from error
    if isinstance(form, ServerForm | BackupForm):
        _check_disks(form.disks, file)
    elif isinstance(form, VolumeForm):
        _check_path(form.file, "file", file)
    return form


def slots_of(disks: tuple[DiskForm, ...]) -> list[int]:
    return [place if disk.slot is None else disk.slot for place, disk in enumerate(disks)]


def volume_id(disk: DiskForm, owner: str, slot: int) -> str:
    """Of a disk of the server or backup `owner`: always the same while it has the slot."""
    if disk.id is not None:
        return disk.id
    derived = f"{owner}-disk{slot}"
    if re.fullmatch(ID, derived):
        return derived
    return f"disk-{hashlib.blake2b(derived.encode(), digest_size=16).hexdigest()}"


def segments_of(path: str) -> list[str]:
    return path.split("/")


def _check_disks(disks: tuple[DiskForm, ...], file: str) -> None:
    for place, disk in enumerate(disks):
        _check_path(disk.file, f"disks[{place}].file", file)
    given: list[tuple[str, object]] = [("slot", slot) for slot in slots_of(disks)]
    given += [("id", disk.id) for disk in disks if disk.id is not None]
    for (what, value), times in Counter(given).items():
        if times > 1:
            raise SourceUnreadable(f"{file}: {times} disks have the {what} {value}")


def _check_path(path: str, key: str, file: str) -> None:
    parts = segments_of(path)
    if {"", ".", ".."} & set(parts) or not path.isprintable() or any(len(part.encode()) > 255 for part in parts):
        raise SourceUnreadable(f"{file}: {key}: wants a path below the folder of {file}, such as disk.qcow2")


def _explained(text: str) -> str:
    """Turn msgspec's words into a key and what is wrong with it: "disks[0].slot: expected `int` >= 0"."""
    problem, _, place = text.partition(" - at `$")
    prefix = place.rstrip("`").removeprefix(".")
    match = re.fullmatch(r"Object (contains unknown|missing required) field `(.*)`", problem)
    if match:
        key = f"{prefix}.{match[2]}" if prefix else match[2]
        return f"{key}: {'no such key' if match[1] == 'contains unknown' else 'is missing'}"
    problem = problem[:1].lower() + problem[1:]
    return f"{prefix}: {problem}" if prefix else problem
