"""A copy to another region survives the death of its worker at any step: one whole image is there in the end."""

import signal
from collections.abc import Iterator
from typing import Final

import pytest

from tests.chaos.test_kills import dying_worker, healthy_worker, steps_of
from tests.regions import (
    THERE,
    Network,
    assert_arrived,
    copy,
    image_here,
    images_there,
    region_here,
    region_there,
    started,
)
from tests.service import Service, until

STEPS: Final = ("create", "transfer", "verify", "publish")
POINTS: Final = [(step, moment) for step in STEPS for moment in ("before", "after")]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with region_there(tmp_path_factory.mktemp("there")) as running:
        yield running


@pytest.fixture(scope="module")
def network(there: Service) -> Iterator[Network]:
    network = Network(there.port)
    yield network
    network.close()


@pytest.fixture(scope="module")
def idle(there: Service, network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Without a worker."""
    here = region_here(tmp_path_factory.mktemp("here"), there, network, arguments=["--no-worker"])
    with started(here) as running:
        yield running


@pytest.mark.parametrize(("step", "moment"), POINTS)
def test_a_copy_goes_on_after_kill_9_of_its_worker_at(
    idle: Service, there: Service, network: Network, step: str, moment: str
) -> None:
    network.heal()
    with idle.demo() as client, there.demo() as over_there:
        image = image_here(client)
        worker = dying_worker(idle, step, moment)
        job_id, name = copy(client, image["id"], "rough")
        assert worker.wait(timeout=60) == -signal.SIGKILL
        before = steps_of(client, job_id)

        with healthy_worker(idle):
            assert_arrived(over_there, client.ended(job_id), name, image)
        done = [name for name in STEPS[: STEPS.index(step)] if before[name]]
        assert {name: steps_of(client, job_id)[name] for name in done} == dict.fromkeys(done, 1)
        assert network.uploads == 1  # also when the bytes had gone and that was not recorded


def test_a_copy_goes_on_after_kill_9_of_its_worker_amid_the_transfer(
    idle: Service, there: Service, network: Network
) -> None:
    network.heal()
    network.holds = True
    with idle.demo() as client, there.demo() as over_there:
        image = image_here(client)
        with healthy_worker(idle) as worker:
            job_id, name = copy(client, image["id"], "rough")
            assert network.held.wait(timeout=60)
            worker.kill()
            worker.wait(timeout=60)
        # The upload is held between here and there: what had gone before may not have been seen there yet.
        assert [left["status"] for left in images_there(over_there, name)] in (["queued"], ["saving"])
        network.release()

        with healthy_worker(idle):
            assert_arrived(over_there, client.ended(job_id), name, image)


def test_a_copy_that_its_worker_may_not_begin_again_leaves_nothing(
    idle: Service, there: Service, network: Network
) -> None:
    """After the last attempt that is allowed it is removed by who finds that out."""
    network.heal()
    once = {**idle.environment, "CALOTYPE_JOBS_ATTEMPTS": "1"}
    with idle.demo() as client, there.demo() as over_there:
        image = image_here(client)
        worker = dying_worker(idle, "verify", "before")
        job_id, name = copy(client, image["id"], THERE, project_name="demo")
        assert worker.wait(timeout=60) == -signal.SIGKILL
        assert [left["os_hidden"] for left in images_there(over_there, name)] == [True]

        idle.environment, environment = once, idle.environment
        try:
            with healthy_worker(idle):
                job = client.ended(job_id)
                until(lambda: not images_there(over_there, name), "the image there to be removed")
        finally:
            idle.environment = environment

        assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0061")
