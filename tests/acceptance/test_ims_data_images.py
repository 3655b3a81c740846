"""Data disk images, imports of several files, quick imports, and the safe mode, over IMS."""

import os
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.test_import import bucket as bucket  # a fixture
from tests.acceptance.test_import import downloaded, jobs_and_images
from tests.acceptance.test_ims_servers import disk, made_of
from tests.service import Client

DATA: Final = "/v1/cloudimages/dataimages/action"
QUICK: Final = "/v2/cloudimages/quickimport/action"
CREATE: Final = "/v2/cloudimages/action"
KNOWN: Final = "Ubuntu 18.04 server 64bit"


@pytest.mark.parametrize("path", [DATA, "/v2.1/cloudimages/dataimages/action", "/v1/cloudimages/action"])
def test_a_file_becomes_a_data_disk_image(demo: Client, bucket: str, tmp_path: Path, path: str) -> None:
    content = disk()
    demo.put_object(bucket, "data.raw", content)

    body = {"name": "data", "image_url": f"{bucket}:data.raw", "min_disk": 1, "description": "d", "tags": ["a.b"]}
    job = demo.succeeded(demo.submit("POST", path, body))
    image, seen = made_of(demo, job, tmp_path)

    assert job["job_type"] == "imsImportDataImageJob"
    assert seen == content
    assert (image["virtual_env_type"], image["__os_type"], image["tags"]) == ("DataImage", "Linux", ["a=b"])
    assert image["__data_origin"] == f"file,{bucket}:data.raw"
    assert "__os_version" not in image
    # A client that sets tags reads the image's id of the first sub job, and counts on there being one.
    first = job["entities"]["sub_jobs_result"][0]
    assert first["entities"]["image_id"] == job["entities"]["image_id"] == image["id"]
    assert job["entities"]["sub_jobs_list"] == [first["job_id"]]
    assert demo.job(first["job_id"]) == first
    progress = demo.http.get(f"/v1/cloudimages/job/{job['job_id']}").json()["entities"]
    assert (progress["subJobId"], progress["process_percent"]) == (first["job_id"], 1)
    assert demo.http.get(f"/v1/cloudimages/job/{first['job_id']}").json() == first


def test_a_data_disk_import_that_fails_tells_why_in_its_sub_job_too(demo: Client, bucket: str) -> None:
    demo.put_object(bucket, "broken", b"QFI\xfb\x00\x00\x00\x03" + bytes(4096))

    body = {"name": "broken", "image_url": f"{bucket}:broken", "min_disk": 1}
    job = demo.ended(demo.submit("POST", DATA, body))

    [worker] = job["entities"]["sub_jobs_result"]
    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057")
    assert (worker["status"], worker["error_code"], worker["fail_reason"]) == ("FAIL", "IMG.0057", job["fail_reason"])
    assert demo.http.get("/v2/images", params={"name": "broken"}).json()["images"] == []


