"""A job survives the death of anything at any step: it ends once, with one image, and leaves nothing behind."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.service import CALOTYPE, Client, Service, until

ROOT: Final = Path(__file__).parents[2]
STEPS: Final = ("fetch", "inspect", "convert", "verify", "publish")
POINTS: Final = [(step, moment) for step in STEPS for moment in ("before", "after")]
MakeService = Callable[..., Service]


@pytest.fixture(scope="module")
def vmdk(alpine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Alpine image as VMDK: importing it converts and compares, which a qcow2 would not need."""
    target = tmp_path_factory.mktemp("images") / "alpine.vmdk"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "vmdk", str(alpine), str(target)], check=True)
    return target


def worker_environment(service: Service) -> dict[str, str]:
    return {**service.environment, "CALOTYPE_DATA_DIR": str(service.data_dir), "PYTHONPATH": str(ROOT)}


def dying_worker(service: Service, step: str, moment: str, how: str = "SIGKILL") -> "subprocess.Popen[bytes]":
    with service.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.dying_worker", step, moment, how],
            env=worker_environment(service),
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )


@contextmanager
def healthy_worker(service: Service) -> Iterator["subprocess.Popen[bytes]"]:
    with service.log.open("ab") as log:
        process = subprocess.Popen([str(CALOTYPE), "worker"], env=worker_environment(service), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def submitted(client: Client, source: Path, name: str) -> str:
    client.put_object("golden", source.name, source)
    return client.import_image(f"golden:{source.name}", name)


def assert_one_whole_image(service: Service, client: Client, job: dict[str, Any], name: str) -> None:
    """The end that every interrupted import must come to."""
    assert job["status"] == "SUCCESS", job
    images = client.http.get("/v2/images", params={"name": name}).json()["images"]
    assert [image["id"] for image in images] == [job["entities"]["image_id"]]
    assert images[0]["status"] == "active"
    data = client.http.get(f"/v2/images/{images[0]['id']}/file").content
    assert len(data) == images[0]["size"]
    job_id = job["job_id"]
    until(
        lambda: service.files() == {f"blobs/{job_id[:2]}/{job_id}"},
        f"no stray file: {service.files()}",
        within_s=20,
    )


def steps_of(client: Client, job_id: str) -> dict[str, int]:
    told = client.http.get(f"/calotype/v1/jobs/{job_id}").json()
    return {step["name"]: step["attempts"] for step in told["steps"]}


@pytest.mark.parametrize(("step", "moment"), POINTS)
def test_an_import_goes_on_where_it_was_after_kill_9_of_everything_at(
    make_service: MakeService, vmdk: Path, step: str, moment: str
) -> None:
    service = make_service().start("--no-worker")
    with service.demo() as client:
        worker = dying_worker(service, step, moment)
        job_id = submitted(client, vmdk, "survivor")
        assert worker.wait(timeout=60) == -signal.SIGKILL
        assert client.job(job_id)["status"] in ("RUNNING", "SUCCESS")
        attempts_before = steps_of(client, job_id)
    service.kill()

    service.start()
    with service.demo() as client:
        job = client.ended(job_id)

        assert_one_whole_image(service, client, job, "survivor")
        finished = [name for name in STEPS[: STEPS.index(step)] if attempts_before[name]]
        assert {name: steps_of(client, job_id)[name] for name in finished} == dict.fromkeys(finished, 1)


EXPORT_POINTS: Final = [
    (step, moment) for step in ("fetch", "convert", "verify", "publish") for moment in ("before", "after")
]


@pytest.mark.parametrize(("step", "moment"), EXPORT_POINTS)
def test_an_export_goes_on_where_it_was_after_kill_9_of_its_worker_at(
    make_service: MakeService, alpine: Path, tmp_path: Path, step: str, moment: str
) -> None:
    service = make_service().start("--no-worker")
    with service.demo() as client:
        with healthy_worker(service):
            image_id = client.succeeded(submitted(client, alpine, "exported"))["entities"]["image_id"]
        worker = dying_worker(service, step, moment)
        body = {"bucket_url": "golden:out.vhd", "file_format": "vhd"}
        job_id = client.submit("POST", f"/v1/cloudimages/{image_id}/file", body)
        assert worker.wait(timeout=60) == -signal.SIGKILL

        with healthy_worker(service):
            client.succeeded(job_id)

            out = tmp_path / "out.vhd"
            out.write_bytes(client.get_object("golden", "out.vhd"))
            compare = ["qemu-img", "compare", "-f", "qcow2", "-F", "vpc", str(alpine), str(out)]
            subprocess.run(compare, check=True, capture_output=True)
            until(lambda: len(service.files()) == 1, f"no stray file: {service.files()}", within_s=20)
        bucket = service.data_dir / "buckets"
        assert sorted(path.name for path in bucket.rglob("*") if path.is_file()) == [alpine.name, "out.vhd"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_copy_ends_once_after_kill_9_of_its_worker(make_service: MakeService, alpine: Path, moment: str) -> None:
    service = make_service().start("--no-worker")
    with service.demo() as client:
        with healthy_worker(service):
            image_id = client.succeeded(submitted(client, alpine, "source"))["entities"]["image_id"]
        worker = dying_worker(service, "publish", moment)
        job_id = client.submit("POST", f"/v1/cloudimages/{image_id}/copy", {"name": "the-copy"})
        assert worker.wait(timeout=60) == -signal.SIGKILL

        with healthy_worker(service):
            copy_id = client.succeeded(job_id)["entities"]["image_id"]

        found = client.http.get("/v2/images", params={"name": "the-copy"}).json()["images"]
        assert [(image["id"], image["status"]) for image in found] == [(copy_id, "active")]
        assert len(service.files()) == 1


def test_a_running_job_that_is_cancelled_ends_and_takes_its_image_back(make_service: MakeService, vmdk: Path) -> None:
    service = make_service().start("--no-worker")
    with service.demo() as client:
        worker = dying_worker(service, "convert", "before", "SIGSTOP")
        job_id = submitted(client, vmdk, "unwanted")
        until(lambda: "T" in _state(worker.pid), "the worker to be stopped")

        cancelled = client.http.post(f"/calotype/v1/jobs/{job_id}:cancel").json()
        worker.send_signal(signal.SIGCONT)
        job = client.ended(job_id)

        assert cancelled["state"] == "cancelling"
        assert (job["status"], job["fail_reason"]) == ("FAIL", "cancelled by demo")
        assert client.http.get(f"/calotype/v1/jobs/{job_id}").json()["state"] == "cancelled"
        assert client.http.get("/v2/images").json()["images"] == []
        until(lambda: service.files() == set(), "the job's files to be gone")
        worker.terminate()
        worker.wait(timeout=60)


def test_a_service_that_is_stopped_in_mid_job_goes_on_with_it_when_started_again(
    make_service: MakeService, vmdk: Path
) -> None:
    service = make_service(environment={"CALOTYPE_JOBS_DRAIN_S": "1"}).start()
    with service.demo() as client:
        job_id = submitted(client, vmdk, "stopped")
        until(lambda: client.job(job_id)["status"] != "INIT", "the job to run")
    assert service.stop() == 0

    service.start()
    with service.demo() as client:
        assert_one_whole_image(service, client, client.ended(job_id), "stopped")


def test_another_worker_takes_over_from_one_that_is_dead(make_service: MakeService, vmdk: Path) -> None:
    service = make_service(
        environment={"CALOTYPE_JOBS_HEARTBEAT_S": "0.5", "CALOTYPE_JOBS_DEAD_AFTER_S": "2"},
    ).start("--no-worker")
    with service.demo() as client:
        worker = dying_worker(service, "convert", "before")
        job_id = submitted(client, vmdk, "taken-over")
        assert worker.wait(timeout=60) == -signal.SIGKILL
        with (service.data_dir / "run" / "worker-0.lock").open("w") as taken:
            fcntl.flock(taken, fcntl.LOCK_EX)  # so that the next worker cannot have the dead one's name
            with healthy_worker(service):
                job = client.ended(job_id)

                assert_one_whole_image(service, client, job, "taken-over")
                assert client.http.get(f"/calotype/v1/jobs/{job_id}").json()["attempt"] == 2


def test_a_worker_that_was_only_asleep_publishes_nothing_when_it_wakes(make_service: MakeService, vmdk: Path) -> None:
    service = make_service(
        environment={"CALOTYPE_JOBS_HEARTBEAT_S": "0.5", "CALOTYPE_JOBS_DEAD_AFTER_S": "2"},
    ).start("--no-worker")
    with service.demo() as client:
        sleeper = dying_worker(service, "publish", "before", "SIGSTOP")
        job_id = submitted(client, vmdk, "woken")
        until(lambda: "T" in _state(sleeper.pid), "the worker to be stopped")
        with healthy_worker(service):
            job = client.ended(job_id)
            sleeper.send_signal(signal.SIGCONT)
            assert sleeper.wait(timeout=60) != 0  # it was declared dead, sees that, and ends itself

            assert client.job(job_id) == job
            assert_one_whole_image(service, client, job, "woken")


def test_kill_9_of_the_worker_again_and_again_under_serve_only_delays_the_job(
    make_service: MakeService, vmdk: Path
) -> None:
    service = make_service().start()
    with service.demo() as client:
        job_id = submitted(client, vmdk, "battered")
        for _ in range(3):
            until(
                lambda: client.job(job_id)["status"] != "INIT" and service.pids_of("calotype.cli worker"),
                "the job to run",
            )
            service.kill_worker()
        job = client.ended(job_id)

        assert_one_whole_image(service, client, job, "battered")


def test_nothing_is_left_running_when_the_parent_is_killed(make_service: MakeService, vmdk: Path) -> None:
    service = make_service().start()
    assert service.process is not None
    with service.demo() as client:
        submitted(client, vmdk, "orphan")
        family = service.processes()

    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait()

    until(lambda: not [pid for pid in family if _alive(pid)], "all processes to be gone", within_s=20)


def test_sigterm_ends_the_service_in_order(make_service: MakeService) -> None:
    service = make_service().start()
    family = service.processes()

    assert service.stop() == 0
    assert not [pid for pid in family if _alive(pid)]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _alive(pid: int) -> bool:
    return _state(pid) not in ("", "Z", "X")
