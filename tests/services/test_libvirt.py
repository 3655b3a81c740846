"""Images of servers of a real libvirt daemon: what is told of them, and the bytes of their disks."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from calotype.disks.convert import Converter
from calotype.disks.sandbox import Sandbox
from calotype.errors import (
    DiskEncrypted,
    JobCancelled,
    NoSpace,
    ServerBusy,
    ServerNotFound,
    ServerState,
    SourceUnreadable,
    VolumeBusy,
    VolumeUnusable,
)
from calotype.servers.flattening import flattening
from calotype.servers.libvirt import Libvirt
from calotype.servers.model import Project, ServerStatus, VolumeStatus
from calotype.servers.source import Captured
from calotype.settings import ServerSettings
from tests.hypervisor import (
    MIB,
    SECTOR,
    Hypervisor,
    backed_by,
    channel,
    counted,
    counting_boot_sector,
    disk,
    hypervisor,
    with_agent,
)
from tests.service import Client, Service, until

pytestmark = pytest.mark.services

DEMO: Final = Project(id="4f0b3c1e6ad24a4c9b6f0c57b1d2e3f4", name="demo")
OTHER: Final = Project(id="00000000000000000000000000000000", name="other")
SIZE: Final = 4 * MIB
LARGE: Final = 80 * MIB  # copied in more than one piece


@pytest.fixture(scope="module")
def host() -> Iterator[Hypervisor]:
    with hypervisor() as running:
        yield running


@pytest.fixture
def libvirt(host: Hypervisor) -> Libvirt:
    return source(host)


def source(host: Hypervisor, *, uri: str = "", project: str = "", exchange: str | None = None) -> Libvirt:
    settings = ServerSettings(
        source="libvirt",
        libvirt_uri=uri or host.uri,
        libvirt_project=project,
        libvirt_exchange=str(host.exchange) if exchange is None else exchange,
    )
    return Libvirt(settings, flattening(Converter(Sandbox.detect(required=False))))


def never() -> bool:
    return False


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


def capture(
    libvirt: Libvirt,
    server: str,
    folder: Path,
    *,
    targets: Sequence[str] = (),
    name: str = "job",
    progress: Callable[[int, int], None] = quiet,
    cancelled: Callable[[], bool] = never,
) -> Sequence[Captured]:
    """All its disks, or those of some targets."""
    volumes = libvirt.server(DEMO, server).volumes
    ids = [volume.id for volume in volumes if not targets or volume.name.rpartition("-")[2] in targets]
    return libvirt.capture(DEMO, server, ids, folder, name=name, progress=progress, cancelled=cancelled)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def raw(captured: Captured, folder: Path) -> Path:
    """What a guest would see of it."""
    assert captured.format is not None
    target = folder / f"{captured.path.name}.seen"
    words = ["qemu-img", "convert", "-f", captured.format, "-O", "raw", str(captured.path), str(target)]
    subprocess.run(words, check=True)
    return target


def jobs_in(exchange: Path) -> list[str]:
    return sorted(path.name for path in exchange.iterdir() if path.is_dir())


class Watch:
    """A domain and its files are as before."""

    def __init__(self, host: Hypervisor, server: str) -> None:
        self._host, self._server = host, server
        self._before = self._now()

    def _now(self) -> tuple[str, str, list[str]]:
        text = self._host.virsh("dumpxml", self._server)
        return self._host.state(self._server), text, jobs_in(self._host.exchange)

    def assert_untouched(self) -> None:
        assert self._now() == self._before
        if self._before[0] == "running":
            assert not self._host.has_job(self._server)


@pytest.fixture
def running(host: Hypervisor) -> Iterator[Callable[..., str]]:
    """Starts domains that end with the test."""
    started: list[str] = []

    def start(*disks: str, os: str = "") -> str:
        server = host.define(*disks, os=os)
        host.virsh("start", server)
        started.append(server)
        return server

    yield start
    for server in started:
        host.try_virsh("destroy", server)


# --- what is told of them ---------------------------------------------------------------------------------------------


def test_a_server_is_told_of_to_the_project_that_it_names(host: Hypervisor, libvirt: Libvirt) -> None:
    disks = [disk(host.file("told-a.raw", size=SIZE)), disk(host.qcow2("told-b.qcow2", "9M"), "vdb", "qcow2")]
    marked = 'project="demo" image="e1" os_version="Debian GNU/Linux 12.0.0 64bit"'
    server_id = host.define(*disks, name="told", marked=marked, os="<boot dev='hd'/>")

    server = libvirt.server(DEMO, server_id)

    assert (server.id, server.name, server.status) == (server_id, "told", ServerStatus.STOPPED)
    assert (server.image_id, server.os_version) == ("e1", "Debian GNU/Linux 12.0.0 64bit")
    assert (server.firmware, server.architecture, server.task) == ("bios", "x86", None)
    assert [(v.slot, v.size, v.status, v.server_id, v.missing) for v in server.volumes] == [
        (0, SIZE, VolumeStatus.IN_USE, server_id, False),
        (1, 9 * MIB, VolumeStatus.IN_USE, server_id, False),
    ]
    assert server in libvirt.servers(DEMO)
    assert set(server.volumes) <= set(libvirt.volumes(DEMO))
    assert libvirt.volume(DEMO, server.volumes[1].id) == server.volumes[1]
    assert not [one for one in libvirt.servers(OTHER) if one.id == server_id]
    with pytest.raises(ServerNotFound):
        libvirt.server(OTHER, server_id)
    with pytest.raises(VolumeUnusable):
        libvirt.volume(OTHER, server.volumes[0].id)


def test_a_server_is_known_by_its_id_in_every_spelling_and_by_its_name(host: Hypervisor, libvirt: Libvirt) -> None:
    server_id = host.define(disk(host.file("spelt.raw", size=SIZE)), name="spelt")

    known = [server_id, server_id.upper(), server_id.replace("-", ""), "spelt"]

    assert {libvirt.server(DEMO, each).id for each in known} == {server_id}


@pytest.mark.parametrize("server_id", ["", "x; list", "../../etc", "00000000-0000-0000-0000-000000000000", "a" * 4096])
def test_a_server_that_is_not_there_is_unknown(libvirt: Libvirt, server_id: str) -> None:
    with pytest.raises(ServerNotFound):
        libvirt.server(DEMO, server_id)
    with pytest.raises(VolumeUnusable):
        libvirt.volume(DEMO, server_id)


def test_a_server_that_names_no_project_is_the_chosen_ones_or_nobodys(host: Hypervisor, libvirt: Libvirt) -> None:
    server_id = host.define(disk(host.file("free.raw", size=SIZE)), marked="")

    assert source(host, project=DEMO.id).server(DEMO, server_id).id == server_id
    with pytest.raises(ServerNotFound):
        libvirt.server(DEMO, server_id)
    with pytest.raises(ServerNotFound):
        source(host, project="other").server(DEMO, server_id)


def test_what_state_a_server_is_in(host: Hypervisor, libvirt: Libvirt, running: Callable[..., str]) -> None:
    server = running(disk(host.file("state.raw", size=SIZE)))

    statuses = [libvirt.server(DEMO, server).status]
    host.virsh("suspend", server)
    statuses.append(libvirt.server(DEMO, server).status)
    host.virsh("managedsave", server)
    statuses.append(libvirt.server(DEMO, server).status)
    host.virsh("managedsave-remove", server)

    assert statuses == [ServerStatus.RUNNING, ServerStatus.RUNNING, ServerStatus.OTHER]


def test_disks_that_cannot_be_read_are_told_and_refused(host: Hypervisor, libvirt: Libvirt, tmp_path: Path) -> None:
    gone = host.file("gone.raw", size=SIZE)
    network = """<disk type='network' device='disk'><driver name='qemu' type='raw'/>
      <source protocol='nbd' name='x'><host name='127.0.0.1' port='9'/></source>
      <target dev='vdb' bus='virtio'/></disk>"""
    secret = (
        "<encryption format='luks'><secret type='passphrase' uuid='0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f'/></encryption>"
    )
    locked = disk(host.file("locked.raw", size=SIZE), "vdc", more=secret)
    shared = disk(host.file("shared.raw", size=SIZE), "vdd", more="<shareable/>")
    server = libvirt.server(DEMO, host.define(disk(gone), network, locked, shared))
    gone.unlink()

    first, second, third, fourth = libvirt.server(DEMO, server.id).volumes

    assert first.missing
    assert second.status is VolumeStatus.ERROR
    assert third.cmk_id == "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"
    assert fourth.shareable
    for volume, error in ((first, VolumeUnusable), (second, VolumeUnusable), (third, DiskEncrypted)):
        with pytest.raises(error):
            libvirt.capture(DEMO, server.id, [volume.id], tmp_path, name="j", progress=quiet, cancelled=never)
    assert not list(tmp_path.iterdir())


def test_the_disk_that_is_booted_first_is_the_system_disk(host: Hypervisor, libvirt: Libvirt) -> None:
    first = disk(host.file("second.raw", size=SIZE), more="<boot order='2'/>")
    second = disk(host.file("first.raw", size=2 * SIZE), "vdb", more="<boot order='1'/>")

    server = libvirt.server(DEMO, host.define(first, second, name="ordered"))

    assert [volume.name for volume in server.volumes] == ["ordered-vdb", "ordered-vda"]


def test_a_hypervisor_that_does_not_answer_is_no_empty_one(tmp_path: Path, host: Hypervisor) -> None:
    away = source(host, uri=f"qemu:///session?socket={tmp_path}/nobody")

    for asked in (lambda: away.servers(DEMO), lambda: away.server(DEMO, "x"), lambda: away.volumes(DEMO)):
        with pytest.raises(SourceUnreadable):
            asked()


# --- stopped ----------------------------------------------------------------------------------------------------------


def test_a_stopped_server_is_read_from_its_files(host: Hypervisor, libvirt: Libvirt, tmp_path: Path) -> None:
    content = noise(MIB)
    first = host.file("stopped-a.raw", content, size=64 * MIB)
    second = host.qcow2("stopped-b.qcow2", "8M")
    server = host.define(disk(first), disk(second, "vdb", "qcow2"))
    watch = Watch(host, server)

    captured = capture(libvirt, server, tmp_path)

    assert [(each.format, each.size) for each in captured] == [("raw", 64 * MIB), ("qcow2", second.stat().st_size)]
    assert captured[0].path.read_bytes() == first.read_bytes()
    assert captured[1].path.read_bytes() == second.read_bytes()
    assert captured[0].path.stat().st_blocks * 512 < 2 * MIB
    assert {each.path.stat().st_mode & 0o777 for each in captured} == {0o600}
    watch.assert_untouched()


def test_a_chain_of_files_that_the_description_names_becomes_one_disk(
    host: Hypervisor, libvirt: Libvirt, tmp_path: Path
) -> None:
    base = host.file("chain-base.raw", noise(3 * MIB), size=SIZE)
    middle = host.qcow2("chain-middle.qcow2", "-F", "raw", "-b", str(base), "6M")
    top = host.qcow2("chain-top.qcow2", "-F", "qcow2", "-b", str(middle), "6M")
    for layer, words in ((middle, "write -P 0xaa 1M 256k"), (top, "write -P 0xbb 1152k 256k")):
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", words, layer], check=True, capture_output=True)
    before = [path.read_bytes() for path in (base, middle, top)]
    chain = backed_by(middle, "qcow2", backed_by(base, "raw"))
    server = host.define(disk(top, kind="qcow2", more=chain))

    (captured,) = capture(libvirt, server, tmp_path)

    expected = bytearray(before[0].ljust(6 * MIB, b"\0"))
    expected[MIB : MIB + 256 * 1024] = b"\xaa" * 256 * 1024
    expected[MIB + 128 * 1024 : MIB + 384 * 1024] = b"\xbb" * 256 * 1024
    assert [path.name for path in tmp_path.iterdir()] == ["disk-0"]
    assert raw(captured, tmp_path).read_bytes() == bytes(expected)
    assert b"chain-" not in captured.path.read_bytes()[: 64 * 1024]
    assert [path.read_bytes() for path in (base, middle, top)] == before


def test_a_backing_file_that_only_a_header_names_is_never_opened(
    host: Hypervisor, libvirt: Libvirt, tmp_path: Path
) -> None:
    """A tenant's image could name any file of the host."""
    secret = host.file("secret.raw", noise(MIB))
    top = host.qcow2("tempting.qcow2", "-F", "raw", "-b", str(secret), "1M")
    silent = host.define(disk(top, kind="qcow2"))
    ended = host.define(disk(top, kind="qcow2", more="<backingStore/>"))

    with pytest.raises(VolumeUnusable, match="backing file"):
        capture(libvirt, silent, tmp_path)
    assert not list(tmp_path.iterdir())
    (captured,) = capture(libvirt, ended, tmp_path)

    assert raw(captured, tmp_path).read_bytes() == bytes(MIB)