def test_a_system_disk_and_its_data_disks_are_imported_in_one_request(
    demo: Client, bucket: str, tmp_path: Path
) -> None:
    contents = {"system.raw": disk(1), "one.raw": disk(2), "two.raw": disk(3)}
    for key, content in contents.items():
        demo.put_object(bucket, key, content)

    body = {
        "name": "appliance",
        "image_url": f"{bucket}:system.raw",
        "min_disk": 1,
        "os_version": KNOWN,
        "data_images": [
            {"image_url": f"{bucket}:one.raw", "min_disk": 1, "name": "logs", "volume_id": "", "tags": ["role=logs"]},
            {"image_url": f"{bucket}:two.raw", "min_disk": 2},
        ],
    }
    job = demo.succeeded(demo.submit("POST", CREATE, body))

    children = job["entities"]["sub_jobs_result"]
    assert job["job_type"] == "imsImportImageJob"
    assert [child["job_type"] for child in children] == [
        "imsImportImageJob",
        "imsImportDataImageJob",
        "imsImportDataImageJob",
    ]
    assert job["entities"]["image_id"] == children[0]["entities"]["image_id"]
    for child, content, kind, name in zip(
        children,
        contents.values(),
        ("FusionCompute", "DataImage", "DataImage"),
        ("appliance", "logs", "appliance-data2"),
        strict=True,
    ):
        image, seen = made_of(demo, child, tmp_path)
        assert (seen, image["virtual_env_type"], image["name"]) == (content, kind, name)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (QUICK, "system"),
        (QUICK, "data"),
        ("/v2.1/cloudimages/quickimport/action", "system"),
        ("/v2.1/cloudimages/quickimport/action", "data"),
        (CREATE, "system"),
    ],
)
def test_a_quick_import_keeps_a_raw_file_as_it_is(
    demo: Client, bucket: str, tmp_path: Path, path: str, kind: str
) -> None:
    content = disk()
    demo.put_object(bucket, "big.raw", content)
    demo.put_object(bucket, "big.mf", b"bitmap")

    body: dict[str, Any] = {"name": "quick", "image_url": f"{bucket}:big.raw", "min_disk": 1}
    body |= {"os_version": KNOWN, "type": "ECS"} if kind == "system" else {"type": "DataImage"}
    body |= {"is_quick_import": True} if path == CREATE else {}
    job = demo.succeeded(demo.submit("POST", path, body))

    wanted = "imsImportImageJob" if kind == "system" else "imsImportDataImageJob"
    worker = demo.http.get(f"/v1/cloudimages/job/{job['job_id']}").json()["entities"]["subJobId"]
    image = downloaded(demo, job["entities"]["image_id"], tmp_path / "image")
    assert job["job_type"] == wanted
    assert demo.job(worker)["job_type"] == "imsImportBigFileImageJob"
    assert image["disk_format"] == "raw"
    assert (tmp_path / "image").read_bytes() == content


def test_a_quick_import_of_another_format_fails_with_its_code(demo: Client, bucket: str, alpine: Path) -> None:
    demo.put_object(bucket, "disk.qcow2", alpine)
    demo.put_object(bucket, "disk.mf", b"bitmap")

    body = {"name": "quick", "image_url": f"{bucket}:disk.qcow2", "min_disk": 1, "os_version": KNOWN}
    job = demo.ended(demo.submit("POST", QUICK, body))

    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0072")


def test_automatic_configuration_is_recorded(demo: Client, bucket: str) -> None:
    demo.put_object(bucket, "system.raw", disk(1))

    body = {"name": "config", "image_url": f"{bucket}:system.raw", "min_disk": 1, "is_config": True}
    job = demo.succeeded(demo.submit("POST", "/v2.1/cloudimages/action", body))

    worker = demo.http.get(f"/v1/cloudimages/job/{job['job_id']}").json()["entities"]["subJobId"]
    assert demo.image(job["entities"]["image_id"])["__is_config_init"] == "true"
    assert demo.job(worker)["job_type"] == "imsGoofysImportImageJob"


