"""Servers, and the disks that belong to them, of the hypervisor of this host, through libvirt.

A domain that is shut off is read from its files (`disk_files.py`), one that runs through a backup that the hypervisor
makes (`live_backup.py`). A domain is a project's when its description says so, or the settings say it of all others.
There are no volumes without a server, no backups and no vaults.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NoReturn, TypeVar
from uuid import UUID, uuid5

import structlog
from msgspec import Struct

from calotype.errors import (
    BackupNotFound,
    CalotypeError,
    DiskEncrypted,
    JobCancelled,
    ServerBusy,
    ServerNotFound,
    ServerState,
    VaultNotFound,
    VolumeBusy,
    VolumeUnusable,
)
from calotype.servers.disk_files import FORMATS, Copying, Disturbed, Flatten, Wanted
from calotype.servers.domain_xml import Disk, Domain, Unreadable, parse
from calotype.servers.live_backup import BACKUP, RUNNING, LiveBackup, job_of
from calotype.servers.model import (
    Backup,
    Project,
    Server,
    ServerId,
    ServerStatus,
    Vault,
    Volume,
    VolumeId,
    VolumeStatus,
)
from calotype.servers.source import Captured, ServerSource
from calotype.servers.virsh import Answer, Virsh, unreadable
from calotype.settings import ServerSettings

MOST_DOMAINS: Final = 10_000
TOGETHER: Final = 32  # domains that one child asks about
ATTEMPTS: Final = 3  # at a capture that someone comes between
AGAIN_S: Final = 0.5
SHUT_OFF_SAVED: Final = 5  # virDomainShutoffReason
# virDomainState and virDomainPausedReason
RUNS, BLOCKED, PAUSED, SHUT_OFF = 1, 2, 3, 5
PAUSED_BY_USER: Final = 1
TASKS: Final = {  # virDomainJobOperation
    1: "starting",
    2: "saving",
    3: "restoring",
    4: "migrating",
    5: "migrating",
    6: "snapshotting",
    7: "reverting",
    8: "dumping",
    BACKUP: "backing up",
}

_UUID: Final = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)

log = structlog.get_logger()

T = TypeVar("T")


class Seen(Struct, frozen=True, kw_only=True):
    """A domain, and what the hypervisor knew of it at one time."""

    domain: Domain
    status: ServerStatus
    task: str | None
    sizes: dict[str, int]  # target -> bytes that the guest sees
    busy: frozenset[str]  # targets

    @property
    def server(self) -> Server:
        return Server(
            id=ServerId(str(self.domain.id)),
            name=self.domain.name,
            status=self.status,
            os_version=self.domain.os_version,
            image_id=self.domain.image_id,
            firmware=self.domain.firmware,
            architecture=self.domain.architecture,
            task=self.task,
            being_backed_up=self.task == TASKS[BACKUP],
            volumes=tuple(self._volume(slot, disk) for slot, disk in enumerate(self.domain.disks)),
        )

    def _volume(self, slot: int, disk: Disk) -> Volume:
        size = self.sizes.get(disk.target)
        status = VolumeStatus.IN_USE
        if not _usable(disk):
            status = VolumeStatus.ERROR
        elif disk.mirrored or disk.target in self.busy:
            status = VolumeStatus.BUSY
        return Volume(
            id=volume_id(self.domain.id, disk.target),
            name=f"{self.domain.name}-{disk.target}",
            size=size or 0,
            status=status,
            server_id=ServerId(str(self.domain.id)),
            slot=slot,
            cmk_id=disk.secret,
            shareable=disk.shareable,
            missing=size is None and disk.readable,
        )


def volume_id(domain: UUID, target: str) -> VolumeId:
    """The same for as long as the domain has a disk at that target."""
    return VolumeId(str(uuid5(domain, f"disk:{target}")))


class Libvirt(ServerSource):
    """`flatten` is only needed to capture disks; None where none are."""

    def __init__(self, settings: ServerSettings, flatten: Flatten | None) -> None:
        self._virsh = Virsh(settings.libvirt_uri, settings.timeout_s)
        self._default_project = settings.libvirt_project
        self._live = LiveBackup(self._virsh, Path(settings.libvirt_exchange)) if settings.libvirt_exchange else None
        self._flatten = flatten

    # --- telling ------------------------------------------------------------------------------------------------------

    def servers(self, project: Project) -> Sequence[Server]:
        return [seen.server for seen in self._all(project)]

    def volumes(self, project: Project) -> Sequence[Volume]:
        return [volume for seen in self._all(project) for volume in seen.server.volumes]

    def backups(self, project: Project) -> Sequence[Backup]:
        return ()

    def server(self, project: Project, server_id: str) -> Server:
        return self._one(project, server_id).server

    def volume(self, project: Project, volume_id: str) -> Volume:
        _, volume = self._owner(project, volume_id)
        return volume

    def backup(self, project: Project, backup_id: str) -> NoReturn:
        raise BackupNotFound("the hypervisor keeps no backups")

    def vault(self, project: Project, vault_id: str | None) -> Vault | None:
        if vault_id is not None:
            raise VaultNotFound("the hypervisor has no vaults")
        return None

    # --- capturing ----------------------------------------------------------------------------------------------------

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
        self.release(name)
        if server_id is None:
            owners = {self._owner(project, each)[0].domain.id for each in volume_ids}
            if len(owners) != 1:
                raise VolumeUnusable("the volumes are not of one server")
            server_id = str(owners.pop())
        trouble = Disturbed()
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(AGAIN_S)
            if cancelled():
                raise JobCancelled("cancelled before the disks were captured")
            try:
                captured = self._captured(project, server_id, volume_ids, folder, name, progress, cancelled)
            except BaseException as error:
                self._released(name)
                if not isinstance(error, Disturbed):
                    raise
                log.info("capture_disturbed", server_id=server_id, attempt=attempt + 1, reason=str(error))
                trouble = error
            else:
                self.release(name)
                return captured
        raise VolumeBusy("someone else works on the disks of the server") from trouble

    def capture_backup(
        self,
        project: Project,
        backup_id: str,
        folder: Path,
        *,
        name: str,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> NoReturn:
        self.backup(project, backup_id)

    def release(self, name: str) -> None:
        if self._live is not None:
            self._live.release(name)

    def _released(self, name: str) -> None:
        """After a failure, which is what is told. What stays is taken back when the job is run again, or undone."""
        try:
            self.release(name)
        except CalotypeError as error:
            log.warning("capture_not_released", name=name, code=error.code, reason=error.message)

    def _captured(
        self,
        project: Project,
        server_id: str,
        volume_ids: Sequence[str],
        folder: Path,
        name: str,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> Sequence[Captured]:
        seen = self._one(project, server_id)
        wanted = [_wanted(seen, each) for each in volume_ids]
        if seen.task is not None and seen.task != TASKS[BACKUP]:  # that may be ours
            raise ServerBusy(f"the server is busy: {seen.task}")
        if seen.status is ServerStatus.STOPPED:

            def check_stopped() -> None:
                now = self._one(project, server_id)
                if now.status is not ServerStatus.STOPPED or now.domain.disks != seen.domain.disks:
                    raise Disturbed("the server was started")

            return Copying(folder, self._flatten, progress, cancelled).copy(wanted, check_stopped)
        if seen.status is not ServerStatus.RUNNING:
            raise ServerState("the server is neither running nor stopped")
        if self._live is None:
            raise ServerState("the server is running; here images are made of stopped servers only")
        targets = {each.disk.target for each in wanted}
        return self._live.take(
            seen.domain.id,
            wanted,
            [disk.target for disk in seen.domain.disks if disk.target not in targets],
            folder,
            name=name,
            quiesce=seen.domain.agent,
            progress=progress,
            cancelled=cancelled,
        )

    # --- asking -------------------------------------------------------------------------------------------------------

    def _all(self, project: Project) -> list[Seen]:
        ids = [domain_id for domain_id, _ in self._names()]
        visible = [domain for domain in self._described(ids) if self._is_of(domain, project)]
        return list(self._observed(visible))

    def _one(self, project: Project, server_id: str) -> Seen:
        """Raises `ServerNotFound`."""
        if _UUID.fullmatch(server_id):
            ids = [UUID(server_id)]
        else:
            ids = [domain_id for domain_id, name in self._names() if name == server_id]
        visible = [domain for domain in self._described(ids) if self._is_of(domain, project)]
        for seen in self._observed(visible):
            return seen
        raise ServerNotFound(f"no server {server_id}")

    def _owner(self, project: Project, volume_id: str) -> tuple[Seen, Volume]:
        """Raises `VolumeUnusable`."""
        if _UUID.fullmatch(volume_id):
            for seen in self._all(project):
                for volume in seen.server.volumes:
                    if volume.id == str(UUID(volume_id)):
                        return seen, volume
        raise VolumeUnusable(f"no volume {volume_id}")

    def _is_of(self, domain: Domain, project: Project) -> bool:
        return (domain.project or self._default_project) in (project.id, project.name)

    def _names(self) -> list[tuple[UUID, str]]:
        answer = self._virsh.read(["list", "--all", "--uuid", "--name"])
        lines = [line.strip().split(None, 1) for line in answer.outputs[0].splitlines() if line.strip()]
        if len(lines) > MOST_DOMAINS or answer.complaints:
            raise unreadable("the hypervisor's list of servers cannot be used", answer.complaints)
        return [(UUID(words[0]), words[1] if len(words) > 1 else "") for words in lines if _UUID.fullmatch(words[0])]

    def _described(self, ids: Sequence[UUID]) -> Iterator[Domain]:
        """Those that are there. One that cannot be understood is for the operator's log, and hides no other."""
        for some in _batches(ids):
            answer = self._virsh.read(*(["dumpxml", str(domain_id)] for domain_id in some))
            _check_gone(answer, answer.outputs)
            for domain_id, text in zip(some, answer.outputs, strict=True):
                try:
                    if text:
                        yield parse(text)
                except Unreadable as error:
                    log.warning("server_not_understood", server_id=str(domain_id), reason=str(error))

    def _observed(self, domains: Sequence[Domain]) -> Iterator[Seen]:
        for some in _batches(domains):
            commands = [command for domain in some for command in _questions(domain)]
            answer = self._virsh.read(["list", "--all", "--uuid", "--with-managed-save"], *commands)
            saved, *outputs = answer.outputs
            rest = iter(outputs)
            told = [[*islice(rest, len(_questions(domain)))] for domain in some]
            _check_gone(answer, (texts[0] for texts in told))
            for domain, texts in zip(some, told, strict=True):
                if texts[0]:
                    yield _seen(domain, texts, saved=str(domain.id) in saved)


