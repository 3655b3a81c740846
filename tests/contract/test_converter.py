"""Real qemu-img in the real sandbox, on a real Linux image and on small ones."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from calotype.disks.convert import CHECKED, OVERHEAD_BYTES, Converter, failure, told
from calotype.disks.gate import inspect
from calotype.disks.model import DiskFormat, Inspection
from calotype.disks.sandbox import Result, Sandbox
from calotype.disks.targets import TargetKind
from calotype.errors import ConversionFailed, DiskRefused, NoSpace, TruncatedDisk, VerificationFailed
from tests.disks import build, corpus
from tests.disks.corpus import Case

GIB: Final = 1024**3
SCATTERED: Final = 40 * 1024**2 + 512
FORMATS: Final = {
    TargetKind.QCOW2: DiskFormat.QCOW2,
    TargetKind.QCOW2_ZSTD: DiskFormat.QCOW2,
    TargetKind.QCOW2_ZLIB: DiskFormat.QCOW2,
    TargetKind.RAW: DiskFormat.RAW,
    TargetKind.VMDK_STREAM: DiskFormat.VMDK,
    TargetKind.VMDK_SPARSE: DiskFormat.VMDK,
    TargetKind.VHD: DiskFormat.VHD,
    TargetKind.VHD_FIXED: DiskFormat.VHD,
    TargetKind.VHDX: DiskFormat.VHDX,
    TargetKind.VDI: DiskFormat.VDI,
}


@pytest.fixture(scope="module", params=["bubblewrap", "limits"])
def converter(request: pytest.FixtureRequest) -> Converter:
    """With the strongest sandbox of this host, and with the one for a host without user namespaces."""
    if request.param == "limits":
        return Converter(Sandbox(bubblewrap=[]))
    return Converter(Sandbox.detect(required=False))


def quiet(_: float) -> None:
    pass


def looked_at(path: Path, declared: str | None = None) -> Inspection:
    with path.open("rb") as file:
        return inspect(file, declared=declared, most_virtual_bytes=1024**4)


def made_by_qemu_img(source: Path, target: Path, *words: str, check: bool = True) -> Path:
    subprocess.run(["qemu-img", "convert", "-f", "raw", *words, source, target], check=check, capture_output=True)
    return target


@pytest.fixture(scope="session")
def alpine_raw(alpine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("alpine") / "alpine.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", alpine, target], check=True)
    return target


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.raw"
    path.write_bytes(build.raw())
    return path


# --- a real image -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TargetKind)
async def test_a_real_image_survives_every_format_and_the_way_back(
    kind: TargetKind, alpine: Path, tmp_path: Path
) -> None:
    converter = Converter(Sandbox.detect(required=False))
    there, back, seen = tmp_path / "there", tmp_path / "back", list[float]()

    await converter.convert(alpine, DiskFormat.QCOW2, there, kind, virtual_size=GIB, progress=seen.append)
    found = looked_at(there, FORMATS[kind])
    await converter.check(there, found.format)
    await converter.compare(alpine, DiskFormat.QCOW2, there, found.format, virtual_size=GIB, progress=quiet)
    await converter.convert(there, found.format, back, TargetKind.QCOW2, virtual_size=GIB, progress=quiet)
    await converter.compare(alpine, DiskFormat.QCOW2, back, DiskFormat.QCOW2, virtual_size=GIB, progress=quiet)

    assert found.virtual_size == GIB
    assert seen == sorted(set(seen))
    assert seen[-1] == 1.0
    assert len(seen) > 10


@pytest.mark.parametrize(
    ("format_", "words"),
    [
        (DiskFormat.VMDK, ("-O", "vmdk", "-o", "subformat=monolithicSparse")),
        (DiskFormat.VHD, ("-O", "vpc", "-o", "subformat=fixed,force_size=on")),
    ],
)
async def test_a_real_image_is_read_from_what_others_write(
    format_: DiskFormat, words: tuple[str, ...], alpine_raw: Path, tmp_path: Path
) -> None:
    await written_and_read(alpine_raw, GIB, format_, words, tmp_path)


@pytest.mark.parametrize(
    ("format_", "words"),
    [
        (DiskFormat.VMDK, ("-O", "vmdk", "-o", "subformat=monolithicSparse,zeroed_grain=on")),
        (DiskFormat.VHD, ("-O", "vpc", "-o", "subformat=dynamic,force_size=on")),
        (DiskFormat.VHDX, ("-O", "vhdx", "-o", "subformat=fixed")),
        (DiskFormat.VHDX, ("-O", "vhdx", "-o", "block_size=32M,block_state_zero=off")),
        (DiskFormat.VDI, ("-O", "vdi", "-o", "static=on")),
        (DiskFormat.QCOW2, ("-O", "qcow2", "-o", "compat=0.10")),
        (DiskFormat.QCOW2, ("-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k")),
        (DiskFormat.QCOW2, ("-O", "qcow2", "-o", "cluster_size=512")),
        (DiskFormat.QCOW2, ("-O", "qcow2", "-o", "cluster_size=2M,preallocation=metadata")),
        (DiskFormat.QCOW2, ("-O", "qcow2", "-o", "cluster_size=4k,refcount_bits=1,lazy_refcounts=on")),
        (DiskFormat.QCOW2, ("-c", "-O", "qcow2", "-o", "cluster_size=4k")),
        (DiskFormat.QED, ("-O", "qed")),
        (DiskFormat.QED, ("-O", "qed", "-o", "cluster_size=4k,table_size=2")),
        (DiskFormat.QED, ("-O", "qed", "-o", "cluster_size=1M,table_size=8")),
        (DiskFormat.QCOW, ("-O", "qcow")),
    ],
)
async def test_every_kind_that_others_write_is_read(
    format_: DiskFormat, words: tuple[str, ...], tmp_path: Path
) -> None:
    source = tmp_path / "scattered.raw"
    with source.open("wb") as file:
        file.truncate(SCATTERED)
        for place in range(0, SCATTERED, 700_000):
            file.seek(place)
            file.write(os.urandom(50_000) + b"text " * 10_000)
        file.truncate(SCATTERED)

    await written_and_read(source, SCATTERED, format_, words, tmp_path)


async def written_and_read(
    source: Path, size: int, format_: DiskFormat, words: tuple[str, ...], tmp_path: Path
) -> None:
    converter = Converter(Sandbox.detect(required=False))
    theirs, ours = made_by_qemu_img(source, tmp_path / "theirs", *words), tmp_path / "ours"

    found = looked_at(theirs, format_)
    await converter.check(theirs, format_)
    await converter.convert(theirs, format_, ours, TargetKind.QCOW2_ZSTD, virtual_size=size, progress=quiet)
    await converter.compare(source, DiskFormat.RAW, ours, DiskFormat.QCOW2, virtual_size=size, progress=quiet)

    assert found.virtual_size == looked_at(ours).virtual_size == size


async def test_a_compressed_qcow_is_read(tmp_path: Path) -> None:
    """qemu-img writes it whole, and then says that it has failed: what it wrote is compared, not asked about."""
    converter, size = Converter(Sandbox.detect(required=False)), 2 * 1024**2
    source, theirs, ours = tmp_path / "full.raw", tmp_path / "theirs", tmp_path / "ours"
    source.write_bytes(b"".join(os.urandom(50_000) + b"text " * 10_000 for _ in range(100))[:size])
    made_by_qemu_img(source, theirs, "-c", "-O", "qcow", check=False)

    found = looked_at(theirs, DiskFormat.QCOW)
    await converter.convert(theirs, DiskFormat.QCOW, ours, TargetKind.QCOW2_ZSTD, virtual_size=size, progress=quiet)
    await converter.compare(source, DiskFormat.RAW, ours, DiskFormat.QCOW2, virtual_size=size, progress=quiet)

    assert found.virtual_size == size > theirs.stat().st_size


@pytest.mark.parametrize("name", [name for name in build.SOUND if name != "iso"])
async def test_images_built_by_hand_hold_what_they_say(
    name: str, converter: Converter, tmp_path: Path, small: Path
) -> None:
    """The corpus of hostile images bends these, so these must be right."""
    path = tmp_path / "built"
    path.write_bytes(build.SOUND[name]())

    await converter.check(path, DiskFormat(build.FORMAT_OF[name]))
    await converter.compare(
        path, DiskFormat(build.FORMAT_OF[name]), small, DiskFormat.RAW, virtual_size=build.SIZE, progress=quiet
    )


@pytest.mark.parametrize("size", [512, 512 * 3, 1024**2 + 512, 3 * 1024**2 + 4096 + 512])
@pytest.mark.parametrize("kind", TargetKind)
async def test_odd_sizes_stay_what_they_are(kind: TargetKind, size: int, tmp_path: Path) -> None:
    converter = Converter(Sandbox.detect(required=False))
    source, target = tmp_path / "odd.raw", tmp_path / "odd"
    source.write_bytes(os.urandom(size))

    await converter.convert(source, DiskFormat.RAW, target, kind, virtual_size=size, progress=quiet)
    await converter.compare(source, DiskFormat.RAW, target, FORMATS[kind], virtual_size=size, progress=quiet)

    assert looked_at(target, FORMATS[kind]).virtual_size == size


async def test_an_iso_image_is_copied_as_a_disk(converter: Converter, tmp_path: Path) -> None:
    source, target = tmp_path / "disc", tmp_path / "disc.raw"
    source.write_bytes(build.iso())

    await converter.convert(source, DiskFormat.ISO, target, TargetKind.RAW, virtual_size=131072, progress=quiet)

    assert target.read_bytes() == build.iso()


async def test_a_vhd_of_another_maker_is_as_large_as_it_says(converter: Converter, tmp_path: Path) -> None:
    """QEMU goes by the geometry of a maker that it does not know, and would cut the disk."""
    source, target = tmp_path / "box.vhd", tmp_path / "box.raw"
    footer = build.vhd_footer(kind=2, creator=b"vbox", geometry=(120, 4, 17))
    source.write_bytes(build.vhd_fixed(footer=footer))

    size = looked_at(source).virtual_size
    await converter.convert(source, DiskFormat.VHD, target, TargetKind.RAW, virtual_size=size, progress=quiet)

    assert target.stat().st_size == size == build.SIZE


# --- comparing and checking -------------------------------------------------------------------------------------------


async def test_one_byte_that_differs_is_found_and_its_place_told(
    converter: Converter, small: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(build.raw()[:70_000] + b"!" + build.raw()[70_001:])

    with pytest.raises(VerificationFailed, match="byte 69632"):  # the sector's first
        await converter.compare(small, DiskFormat.RAW, other, DiskFormat.RAW, virtual_size=build.SIZE, progress=quiet)


async def test_a_size_that_was_rounded_does_not_pass(converter: Converter, small: Path, tmp_path: Path) -> None:
    rounded = made_by_qemu_img(small, tmp_path / "rounded.vhd", "-O", "vpc")

    with pytest.raises(VerificationFailed, match="size"):
        await converter.compare(small, DiskFormat.RAW, rounded, DiskFormat.VHD, virtual_size=build.SIZE, progress=quiet)


async def test_what_cannot_be_read_is_not_called_different(converter: Converter, small: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"nothing of that kind" * 100)

    with pytest.raises(ConversionFailed):
        await converter.compare(
            small, DiskFormat.RAW, broken, DiskFormat.QCOW2, virtual_size=build.SIZE, progress=quiet
        )


async def test_damaged_refcounts_are_found(converter: Converter, tmp_path: Path) -> None:
    damaged = bytearray(build.qcow2())
    damaged[2 * 65536 : 2 * 65536 + 12] = bytes(12)
    path = tmp_path / "damaged"
    path.write_bytes(damaged)

    with pytest.raises(TruncatedDisk, match="damaged"):
        await converter.check(path, DiskFormat.QCOW2)


async def test_clusters_that_are_only_leaked_are_no_error(converter: Converter, tmp_path: Path) -> None:
    path = tmp_path / "leaky"
    path.write_bytes(build.qcow2(l2_entry=0))

    await converter.check(path, DiskFormat.QCOW2)


async def test_a_qed_that_was_not_closed_is_read_if_its_tables_are_right(
    converter: Converter, small: Path, tmp_path: Path
) -> None:
    path = tmp_path / "open.qed"
    path.write_bytes(build.qed(features=2))

    await converter.check(path, DiskFormat.QED)
    await converter.compare(path, DiskFormat.QED, small, DiskFormat.RAW, virtual_size=build.SIZE, progress=quiet)


@pytest.mark.parametrize("features", [0, 2])
async def test_a_qed_whose_data_is_used_twice_is_found_damaged(
    converter: Converter, features: int, tmp_path: Path
) -> None:
    """The gate looks at where each cluster is, not at who else is there."""
    path = tmp_path / "twice.qed"
    path.write_bytes(build.qed(features=features, l2={500: 5 * 4096}))
    assert looked_at(path).format is DiskFormat.QED

    with pytest.raises(TruncatedDisk, match="damaged"):
        await converter.check(path, DiskFormat.QED)


@pytest.mark.parametrize("format_", sorted(set(DiskFormat) - CHECKED))
async def test_a_format_without_a_check_is_not_checked(format_: DiskFormat, converter: Converter) -> None:
    await converter.check(Path("/there/is/no/such/file"), format_)


# --- what goes wrong --------------------------------------------------------------------------------------------------


async def test_a_failure_is_told_without_a_path(converter: Converter, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"nothing of that kind" * 100)

    with pytest.raises(ConversionFailed) as failed:
        await converter.convert(
            broken, DiskFormat.QCOW2, tmp_path / "out", TargetKind.RAW, virtual_size=build.SIZE, progress=quiet
        )

    assert "not in qcow2 format" in failed.value.message
    assert "/" not in failed.value.message
    assert "{" not in failed.value.message


async def test_a_backing_file_is_not_opened_even_past_the_gate(converter: Converter, tmp_path: Path) -> None:
    """The gate refuses such an image. Were it not so, its own zeros would be read, not the other file."""
    secret, image, target = tmp_path / "secret", tmp_path / "image", tmp_path / "target"
    secret.write_bytes(b"secret".ljust(build.SIZE, b"!"))
    image.write_bytes(build.qcow2(backing=str(secret).encode(), l2_entry=0))

    await converter.convert(image, DiskFormat.QCOW2, target, TargetKind.RAW, virtual_size=build.SIZE, progress=quiet)

    assert target.read_bytes() == bytes(build.SIZE)


def with_data_file(secret: Path) -> bytes:
    return build.qcow2(incompatible=4, extensions=((0x44415441, str(secret).encode()),))


def with_flat_extent(secret: Path) -> bytes:
    return build.vmdk_descriptor("monolithicFlat", f'RW 8192 FLAT "{secret}" 0')


def with_parent(secret: Path) -> bytes:
    return build.vmdk(build.vmdk_descriptor() + f'parentFileNameHint="{secret}"\n'.encode(), grain=0)


@pytest.mark.parametrize(
    ("format_", "made"),
    [
        (DiskFormat.QED, lambda secret: build.qed(features=5, backing=secret, l1={0: 0})),
        (DiskFormat.QCOW, lambda secret: build.qcow1(backing=secret, l1={0: 0})),
    ],
    ids=["qed", "qcow"],
)
async def test_a_backing_file_of_an_older_format_is_not_opened_either(
    format_: DiskFormat, made: Callable[[bytes], bytes], converter: Converter, tmp_path: Path
) -> None:
    secret, image, target = tmp_path / "secret", tmp_path / "image", tmp_path / "target"
    secret.write_bytes(b"secret".ljust(build.SIZE, b"!"))
    image.write_bytes(made(os.fsencode(secret)))

    await converter.convert(image, format_, target, TargetKind.RAW, virtual_size=build.SIZE, progress=quiet)

    assert target.read_bytes() == bytes(build.SIZE)


@pytest.mark.parametrize(
    ("format_", "made"),
    [(DiskFormat.QCOW2, with_data_file), (DiskFormat.VMDK, with_flat_extent), (DiskFormat.VMDK, with_parent)],
)
async def test_another_file_is_not_to_be_had_inside(
    format_: DiskFormat, made: Callable[[Path], bytes], tmp_path: Path
) -> None:
    """The gate refuses such an image. Were it not so, the sandbox has no such file."""
    sandbox = Sandbox.detect(required=False)
    if not sandbox.isolated:
        pytest.skip("this host does not allow user namespaces")
    secret, image, target = tmp_path / "secret", tmp_path / "image", tmp_path / "target"
    secret.write_bytes(b"secret" * (build.SIZE // 6) + bytes(4))
    image.write_bytes(made(secret))

    with suppress(ConversionFailed):
        await Converter(sandbox).convert(
            image, format_, target, TargetKind.RAW, virtual_size=build.SIZE, progress=quiet
        )

    assert b"secret" not in target.read_bytes()


@pytest.mark.parametrize("family", ["qcow2", "vmdk", "vhd", "vhdx", "vdi", "qed", "qcow"])
async def test_what_the_gate_refuses_would_be_bounded_all_the_same(family: str, tmp_path: Path) -> None:
    """qemu-img itself on every hostile image: it ends, it says why, and it writes no more than a disk of that size."""
    converter, room = Converter(Sandbox.detect(required=False)), asyncio.Semaphore(4)
    most = build.SIZE + build.SIZE // 16 + OVERHEAD_BYTES

    async def tried(case: Case) -> None:
        image, target = tmp_path / case.name, tmp_path / f"{case.name}.raw"
        async with room:
            image.write_bytes(case.content)
            with suppress(ConversionFailed, DiskRefused):
                await converter.convert(
                    image, DiskFormat(family), target, TargetKind.RAW, virtual_size=build.SIZE, progress=quiet
                )
            assert not target.exists() or target.stat().st_blocks * 512 <= most
            image.unlink()
            target.unlink(missing_ok=True)

    cases = [case for case in corpus.hostile() if case.name.startswith(f"{family}-")]
    async with asyncio.TaskGroup() as group:
        for case in cases:
            group.create_task(tried(case))

    assert len(cases) > 15


async def test_a_result_that_grows_beyond_its_disk_is_ended(converter: Converter, alpine: Path, tmp_path: Path) -> None:
    """Whatever the gate was made to believe, no more is written than it has let pass."""
    with pytest.raises(ConversionFailed, match="larger than its disk"):
        await converter.convert(
            alpine, DiskFormat.QCOW2, tmp_path / "out", TargetKind.RAW, virtual_size=4096, progress=quiet
        )


async def test_a_disk_that_no_vhd_can_hold_is_refused_at_once(converter: Converter, tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match="at most"):
        await converter.convert(
            tmp_path / "none",
            DiskFormat.RAW,
            tmp_path / "out",
            TargetKind.VHD,
            virtual_size=4 * 1024**4,
            progress=quiet,
        )

    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_known_by_what_qemu_img_says(alpine: Path) -> None:
    """A scratch folder of one megabyte, which only a sandbox can make without being root."""
    if not Sandbox.detect(required=False).isolated:
        pytest.skip("this host does not allow user namespaces")
    mounts = ["--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]
    small = ["--dev", "/dev", "--ro-bind", str(alpine), "/in", "--size", "1000000", "--tmpfs", "/out"]
    command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", "/in", "/out/disk"]

    done = subprocess.run(["bwrap", "--unshare-all", *mounts, *small, *command], capture_output=True, check=False)
    error = failure(Result(status=done.returncode, stdout=done.stdout, stderr=done.stderr), "it failed")

    assert isinstance(error, NoSpace)


@pytest.mark.parametrize("status", [-9, 137, 134, -6])
def test_a_child_that_was_ended_says_so(status: int) -> None:
    error = failure(Result(status=status, stdout=b"", stderr=b""), "it failed")

    assert "ended" in error.message


def test_last_words_are_short_and_without_control_characters() -> None:
    words = b'qemu-img: \x1b[31mCould not open \'json:{"file":{"filename":"/in/0"}}\': /srv/x/y: bad\n' * 50

    text = told(words)

    assert len(text) <= 300
    assert text.isprintable()
    assert "/" not in text


# --- cancelling -------------------------------------------------------------------------------------------------------


def children() -> set[int]:
    mine = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in mine}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is another process's end
            await asyncio.sleep(0.01)


def as_vdi(source: Path, target: Path) -> None:
    """What we do not read ourselves, so that there is a process."""
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "vdi", source, target], check=True)


async def test_a_cancelled_conversion_leaves_no_process(converter: Converter, alpine: Path, tmp_path: Path) -> None:
    source = tmp_path / "vdi"
    as_vdi(alpine, source)
    before, begun = children(), asyncio.Event()

    def progress(_: float) -> None:
        begun.set()

    task = asyncio.create_task(
        converter.convert(
            source, DiskFormat.VDI, tmp_path / "out", TargetKind.VMDK_STREAM, virtual_size=GIB, progress=progress
        )
    )
    await begun.wait()
    running = children() - before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert running
    assert children() <= before
    assert not holders_of(tmp_path / "out")


def holders_of(path: Path) -> list[str]:
    """Processes that have the file open, wherever they see it."""
    wanted = (path.stat().st_dev, path.stat().st_ino)
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            state = link.stat()
        except OSError:
            continue
        if (state.st_dev, state.st_ino) == wanted:
            found.append(str(link))
    return found


async def test_a_progress_that_raises_ends_the_conversion(converter: Converter, alpine: Path, tmp_path: Path) -> None:
    before = children()

    def progress(_: float) -> None:
        raise ConnectionResetError("nobody listens")

    with pytest.raises(ConnectionResetError):
        await converter.convert(
            alpine, DiskFormat.QCOW2, tmp_path / "out", TargetKind.VMDK_STREAM, virtual_size=GIB, progress=progress
        )

    assert children() <= before