def test_what_is_wrong_with_a_request_is_told_with_its_code_and_changes_nothing(demo: Client, bucket: str) -> None:
    for key in ("a.raw", "b.raw", "c.raw", "d.raw", "e.raw", "a.mf"):
        demo.put_object(bucket, key, os.urandom(4096))
    demo.put_object(bucket, "empty", b"")
    before = jobs_and_images(demo)
    url = f"{bucket}:a.raw"
    plain: dict[str, Any] = {"name": "n", "image_url": url, "min_disk": 1}
    entry: dict[str, Any] = {"image_url": f"{bucket}:b.raw", "min_disk": 1}
    system: dict[str, Any] = {**plain, "os_version": KNOWN}
    key = "00000000-0000-0000-0000-000000000001"

    for path, body, code in (
        (DATA, {**plain, "name": None}, "IMG.0013"),
        (DATA, {**plain, "image_url": None}, "IMG.0017"),
        (DATA, {**plain, "min_disk": None}, "IMG.0055"),
        (DATA, {**plain, "os_type": "Other"}, "IMG.0122"),
        (QUICK, {**plain, "type": "DataImage", "os_type": "Other"}, "IMG.0122"),
        (CREATE, {**system, "type": "IsoImage", "is_quick_import": True}, "IMG.0072"),
        (DATA, {**plain, "min_disk": 2049}, "IMG.0055"),
        (DATA, {**plain, "min_disk": 0}, "IMG.0055"),
        (DATA, {**plain, "os_type": "BeOS"}, "IMG.0122"),
        (DATA, {**plain, "cmk_id": key}, "IMG.0095"),
        (DATA, {**plain, "image_url": f"{bucket}:none"}, "IMG.0057"),
        (DATA, {**plain, "image_url": f"{bucket}:empty"}, "IMG.0057"),
        (DATA, {**plain, "tags": ["a=b"], "image_tags": [{"key": "c"}]}, "IMG.0001"),
        (QUICK, {**plain, "type": "DataImage", "image_url": f"{bucket}:b.raw"}, "IMG.0057"),  # no bitmap
        (QUICK, {**plain}, "IMG.0056"),
        (QUICK, {**system, "type": "IsoImage"}, "IMG.0024"),
        (QUICK, {**system, "type": "Nonsense"}, "IMG.0024"),
        (QUICK, {**system, "min_disk": 1025}, "IMG.0055"),
        (CREATE, {**system, "data_images": [{**entry, "min_disk": None}]}, "IMG.0055"),
        (CREATE, {**system, "data_images": [{**entry, "min_disk": 2049}]}, "IMG.0055"),
        (CREATE, {**system, "data_images": [{"min_disk": 1}]}, "IMG.0017"),
        (CREATE, {**system, "data_images": [entry, entry]}, "IMG.0123"),
        (CREATE, {**system, "data_images": [{**entry, "image_url": url}]}, "IMG.0123"),
        (
            CREATE,
            {**system, "data_images": [{**entry, "image_url": f"{bucket}:{name}.raw"} for name in "bcde"]},
            "IMG.0194",
        ),
        (CREATE, {**system, "data_images": [{**entry, "name": "a/b"}]}, "IMG.0003"),
        (CREATE, {**system, "cmk_id": key, "type": "BMS"}, "IMG.0118"),
        (CREATE, {**system, "cmk_id": key, "type": "IsoImage"}, "IMG.0167"),
        (CREATE, {**system, "type": "IsoImage", "image_url": f"{bucket}:bad%name.iso"}, "IMG.0075"),
    ):
        given = {name: value for name, value in body.items() if value is not None}
        if "data_images" in given:
            given["data_images"] = [
                {name: value for name, value in one.items() if value is not None} for one in given["data_images"]
            ]
        answer = demo.http.post(path, json=given)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), (path, body, answer.text)
    assert jobs_and_images(demo) == before


@pytest.mark.parametrize(
    ("os_type", "version", "platform"),
    [
        ("Windows", "Other Windows(64 bit)", "Other"),
        ("Linux", "Other Linux(64 bit)", "Other"),
        ("Other", "Other Linux(64 bit)", "Other"),
    ],
)
def test_of_a_system_whose_type_alone_is_known_the_version_fits_the_type(
    demo: Client, bucket: str, os_type: str, version: str, platform: str
) -> None:
    demo.put_object(bucket, "system.raw", disk(1))

    body = {"name": "typed", "image_url": f"{bucket}:system.raw", "min_disk": 1, "os_type": os_type}
    image = demo.image(demo.succeeded(demo.submit("POST", CREATE, body))["entities"]["image_id"])

    assert (image["__os_type"], image["__os_version"], image["__platform"]) == (os_type, version, platform)
