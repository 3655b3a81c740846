"""`make bench-imports`: imports with conversion, by the service and by the bare tool, lap by lap. Asserts nothing.

The bare tool: `qemu-img convert` to compressed qcow2 with the same options, then md5 and sha512 of its result in two
threads. The service: from the submission to SUCCESS, with all that it checks. The disk is that of `make bench-writers`.
"""

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct
from tests.service import Client, Service

from bench.writers import GIB, LARGE, MIB, mixed, used

LAPS: Final = 3
EACH_S: Final = 0.02  # between two looks at the memory and the disk
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
TICK: Final = os.sysconf("SC_CLK_TCK")
BUCKET: Final = "bench"
ZSTD: Final = ("-c", "-W", "-m", "16", "-O", "qcow2", "-o", "compression_type=zstd")
# What qemu-img calls a source, and with which options it is made.
SOURCES: Final = {
    "raw": ("raw", ""),
    "vmdk": ("vmdk", "subformat=monolithicSparse"),
    "stream.vmdk": ("vmdk", "subformat=streamOptimized"),
    "vhd": ("vpc", "subformat=dynamic,force_size=on"),
    "vhdx": ("vhdx", ""),
    "snapshot.qcow2": ("qcow2", ""),
}


class Lap(Struct, frozen=True, kw_only=True):
    seconds: float
    cpu: float  # seconds


class Peaks:
    """The most that a worker, its children and its files have taken while this is open."""

    def __init__(self, service: Service) -> None:
        self._folders = [service.data_dir / name for name in ("scratch", "blobs")]
        self._service = service
        self._known = {(found.st_dev, found.st_ino) for found in self._files(service.data_dir)}
        self.worker = self.child = self.disk = 0  # bytes
        self.program = ""  # the largest child
        self._spent: dict[int, float] = {}  # of each process, seconds

    def __enter__(self) -> "Peaks":
        self._pid = self._service.worker_pid()
        self._over = threading.Event()
        self._before = _cpu_of(self._pid)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def cpu(self) -> float:
        """Seconds, of all of them. bubblewrap does not wait for its child, so that nobody else adds them up."""
        return sum(self._spent.values()) - self._before

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(EACH_S):
            self.worker = max(self.worker, _resident(self._pid))
            self._spent[self._pid] = _cpu_of(self._pid)
            for child in _below(self._pid):
                self._spent[child] = max(self._spent.get(child, 0.0), _cpu_of(child))
                size = _resident(child)
                if size > self.child:
                    self.child, self.program = size, _name(child)
            found = {(file.st_dev, file.st_ino): file.st_blocks * 512 for folder in self._folders
                     for file in self._files(folder)}  # fmt: skip
            self.disk = max(self.disk, sum(size for name, size in found.items() if name not in self._known))

    @staticmethod
    def _files(folder: Path) -> Iterator[os.stat_result]:
        for inside, _, names in os.walk(folder):
            for name in names:
                try:
                    yield (Path(inside) / name).stat()
                except OSError:  # it is gone meanwhile
                    continue


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _below(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return [one for child in found for one in (child, *_below(child))]


def _cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def bare(source: Path, qemu_name: str, target: Path) -> Lap:
    began, cpu = time.perf_counter(), used()
    subprocess.run(["qemu-img", "convert", "-f", qemu_name, *ZSTD, source, target], check=True)

    def digest(name: str) -> None:
        with target.open("rb") as file:
            hashlib.file_digest(file, name)

    threads = [threading.Thread(target=digest, args=(name,)) for name in ("md5", "sha512")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Lap(seconds=time.perf_counter() - began, cpu=used() - cpu)


def served(service: Service, client: Client, names: list[str]) -> tuple[Lap, Peaks, int]:
    """Imports of these objects at once; the images are removed again. And the bytes of the results."""
    with Peaks(service) as peaks:
        began = time.perf_counter()
        jobs = [client.import_image(f"{BUCKET}:{name}", "bench", min_disk=201) for name in names]
        ended = [client.succeeded(job, within_s=3600) for job in jobs]
        seconds = time.perf_counter() - began
    lap = Lap(seconds=seconds, cpu=peaks.cpu())
    images = [str(job["entities"]["image_id"]) for job in ended]
    size = sum(int(client.image(image)["size"]) for image in images)
    for image in images:
        client.http.delete(f"/v2/images/{image}").raise_for_status()
    return lap, peaks, size


def made(folder: Path) -> tuple[dict[str, Path], Path]:
    """A file of each format with the same disk, and one with its data in a disk of 200 GiB."""
    raw, large = folder / "disk.raw", folder / "large.raw"
    with raw.open("wb") as one, large.open("wb") as other:
        for number, data in enumerate(mixed(GIB)):
            one.write(data)
            other.seek(number * (LARGE // 1024))
            other.write(data)
        other.truncate(LARGE)
    sources = {"raw": raw}
    for name, (qemu_name, options) in SOURCES.items():
        if name != "raw":
            sources[name] = _converted(raw, folder / f"disk.{name}", qemu_name, options)
    subprocess.run(["qemu-img", "snapshot", "-c", "before", sources["snapshot.qcow2"]], check=True)
    return sources, _converted(large, folder / "large.vmdk", *SOURCES["vmdk"])


def _converted(source: Path, target: Path, qemu_name: str, options: str) -> Path:
    words = ["-o", options] if options else []
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", qemu_name, *words, source, target], check=True)
    return target


def told(peaks: Peaks, size: int) -> str:
    child = f"largest child {peaks.child / MIB:.0f} MiB ({peaks.program})"
    return f"worker {peaks.worker / MIB:.0f} MiB, {child}; on the disk {peaks.disk / size:.2f} x the result"


def measure(service: Service, client: Client, folder: Path, wanted: list[str]) -> None:
    sources, large = made(folder)
    for name in wanted:
        client.put_object(BUCKET, name, sources[name])
        times, cpus, peaks, size = [], [], Peaks(service), 1
        for _ in range(LAPS):
            reference = bare(sources[name], SOURCES[name][0], folder / "bare")
            lap, peaks, size = served(service, client, [name])
            times.append(lap.seconds / reference.seconds)
            cpus.append(lap.cpu / reference.cpu)
            print(f"  {name}: {lap.seconds:.1f} s, {lap.cpu:.1f} s of CPU; bare {reference.seconds:.1f} s,"
                  f" {reference.cpu:.1f} s of CPU; load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
        print(f"{name}: {statistics.median(times):.2f} x, of CPU {statistics.median(cpus):.2f} x; {told(peaks, size)}")
    both = wanted[:2]
    lap, peaks, size = served(service, client, both)
    print(f"{' and '.join(both)} at once: {lap.seconds:.1f} s, {lap.cpu:.1f} s of CPU; {told(peaks, size)}")
    client.put_object(BUCKET, "large", large)
    lap, peaks, size = served(service, client, ["large"])
    print(
        f"1 GiB of data in a disk of 200 GiB (vmdk): {lap.seconds:.1f} s, {lap.cpu:.1f} s of CPU; {told(peaks, size)}"
    )


def main() -> None:
    """The formats that are named, or all."""
    with tempfile.TemporaryDirectory(prefix="calotype-bench-") as temporary:
        service = Service(Path(temporary)).start()
        try:
            with service.demo() as client:
                print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
                measure(service, client, Path(temporary), sys.argv[1:] or list(SOURCES))
        finally:
            service.stop()


if __name__ == "__main__":
    main()
