"""An OVA: an archive of an OVF and the disks that it describes. They are found by their offsets, never extracted.

Read once, into one value that is both checked and used. Everything is refused that another reader could see in another
way: a second OVF, a file named twice, bytes that nobody accounts for. A manifest is held against the bytes; a
certificate says who signed the manifest, which nobody here knows, and is passed over.
Source: DMTF DSP0243, "Distribution as a single file", "Manifest".
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from calotype.disks import ovf
from calotype.disks.formats import tar
from calotype.disks.formats.reader import DiskFile
from calotype.disks.formats.tar import Member, shown
from calotype.disks.model import Window
from calotype.errors import DiskRefused, OvaRefused, TooManyDataImages

MOST_MEMBERS: Final = 100
MOST_MANIFEST_BYTES: Final = 64 * 1024
PIECE: Final = 4 * 1024 * 1024
ALGORITHMS: Final = {"SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512"}

_LINE: Final = re.compile(r"(?P<algorithm>[A-Za-z0-9-]{1,16})\s*\((?P<name>.{1,255})\)\s*=\s*(?P<digest>[0-9A-Fa-f]+)")

ReadAt = Callable[[int, int], bytes]


class Digest(Struct, frozen=True, kw_only=True):
    algorithm: str  # sha1, sha256 or sha512
    value: str  # hex


class OvaDisk(Struct, frozen=True, kw_only=True):
    """A disk of the machine, where it lies in the archive."""

    name: str  # of the file
    window: Window
    capacity: int  # bytes that its guest sees, as the OVF says
    packed: bool = False  # gzip
    digest: Digest | None = None  # of the file, as the manifest says


class Ova(Struct, frozen=True, kw_only=True):
    os_version: str | None  # of the IMS API, where the OVF says it for sure
    disks: tuple[OvaDisk, ...]  # the first is the system disk


def is_ova(read_at: ReadAt, size: int) -> bool:
    """Whether a file is an OVA going by its first bytes: a tar archive whose first file is an OVF."""
    archive = _archive(read_at, size)
    if not tar.is_tar(archive.some(0, tar.BLOCK)):
        return False
    try:
        first = next(tar.walk(archive), None)
    except DiskRefused:
        return False
    return first is not None and _is_ovf(first)


def read(read_at: ReadAt, size: int, *, most_data_disks: int) -> Ova:
    """The machine in an archive of `size` bytes: `read_at(offset, n)` returns `n` bytes within it. Reads the headers,
    the OVF and the manifest, at most 2 MiB.

    The digest of the OVF is checked here, those of the disks are for who reads them: `check_digest`.
    Raises `OvaRefused`, `TruncatedDisk`, `TooManyDataImages`.
    """
    archive = _archive(read_at, size)
    members = {member.name: member for member in tar.members(archive, most=MOST_MEMBERS)}
    described, manifest = _described(list(members.values()))
    digests = _digests(archive, manifest, members)
    text = archive.exactly(described.offset, described.size, "the OVF")
    _check_text(text, digests.get(described.name))
    machine = ovf.read(text)
    for file in machine.files:
        _check_file(file, members, digests, complete=manifest is not None)
    if len(machine.disks) - 1 > most_data_disks:
        raise TooManyDataImages(
            f"the machine has {len(machine.disks)} disks; one system disk and {most_data_disks} data disks are taken"
        )
    disks = tuple(_disk(disk, members[disk.file.name], digests) for disk in machine.disks)
    return Ova(os_version=machine.os_version, disks=disks)


def check_digest(read_at: ReadAt, disk: OvaDisk, *, each: Callable[[int], None]) -> None:
    """Hold the bytes of a disk's file against the manifest; `each` is told how many are read, after each piece.

    For a thread. Returns at once when there is no manifest. Raises `OvaRefused`.
    """
    if disk.digest is None:
        return
    seen = hashlib.new(disk.digest.algorithm, usedforsecurity=False)
    done = 0
    while done < disk.window.length:
        piece = read_at(disk.window.offset + done, min(PIECE, disk.window.length - done))
        if not piece:
            raise OvaRefused("the archive became shorter while it was read")
        seen.update(piece)
        done += len(piece)
        each(done)
    _compare(disk.name, disk.digest, seen.hexdigest())


def _archive(read_at: ReadAt, size: int) -> DiskFile:
    return DiskFile(read_at, size, most_virtual_bytes=0)


def _is_ovf(member: Member) -> bool:
    return member.name.casefold().endswith(".ovf")


def _described(members: list[Member]) -> tuple[Member, Member | None]:
    """The OVF and the manifest, if there is one."""
    if not members or not _is_ovf(members[0]):
        raise OvaRefused("the archive is no OVA: its first file is not an .ovf")
    if sum(map(_is_ovf, members)) > 1:
        raise OvaRefused("the archive holds more than one .ovf")
    if not 0 < members[0].size <= ovf.MOST_BYTES:
        raise OvaRefused(f"the OVF has {members[0].size} bytes; 1 to {ovf.MOST_BYTES} are taken")
    manifests = [member for member in members if member.name.casefold().endswith(".mf")]
    if len(manifests) > 1:
        raise OvaRefused("the archive holds more than one manifest (.mf)")
    return members[0], next(iter(manifests), None)


def _digests(archive: DiskFile, manifest: Member | None, members: Mapping[str, Member]) -> dict[str, Digest]:
    """By the names of the files."""
    if manifest is None:
        return {}
    if manifest.size > MOST_MANIFEST_BYTES:
        raise OvaRefused(f"the manifest has {manifest.size} bytes; at most {MOST_MANIFEST_BYTES} are allowed")
    found: dict[str, Digest] = {}
    for name, digest in _lines(archive.exactly(manifest.offset, manifest.size, "the manifest")):
        if name in found:
            raise OvaRefused(f"the manifest has two digests of {shown(name)}")
        if name not in members:
            raise OvaRefused(f"the manifest has a digest of {shown(name)}, which is not in the archive")
        found[name] = digest
    return found


def _lines(manifest: bytes) -> Iterator[tuple[str, Digest]]:
    try:
        text = manifest.decode()
    except UnicodeDecodeError as error:
        raise OvaRefused("the manifest is not UTF-8") from error
    for line in text.splitlines():
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        algorithm = ALGORITHMS.get(match["algorithm"].upper().replace("-", "")) if match else None
        if match is None or algorithm is None:
            raise OvaRefused(f"the manifest has a line that is no digest of {', '.join(ALGORITHMS)}")
        yield match["name"], Digest(algorithm=algorithm, value=match["digest"].lower())


def _check_text(text: bytes, digest: Digest | None) -> None:
    if digest is not None:
        _compare("the OVF", digest, hashlib.new(digest.algorithm, text, usedforsecurity=False).hexdigest())


def _compare(name: str, digest: Digest, found: str) -> None:
    if found != digest.value:
        raise OvaRefused(f"{name} does not have the {digest.algorithm} that the manifest says; export or send it again")


def _check_file(
    file: ovf.OvfFile, members: Mapping[str, Member], digests: Mapping[str, Digest], *, complete: bool
) -> None:
    member = members.get(file.name)
    if member is None:
        raise OvaRefused(f"the OVF refers to the file {shown(file.name)}, which is not in the archive")
    if file.size is not None and file.size != member.size:
        raise OvaRefused(f"the file {shown(file.name)} has {member.size} bytes; the OVF says {file.size}")
    if complete and file.name not in digests:
        raise OvaRefused(f"the manifest has no digest of {shown(file.name)}")


def _disk(disk: ovf.OvfDisk, member: Member, digests: Mapping[str, Digest]) -> OvaDisk:
    return OvaDisk(
        name=member.name,
        window=Window(offset=member.offset, length=member.size),
        capacity=disk.capacity,
        packed=disk.file.packed,
        digest=digests.get(member.name),
    )
