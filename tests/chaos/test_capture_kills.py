"""Images of servers and of their disks end right whatever is killed when, and leave nothing behind."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.test_ims_servers import guest_bytes
from tests.chaos.test_kills import POINTS, dying_worker, healthy_worker
from tests.inventory import MIB, Described
from tests.service import Client, Service, until

MakeService = Callable[..., Service]


def stored(client: Client, image_id: str, folder: Path) -> bytes:
    target = folder / image_id
    target.write_bytes(client.http.get(f"/v2/images/{image_id}/file").content)
    return guest_bytes(target, folder)


@pytest.mark.parametrize(("step", "moment"), POINTS)
def test_each_disk_of_a_server_becomes_one_image_after_kill_9_of_the_worker_at(
    make_service: MakeService, tmp_path: Path, step: str, moment: str
) -> None:
    contents = [os.urandom(MIB) for _ in range(3)]
    service = make_service().start("--no-worker")
    with service.demo() as client:
        server = Described(service).server(*((content, {}) for content in contents), status="running")
        volumes = [f"{server[:8]}-vol{n}" for n in (1, 2)]
        worker = dying_worker(service, step, moment)
        disks = [{"name": f"n{n}", "volume_id": volume} for n, volume in enumerate(volumes)]
        family = client.submit("POST", "/v2/cloudimages/action", {"data_images": disks})
        whole = client.submit("POST", "/v2/cloudimages/action", {"name": "system", "instance_id": server})
        assert worker.wait(timeout=60) == -signal.SIGKILL

        with healthy_worker(service):
            children = client.succeeded(family)["entities"]["sub_jobs_result"]
            jobs = [client.succeeded(whole), *children]

            assert [stored(client, job["entities"]["image_id"], tmp_path) for job in jobs] == contents
            images = client.http.get("/v2/images").json()["images"]
            assert sorted(image["name"] for image in images) == ["n0", "n1", "system"]
            blobs = {f"blobs/{job['job_id'][:2]}/{job['job_id']}" for job in jobs}
            until(lambda: service.files() == blobs, f"no stray file: {service.files()}", within_s=20)
