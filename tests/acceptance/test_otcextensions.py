"""python-otcextensions as it is on PyPI: make an image from a file, follow the job, export it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest
from otcextensions import sdk

from tests.service import Client, Service

# The SDK warns of its own parts that a coming release drops; none of them is used here.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture
def cloud(service: Service) -> Iterator[Any]:
    given = service.cloud("calotype-demo")
    connection = openstack.connect(
        load_envvars=False,
        load_yaml_config=False,
        auth=given["auth"],
        region_name=given["region_name"],
        identity_api_version="3",
    )
    sdk.register_otc_extensions(connection)
    yield connection
    connection.close()


def test_an_image_is_made_from_a_file_followed_and_exported(cloud: Any, demo: Client, alpine: Path) -> None:
    bucket = f"otc-{os.urandom(4).hex()}"
    demo.put_object(bucket, "alpine.qcow2", alpine)

    started = cloud.imsv2.create_image(name="from-otc", image_url=f"{bucket}:alpine.qcow2", min_disk=4)
    ended = cloud.imsv1.wait_for_async_job(started.job_id, timeout=120, wait=1)

    assert ended.status == "SUCCESS"
    assert ended.job_type == "imsImportImageJob"
    assert ended.entities.image_name == "from-otc"
    asked = cloud.imsv1.get_async_job(started.job_id)
    assert (asked.job_id, asked.status, asked.error_code, asked.fail_reason) == (started.job_id, "SUCCESS", None, None)
    assert asked.entities.image_id == ended.entities.image_id
    assert demo.image(ended.entities.image_id)["status"] == "active"

    export = cloud.imsv1.export_image(
        image_id=ended.entities.image_id, bucket_url=f"{bucket}:out.vhd", file_format="vhd"
    )
    assert cloud.imsv1.wait_for_async_job(export.job_id, timeout=120, wait=1).status == "SUCCESS"
    assert len(demo.get_object(bucket, "out.vhd")) > 1_000_000


def test_a_job_that_fails_raises_in_the_client(cloud: Any, demo: Client) -> None:
    bucket = f"otc-{os.urandom(4).hex()}"
    demo.put_object(bucket, "junk", b"QFI\xfb" + b"\x00\x00\x00\x03" + bytes(600))

    started = cloud.imsv2.create_image(name="junk", image_url=f"{bucket}:junk", min_disk=4)

    with pytest.raises(RuntimeError, match="failed"):
        cloud.imsv1.wait_for_async_job(started.job_id, timeout=60, wait=1)


def test_an_unknown_job_raises_in_the_client(cloud: Any) -> None:
    with pytest.raises(openstack.exceptions.BadRequestException):
        cloud.imsv1.get_async_job("0123456789abcdef0123456789abcdef")
