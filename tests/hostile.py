"""A service for hostile images, what is made to happen to it, and what must be left of that: nothing."""

import contextlib
import io
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from calotype.disks.gate import keep
from calotype.errors import DiskRefused, EmptyDisk
from tests.disks.corpus import MOST_VIRTUAL_BYTES, Case
from tests.entry_drivers import EVIL, MAPPED, Ground, Outcome, declared
from tests.entry_paths import PATHS
from tests.importing import Source
from tests.service import Service, until

T = TypeVar("T")

AT_ONCE: Final = 40  # attacks that are under way together
PRIME: Final = 7  # so that neighbours among the ways take files that are not alike

Attack = tuple[str, Case]  # the name of a way in, and what comes


@contextlib.contextmanager
def ground(folder: Path, *, bubblewrap: bool = True, arguments: Sequence[str] = ()) -> Iterator[Ground]:
    """With every way in open, and disks stored as raw, so that what is in them is looked at once more.

    Without `bubblewrap` the service does not find it, as on a host that has none: nothing but the gate is then between
    an image and the files of the host.
    """
    source = Source()
    config = folder / "calotype.toml"
    mapped = folder / MAPPED
    mapped.mkdir(parents=True, exist_ok=True)
    config.write_text(
        '[imports]\nformat = "raw"\n[imagev2]\nlocations = "set"\nconvert_to = "raw"\n[stores.web]\ntype = "http"\n'
        f'[buckets.{MAPPED}]\nfolder = "{mapped}"\n'
        f'[endpoints.{EVIL}]\ntype = "image"\nregion = "{EVIL}"\nurl = "http://{source.address}"\n'
    )
    environment = {
        "CALOTYPE_CONFIG": str(config),
        "CALOTYPE_FETCH_ALLOW": source.address,
        "CALOTYPE_IMAGE_COUNT_PER_PROJECT": "1000000",
        "CALOTYPE_IMAGE_VIRTUAL_BYTES_PER_IMAGE": str(MOST_VIRTUAL_BYTES),
        "CALOTYPE_JOBS_CREATIONS_PER_PROJECT": "1000",
    }
    if not bubblewrap:
        programs = folder / "programs"
        programs.mkdir()
        (programs / "zstd").symlink_to(str(shutil.which("zstd")))
        environment["PATH"] = str(programs)
    running = Service(folder, environment=environment, arguments=arguments)
    try:
        running.start()
        with running.demo() as demo, running.admin() as admin:
            yield Ground(running, demo, admin, source, mapped)
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()
        source.close()


def attacked(ground: Ground, attacks: Iterable[Attack]) -> list[str]:
    """Carry out all, many at once; return what went otherwise than it must."""
    wrong: list[str] = []
    left = iter(attacks)
    while batch := list(itertools.islice(left, AT_ONCE)):
        waiting = []
        for name, case in batch:
            with _noted(wrong, name, case):
                waiting.append((name, case, PATHS[name].drive(ground, case)))
        for name, case, wait in waiting:
            with _noted(wrong, name, case):
                outcome = wait()
                assert agrees(name, case, outcome), f"told {outcome}"
        ground.source.files.clear()
    return wrong


@contextlib.contextmanager
def _noted(wrong: list[str], name: str, case: Case) -> Iterator[None]:
    """One attack that gets in does not keep the others from being tried."""
    try:
        yield
    except AssertionError as error:
        wrong.append(f"{name} {case.name}: {error}")


def agrees(name: str, case: Case, outcome: Outcome) -> bool:
    """Whether what was told is what the gate says of the file, and the code is that of its error."""
    if outcome.code in PATHS[name].codes or issubclass(case.error, EmptyDisk):
        return True  # something looks at the size before
    said = {error.message: error.img for error in _refusals(case)}
    return any(words in outcome.told and outcome.code in (None, code) for words, code in said.items())


def _refusals(case: Case) -> Iterator[DiskRefused]:
    """As what the ways in declare a file to be, the gate is asked here, too."""
    content = case.content
    for format_ in dict.fromkeys((None, case.format, declared(case), "vhd", "raw")):
        try:
            keep(io.BytesIO(content), declared=format_, most_virtual_bytes=MOST_VIRTUAL_BYTES)
        except DiskRefused as error:
            yield error


def left_of(ground: Ground) -> dict[str, object]:
    """What there is though every attack has failed: images that are not as they were, bytes, quota. Nothing, then {}.

    The images that wait for their bytes are deleted: their bytes must be gone before.
    """
    images = ground.images()
    found: dict[str, object] = {"images": [image for image in images if image["status"] != "queued"]}
    found["files"] = _after(lambda: ground.service.files())
    found["bytes"] = _after(lambda: [row for row in ground.usage() if row[1] or row[2]])
    for image in images:
        client = ground.demo if image["owner"] == ground.demo.project_id else ground.admin
        assert client.http.delete(f"/v2/images/{image['id']}").status_code == 204
    found["quota"] = _after(ground.usage)
    return {name: value for name, value in found.items() if value}


def _after(look: Callable[[], T]) -> T:
    """What is there for good: a job that has failed still tidies up behind itself."""
    with contextlib.suppress(AssertionError):
        until(lambda: not look(), "nothing to be left", within_s=20)
    return look()


def every_kind(way: str, cases: Sequence[Case], pointing: Sequence[Case]) -> Iterator[Attack]:
    """By one way a file of each family; by the next way the next file of it. Those that point at decoys come first."""
    number, path = list(PATHS).index(way), PATHS[way]
    families: dict[str, list[Case]] = {}
    for case in cases:
        families.setdefault(case.family, []).append(case)
    of_decoys: dict[str, list[Case]] = {}
    for case in pointing:
        of_decoys.setdefault(case.family, []).append(case)
    for family, members in families.items():
        for among in (of_decoys.get(family, []), members):
            fitting = [case for case in among if path.takes(case)]
            if fitting:
                yield way, fitting[number * PRIME % len(fitting)]
                break