def test_a_layer_that_is_not_what_the_description_says_is_refused(
    host: Hypervisor, libvirt: Libvirt, tmp_path: Path
) -> None:
    """A guest with a raw disk may write a header that names any file of the host."""
    secret = host.file("hidden.raw", noise(MIB))
    base = host.qcow2("base.qcow2", "-F", "raw", "-b", str(secret), "1M")
    top = host.qcow2("top.qcow2", "1M")

    with pytest.raises(VolumeUnusable, match="refused"):
        capture(libvirt, host.define(disk(top, kind="qcow2", more=backed_by(base, "raw"))), tmp_path)


def test_a_disk_that_another_server_writes_to_is_busy(
    host: Hypervisor, libvirt: Libvirt, running: Callable[..., str], tmp_path: Path
) -> None:
    path = host.file("contested.raw", size=SIZE)
    stopped = host.define(disk(path))
    running(disk(path))

    with pytest.raises(VolumeBusy):
        capture(libvirt, stopped, tmp_path)


def test_a_server_that_starts_while_it_is_read_is_captured_running(
    host: Hypervisor, libvirt: Libvirt, tmp_path: Path
) -> None:
    content = noise(LARGE)
    server = host.define(disk(host.file("starting.raw", content)))

    def start(done: int, total: int) -> None:
        host.try_virsh("start", server)

    try:
        (captured,) = capture(libvirt, server, tmp_path, progress=start)
        assert host.state(server) == "running"
    finally:
        host.try_virsh("destroy", server)

    assert captured.format == "qcow2"
    assert raw(captured, tmp_path).read_bytes() == content


