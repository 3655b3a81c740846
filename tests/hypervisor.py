"""A real libvirt daemon of a test's own, with real QEMU guests in software emulation.

The daemon is one of a session, in a folder of its own, with sockets that no other knows. As root it runs under an
unprivileged user, so that it and the service are not the same; what they share is a group.
"""

import grp
import os
import pwd
import shutil
import signal
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.service import until

USER, GROUP = "nobody", "nogroup"
NEEDED: Final = ("libvirtd", "virsh", "qemu-system-x86_64", "qemu-img", "setpriv")
MIB: Final = 1024 * 1024
SECTOR: Final = 512


class Hypervisor:
    def __init__(self, folder: Path) -> None:
        self.folder = folder  # where its user may read and write
        self.uri = f"qemu:///session?socket={folder}/run/libvirt/libvirt-sock"
        self.exchange = folder / "exchange"
        for name in ("run", "home", "exchange"):
            self.own(folder / name, 0o2770 if name == "exchange" else 0o755, make=True)
        (folder / "home/libvirt").mkdir()
        (folder / "home/libvirt/qemu.conf").write_text('stdio_handler = "file"\n')
        (folder / "libvirtd.conf").write_text(f'log_outputs = "2:file:{folder}/run/log"\n')
        self.own(folder / "home/libvirt")
        as_user = [] if os.getuid() else ["--reuid", USER, "--regid", GROUP, "--clear-groups"]
        self._daemon = subprocess.Popen(
            ["setpriv", *as_user, "--pdeathsig", "TERM", "libvirtd", "--config", str(folder / "libvirtd.conf")],
            env={
                "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
                "HOME": f"{folder}/home",
                "XDG_RUNTIME_DIR": f"{folder}/run",
                "XDG_CONFIG_HOME": f"{folder}/home",
                "XDG_CACHE_HOME": f"{folder}/home/cache",
                "XDG_DATA_HOME": f"{folder}/home/data",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        until(lambda: not self.try_virsh("version").returncode, "libvirtd to answer")

    def own(self, path: Path, mode: int | None = None, *, make: bool = False) -> None:
        """Give a file or a folder to the hypervisor."""
        if make:
            path.mkdir()
        if os.getuid() == 0:
            os.chown(path, pwd.getpwnam(USER).pw_uid, grp.getgrnam(GROUP).gr_gid)
        if mode is not None:
            path.chmod(mode)

    def try_virsh(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["virsh", "--quiet", "--connect", self.uri, *words], capture_output=True, text=True, timeout=60, check=False
        )

    def virsh(self, *words: str) -> str:
        done = self.try_virsh(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def file(self, name: str, content: bytes = b"", *, size: int = 0) -> Path:
        """A raw disk: `content`, then a hole up to `size`."""
        path = self.folder / name
        path.write_bytes(content)
        os.truncate(path, max(size, len(content)))
        self.own(path, 0o644)
        return path

    def qcow2(self, name: str, *words: str) -> Path:
        path = self.folder / name
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words[:-1], path, *words[-1:]], check=True)
        self.own(path, 0o644)
        return path

    def define(
        self,
        *disks: str,
        name: str = "",
        marked: str = 'project="demo"',
        rest: str = "",
        os: str = "",
        memory_mib: int = 96,
    ) -> str:
        """A domain with these disks, stopped; its UUID."""
        text = description(name or f"server-{uuid.uuid4().hex[:8]}", disks, marked, rest, os, memory_mib)
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(text)
            file.flush()
            self.virsh("define", file.name)
        return text.split("<uuid>")[1].split("<")[0]

    def state(self, domain: str) -> str:
        return self.virsh("domstate", domain)

    def has_job(self, domain: str) -> bool:
        return "None" not in self.virsh("domjobinfo", domain)

    def end(self) -> None:
        for domain in self.try_virsh("list", "--uuid").stdout.split():
            self.try_virsh("destroy", domain)
        self._daemon.send_signal(signal.SIGTERM)
        self._daemon.wait(30)


def description(name: str, disks: Sequence[str], marked: str, rest: str, os: str, memory_mib: int) -> str:
    mark = f'<metadata><c:server xmlns:c="https://calotype.dev/xmlns/1" {marked}/></metadata>' if marked else ""
    return f"""<domain type='qemu'><name>{name}</name><uuid>{uuid.uuid4()}</uuid>{mark}
      <memory unit='MiB'>{memory_mib}</memory>
      <os><type arch='x86_64' machine='pc'>hvm</type>{os}</os><features><acpi/></features>
      <devices>{"".join(disks)}{rest}<memballoon model='none'/></devices></domain>"""


def disk(path: Path, target: str = "vda", kind: str = "raw", *, more: str = "", source: str = "file") -> str:
    """The description of a disk in a file or block device."""
    attribute = "dev" if source == "block" else "file"
    return f"""<disk type='{source}' device='disk'><driver name='qemu' type='{kind}'/><source {attribute}='{path}'/>
      <target dev='{target}' bus='virtio'/>{more}</disk>"""


def backed_by(path: Path, kind: str, below: str = "<backingStore/>") -> str:
    return f"<backingStore type='file'><format type='{kind}'/><source file='{path}'/>{below}</backingStore>"


@contextmanager
def hypervisor() -> Iterator[Hypervisor]:
    """Skips where libvirt is not installed."""
    missing = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        pytest.skip(f"wants {', '.join(missing)}: make test-services")
    # A socket's path may have 107 characters, and the hypervisor's user must be able to come here.
    with tempfile.TemporaryDirectory(prefix="calotype-libvirt-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        running = Hypervisor(Path(name))
        try:
            yield running
        finally:
            running.end()


def counting_boot_sector(first_lba: int, second_lba: int) -> bytes:
    """A guest for a disk's first sector: it counts, and writes each number first to the sector `first_lba` of its first
    disk, then to `second_lba` of its second. At any moment the numbers are equal, or the first is one ahead."""
    counter = 0x8000
    start = bytes.fromhex("31c0 8ed8 8ec0 8ed0 bc007c")  # xor ax, ax; mov ds, ax; es; ss; mov sp, 0x7c00
    start += b"\x66\xc7\x06" + struct.pack("<HI", counter, 0)  # mov dword [counter], 0
    packets = 0x7C00 + 0x100

    def write(drive: int, packet: int) -> bytes:
        # mov dl, drive; mov si, packet; mov ax, 0x4300; int 0x13
        return bytes([0xB2, drive, 0xBE]) + struct.pack("<H", packet) + bytes.fromhex("b80043 cd13")

    loop = b"\x66\xff\x06" + struct.pack("<H", counter) + write(0x80, packets) + write(0x81, packets + 16)
    loop += bytes([0xEB, 256 - len(loop) - 2])  # jmp loop
    places = [struct.pack("<BBHHHQ", 16, 0, 1, counter, 0, lba) for lba in (first_lba, second_lba)]
    return ((start + loop).ljust(0x100, b"\0") + b"".join(places)).ljust(510, b"\0") + b"\x55\xaa"


def counted(path: Path, lba: int) -> int:
    with path.open("rb") as file:
        file.seek(lba * SECTOR)
        return int.from_bytes(file.read(4), "little")


# The whole of a guest: an agent that answers on its channel, and says on the first disk what it was told last. The
# first letter of the second disk says how it does so: (n)ormally, (s)lowly, or not at all (m).
AGENT: Final = rb"""#!/usr/bin/busybox sh
b=/usr/bin/busybox
$b mkdir -p /dev /proc /sys
$b mount -t devtmpfs none /dev
$b mount -t proc none /proc
$b mount -t sysfs none /sys
modprobe virtio_pci; modprobe virtio_blk; modprobe virtio_console
until [ -e /dev/vda ] && [ -e /dev/vdb ] && [ -e /dev/vport*p1 ]; do $b sleep 0.1; done
say() { echo "$1" | $b dd of=/dev/vda bs=512 conv=sync,fsync,notrunc 2>/dev/null; }
for port in /dev/vport*p1; do exec 3<>"$port"; done
say ready
while :; do
  read -r line <&3 || { $b sleep 0.2; continue; } # no one is at the other end yet
  mode=$($b dd if=/dev/vdb bs=4096 count=1 iflag=direct 2>/dev/null | $b head -c 1)
  [ "$mode" = m ] && continue
  id=$(echo "$line" | $b sed -n 's/.*"id": *\([0-9]*\).*/\1/p')
  case $line in
    *guest-sync*) echo "{\"return\": $id}" >&3 ;;
    *get-time*) echo '{"return": 1000000000}' >&3 ;;
    *fsfreeze-freeze*) say frozen; [ "$mode" = s ] && $b sleep 4; echo '{"return": 1}' >&3 ;;
    *fsfreeze-thaw*) say thawed; echo '{"return": 1}' >&3 ;;
    *) echo '{"error": {"class": "CommandNotFound", "desc": "no such command"}}' >&3 ;;
  esac
done
"""


def channel(socket: Path) -> str:
    """The description of the channel that an agent answers on, and of the console that a Linux guest wants."""
    target = "<target type='virtio' name='org.qemu.guest_agent.0'/>"
    return f"<channel type='unix'><source mode='bind' path='{socket}'/>{target}</channel><serial type='null'/>"


def with_agent(initrd: bytes) -> bytes:
    """The initial file system of a Linux guest, and `/agent` in it."""
    return initrd + bytes(-len(initrd) % 4) + _entry(b"agent", 0o100755, AGENT) + _entry(b"TRAILER!!!", 0, b"")


def _entry(name: bytes, mode: int, content: bytes) -> bytes:
    """Of a cpio archive in the "newc" format. Source: Linux, Documentation/driver-api/early-userspace/buffer-format."""
    numbers = (1 if mode else 0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + name + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
