"""The inventory as a source of servers: what the port promises, on real files, and with a real QEMU beside it."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from calotype.errors import (
    BackupNotFound,
    BackupUnusable,
    CalotypeError,
    JobCancelled,
    ServerBusy,
    ServerNotFound,
    SourceUnreadable,
    VaultNotFound,
    VolumeBusy,
    VolumeUnusable,
)
from calotype.servers.copying import ATTEMPTS, BLOCK_BYTES
from calotype.servers.inventory import Inventory
from calotype.servers.model import GIB, BackupKind, Project, ServerKind, ServerStatus, VolumeStatus
from calotype.servers.source import Captured
from tests.disks import build

DEMO = Project(id="d" * 32, name="demo")
OTHER = Project(id="e" * 32, name="other")
ONE_DISK = '[[disks]]\nfile = "disk"\n'
TWO_DISKS = '[[disks]]\nfile = "one"\n[[disks]]\nfile = "two"\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "inventory"
    folder.mkdir()
    return folder


@pytest.fixture
def inventory(root: Path) -> Inventory:
    return Inventory(root, retry_s=0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def lay(root: Path, place: str, toml: str, **files: bytes) -> Path:
    """`place` is that of the TOML file below the inventory; `files` lie beside it."""
    description = root / place
    description.parent.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (description.parent / name).write_bytes(data)
    description.write_text(toml)
    return description.parent


def quiet(_done: int, _total: int) -> None:
    return


def never() -> bool:
    return False


def capture(
    inventory: Inventory,
    out: Path,
    server_id: str | None,
    *volume_ids: str,
    name: str = "j1",
    project: Project = DEMO,
    progress: Callable[[int, int], None] = quiet,
    cancelled: Callable[[], bool] = never,
) -> list[Captured]:
    return list(
        inventory.capture(project, server_id, volume_ids, out, name=name, progress=progress, cancelled=cancelled)
    )


# --- what there is ----------------------------------------------------------------------------------------------------


def test_an_empty_or_missing_folder_has_nothing(root: Path) -> None:
    for inventory in (Inventory(root), Inventory(root / "none")):
        assert [*inventory.servers(DEMO), *inventory.volumes(DEMO), *inventory.backups(DEMO)] == []
        assert inventory.vault(DEMO, None) is None
        with pytest.raises(ServerNotFound):
            inventory.server(DEMO, "web-1")


def test_a_folder_that_must_be_there_and_is_not_is_no_empty_one(root: Path) -> None:
    inventory = Inventory(root / "none", must_exist=True)

    for ask in (inventory.servers, inventory.volumes, inventory.backups):
        with pytest.raises(SourceUnreadable):
            ask(DEMO)


def test_every_fact_of_a_server_can_be_described(root: Path, inventory: Inventory) -> None:
    lay(
        root,
        "servers/web-1/server.toml",
        """
        name = "web"
        id = "f3f8bd0b-3a3b-4a38-8c4f-8c8e4a9d7c2a"
        status = "running"
        kind = "bms"
        os_version = "CentOS 7.4 64bit"
        image_id = "an-image"
        firmware = "uefi"
        architecture = "arm"
        task = "resizing"
        being_backed_up = true
        frozen = true
        reclaimed = true
        vault = "v1"
        older_backups = true
        [[disks]]
        file = "two"
        slot = 1
        [[disks]]
        file = "one"
        slot = 0
        id = "system-of-web"
        name = "system"
        cmk_id = "a-key"
        dedicated = true
        shareable = true
        status = "busy"
        """,
        one=build.qcow2(),
        two=build.raw(),
    )

    server = inventory.server(DEMO, "f3f8bd0b-3a3b-4a38-8c4f-8c8e4a9d7c2a")

    assert (server.name, server.status, server.kind) == ("web", ServerStatus.RUNNING, ServerKind.BMS)
    assert (server.os_version, server.image_id, server.firmware) == ("CentOS 7.4 64bit", "an-image", "uefi")
    assert (server.architecture, server.task, server.vault_id) == ("arm", "resizing", "v1")
    assert server.being_backed_up
    assert server.frozen
    assert server.reclaimed
    assert server.older_backups
    system, data = server.volumes
    assert server.system_disk == system
    assert (system.id, system.name, system.slot, system.status) == ("system-of-web", "system", 0, VolumeStatus.BUSY)
    assert (system.cmk_id, system.dedicated, system.shareable) == ("a-key", True, True)
    assert (data.id, data.slot, data.status) == (f"{server.id}-disk1", 1, VolumeStatus.IN_USE)
    assert {volume.server_id for volume in server.volumes} == {server.id}


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (build.qcow2(size=5 * GIB, l1_entries=10), 5 * GIB),
        (build.raw(5 * build.MIB), 5 * build.MIB),
        (build.vmdk(), build.SIZE),
        (build.vdi(), build.SIZE),
        (build.vhd(), build.SIZE),
        (build.vhdx(), build.SIZE),
    ],
    ids=["qcow2", "raw", "vmdk", "vdi", "vhd", "vhdx"],
)
def test_the_size_of_a_disk_is_what_its_guest_sees(root: Path, inventory: Inventory, data: bytes, size: int) -> None:
    lay(root, "volumes/v/volume.toml", 'file = "disk"', disk=data)

    assert inventory.volume(DEMO, "v").size == size


def test_a_raw_disk_is_not_what_its_guest_has_written_into_it(root: Path, inventory: Inventory, out: Path) -> None:
    lay(root, "volumes/v/volume.toml", 'file = "disk"\nformat = "raw"', disk=build.qcow2())

    assert inventory.volume(DEMO, "v").size == len(build.qcow2())
    assert [one.format for one in capture(inventory, out, None, "v")] == ["raw"]


def test_the_size_follows_the_file(root: Path, inventory: Inventory) -> None:
    folder = lay(root, "volumes/v/volume.toml", 'file = "disk"', disk=build.qcow2(size=GIB, l1_entries=2))
    os.utime(folder / "disk", (1, 1))
    before = inventory.volume(DEMO, "v").size

    (folder / "disk").write_bytes(build.qcow2(size=2 * GIB, l1_entries=4))

    assert (before, inventory.volume(DEMO, "v").size) == (GIB, 2 * GIB)


def test_a_description_follows_its_file(root: Path, inventory: Inventory) -> None:
    description = lay(root, "servers/web-1/server.toml", 'name = "one"') / "server.toml"
    before = inventory.server(DEMO, "web-1").name

    description.write_text('name = "two"')

    assert (before, inventory.server(DEMO, "web-1").name) == ("one", "two")


def test_a_disk_whose_file_is_gone_is_missing(root: Path, inventory: Inventory, out: Path) -> None:
    lay(root, "servers/web-1/server.toml", '[[disks]]\nfile = "one"\nsize_gb = 40\n[[disks]]\nfile = "below/two"\n')

    volumes = inventory.server(DEMO, "web-1").volumes

    assert [(volume.missing, volume.size) for volume in volumes] == [(True, 40 * GIB), (True, 0)]
    with pytest.raises(VolumeUnusable):
        capture(inventory, out, "web-1", "web-1-disk0")


def test_a_disk_that_no_image_can_be_made_of_is_still_there(root: Path, inventory: Inventory) -> None:
    """Why not, is for the gate to say, when somebody tries."""
    backed = build.qcow2(backing=b"/etc/passwd")
    lay(root, "volumes/v/volume.toml", 'file = "disk"\nsize_gb = 3', disk=backed)
    lay(root, "volumes/w/volume.toml", 'file = "disk"', disk=backed)

    assert [(v.size, v.missing) for v in inventory.volumes(DEMO)] == [(3 * GIB, False), (len(backed), False)]


@pytest.mark.parametrize("project", ["demo", "d" * 32])
def test_what_names_a_project_is_that_projects(root: Path, inventory: Inventory, project: str) -> None:
    own = f'project = "{project}"\n'
    lay(root, "servers/s/server.toml", own + ONE_DISK, disk=build.raw())
    lay(root, "volumes/v/volume.toml", own + 'file = "disk"', disk=build.raw())
    lay(root, "backups/b/backup.toml", own + ONE_DISK, disk=build.raw())
    lay(root, "vaults/t.toml", own)

    assert [one.id for one in inventory.servers(DEMO)] == ["s"]
    assert [one.id for one in inventory.volumes(DEMO)] == ["s-disk0", "v"]
    assert [one.id for one in inventory.backups(DEMO)] == ["b"]
    assert inventory.vault(DEMO, None) == inventory.vault(DEMO, "t")
    assert [*inventory.servers(OTHER), *inventory.volumes(OTHER), *inventory.backups(OTHER)] == []
    assert inventory.vault(OTHER, None) is None
    refused: list[tuple[type[CalotypeError], Callable[[], object]]] = [
        (ServerNotFound, lambda: inventory.server(OTHER, "s")),
        (VolumeUnusable, lambda: inventory.volume(OTHER, "v")),
        (VolumeUnusable, lambda: inventory.volume(OTHER, "s-disk0")),
        (BackupNotFound, lambda: inventory.backup(OTHER, "b")),
        (VaultNotFound, lambda: inventory.vault(OTHER, "t")),
        (ServerNotFound, lambda: capture(inventory, root, "s", "s-disk0", project=OTHER)),
        (VolumeUnusable, lambda: capture(inventory, root, None, "v", project=OTHER)),
    ]
    for error, ask in refused:
        with pytest.raises(error):
            ask()


def test_a_backup_tells_of_its_server_and_who_shares_it(root: Path, inventory: Inventory) -> None:
    lay(
        root,
        "backups/b/backup.toml",
        """
        name = "nightly"
        project = "other"
        shared_with = ["demo"]
        kind = "CSBS"
        accessible = false
        created_at = 2026-01-02T03:04:05Z
        [server]
        id = "web-1"
        name = "web"
        os_version = "CentOS 7.4 64bit"
        [[disks]]
        file = "disk"
        """,
        disk=build.qcow2(),
    )

    backup = inventory.backup(DEMO, "b")

    assert (backup.name, backup.kind, backup.accessible, backup.shared) == ("nightly", BackupKind.CSBS, False, True)
    assert backup.created_at == 1767323045000
    assert (backup.server.id, backup.server.name, backup.server.os_version) == ("web-1", "web", "CentOS 7.4 64bit")
    assert backup.has_os
    assert not inventory.backup(OTHER, "b").shared


def test_the_own_vault_is_before_that_of_everybody(root: Path, inventory: Inventory) -> None:
    lay(root, "vaults/a.toml", 'type = "disk"\nusable = false\nfree_gb = 7\nservers = ["s1"]\nmost_servers = 3')
    everybodys = inventory.vault(DEMO, None)
    lay(root, "vaults/b.toml", 'project = "demo"')
    lay(root, "vaults/broken.toml", "type = 1")

    own, others = inventory.vault(DEMO, None), inventory.vault(OTHER, None)

    assert everybodys is not None
    assert (everybodys.id, everybodys.type, everybodys.usable, everybodys.free) == ("a", "disk", False, 7 * GIB)
    assert (everybodys.servers, everybodys.most_servers) == (("s1",), 3)
    assert own is not None
    assert own.id == "b"
    assert others == everybodys
    with pytest.raises(SourceUnreadable, match=r"broken.toml: type: "):
        inventory.vault(DEMO, "broken")


# --- what cannot be used ----------------------------------------------------------------------------------------------


def test_one_that_cannot_be_used_is_in_nobodys_way(root: Path, inventory: Inventory) -> None:
    lay(root, "servers/broken/server.toml", "name = ")
    lay(root, "servers/sound/server.toml", 'name = "sound"')

    assert [server.id for server in inventory.servers(DEMO)] == ["sound"]
    with pytest.raises(SourceUnreadable) as refused:
        inventory.server(DEMO, "broken")
    assert str(root) not in refused.value.message


def test_one_that_cannot_be_used_is_still_only_its_projects(root: Path, inventory: Inventory) -> None:
    lay(root, "servers/broken/server.toml", 'project = "other"\nnmae = "x"')

    with pytest.raises(ServerNotFound):
        inventory.server(DEMO, "broken")
    with pytest.raises(SourceUnreadable):
        inventory.server(OTHER, "broken")


def test_an_id_that_is_given_twice_is_nobodys(root: Path, inventory: Inventory) -> None:
    lay(root, "servers/a/server.toml", 'id = "x"')
    lay(root, "servers/x/server.toml", 'name = "x"')
    lay(root, "servers/y/server.toml", '[[disks]]\nid = "v"\nfile = "disk"', disk=build.raw())
    lay(root, "volumes/v/volume.toml", 'file = "disk"', disk=build.raw())

    assert [server.id for server in inventory.servers(DEMO)] == ["y"]
    assert list(inventory.volumes(DEMO)) == []
    with pytest.raises(SourceUnreadable):
        inventory.server(DEMO, "x")
    with pytest.raises(SourceUnreadable):
        inventory.volume(DEMO, "v")


def test_what_is_not_finished_is_not_there(root: Path, inventory: Inventory) -> None:
    (root / "servers" / "copying").mkdir(parents=True)
    lay(root, "servers/.web-1.tmp/server.toml", 'name = "x"')
    (root / "servers" / "README").write_text("notes")
    lay(root, "vaults/notes.txt", "notes")

    assert list(inventory.servers(DEMO)) == []
    assert inventory.vault(DEMO, None) is None


def test_a_name_that_is_no_id_wants_one(root: Path, inventory: Inventory) -> None:
    lay(root, "servers/my server/server.toml", 'name = "x"')
    lay(root, "servers/your server/server.toml", 'id = "yours"')

    assert [server.id for server in inventory.servers(DEMO)] == ["yours"]


def test_a_name_that_is_no_text_can_be_told(root: Path, inventory: Inventory) -> None:
    broken = os.path.join(os.fsencode(root), b"servers", b"\xff\n")  # noqa: PTH118 - of bytes
    os.makedirs(broken)  # noqa: PTH103 - of bytes
    with open(os.path.join(broken, b"server.toml"), "w") as description:  # noqa: PTH118, PTH123 - of bytes
        description.write('name = "x"')

    assert list(inventory.servers(DEMO)) == []
    with pytest.raises(SourceUnreadable) as refused:
        inventory.server(DEMO, "??")
    assert refused.value.message == "?? is no id; give server.toml the key id"


def _secret(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "disk").write_bytes(build.qcow2())
    (folder / "server.toml").write_text(ONE_DISK)
    return folder


@pytest.mark.parametrize("link", ["disk", "folder of the disk", "description", "server"])
def test_no_symbolic_link_is_followed(root: Path, inventory: Inventory, tmp_path: Path, out: Path, link: str) -> None:
    outside = _secret(tmp_path)
    folder = root / "servers" / "web-1"
    if link == "server":
        folder.parent.mkdir()
        folder.symlink_to(outside)
    elif link == "description":
        folder.mkdir(parents=True)
        (folder / "server.toml").symlink_to(outside / "server.toml")
        shutil.copy(outside / "disk", folder)
    elif link == "disk":
        lay(root, "servers/web-1/server.toml", ONE_DISK)
        (folder / "disk").symlink_to(outside / "disk")
    else:
        lay(root, "servers/web-1/server.toml", '[[disks]]\nfile = "below/disk"\n')
        (folder / "below").symlink_to(outside)

    assert list(inventory.servers(DEMO)) == []
    with pytest.raises(SourceUnreadable, match="symbolic link"):
        inventory.server(DEMO, "web-1")
    with pytest.raises(SourceUnreadable):
        capture(inventory, out, "web-1", "web-1-disk0")
    assert list(out.iterdir()) == []


def test_a_pipe_is_neither_a_description_nor_a_disk(root: Path, inventory: Inventory) -> None:
    (root / "servers" / "one").mkdir(parents=True)
    os.mkfifo(root / "servers" / "one" / "server.toml")
    os.mkfifo(lay(root, "servers/two/server.toml", ONE_DISK) / "disk")

    assert list(inventory.servers(DEMO)) == []
    for server_id in ("one", "two"):
        with pytest.raises(SourceUnreadable, match="no regular file"):
            inventory.server(DEMO, server_id)


# --- the bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["stopped", "running"])
def test_the_disks_of_a_server_are_brought_as_they_are(
    root: Path, inventory: Inventory, out: Path, status: str
) -> None:
    one, two = build.qcow2(), build.raw()
    lay(root, "servers/web-1/server.toml", f'status = "{status}"\n{TWO_DISKS}', one=one, two=two)
    told: list[tuple[int, int]] = []

    made = capture(inventory, out, "web-1", "web-1-disk1", "web-1-disk0", progress=lambda *step: told.append(step))

    assert [captured.volume.slot for captured in made] == [1, 0]
    assert [captured.path.read_bytes() for captured in made] == [two, one]
    assert [captured.size for captured in made] == [len(two), len(one)]
    assert all(captured.path.is_relative_to(out) and captured.path.stat().st_nlink == 1 for captured in made)
    assert sorted(told) == told
    assert told[-1] == (len(one) + len(two), len(one) + len(two))


def test_the_inventory_is_only_read(root: Path, inventory: Inventory, out: Path) -> None:
    folder = lay(root, "servers/web-1/server.toml", TWO_DISKS, one=build.qcow2(), two=build.raw())
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.stat().st_ino) for path in folder.iterdir()}

    capture(inventory, out, "web-1", "web-1-disk0", "web-1-disk1")
    inventory.release("j1")

    after = {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.stat().st_ino) for path in folder.iterdir()}
    assert after == before


def test_a_volume_of_no_server_is_brought(root: Path, inventory: Inventory, out: Path) -> None:
    lay(root, "volumes/v/volume.toml", 'file = "disk"', disk=build.raw())

    (made,) = capture(inventory, out, None, "v")

    assert made.path.read_bytes() == build.raw()
    assert made.volume.server_id is None


def test_holes_stay_holes(root: Path, inventory: Inventory, out: Path) -> None:
    folder = lay(root, "volumes/v/volume.toml", 'file = "disk"')
    with (folder / "disk").open("wb") as disk:
        disk.write(build.CONTENT)
        disk.truncate(GIB)

    (made,) = capture(inventory, out, None, "v")

    assert made.path.stat().st_size == GIB
    assert made.path.stat().st_blocks * 512 < 16 * build.MIB
    with made.path.open("rb") as copy:
        assert copy.read(len(build.CONTENT)) == build.CONTENT


def test_what_an_earlier_run_left_goes_first(root: Path, inventory: Inventory, out: Path) -> None:
    lay(root, "volumes/v/volume.toml", 'file = "disk"', disk=build.raw())
    for left in ("j1.0", "j1.5", "j2.0", "j1.0.note"):
        (out / left).write_bytes(b"left")

    (made,) = capture(inventory, out, None, "v")

    assert made.path.read_bytes() == build.raw()
    assert sorted(path.name for path in out.iterdir()) == sorted([made.path.name, "j2.0", "j1.0.note"])


def test_a_server_that_is_written_to_once_is_copied_again(root: Path, inventory: Inventory, out: Path) -> None:
    """The first disk changes while the second is copied: together they would be of no moment."""
    folder = lay(root, "servers/s/server.toml", TWO_DISKS, one=build.raw(), two=build.raw())
    changed = b"changed" * 10_000
    written: list[int] = []

    def progress(done: int, _total: int) -> None:
        if done > build.SIZE and not written:
            written.append((folder / "one").write_bytes(changed))

    made = capture(inventory, out, "s", "s-disk0", "s-disk1", progress=progress)

    assert [one.path.read_bytes() for one in made] == [changed, build.raw()]
    assert len(list(out.iterdir())) == 2


def test_a_disk_that_is_always_written_to_is_busy(root: Path, inventory: Inventory, out: Path) -> None:
    folder = lay(root, "volumes/v/volume.toml", 'file = "disk"', disk=build.raw())
    attempts = []

    def progress(done: int, total: int) -> None:
        if done == total:
            attempts.append((folder / "disk").write_bytes(build.raw()))

    with pytest.raises(VolumeBusy):
        capture(inventory, out, None, "v", progress=progress)

    assert len(attempts) >= ATTEMPTS
    assert list(out.iterdir()) == []


def test_a_disk_that_is_replaced_while_it_is_copied_is_copied_again(
    root: Path, inventory: Inventory, out: Path
) -> None:
    folder = lay(root, "volumes/v/volume.toml", 'file = "disk"', disk=build.raw(), other=build.raw(8 * build.MIB))

    def progress(_done: int, _total: int) -> None:
        if (folder / "other").exists():
            (folder / "other").rename(folder / "disk")

    (made,) = capture(inventory, out, None, "v", progress=progress)

    assert made.size == 8 * build.MIB
    assert made.path.read_bytes() == build.raw(8 * build.MIB)


def test_a_disk_that_becomes_shorter_is_copied_again(root: Path, inventory: Inventory, out: Path) -> None:
    folder = lay(root, "volumes/v/volume.toml", 'file = "disk"', disk=build.CONTENT * 160)

    def progress(_done: int, _total: int) -> None:
        os.truncate(folder / "disk", 64 * 1024)

    with pytest.raises(VolumeBusy):  # each truncation is a change, whatever it leaves
        capture(inventory, out, None, "v", progress=progress)

    assert list(out.iterdir()) == []


def test_the_wish_to_stop_is_looked_at_between_small_blocks(root: Path, inventory: Inventory, out: Path) -> None:
    lay(root, "volumes/v/volume.toml", 'file = "disk"', disk=build.CONTENT * 256)  # 16 MiB without holes
    told: list[int] = []

    with pytest.raises(JobCancelled):
        capture(
            inventory, out, None, "v", progress=lambda done, _total: told.append(done), cancelled=lambda: bool(told)
        )

    assert told == [BLOCK_BYTES]
    assert list(out.iterdir()) == []


def test_a_disk_that_goes_is_unusable_and_nothing_is_left(root: Path, inventory: Inventory, out: Path) -> None:
    folder = lay(root, "servers/s/server.toml", TWO_DISKS, one=build.raw(), two=build.raw())

    def progress(_done: int, _total: int) -> None:
        (folder / "two").unlink(missing_ok=True)

    with pytest.raises(VolumeUnusable):
        capture(inventory, out, "s", "s-disk0", "s-disk1", progress=progress)

    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("toml", "error"),
    [
        ('task = "resizing"\n' + ONE_DISK, ServerBusy),
        ('status = "other"\n' + ONE_DISK, ServerBusy),
        (ONE_DISK + 'status = "busy"\n', VolumeBusy),
        (ONE_DISK + 'status = "error"\n', VolumeUnusable),
    ],
    ids=["a task", "in between", "a busy disk", "a bad disk"],
)
def test_what_is_not_at_rest_is_not_brought(
    root: Path, inventory: Inventory, out: Path, toml: str, error: type[CalotypeError]
) -> None:
    lay(root, "servers/s/server.toml", toml, disk=build.raw())

    with pytest.raises(error):
        capture(inventory, out, "s", "s-disk0")

    assert list(out.iterdir()) == []


def test_a_disk_of_another_server_is_not_brought(root: Path, inventory: Inventory, out: Path) -> None:
    lay(root, "servers/s/server.toml", ONE_DISK, disk=build.raw())
    lay(root, "servers/t/server.toml", ONE_DISK, disk=build.raw())
    lay(root, "volumes/v/volume.toml", 'file = "disk"', disk=build.raw())

    for server_id, volume_id in (("s", "t-disk0"), ("s", "v"), (None, "s-disk0"), ("s", "none"), (None, "none")):
        with pytest.raises(VolumeUnusable):
            capture(inventory, out, server_id, volume_id)


def test_all_disks_of_a_backup_are_brought(root: Path, inventory: Inventory, out: Path) -> None:
    lay(root, "backups/b/backup.toml", TWO_DISKS, one=build.qcow2(), two=build.raw())

    made = inventory.capture_backup(DEMO, "b", out, name="j1", progress=quiet, cancelled=never)

    assert [captured.path.read_bytes() for captured in made] == [build.qcow2(), build.raw()]
    assert [captured.volume.slot for captured in made] == [0, 1]


@pytest.mark.parametrize(
    "toml",
    ['status = "creating"\n' + ONE_DISK, "accessible = false\n" + ONE_DISK, '[[disks]]\nfile = "gone"\n'],
    ids=["creating", "not accessible", "a disk is missing"],
)
def test_a_backup_that_is_not_whole_is_not_brought(root: Path, inventory: Inventory, out: Path, toml: str) -> None:
    lay(root, "backups/b/backup.toml", toml, disk=build.raw())

    with pytest.raises(BackupUnusable):
        inventory.capture_backup(DEMO, "b", out, name="j1", progress=quiet, cancelled=never)

    assert list(out.iterdir()) == []


# --- QEMU -------------------------------------------------------------------------------------------------------------


@contextmanager
def opened_by_qemu(path: Path, *options: str) -> Iterator[None]:
    """A QEMU block layer that has the image open, as a virtual machine has it."""
    command = ["qemu-io", "-f", "qcow2", *options, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("length\n")
        process.stdin.flush()
        assert "4 MiB" in process.stdout.readline()
        yield
        process.stdin.close()
        process.wait(timeout=30)


def test_a_disk_that_qemu_writes_to_is_busy(root: Path, inventory: Inventory, out: Path) -> None:
    folder = lay(root, "servers/s/server.toml", 'status = "running"\n' + ONE_DISK, disk=build.qcow2())

    with opened_by_qemu(folder / "disk"), pytest.raises(VolumeBusy, match="in use by a virtual machine"):
        capture(inventory, out, "s", "s-disk0")

    assert list(out.iterdir()) == []
    assert len(capture(inventory, out, "s", "s-disk0")) == 1


def test_a_disk_that_qemu_only_reads_is_brought(root: Path, inventory: Inventory, out: Path) -> None:
    folder = lay(root, "servers/s/server.toml", ONE_DISK, disk=build.qcow2())

    with opened_by_qemu(folder / "disk", "-r"):
        (made,) = capture(inventory, out, "s", "s-disk0")

    assert made.path.read_bytes() == build.qcow2()


def test_a_look_at_the_lock_is_in_no_servers_way(root: Path, inventory: Inventory, out: Path) -> None:
    """A server that is started while its disk is copied gets its locks."""
    folder = lay(root, "servers/s/server.toml", ONE_DISK, disk=build.qcow2())
    started: list[bool] = []

    def progress(_done: int, _total: int) -> None:
        with opened_by_qemu(folder / "disk"):
            started.append(True)

    (made,) = capture(inventory, out, "s", "s-disk0", progress=progress)

    assert started
    assert made.path.read_bytes() == build.qcow2()
