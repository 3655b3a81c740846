"""Full-server images end right whatever is killed when: with every disk of one moment, counted to the byte, and nothing
left behind."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.test_whole_images import PATH, backup, contents, deleted, image_of, used
from tests.chaos.test_kills import POINTS, dying_worker, healthy_worker
from tests.inventory import MIB, Described
from tests.service import Service, until

MakeService = Callable[..., Service]


@pytest.mark.parametrize(("step", "moment"), POINTS)
def test_a_server_and_a_backup_become_images_after_kill_9_of_the_worker_at(
    make_service: MakeService, tmp_path: Path, step: str, moment: str
) -> None:
    disks = [os.urandom(MIB) for _ in range(4)]
    service = make_service().start("--no-worker")
    with service.demo() as client:
        described = Described(service)
        server = described.server(*((content, {}) for content in disks[:2]), status="running")
        saved = described.backup(*((content, {}) for content in disks[2:]))
        worker = dying_worker(service, step, moment)
        bodies = [{"instance_id": server}, {"backup_id": saved, "whole_image_type": "CBR"}]
        jobs = [client.submit("POST", PATH, {"name": f"whole{n}", **body}) for n, body in enumerate(bodies)]
        assert worker.wait(timeout=60) == -signal.SIGKILL

        with healthy_worker(service):
            images = [image_of(client, client.succeeded(job_id)) for job_id in jobs]

            kept = [backup(client, image["__backup_id"]) for image in images]
            assert [content for told in kept for content in contents(client, told, tmp_path)] == disks
            assert used(client) == sum(image["size"] for image in images) + sum(told["size"] for told in kept)
            until(lambda: len(service.files()) == len(disks), f"no stray file: {service.files()}", within_s=20)
            for image in images:
                deleted(client, image, delete_backup=True)
            until(lambda: not service.files(), f"no file left: {service.files()}", within_s=20)
            assert used(client) == 0


@pytest.mark.parametrize("step", ["convert", "verify", "publish"])
def test_disks_that_are_gone_are_brought_again_all_of_one_moment(
    make_service: MakeService, tmp_path: Path, step: str
) -> None:
    """As on another machine, whose folders are not those of the worker that died."""
    before, after = [os.urandom(MIB) for _ in range(2)], [os.urandom(MIB) for _ in range(2)]
    service = make_service().start("--no-worker")
    with service.demo() as client:
        described = Described(service)
        server = described.server(*((content, {}) for content in before))
        worker = dying_worker(service, step, "before")
        job_id = client.submit("POST", PATH, {"name": "whole", "instance_id": server})
        assert worker.wait(timeout=60) == -signal.SIGKILL
        (service.data_dir / "scratch" / job_id / "disks" / "1" / "source").unlink()
        for staged in (service.data_dir / "blobs" / "staging").glob("*.1"):
            staged.unlink()
        for number, content in enumerate(after):
            described.path(server, number).write_bytes(content)

        with healthy_worker(service):
            image = image_of(client, client.succeeded(job_id))

            assert contents(client, backup(client, image["__backup_id"]), tmp_path) == after
            until(lambda: len(service.files()) == 2, f"no stray file: {service.files()}", within_s=20)
