"""qcow2 files that qemu has made in many ways, read directly: the same bytes that qemu reads."""

import random
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from tests.units.test_disks_writers_qcow2 import guest

SECTOR: Final = 512
RUNS: Final = b"".join(bytes([number % 251]) * (1 + number % 90) for number in range(6000))
CONTENT: Final = RUNS + random.Random(4).randbytes(100_000)


class Made(Struct, frozen=True):
    """How an image is made."""

    options: str
    cluster: int
    size: int
    steps: tuple[tuple[str, int, int], ...]  # what, its first byte, how many
    snapshot: bool  # before the last half of the steps


@st.composite
def images(draw: st.DrawFn) -> Made:
    bits = draw(st.sampled_from([9, 12, 16, 21]))
    version = draw(st.sampled_from(["compat=0.10", "compat=1.1", "compat=1.1,compression_type=zstd"]))
    cluster = 1 << bits
    most = 40 * cluster if bits < 21 else 5 * cluster
    size = draw(st.integers(1, most // SECTOR)) * SECTOR
    kinds = ["write", "compressed", "discard", *(["zero", "zero and unmap"] if "1.1" in version else [])]
    steps = []
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=12)):
        if kind == "compressed":
            if size < cluster:
                continue
            steps.append((kind, draw(st.integers(0, size // cluster - 1)) * cluster, cluster))
        else:
            first = draw(st.integers(0, size // SECTOR - 1))
            steps.append((kind, first * SECTOR, draw(st.integers(1, min(size // SECTOR - first, 600))) * SECTOR))
    return Made(f"{version},cluster_size={cluster}", cluster, size, tuple(steps), draw(st.booleans()))


def command(kind: str, at: int, length: int, pattern: Path) -> str:
    match kind:
        case "write":
            return f"write -s {pattern} {at} {length}"
        case "compressed":
            return f"write -c -s {pattern} {at} {length}"
        case "zero":
            return f"write -z {at} {length}"
        case "zero and unmap":
            return f"write -z -u {at} {length}"
        case _:
            return f"discard {at} {length}"


def carried_out(image: Path, steps: tuple[tuple[str, int, int], ...], pattern: Path) -> None:
    """Some qemu refuses, as to compress what is there already: what it reads afterwards is what counts."""
    words = [word for step in steps for word in ("-c", command(*step, pattern))]
    if words:
        subprocess.run(["qemu-io", "-f", "qcow2", "-d", "unmap", *words, image], check=False, capture_output=True)


@settings(deadline=None, max_examples=20)
@given(made=images())
def test_the_bytes_are_those_that_qemu_reads(made: Made) -> None:
    with TemporaryDirectory() as name:
        image, raw, pattern = Path(name) / "image", Path(name) / "raw", Path(name) / "pattern"
        pattern.write_bytes(CONTENT)
        words = ["-f", "qcow2", "-o", made.options, str(image), str(made.size)]
        subprocess.run(["qemu-img", "create", "-q", *words], check=True)
        half = len(made.steps) // 2
        carried_out(image, made.steps[:half], pattern)
        if made.snapshot:
            subprocess.run(["qemu-img", "snapshot", "-c", "before", image], check=True)
        carried_out(image, made.steps[half:], pattern)
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw], check=True)

        assert guest(image) == raw.read_bytes()
