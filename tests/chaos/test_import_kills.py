"""Glance's faults with imports stay out: one that is killed half-way goes on and ends, and leaves nothing behind; an
image can be deleted at any moment of its import."""

import gzip
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.chaos.dying_worker import GO, HOLD, HOLDING
from tests.chaos.test_kills import dying_worker, healthy_worker
from tests.importing import OCTETS, Source, ask, create, ended, staged, tasks, uploaded
from tests.service import Client, Service, until

STEPS: Final = ("fetch", "decompress", "inspect", "convert", "verify", "publish")
# After a step its work is done and not yet recorded: the worst moment.
POINTS: Final = [("fetch", "before"), *((step, "after") for step in STEPS)]
DISK: Final = b"\x33\xc0 a raw disk in a packed file " * 40_000


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    serving = Source()
    yield serving
    serving.close()


@pytest.fixture(scope="module")
def idle(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without a worker, that unpacks and converts what is imported, and has a second store."""
    folder = tmp_path_factory.mktemp("killed")
    running = Service(folder, environment=_environment(folder, source), arguments=["--no-worker"])
    try:
        yield running.start()
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


def _environment(folder: Path, source: Source) -> Mapping[str, str]:
    folder.mkdir(exist_ok=True)
    config = folder / "calotype.toml"
    (folder / "mapped").mkdir(exist_ok=True)
    config.write_text(f"[stores.second]\nfolder = '{folder}/second'\n[buckets.mapped]\nfolder = '{folder}/mapped'\n")
    return {
        "CALOTYPE_CONFIG": str(config),
        "CALOTYPE_FETCH_ALLOW": source.address,
        "CALOTYPE_IMAGEV2_CONVERT_TO": "qcow2",
    }


def bytes_of(service: Service, job_id: str, *staged: str) -> set[str]:
    """Files that hold bytes of a job, wherever they are, except the one that its image has."""
    second = service.data_dir.parent / "second"
    files = service.files() | {f"second/{path.relative_to(second)}" for path in second.rglob("*") if path.is_file()}
    names = (job_id, *staged)
    return {file for file in files if any(name in file for name in names)} - {f"blobs/{job_id[:2]}/{job_id}"}


@contextmanager
def held(service: Service, step: str, moment: str) -> Iterator[Callable[[], None]]:
    """A worker whose job holds still at a point; yields what waits until it does. On leaving the job goes on."""
    run = service.data_dir / "run"
    (run / GO).unlink(missing_ok=True)
    worker = dying_worker(service, step, moment, HOLD)

    def holds() -> None:
        until((run / HOLDING).exists, "the job to hold still")

    try:
        yield holds
    finally:
        (run / GO).touch()
        worker.terminate()
        worker.wait(timeout=60)


def go_on(service: Service) -> None:
    (service.data_dir / "run" / GO).touch()


def job_of(client: Client, image: Mapping[str, Any]) -> str:
    return str(tasks(client, image)[0]["id"]).replace("-", "")


def assert_whole(service: Service, client: Client, image: Mapping[str, Any], *staged: str) -> None:
    task = ended(client, image)
    shown = client.image(image["id"])
    assert (task["status"], shown["status"]) == ("success", "active"), task
    assert len(client.http.get(f"/v2/images/{image['id']}/file").content) == shown["size"]
    job_id = job_of(client, image)
    until(lambda: not bytes_of(service, job_id, *staged), f"no byte left: {bytes_of(service, job_id, *staged)}")


@pytest.mark.parametrize(("step", "moment"), POINTS)
def test_an_import_goes_on_after_kill_9_of_its_worker_at(idle: Service, step: str, moment: str) -> None:
    with idle.demo() as client:
        before = idle.files()
        image = staged(client, gzip.compress(DISK + step.encode() + moment.encode()))
        token = next(iter(idle.files() - before)).rpartition("/")[2]
        worker = dying_worker(idle, step, moment)
        assert ask(client, image, "glance-direct").status_code == 202
        assert worker.wait(timeout=60) == -signal.SIGKILL
        assert client.image(image["id"])["status"] in ("importing", "active")

        with healthy_worker(idle):
            assert_whole(idle, client, image, token)
        job = client.http.get(f"/calotype/v1/jobs/{job_of(client, image)}").json()
        done = {one["name"]: one["attempts"] for one in job["steps"] if one["name"] in STEPS[: STEPS.index(step)]}
        assert set(done.values()) <= {1}


def test_a_download_goes_on_after_kill_9_of_its_worker(idle: Service, source: Source) -> None:
    with idle.demo() as client:
        image = create(client)
        worker = dying_worker(idle, "fetch", "after")
        assert ask(client, image, "web-download", uri=source.url(DISK + b"fetched twice")).status_code == 202
        assert worker.wait(timeout=60) == -signal.SIGKILL

        with healthy_worker(idle):
            assert_whole(idle, client, image)


@pytest.mark.parametrize(("step", "moment"), [("copy", "before"), ("copy", "after"), ("publish", "after")])
def test_a_copy_to_more_stores_goes_on_after_kill_9_of_its_worker(idle: Service, step: str, moment: str) -> None:
    with idle.demo() as client:
        image = uploaded(client, f"to be copied {step} {moment}".encode() * 100)
        worker = dying_worker(idle, step, moment)
        assert ask(client, image, "copy-image", {"stores": ["second"]}).status_code == 202
        assert worker.wait(timeout=60) == -signal.SIGKILL
        assert client.image(image["id"])["status"] == "active"

        with healthy_worker(idle):
            assert ended(client, image)["status"] == "success"
        shown = client.image(image["id"])
        assert (shown["stores"], shown["os_glance_importing_to_stores"]) == ("local,second", "")


def test_kill_9_of_everything_in_mid_import_only_delays_it(
    make_service: Callable[..., Service], source: Source, tmp_path: Path
) -> None:
    service = make_service(environment=_environment(tmp_path / "config", source)).start("--no-worker")
    with service.demo() as client:
        image = staged(client, gzip.compress(DISK))
        worker = dying_worker(service, "convert", "before")
        ask(client, image, "glance-direct")
        assert worker.wait(timeout=60) == -signal.SIGKILL
        waiting = staged(client, DISK)
    service.kill()

    service.start()
    with service.demo() as client:
        assert_whole(service, client, image)
        assert client.image(waiting["id"])["status"] == "uploading"
        assert ask(client, waiting, "glance-direct").status_code == 202
        assert_whole(service, client, waiting)


@pytest.mark.parametrize("step", ["fetch", "convert", "publish"])
def test_an_image_is_deleted_at_any_step_of_its_import(idle: Service, step: str) -> None:
    with idle.demo() as client:
        before, quota = idle.files(), client.http.get("/v2/info/usage").json()
        image = staged(client, gzip.compress(DISK + b"deleted at " + step.encode()))
        with held(idle, step, "before") as holds:
            ask(client, image, "glance-direct")
            holds()
            job_id = job_of(client, image)

            deleted = client.http.delete(image["self"])
            go_on(idle)

            assert deleted.status_code == 204
            assert client.http.get(image["self"]).status_code == 404
            assert client.ended(job_id)["status"] == "FAIL"
            until(lambda: idle.files() <= before, f"no byte left: {idle.files() - before}")
            assert client.http.get("/v2/info/usage").json() == quota


def test_an_image_is_deleted_just_after_its_import_made_it_active(idle: Service) -> None:
    with idle.demo() as client:
        before = idle.files()
        image = staged(client, DISK + b"deleted when active")
        with held(idle, "publish", "after") as holds:
            ask(client, image, "glance-direct")
            holds()
            job_id = job_of(client, image)
            assert client.image(image["id"])["status"] == "active"

            deleted = client.http.delete(image["self"])
            go_on(idle)

            assert deleted.status_code == 204
            assert client.ended(job_id)["status"] == "SUCCESS"
            until(lambda: idle.files() <= before, f"no byte left: {idle.files() - before}")
            assert client.http.get(image["self"]).status_code == 404


def test_an_image_is_deleted_while_it_is_copied(idle: Service) -> None:
    with idle.demo() as client:
        image = uploaded(client, b"deleted while it is copied " * 100)
        second = idle.data_dir.parent / "second"
        before = {path for path in second.rglob("*") if path.is_file()}
        with held(idle, "copy", "before") as holds:
            ask(client, image, "copy-image", {"stores": ["second"]})
            holds()
            job_id = job_of(client, image)

            deleted = client.http.delete(image["self"])
            go_on(idle)

            assert deleted.status_code == 204
            assert client.ended(job_id)["status"] == "FAIL"
            assert {path for path in second.rglob("*") if path.is_file()} == before


def test_a_second_upload_is_refused_while_an_import_is_under_way(idle: Service) -> None:
    """Whatever the moment: also before a worker has begun."""
    with idle.demo() as client:
        image = staged(client, DISK + b"imported once")
        assert ask(client, image, "glance-direct").status_code == 202

        again = ask(client, image, "glance-direct")
        upload = client.http.put(image["file"], content=DISK, headers=OCTETS)
        stage = client.http.put(f"{image['self']}/stage", content=DISK, headers=OCTETS)

        assert (again.status_code, upload.status_code, stage.status_code) == (409, 409, 409)
        assert client.image(image["id"])["status"] == "importing"
        with healthy_worker(idle):
            assert_whole(idle, client, image)


# --- from buckets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "step"),
    [
        ("packed.gz", "fetch"),  # unpacked, and that not recorded
        ("packed.zst", "convert"),
        ("read.vmdk", "inspect"),  # converted, read where it lies
        ("read.vmdk", "verify"),
        ("kept.qcow2", "fetch"),  # copied into staging
        ("kept.qcow2", "convert"),
    ],
)
def test_an_import_from_a_mapped_folder_goes_on_after_kill_9_of_its_worker_at(
    idle: Service, tmp_path: Path, key: str, step: str
) -> None:
    content = DISK + key.encode() + step.encode()
    (tmp_path / "raw").write_bytes(content + bytes(-len(content) % 512))
    target = idle.data_dir.parent / "mapped" / f"{step}-{key}"
    packed = {"gz": ["gzip", "-c"], "zst": ["zstd", "-q", "-c"]}.get(target.suffix[1:])
    if packed is not None:
        target.write_bytes(subprocess.run([*packed, str(tmp_path / "raw")], capture_output=True, check=True).stdout)
    else:
        command = ["qemu-img", "convert", "-f", "raw", "-O", target.suffix[1:], str(tmp_path / "raw"), str(target)]
        subprocess.run(command, check=True)
    with idle.demo() as client:
        worker = dying_worker(idle, step, "after")
        job_id = client.import_image(f"mapped:{target.name}", target.name)
        assert worker.wait(timeout=60) == -signal.SIGKILL

        with healthy_worker(idle):
            image_id = client.succeeded(job_id)["entities"]["image_id"]
            until(lambda: not bytes_of(idle, job_id), f"no byte left: {bytes_of(idle, job_id)}")
        (tmp_path / "image").write_bytes(client.http.get(f"/v2/images/{image_id}/file").content)
    command = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(tmp_path / "raw"), str(tmp_path / "image")]
    subprocess.run(command, check=True, capture_output=True)