def _questions(domain: Domain) -> list[list[str]]:
    name = str(domain.id)
    return [
        ["domstats", "--state", "--block", name],
        ["domjobinfo", name, "--rawstats"],
        *(["blockjob", name, disk.target, "--info"] for disk in domain.disks),
    ]


def _seen(domain: Domain, outputs: Sequence[str], *, saved: bool) -> Seen:
    stats, job_text, *block_jobs = outputs
    facts = dict(line.strip().split("=", 1) for line in stats.splitlines() if "=" in line and line.startswith(" "))
    job = job_of(job_text)
    sizes = {
        facts[key]: int(facts[f"{key.removesuffix('name')}capacity"])
        for key in facts
        if key.startswith("block.") and key.endswith(".name") and f"{key.removesuffix('name')}capacity" in facts
    }
    return Seen(
        domain=domain,
        status=ServerStatus.OTHER if saved else _status(facts),
        task=TASKS.get(job.operation, "a job of the hypervisor") if job.kind in RUNNING else None,
        sizes=sizes,
        busy=frozenset(disk.target for disk, text in zip(domain.disks, block_jobs, strict=True) if text),
    )


def _status(facts: dict[str, str]) -> ServerStatus:
    """One that is paused on purpose has its disks as one that runs; paused by an error, or with its memory saved, it
    has not."""
    state, reason = facts.get("state.state"), facts.get("state.reason")
    if state in (str(RUNS), str(BLOCKED)) or (state == str(PAUSED) and reason == str(PAUSED_BY_USER)):
        return ServerStatus.RUNNING
    if state == str(SHUT_OFF) and reason != str(SHUT_OFF_SAVED):
        return ServerStatus.STOPPED
    return ServerStatus.OTHER