def test_a_disk_that_changes_while_it_is_read_is_read_again(host: Hypervisor, libvirt: Libvirt, tmp_path: Path) -> None:
    path = host.file("changing.raw", noise(LARGE))
    server = host.define(disk(path))
    changes = iter([b"once"])

    def change(done: int, total: int) -> None:
        for words in changes:
            with path.open("rb+") as file:
                file.write(words)

    (captured,) = capture(libvirt, server, tmp_path, progress=change)

    assert captured.path.read_bytes() == path.read_bytes()
    assert captured.path.read_bytes()[:4] == b"once"


def test_a_block_device_is_read_like_a_file(host: Hypervisor, libvirt: Libvirt, tmp_path: Path) -> None:
    path = host.file("device.raw", noise(MIB), size=32 * MIB)
    made = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip("no loop devices here")
    device = Path(made.stdout.strip())
    before = device.stat()
    try:
        host.own(device)
        server = host.define(disk(device, source="block"))
        (captured,) = capture(libvirt, server, tmp_path)
    finally:
        os.chown(device, before.st_uid, before.st_gid)
        subprocess.run(["losetup", "--detach", device], check=True)

    assert captured.size == 32 * MIB
    assert captured.path.read_bytes() == path.read_bytes()
    assert captured.path.stat().st_blocks * 512 < 2 * MIB


