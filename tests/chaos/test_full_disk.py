"""Too little room: a job waits and says so, or fails with its code; nothing that was there is lost, nothing is left."""

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.chaos.test_kills import dying_worker, healthy_worker
from tests.service import Client, Service, until

MIB: Final = 1024**2
DISK: Final = 160 * MIB
NOTHING_KEPT_FREE: Final = {"CALOTYPE_JOBS_SCRATCH_KEEP_FREE_BYTES": "0"}
MakeService = Callable[..., Service]


def disk_image(folder: Path, name: str, size: int) -> Path:
    """A VHDX with `size` random bytes: to be converted, and no smaller afterwards."""
    raw, target = folder / f"{name}.raw", folder / f"{name}.vhdx"
    raw.write_bytes(os.urandom(size))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vhdx", raw, target], check=True)
    raw.unlink()
    return target


def waits_for(client: Client, job_id: str) -> str | None:
    told: str | None = client.http.get(f"/calotype/v1/jobs/{job_id}").json()["waits_for"]
    return told


def failed(client: Client, job_id: str) -> dict[str, Any]:
    ended = client.ended(job_id)
    assert (ended["status"], ended["error_code"]) == ("FAIL", "IMG.0014"), ended
    return ended


# --- a limit of the settings ------------------------------------------------------------------------------------------


def test_a_job_that_needs_more_than_there_can_ever_be_fails_at_once(make_service: MakeService, tmp_path: Path) -> None:
    service = make_service(environment={"CALOTYPE_JOBS_SCRATCH_BYTES": str(4 * MIB)}).start()
    with service.demo() as client:
        client.put_object("golden", "disk.vhdx", disk_image(tmp_path, "disk", 8 * MIB))
        ended = failed(client, client.import_image("golden:disk.vhdx", "too-large"))

        assert "jobs.scratch_bytes allows 4194304" in ended["fail_reason"]
        assert client.http.get("/v2/images").json()["images"] == []
        until(lambda: service.files() == set(), f"nothing left: {service.files()}")
        assert service.run("calotype", "job", "show", ended["job_id"]).stdout.count("bytes of scratch space")


def test_a_job_waits_for_another_to_give_its_room_back_and_says_so(make_service: MakeService, tmp_path: Path) -> None:
    """The first one holds still with what it has reserved; the second one waits, and goes on when it has ended."""
    limited = {"CALOTYPE_JOBS_SCRATCH_BYTES": str(40 * MIB), "CALOTYPE_JOBS_SLOTS": "1"}
    service = make_service(environment=limited).start("--no-worker")
    with service.demo() as client:
        client.put_object("golden", "disk.vhdx", disk_image(tmp_path, "disk", 8 * MIB))
        holding = dying_worker(service, "verify", "before", "HOLD")
        first = client.import_image("golden:disk.vhdx", "first")
        until((service.data_dir / "run" / "holding").exists, "the first job to hold still")
        try:
            with healthy_worker(service):
                second = client.import_image("golden:disk.vhdx", "second")
                said = until(lambda: waits_for(client, second), "the second job to wait")
                assert said.endswith("bytes more of scratch space")
                assert client.job(second)["status"] == "RUNNING"
                assert f"waits for {said}" in service.run("calotype", "job", "show", second).stdout
                (service.data_dir / "run" / "go").touch()

                client.succeeded(first)
                client.succeeded(second)
                assert waits_for(client, second) is None
        finally:
            holding.terminate()
            holding.wait(timeout=60)


def test_a_job_that_waits_for_room_can_be_cancelled(make_service: MakeService, tmp_path: Path) -> None:
    limited = {"CALOTYPE_JOBS_SCRATCH_BYTES": str(40 * MIB), "CALOTYPE_JOBS_SLOTS": "1"}
    service = make_service(environment=limited).start("--no-worker")
    with service.demo() as client:
        client.put_object("golden", "disk.vhdx", disk_image(tmp_path, "disk", 8 * MIB))
        holding = dying_worker(service, "verify", "before", "HOLD")
        client.import_image("golden:disk.vhdx", "first")
        until((service.data_dir / "run" / "holding").exists, "the first job to hold still")
        try:
            with healthy_worker(service):
                second = client.import_image("golden:disk.vhdx", "second")
                until(lambda: waits_for(client, second), "the second job to wait")
                service.run("calotype", "job", "cancel", second)
                assert client.ended(second)["status"] == "FAIL"
        finally:
            holding.kill()
            holding.wait(timeout=60)


