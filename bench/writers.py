"""`make bench-writers`: compressed exports by our own writers and by qemu-img, one after the other. Asserts nothing.

The disk: 1 GiB of data, most of it what lies in /usr, an eighth random, an eighth zeros; stored as qcow2 with zstd, as
an import stores it. Then the same within a disk of 200 GiB.
"""

import asyncio
import os
import random
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from calotype.disks.convert import Converter
from calotype.disks.model import DiskFormat
from calotype.disks.sandbox import Sandbox
from calotype.disks.targets import TargetKind

MIB: Final = 1024**2
GIB: Final = 1024**3
LARGE: Final = 200 * GIB
QEMU_IMG: Final = {
    TargetKind.VMDK_STREAM: ("-O", "vmdk", "-o", "subformat=streamOptimized"),
    TargetKind.QCOW2_ZLIB: ("-c", "-O", "qcow2", "-o", "compression_type=zlib"),
}
FORMATS: Final = {TargetKind.VMDK_STREAM: DiskFormat.VMDK, TargetKind.QCOW2_ZLIB: DiskFormat.QCOW2}


class Lap(Struct, frozen=True, kw_only=True):
    seconds: float
    cpu: float  # seconds, of this process and its children; not of those in bubblewrap, which does not wait for them
    written: int  # bytes


def mixed(size: int) -> Iterator[bytes]:
    """`size` bytes by the MiB, the same on the same machine."""
    dice, found = random.Random(5), bytearray()
    files = (path for path in sorted(Path("/usr").rglob("*")) if path.is_file() and not path.is_symlink())
    for number in range(size // MIB):
        while len(found) < MIB:
            found += next(files).read_bytes()
        match number % 8:
            case 3:
                yield dice.randbytes(MIB)
            case 6:
                yield bytes(MIB)
            case _:
                yield bytes(found[:MIB])
                del found[:MIB]


def used() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def ours(source: Path, format_: DiskFormat, target: Path, kind: TargetKind, size: int) -> Lap:
    converter = Converter(Sandbox.detect(required=False))
    began, cpu = time.perf_counter(), used()
    asyncio.run(converter.convert(source, format_, target, kind, virtual_size=size, progress=lambda _: None))
    return Lap(seconds=time.perf_counter() - began, cpu=used() - cpu, written=target.stat().st_size)


def theirs(source: Path, format_: DiskFormat, target: Path, kind: TargetKind, *words: str) -> Lap:
    began, cpu = time.perf_counter(), used()
    subprocess.run(["qemu-img", "convert", *words, "-f", format_, *QEMU_IMG[kind], source, target], check=True)
    return Lap(seconds=time.perf_counter() - began, cpu=used() - cpu, written=target.stat().st_size)


def told(name: str, lap: Lap, against: Lap | None = None) -> None:
    ratio = f"; {against.seconds / lap.seconds:.1f} x, of CPU {against.cpu / lap.cpu:.1f} x" if against else ""
    print(f"  {name}: {lap.seconds:.1f} s, {lap.cpu:.1f} s of CPU, {lap.written / MIB:.0f} MiB{ratio}")


class Peak:
    """The largest resident size of this process while it is open, seen each 20 ms."""

    def __enter__(self) -> "Peak":
        self._over = threading.Event()
        self.bytes = self.before = self._now()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.bytes = max(self.bytes, self._now())

    @staticmethod
    def _now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="calotype-bench-") as name:
        folder = Path(name)
        raw, large = folder / "disk.raw", folder / "large.raw"
        stored, stored_large = folder / "disk.qcow2", folder / "large.qcow2"
        with raw.open("wb") as one, large.open("wb") as other:
            for number, data in enumerate(mixed(GIB)):
                one.write(data)
                other.seek(number * (LARGE // 1024))
                other.write(data)
            one.truncate(GIB)
            other.truncate(LARGE)
        for source, target in ((raw, stored), (large, stored_large)):
            words = ["-f", "raw", "-c", "-W", "-m", "16", "-O", "qcow2", "-o", "compression_type=zstd"]
            subprocess.run(["qemu-img", "convert", *words, source, target], check=True)
        large.unlink()
        for kind in QEMU_IMG:
            print(f"{kind}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}:")
            made = folder / "made"
            with Peak() as peak:
                mine = ours(stored, DiskFormat.QCOW2, made, kind, GIB)
            subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", FORMATS[kind], raw, made], check=True)
            plain = theirs(stored, DiskFormat.QCOW2, folder / "theirs", kind)
            told("qemu-img convert", plain)
            if kind is TargetKind.QCOW2_ZLIB:
                told("qemu-img convert -W -m 16", theirs(stored, DiskFormat.QCOW2, made, kind, "-W", "-m", "16"))
            told("ours", mine, plain)
            told("ours from raw", ours(raw, DiskFormat.RAW, made, kind, GIB), plain)
            told("ours, in a disk of 200 GiB", ours(stored_large, DiskFormat.QCOW2, made, kind, LARGE))
            print(f"  memory of ours: {(peak.bytes - peak.before) / MIB:.0f} MiB more than before")


if __name__ == "__main__":
    main()