def _usable(disk: Disk) -> bool:
    return disk.readable and all(layer.format in FORMATS for layer in disk.layers)


def _wanted(seen: Seen, volume_id: str) -> Wanted:
    """Raises `VolumeUnusable`, `VolumeBusy`, `DiskEncrypted`."""
    known = str(UUID(volume_id)) if _UUID.fullmatch(volume_id) else volume_id
    for volume, disk in zip(seen.server.volumes, seen.domain.disks, strict=True):
        if volume.id == known:
            if disk.secret is not None:
                raise DiskEncrypted("the disk is encrypted; its bytes are not given away")
            if volume.status is VolumeStatus.ERROR:
                raise VolumeUnusable("the disk is of a kind that is not read here")
            if volume.missing:
                raise VolumeUnusable("the disk is not there")
            if volume.status is VolumeStatus.BUSY:
                raise VolumeBusy("the hypervisor works on the disk")
            return Wanted(disk=disk, volume=volume)
    raise VolumeUnusable(f"no volume {volume_id} of the server")


def _check_gone(answer: Answer, texts: Iterable[str]) -> None:
    """A domain that is not there any more has no text; any other silence is a failure."""
    if not all(texts) and "failed to get domain" not in answer.complaints:
        raise unreadable("the hypervisor does not tell of its servers", answer.complaints)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), TOGETHER):
        yield items[start : start + TOGETHER]