# --- a disk that is full ----------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def fill(folder: Path, leave: int) -> Path:
    """A file of somebody else's that leaves so many bytes."""
    free = os.statvfs(folder)
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave)
    return ballast


def content(client: Client, image_id: str) -> str:
    answer = client.http.get(f"/v2/images/{image_id}/file")
    assert answer.status_code == 200
    return hashlib.sha256(answer.content).hexdigest()


def test_a_full_disk_fails_what_comes_and_loses_nothing_that_was_there(small: Path, tmp_path: Path) -> None:
    environment = {**NOTHING_KEPT_FREE, "CALOTYPE_JOBS_SCRATCH_WAIT_S": "1"}
    service = Service(small, environment=environment).start()
    try:
        with service.demo() as client:
            client.put_object("golden", "small.vhdx", disk_image(tmp_path, "small", 4 * MIB))
            client.put_object("golden", "large.vhdx", disk_image(tmp_path, "large", 24 * MIB))
            kept = client.succeeded(client.import_image("golden:small.vhdx", "kept"))["entities"]["image_id"]
            before, files = content(client, kept), service.files()
            ballast = fill(small, leave=8 * MIB)

            ended = failed(client, client.import_image("golden:large.vhdx", "large"))
            assert "more than are free, also after 1 s" in ended["fail_reason"]

            spec = {"name": "up", "disk_format": "raw", "container_format": "bare"}
            image_id = client.http.post("/v2/images", json=spec).json()["id"]
            headers = {"Content-Type": "application/octet-stream"}
            data = os.urandom(16 * MIB)
            answer = client.http.put(f"/v2/images/{image_id}/file", content=data, headers=headers)
            assert answer.status_code == 503, answer.text
            assert "full" in answer.text
            assert client.image(image_id)["status"] == "queued"

            until(lambda: service.files() == files, f"only what was there before: {service.files()}")
            assert content(client, kept) == before
            service.kill()  # also of everything at once, with the disk full
            service.start()
        with service.demo() as client:
            assert content(client, kept) == before
            ballast.unlink()

            answer = client.http.put(f"/v2/images/{image_id}/file", content=data, headers=headers)
            assert answer.status_code == 204, answer.text
            assert content(client, image_id) == hashlib.sha256(data).hexdigest()
            client.succeeded(client.import_image("golden:large.vhdx", "large"))
            assert content(client, kept) == before
    finally:
        service.kill()


def test_a_job_that_waits_goes_on_once_there_is_room(small: Path, tmp_path: Path) -> None:
    service = Service(small, environment=NOTHING_KEPT_FREE).start()
    try:
        with service.demo() as client:
            client.put_object("golden", "large.vhdx", disk_image(tmp_path, "large", 24 * MIB))
            ballast = fill(small, leave=8 * MIB)
            job_id = client.import_image("golden:large.vhdx", "large")
            until(lambda: waits_for(client, job_id), "the job to wait")
            ballast.unlink()

            client.succeeded(job_id)
    finally:
        service.kill()


def test_a_disk_that_fills_while_a_job_writes_fails_it_and_frees_what_it_wrote(small: Path, tmp_path: Path) -> None:
    """Somebody else takes the room that was reserved; the job learns it from the disk."""
    soon_dead = {"CALOTYPE_JOBS_HEARTBEAT_S": "1", "CALOTYPE_JOBS_DEAD_AFTER_S": "5"}
    service = Service(small, environment={**NOTHING_KEPT_FREE, **soon_dead}).start("--no-worker")
    try:
        with service.demo() as client:
            client.put_object("golden", "large.vhdx", disk_image(tmp_path, "large", 24 * MIB))
            holding = dying_worker(service, "convert", "before", "HOLD")
            try:
                job_id = client.import_image("golden:large.vhdx", "large")
                until((service.data_dir / "run" / "holding").exists, "the job to hold still")
                service.environment["CALOTYPE_JOBS_SCRATCH_WAIT_S"] = "0"
                ballast = fill(small, leave=8 * MIB)
                (service.data_dir / "run" / "go").touch()
                until(lambda: waits_for(client, job_id), "the job to see that there is too little")
            finally:
                holding.kill()
                holding.wait(timeout=60)
            with healthy_worker(service):
                failed(client, job_id)
                until(lambda: service.files() == set(), f"nothing left: {service.files()}")
                ballast.unlink()
                client.succeeded(client.import_image("golden:large.vhdx", "again"))
    finally:
        service.kill()
