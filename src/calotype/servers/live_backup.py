"""The disks of a running server as they were at one moment: a full backup that the hypervisor makes.

The hypervisor writes to files in a folder that both it and the service can reach, `servers.libvirt_exchange`. The
service makes these files itself, empty and of the right size, and keeps them open: whoever they belong to while the
hypervisor has them and afterwards, it can read them. The moment is that of the backup's begin, the same for all disks;
where a guest agent answers, the guest's file systems are frozen around it and for no longer.

What must be taken back after a kill is written down before it is done: the claim, `claim.json`. A backup job of the
hypervisor is ours when it writes to our files, and only then is it aborted.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID
from xml.sax.saxutils import quoteattr

import msgspec
import structlog
from msgspec import Struct

from calotype.blobs import sparse
from calotype.blobs.faults import storage_fault
from calotype.blobs.local import sync_folder
from calotype.disks.model import DiskFormat
from calotype.errors import JobCancelled, NoSpace, ServerBusy, SourceUnreadable, VolumeUnusable
from calotype.servers.disk_files import FLOCK, Disturbed, Wanted
from calotype.servers.domain_xml import Unreadable, backup_targets
from calotype.servers.qcow2_header import empty
from calotype.servers.source import Captured
from calotype.servers.virsh import Answer, Virsh, unreadable

PREFIX: Final = "calotype-"  # of the folder of a job
LOCK: Final = "calotype.lock"
CLAIM: Final = "claim.json"
DESCRIPTION: Final = "backup.xml"
POLL_S: Final = 0.25
AGENT_S: Final = 10.0  # how long a guest's agent may take to say that it is there
STALLED_S: Final = 600.0  # a backup of which nothing more is written for so long is aborted
BACKUP: Final = 9  # virDomainJobOperation of libvirt
SUCCEEDED, FAILED, CANCELLED = 3, 4, 5  # virDomainJobType
RUNNING: Final = (1, 2)
TURN_S: Final = 3600.0  # how long one capture waits for others of the same domain
MOST_NAME: Final = 100

_NAME: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{MOST_NAME - 1}}}")
_FIELD: Final = re.compile(r"^(\w[\w ]*): +(.*)$", re.MULTILINE)

log = structlog.get_logger()


class Claim(Struct, frozen=True, kw_only=True):
    domain: str
    frozen: bool = False  # whether the guest's file systems may be frozen by us


class Job(Struct, frozen=True, kw_only=True):
    """A job of a domain, as `virsh domjobinfo --rawstats` tells of it."""

    kind: int = 0  # virDomainJobType; 0: none
    operation: int = 0
    total: int = 0  # bytes
    done: int = 0
    trouble: str = ""


def job_of(text: str) -> Job:
    fields = dict(_FIELD.findall(text))
    return Job(
        kind=_number(fields, "Job type"),
        operation=_number(fields, "operation"),
        total=_number(fields, "disk_total"),
        done=_number(fields, "disk_processed"),
        trouble=fields.get("errmsg", ""),
    )


class LiveBackup:
    def __init__(self, virsh: Virsh, exchange: Path) -> None:
        self._virsh = virsh
        self._exchange = exchange

    def take(
        self,
        domain: UUID,
        wanted: Sequence[Wanted],
        others: Sequence[str],
        folder: Path,
        *,
        name: str,
        quiesce: bool,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> list[Captured]:
        """Files `disk-SLOT` in `folder`, of the disks wanted; `others` are the targets of those that are not. A domain
        has one backup at a time: ours wait for each other.

        Raises `Disturbed`, `ServerBusy`, `NoSpace`, `Unavailable`, `VolumeUnusable`, `JobCancelled`; whatever happens,
        `release` takes back what is left.
        """
        quiesce = quiesce and self._answers(domain)
        with ExitStack() as opened:
            place = self._place(name)
            try:
                opened.enter_context(self._turn(domain, cancelled))
                self._check_free(str(domain))
                mode = self._made(place)
                self._write(place, CLAIM, msgspec.json.encode(Claim(domain=str(domain), frozen=quiesce)))
                sources = [opened.enter_context(_Target(place / each.disk.target, each, mode)) for each in wanted]
                self._write(place, DESCRIPTION, _description(place, wanted, others).encode())
            except OSError as error:
                raise _fault(error) from error
            self._begin(domain, place, quiesce=quiesce)
            self._wait(domain, place, sum(each.volume.size for each in wanted), progress, cancelled)
            return [source.brought(folder / f"disk-{source.slot}", cancelled) for source in sources]

    def release(self, name: str) -> None:
        """Thaw, abort and remove whatever a backup of that name left. Raises `Unavailable` when it cannot be known
        that the hypervisor has left the files: then they stay, to be taken back later."""
        place = self._place(name)
        if not place.exists():
            return
        claim = self._claim(place)
        if claim is not None:
            if claim.frozen:
                self._thaw(claim.domain)
            self._abort(claim.domain, f"{place}/")
        try:
            shutil.rmtree(place)
        except OSError as error:
            raise _fault(error) from error

    # --- parts --------------------------------------------------------------------------------------------------------

    def _place(self, name: str) -> Path:
        plain = name if _NAME.fullmatch(name) else hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        return self._exchange / f"{PREFIX}{plain}"

    @contextmanager
    def _turn(self, domain: UUID, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Hold the domain's byte of a file that all who capture lock, and that a kill gives back."""
        deadline = time.monotonic() + TURN_S
        path = self._exchange / LOCK
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            place = domain.int >> 66  # an offset has 63 bits
            while True:
                try:
                    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
                    break
                except (BlockingIOError, PermissionError):
                    pass  # someone has it
                if cancelled():
                    raise JobCancelled("cancelled before the disks were backed up")
                if time.monotonic() > deadline:
                    raise ServerBusy("other images are made of the server")
                time.sleep(POLL_S)
            yield
        finally:
            os.close(fd)

    def _check_free(self, domain: str) -> None:
        """With the turn ours, a backup to one of our folders is of someone who was killed: it is of no use any more.
        Raises `ServerBusy` for a job of anyone else."""
        job, ours, _ = self._look(domain, f"{self._exchange}/{PREFIX}")
        if ours:
            self._abort(domain, f"{self._exchange}/{PREFIX}")
        elif job.kind in RUNNING:
            raise ServerBusy("something else works on the server")

    def _made(self, place: Path) -> int:
        """Make the folder; return the mode of files in it. They are the service's alone, and the hypervisor changes
        their owner while it needs them; but where the operator has set a group for the exchange, they are the group's
        as well, for a hypervisor that may not change owners."""
        shared = bool(self._exchange.stat().st_mode & stat.S_ISGID)
        place.mkdir()
        place.chmod(0o2770 if shared else 0o711)
        return 0o660 if shared else 0o600

    def _write(self, place: Path, name: str, content: bytes) -> None:
        path = place / f"{name}.new"
        with path.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.rename(place / name)
        sync_folder(place)

    def _claim(self, place: Path) -> Claim | None:
        """None: the process ended before it did anything with the hypervisor."""
        try:
            return msgspec.json.decode((place / CLAIM).read_bytes(), type=Claim)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        except OSError as error:
            raise _fault(error) from error

    def _answers(self, domain: UUID) -> bool:
        """Whether the guest's agent answers a question that changes nothing. An agent that hangs must not be told to
        freeze: libvirt would wait for ever, and the agent might do it later, when nobody is there to thaw."""
        try:
            return bool(self._virsh.act(["domtime", str(domain)], timeout_s=AGENT_S).outputs[0])
        except SourceUnreadable:
            return False

    def _begin(self, domain: UUID, place: Path, *, quiesce: bool) -> None:
        begin = ["backup-begin", str(domain), DESCRIPTION, "--reuse-external"]
        commands = [["domfsfreeze", str(domain)], begin, ["domfsthaw", str(domain)]] if quiesce else [begin]
        thawed = False
        try:
            answer = self._virsh.act(*commands, folder=place)
            thawed = bool(answer.outputs[-1])
        finally:
            if quiesce and not thawed:
                self._thaw(str(domain))
        if quiesce:
            self._write(place, CLAIM, msgspec.json.encode(Claim(domain=str(domain))))
        if "started" in answer.outputs[1 if quiesce else 0]:
            log.info("server_backup_begun", server_id=str(domain), quiesced="Froze" in answer.outputs[0])
            return
        said = answer.complaints
        log.warning("server_backup_refused", server_id=str(domain), said=said[-500:])
        if "different sizes" in said or "not running" in said or "failed to get domain" in said:
            raise Disturbed("the server has changed")
        if "cannot acquire state change lock" in said or "another job" in said or "backup is already" in said:
            raise ServerBusy("something else works on the server")
        if "No space left" in said:
            raise NoSpace("the folder that servers are captured in is full")
        if "ermission denied" in said:
            raise unreadable("the hypervisor may not write to the folder that servers are captured in", said)
        raise VolumeUnusable("the hypervisor does not make a backup of these disks")

    def _wait(
        self,
        domain: UUID,
        place: Path,
        size: int,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> None:
        progress(0, size)
        moved_at, done = time.monotonic(), -1
        while True:
            if cancelled():
                raise JobCancelled("cancelled while the disks were backed up")
            now, ours, past = self._look(str(domain), f"{place}/")
            if not ours:
                _check_outcome(past, size)
                progress(size, size)
                return
            if now.done != done:
                moved_at, done = time.monotonic(), now.done
                progress(min(done, size), size)
            elif time.monotonic() - moved_at > STALLED_S:
                raise SourceUnreadable(f"the hypervisor has written nothing of the backup for {STALLED_S:g} s")
            time.sleep(POLL_S)

    def _look(self, domain: str, prefix: str) -> tuple[Job, bool, Job]:
        """The domain's job, whether it is a backup to files whose paths begin so, and the job that ended last."""
        answer = self._virsh.read(
            ["backup-dumpxml", domain],
            ["domjobinfo", domain, "--rawstats"],
            ["domjobinfo", domain, "--completed", "--keep-completed", "--rawstats"],
        )
        backup, now, past = answer.outputs
        if not backup and not _knows_of_no_backup(answer):
            raise unreadable("the hypervisor does not tell of the backup", answer.complaints)
        try:
            targets = backup_targets(backup) if backup else ()
        except Unreadable as error:
            raise unreadable("the hypervisor's description of a backup makes no sense", backup) from error
        return job_of(now), any(target.startswith(prefix) for target in targets), job_of(past)

    def _abort(self, domain: str, prefix: str) -> None:
        deadline = time.monotonic() + self._virsh.timeout_s
        while self._look(domain, prefix)[1]:
            if time.monotonic() > deadline:
                raise unreadable("the hypervisor does not abort the backup", "")
            self._virsh.act(["domjobabort", domain])
            time.sleep(POLL_S)

    def _thaw(self, domain: str) -> None:
        """Thaw what may be frozen; harmless when nothing is. An agent that does not answer has most likely frozen
        nothing, but nobody knows: that is for the operator."""
        answer = self._virsh.act(["domfsthaw", domain])
        if not answer.outputs[0]:
            log.warning("server_perhaps_frozen", server_id=domain, said=answer.complaints[-500:])


class _Target:
    """A file that the hypervisor fills."""

    def __init__(self, path: Path, wanted: Wanted, mode: int) -> None:
        self.slot = wanted.volume.slot
        self._path = path
        self._volume = wanted.volume
        if wanted.volume.size % 512 or not wanted.volume.size:
            raise VolumeUnusable("the hypervisor does not tell the size of the disk")
        self._mode = mode
        self._file = path.open("xb+", buffering=0)

    def __enter__(self) -> "_Target":
        with ExitStack() as failed:
            failed.callback(self._file.close)
            os.fchmod(self._file.fileno(), self._mode)
            self._file.write(empty(self._volume.size))
            failed.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def brought(self, to: Path, cancelled: Callable[[], bool]) -> Captured:
        """Moved where that can be done, else copied."""
        fd = self._file.fileno()
        to.unlink(missing_ok=True)
        try:
            found = os.fstat(fd)
            if not (found.st_uid == os.geteuid() and _moved(self._path, to)):
                with to.open("xb", buffering=0) as copy:
                    sparse.copy(fd, copy.fileno(), found.st_size, cancelled=cancelled)
            to.chmod(0o600)
        except OSError as error:
            raise storage_fault(error) from error
        return Captured(volume=self._volume, path=to, size=found.st_size, format=DiskFormat.QCOW2.value)


def _moved(path: Path, to: Path) -> bool:
    try:
        path.rename(to)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EACCES):
            return False
        raise
    return True