# --- running ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def counting(host: Hypervisor, running: Callable[..., str]) -> Callable[[str], tuple[str, Path, Path]]:
    """A guest that counts on two disks: at the end of the first, at the start of the second."""

    def start(name: str) -> tuple[str, Path, Path]:
        sectors = LARGE // SECTOR
        boot = counting_boot_sector(sectors - 1, 1)
        first = host.file(f"{name}-a.raw", boot + noise(LARGE - 2 * SECTOR) + bytes(SECTOR))
        second = host.file(f"{name}-b.raw", bytes(2 * SECTOR) + noise(LARGE - 2 * SECTOR, 2))
        # The firmware leaves alone what it need not try.
        disks = [(first, "vda", "<boot order='1'/>"), (second, "vdb", "<boot order='2'/>")]
        server = running(*(disk(path, target, more=boot) for path, target, boot in disks))
        until(lambda: counted(second, 1) > 10, "the guest to count")
        return server, first, second

    return start


def test_disks_of_a_running_server_are_of_one_moment(
    host: Hypervisor,
    libvirt: Libvirt,
    counting: Callable[[str], tuple[str, Path, Path]],
    tmp_path: Path,
) -> None:
    server, first, second = counting("moment")
    watch = Watch(host, server)

    captured = capture(libvirt, server, tmp_path)

    one, other = (raw(each, tmp_path) for each in captured)
    ahead, behind = counted(one, LARGE // SECTOR - 1), counted(other, 1)
    assert ahead > 10
    assert ahead - behind in (0, 1)
    assert one.read_bytes()[:-SECTOR] == first.read_bytes()[:-SECTOR]
    assert other.read_bytes()[2 * SECTOR :] == second.read_bytes()[2 * SECTOR :]
    watch.assert_untouched()
    until(lambda: counted(second, 1) > behind + 10, "the guest to go on counting")


def test_one_disk_of_a_running_server_and_the_other_left_out(
    host: Hypervisor, libvirt: Libvirt, running: Callable[..., str], tmp_path: Path
) -> None:
    content = noise(MIB)
    cdrom = "<disk type='file' device='cdrom'><target dev='hda' bus='ide'/></disk>"
    server = running(
        disk(host.file("left-a.raw", size=SIZE)),
        disk(host.file("left-b.raw", content, size=64 * MIB), "vdb"),
        cdrom,
    )

    (captured,) = capture(libvirt, server, tmp_path, targets=["vdb"])

    assert captured.volume.slot == 1
    assert raw(captured, tmp_path).read_bytes() == content.ljust(64 * MIB, b"\0")
    assert captured.size < 4 * MIB
    assert captured.path.stat().st_mode & 0o777 == 0o600


def test_a_chain_of_a_running_server_becomes_one_disk(
    host: Hypervisor, libvirt: Libvirt, running: Callable[..., str], tmp_path: Path
) -> None:
    content = noise(MIB)
    base = host.file("live-base.raw", content)
    server = running(disk(host.qcow2("live-top.qcow2", "-F", "raw", "-b", str(base), "2M"), kind="qcow2"))

    (captured,) = capture(libvirt, server, tmp_path)

    assert raw(captured, tmp_path).read_bytes() == content.ljust(2 * MIB, b"\0")


def test_a_server_that_stops_while_it_is_backed_up_is_read_from_its_files(
    host: Hypervisor, libvirt: Libvirt, running: Callable[..., str], tmp_path: Path
) -> None:
    content = noise(LARGE)
    server = running(disk(host.file("stopping.raw", content)))

    def stop(done: int, total: int) -> None:
        host.try_virsh("destroy", server)

    (captured,) = capture(libvirt, server, tmp_path, progress=stop)

    # It may have been over before the server stopped.
    assert raw(captured, tmp_path).read_bytes() == content
    assert not jobs_in(host.exchange)


def test_a_cancelled_backup_leaves_nothing(
    host: Hypervisor, libvirt: Libvirt, running: Callable[..., str], tmp_path: Path
) -> None:
    server = running(disk(host.file("cancelled.raw", noise(LARGE))))
    watch, told = Watch(host, server), []

    def progress(done: int, total: int) -> None:
        told.append(done)

    with pytest.raises(JobCancelled):
        capture(libvirt, server, tmp_path, progress=progress, cancelled=lambda: bool(told))

    watch.assert_untouched()
    assert not list(tmp_path.iterdir())


def test_running_servers_want_a_folder_to_exchange_files_in(
    host: Hypervisor, running: Callable[..., str], tmp_path: Path
) -> None:
    server = running(disk(host.file("alone.raw", size=SIZE)))

    with pytest.raises(ServerState):
        capture(source(host, exchange=""), server, tmp_path)
    with pytest.raises(SourceUnreadable):
        capture(source(host, exchange=str(tmp_path / "nowhere")), server, tmp_path)


def test_the_operators_own_backup_goes_on(
    host: Hypervisor, libvirt: Libvirt, running: Callable[..., str], tmp_path: Path
) -> None:
    server = running(disk(host.file("theirs.raw", size=SIZE)))
    theirs = tmp_path / "theirs.xml"
    theirs.write_text(f"""<domainbackup mode='pull'><server transport='unix' socket='{host.folder}/run/nbd'/>
      <disks><disk name='vda' backup='yes' type='file'><scratch file='{host.folder}/home/scratch'/></disk></disks>
      </domainbackup>""")
    host.virsh("backup-begin", server, str(theirs))

    told = libvirt.server(DEMO, server)
    with pytest.raises(ServerBusy):
        capture(libvirt, server, tmp_path)
    libvirt.release("job")

    assert (told.task, told.being_backed_up) == ("backing up", True)
    assert host.has_job(server)
    host.virsh("domjobabort", server)


def test_a_full_disk_is_told_and_nothing_stays(host: Hypervisor, running: Callable[..., str], tmp_path: Path) -> None:
    small = host.folder / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        host.own(small, 0o2770)
        server = running(disk(host.file("too-large.raw", noise(8 * MIB))))
        watch = Watch(host, server)

        with pytest.raises(NoSpace):
            capture(source(host, exchange=str(small)), server, tmp_path)

        watch.assert_untouched()
        assert not jobs_in(small)
    finally:
        subprocess.run(["umount", small], check=True)


# --- with an agent in the guest ---------------------------------------------------------------------------------------


class Guest:
    """A Linux guest whose agent says on its disk what it was told last."""

    def __init__(self, host: Hypervisor, alpine: Path, name: str) -> None:
        kernel, initrd = (next(alpine.parent.glob(f"*.{kind}")).read_bytes() for kind in ("kernel", "initrd"))
        direct = (
            f"<kernel>{host.file(f'{name}.kernel', kernel)}</kernel>"
            f"<initrd>{host.file(f'{name}.initrd', with_agent(initrd))}</initrd>"
            "<cmdline>rdinit=/agent console=ttyS0</cmdline>"
        )
        self.content = noise(SIZE)
        self.path = host.file(f"{name}.raw", self.content)
        self.control = host.file(f"{name}-control.raw", b"n", size=MIB)
        disks = [disk(self.path), disk(self.control, "vdb")]
        self.server = host.define(*disks, rest=channel(host.folder / "run" / name), os=direct, memory_mib=256)
        host.virsh("start", self.server)
        until(lambda: self.said() == b"ready", "the guest's agent", 180)
        until(lambda: "'connected'" in host.virsh("dumpxml", self.server), "its channel")

    def said(self, path: Path | None = None) -> bytes:
        with (path or self.path).open("rb") as file:
            return file.read(512).split(b"\n")[0]

    def answers(self, how: bytes) -> None:
        with self.control.open("rb+") as file:
            file.write(how)


@pytest.fixture(scope="module")
def guest(host: Hypervisor, alpine: Path) -> Iterator[Guest]:
    one = Guest(host, alpine, "agent")
    yield one
    host.try_virsh("destroy", one.server)


def test_a_guests_file_systems_are_frozen_for_the_moment_of_the_backup(
    libvirt: Libvirt, guest: Guest, tmp_path: Path
) -> None:
    guest.answers(b"n")

    (captured,) = capture(libvirt, guest.server, tmp_path, targets=["vda"])

    seen = raw(captured, tmp_path)
    assert guest.said(seen) == b"frozen"
    assert guest.said() == b"thawed"
    assert seen.read_bytes()[SECTOR:] == guest.content[SECTOR:]


def test_an_agent_that_answers_no_more_is_done_without(
    host: Hypervisor, libvirt: Libvirt, alpine: Path, tmp_path: Path
) -> None:
    """libvirt would wait for it without a limit."""
    guest = Guest(host, alpine, "mute")
    host.virsh("domfsthaw", guest.server)
    until(lambda: guest.said() == b"thawed", "its answer")
    guest.answers(b"m")

    (captured,) = capture(libvirt, guest.server, tmp_path, targets=["vda"])

    assert guest.said(raw(captured, tmp_path)) == guest.said() == b"thawed"
    host.virsh("destroy", guest.server)


def test_a_kill_while_the_guest_is_frozen_leaves_it_thawed(
    host: Hypervisor, libvirt: Libvirt, guest: Guest, tmp_path: Path
) -> None:
    guest.answers(b"s")
    with capturing(host, guest.server, tmp_path) as child:
        until(lambda: guest.said() == b"frozen", "the guest to be frozen")
        child.kill()

    until(lambda: guest.said() == b"thawed", "the guest to be thawed")
    guest.answers(b"n")
    libvirt.release("job")

    assert not host.has_job(guest.server)
    assert not jobs_in(host.exchange)


# --- killed -----------------------------------------------------------------------------------------------------------

CAPTURING: Final = """
import sys
from pathlib import Path
from tests.services.test_libvirt import DEMO
from calotype.servers.libvirt import Libvirt
from calotype.settings import ServerSettings

uri, exchange, server, folder = sys.argv[1:]

def hold(done, total):
    print("holding", flush=True)
    sys.stdin.read()

libvirt = Libvirt(ServerSettings(source="libvirt", libvirt_uri=uri, libvirt_exchange=exchange), None)
ids = [volume.id for volume in libvirt.server(DEMO, server).volumes]
libvirt.capture(DEMO, server, ids, Path(folder), name="job", progress=hold, cancelled=lambda: False)
"""


@contextmanager
def capturing(host: Hypervisor, server: str, folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that captures a server, and holds still when the first bytes are done."""
    words = [sys.executable, "-c", CAPTURING, host.uri, str(host.exchange), server, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        yield child
        child.kill()


def killed_while_capturing(host: Hypervisor, server: str, folder: Path) -> None:
    with capturing(host, server, folder) as child:
        assert child.stdout is not None
        assert any(b"holding" in line for line in child.stdout)


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_after_a_kill_the_next_attempt_ends_in_the_same_place(
    host: Hypervisor, libvirt: Libvirt, running: Callable[..., str], tmp_path: Path, state: str
) -> None:
    content = noise(LARGE)
    disks = disk(host.file(f"killed-{state}.raw", content))
    server = running(disks) if state == "running" else host.define(disks)
    watch = Watch(host, server)
    killed_while_capturing(host, server, tmp_path)

    (captured,) = capture(libvirt, server, tmp_path)

    assert raw(captured, tmp_path).read_bytes() == content
    watch.assert_untouched()


def test_what_a_killed_backup_left_can_be_released(
    host: Hypervisor, libvirt: Libvirt, running: Callable[..., str], tmp_path: Path
) -> None:
    server = running(disk(host.file("released.raw", noise(LARGE))))
    watch = Watch(host, server)
    killed_while_capturing(host, server, tmp_path)
    left = jobs_in(host.exchange)

    libvirt.release("another")
    still = jobs_in(host.exchange)
    libvirt.release("job")
    libvirt.release("job")

    assert left == still == ["calotype-job"]
    watch.assert_untouched()
    assert not list(tmp_path.iterdir())


def test_another_image_of_the_server_is_made_before_what_a_killed_backup_left_is_released(
    host: Hypervisor, libvirt: Libvirt, running: Callable[..., str], tmp_path: Path
) -> None:
    content = noise(LARGE)
    server = running(disk(host.file("next.raw", content)))
    killed_while_capturing(host, server, tmp_path)

    (captured,) = capture(libvirt, server, tmp_path, name="next")
    libvirt.release("job")

    assert raw(captured, tmp_path).read_bytes() == content
    assert not jobs_in(host.exchange)


def test_images_of_one_server_at_once_are_made_in_turn(
    host: Hypervisor, running: Callable[..., str], tmp_path: Path
) -> None:
    contents = [noise(LARGE, seed) for seed in (1, 2)]
    targets = ["vda", "vdb"]
    server = running(*(disk(host.file(f"turn-{t}.raw", c), t) for t, c in zip(targets, contents, strict=True)))

    def one(target: str) -> bytes:
        folder = tmp_path / target
        folder.mkdir()
        (captured,) = capture(source(host), server, folder, targets=[target], name=target)
        return raw(captured, folder).read_bytes()

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(one, targets))

    assert found == contents


# --- as a service -----------------------------------------------------------------------------------------------------


@pytest.fixture
def demo(host: Hypervisor, make_service: Callable[..., Service]) -> Iterator[Client]:
    """A user of a service whose servers are those of the hypervisor."""
    environment = {
        "CALOTYPE_SERVERS_SOURCE": "libvirt",
        "CALOTYPE_SERVERS_LIBVIRT_URI": host.uri,
        "CALOTYPE_SERVERS_LIBVIRT_EXCHANGE": str(host.exchange),
    }
    with make_service(environment=environment).start().demo() as client:
        yield client


def seen_in(client: Client, image_id: str, folder: Path) -> bytes:
    """What a guest would see of an image."""
    path = folder / image_id
    with client.http.stream("GET", f"/v2/images/{image_id}/file") as answer, path.open("wb") as file:
        assert answer.status_code == 200
        for piece in answer.iter_bytes():
            file.write(piece)
    subprocess.run(["qemu-img", "convert", "-O", "raw", path, f"{path}.raw"], check=True)
    return Path(f"{path}.raw").read_bytes()


def test_images_of_a_stopped_and_of_a_running_server_hold_their_bytes(
    host: Hypervisor, demo: Client, running: Callable[..., str], tmp_path: Path
) -> None:
    contents = [noise(SIZE, seed) for seed in range(4)]
    disks = [disk(host.file(f"api-{n}.raw", c), "vdb" if n % 2 else "vda") for n, c in enumerate(contents)]
    stopped, runs = host.define(*disks[:2]), running(*disks[2:])
    watches = [Watch(host, server) for server in (stopped, runs)]
    seen = []

    for server in (stopped, runs):
        body: dict[str, object] = {"name": "of a server", "instance_id": server}
        job = demo.succeeded(demo.submit("POST", "/v2/cloudimages/action", body))
        seen.append(seen_in(demo, job["entities"]["image_id"], tmp_path))
        volumes = demo.http.get("/calotype/v1/volumes").json()["volumes"]
        (volume,) = [each["id"] for each in volumes if each["server_id"] == server and each["slot"] == 1]
        body = {"data_images": [{"name": "of its other disk", "volume_id": volume}]}
        job = demo.succeeded(demo.submit("POST", "/v2/cloudimages/action", body))
        seen.append(seen_in(demo, job["entities"]["sub_jobs_result"][0]["entities"]["image_id"], tmp_path))

    assert seen == contents
    for watch in watches:
        watch.assert_untouched()


def test_a_server_of_no_project_of_the_user_is_unknown(host: Hypervisor, demo: Client) -> None:
    server = host.define(disk(host.file("foreign.raw", size=SIZE)), marked='project="other"')

    answer = demo.http.post("/v2/cloudimages/action", json={"name": "no", "instance_id": server})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "IMG.0005")