def _description(place: Path, wanted: Sequence[Wanted], others: Sequence[str]) -> str:
    disks = [
        f"<disk name={quoteattr(each.disk.target)} backup='yes' type='file' backupmode='full'><driver type='qcow2'/>"
        f"<target file={quoteattr(str(place / each.disk.target))}/></disk>"
        for each in wanted
    ]
    disks += [f"<disk name={quoteattr(target)} backup='no'/>" for target in others]
    return f"<domainbackup mode='push'><disks>{''.join(disks)}</disks></domainbackup>"


def _knows_of_no_backup(answer: Answer) -> bool:
    said = answer.complaints
    return "no domain backup job" in said or "not running" in said or "failed to get domain" in said


def _check_outcome(job: Job, size: int) -> None:
    if job.operation == BACKUP and job.kind == SUCCEEDED and job.done == job.total == size:
        return
    log.warning("server_backup_failed", kind=job.kind, operation=job.operation, said=job.trouble[:500])
    if "No space left" in job.trouble:
        raise NoSpace("the folder that servers are captured in is full")
    if job.operation == BACKUP and job.kind == FAILED:
        raise VolumeUnusable("the hypervisor could not read the disks or write them elsewhere; its log says why")
    raise Disturbed("the backup was aborted, or the server was stopped")


def _fault(error: OSError) -> Exception:
    if error.errno in (errno.EACCES, errno.ENOENT, errno.EROFS, errno.EPERM):
        return unreadable("the folder that servers are captured in cannot be used", str(error.strerror))
    return storage_fault(error)


def _number(fields: dict[str, str], name: str) -> int:
    text = fields.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else 0
