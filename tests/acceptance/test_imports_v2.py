"""Interoperable import over HTTP against the running service: staging, the four methods, and tasks."""

import bz2
import contextlib
import gzip
import hashlib
import json
import lzma
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.importing import (
    CONTENT,
    ENDED,
    OCTETS,
    Source,
    ask,
    create,
    data,
    ended,
    failed,
    imported,
    stage,
    staged,
    tasks,
    told,
    uploaded,
    waiting,
)
from tests.service import Client, Service, until

PATCH: Final = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
UNKNOWN: Final = "9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"
FILE_BYTES: Final = 68_000_000  # the largest file, and the most that is unpacked


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    serving = Source()
    yield serving
    serving.close()


@pytest.fixture(scope="module")
def service(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With two more stores, and allowed to fetch from `source`."""
    folder = tmp_path_factory.mktemp("imports")
    config = folder / "calotype.toml"
    config.write_text(
        "[imagev2.inject]\ninjected = 'by the operator'\n"
        f"[stores.fast]\nfolder = '{folder}/fast'\nweight = 10\n"
        f"[stores.slow]\nfolder = '{folder}/slow'\n"
        "[stores.web]\ntype = 'http'\n"
    )
    for store in ("fast", "slow"):
        (folder / store).mkdir()
    environment = {
        "CALOTYPE_CONFIG": str(config),
        "CALOTYPE_FETCH_ALLOW": source.address,
        "CALOTYPE_IMAGE_COUNT_PER_PROJECT": "1000",
        "CALOTYPE_IMAGE_FILE_BYTES": str(FILE_BYTES),
    }
    running = Service(folder, environment=environment)
    try:
        yield running.start()
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


@pytest.fixture
def demo(service: Service) -> Iterator[Client]:
    with service.demo() as client:
        yield client


@pytest.fixture
def admin(service: Service) -> Iterator[Client]:
    with service.admin() as client:
        yield client


# --- staging ----------------------------------------------------------------------------------------------------------


def test_the_methods_are_told(demo: Client) -> None:
    methods = demo.http.get("/v2/info/import").json()["import-methods"]
    created = demo.http.post("/v2/images", json={})

    assert methods["value"] == ["glance-direct", "web-download", "copy-image", "glance-download"]
    assert created.headers["OpenStack-image-import-methods"] == ",".join(methods["value"])


def test_staged_bytes_wait_and_nothing_of_them_is_shown(demo: Client) -> None:
    image = staged(demo)

    shown = demo.image(image["id"])

    assert (shown["status"], shown["size"], shown["checksum"]) == ("uploading", None, None)
    assert demo.http.get(image["file"]).status_code == 204


def test_an_image_takes_one_upload_or_one_stage(demo: Client) -> None:
    image = staged(demo)

    again = stage(demo, image)
    upload = demo.http.put(image["file"], content=CONTENT, headers=OCTETS)

    assert (again.status_code, upload.status_code) == (409, 409)
    assert demo.image(image["id"])["status"] == "uploading"


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (CONTENT, {"Content-Type": "application/json"}, 415),
        (b"", OCTETS, 400),
        (CONTENT, {**OCTETS, "x-openstack-image-size": "5"}, 400),
        (CONTENT, {**OCTETS, "x-openstack-image-size": "five"}, 400),
    ],
)
def test_a_stage_that_cannot_be_leaves_the_image_queued(
    demo: Client, content: bytes, headers: Mapping[str, str], status: int
) -> None:
    image = create(demo)

    answer = demo.http.put(f"{image['self']}/stage", content=content, headers=headers)

    assert answer.status_code == status, answer.text
    assert demo.image(image["id"])["status"] == "queued"


def test_staging_to_what_is_not_the_callers_is_refused(demo: Client, admin: Client) -> None:
    foreign = create(admin)
    public = create(admin, visibility="public")

    assert stage(demo, foreign).status_code == 404
    assert stage(demo, public).status_code == 403
    assert demo.http.put(f"/v2/images/{UNKNOWN}/stage", content=CONTENT, headers=OCTETS).status_code == 404


def test_a_stage_that_is_cut_leaves_the_image_queued_and_nothing_behind(demo: Client, service: Service) -> None:
    image = create(demo)
    with socket.create_connection(("127.0.0.1", service.port)) as raw:
        head = (
            f"PUT {image['self']}/stage HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {demo.token}\r\n"
            "Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"
        )
        raw.sendall(head.encode() + b"x" * 1000)
        until(lambda: demo.image(image["id"])["status"] == "uploading", "the stage to begin")

    until(lambda: demo.image(image["id"])["status"] == "queued", "the image to be queued again")
    assert stage(demo, image).status_code == 204


def test_deleting_an_image_removes_its_staged_bytes(demo: Client, service: Service) -> None:
    before = set(waiting(service))
    image = staged(demo)
    there = set(waiting(service)) - before

    assert demo.http.delete(image["self"]).status_code == 204

    assert len(there) == 1
    assert not there & set(waiting(service))


def test_two_stages_that_trickle_keep_nobody_waiting(demo: Client, service: Service) -> None:
    images = [create(demo), create(demo)]
    with contextlib.ExitStack() as opened:
        for image in images:
            raw = opened.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            head = (
                f"PUT {image['self']}/stage HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {demo.token}\r\n"
                "Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"
            )
            raw.sendall(head.encode() + b"x")
        for image in images:
            until(lambda image=image: demo.image(image["id"])["status"] == "uploading", "the stage")  # type: ignore[misc]

        other = imported(demo, staged(demo), "glance-direct")

        assert other["status"] == "active"
        assert [demo.image(image["id"])["status"] for image in images] == ["uploading", "uploading"]


# --- glance-direct ----------------------------------------------------------------------------------------------------


def test_staged_bytes_become_the_image(demo: Client, service: Service) -> None:
    image = staged(demo)

    answer = ask(demo, image, "glance-direct")
    task = ended(demo, image)
    active = demo.image(image["id"])

    assert (answer.status_code, answer.content) == (202, b"")
    assert (active["status"], active["size"]) == ("active", len(CONTENT))
    assert active["os_hash_value"] == hashlib.sha512(CONTENT).hexdigest()
    assert (active["os_glance_importing_to_stores"], active["os_glance_failed_import"]) == ("", "")
    assert "os_glance_import_task" not in active
    assert data(demo, image) == CONTENT
    assert task["request_id"] == answer.headers["x-openstack-request-id"]
    assert task["input"]["import_req"]["method"] == {"name": "glance-direct"}
    assert (task["type"], task["result"], task["message"]) == ("api_image_import", {"image_id": image["id"]}, "")
    assert (task["owner"], task["image_id"]) == (demo.project_id, image["id"])


def test_an_import_is_a_job_of_the_other_apis_too(demo: Client) -> None:
    image = staged(demo)
    imported(demo, image, "glance-direct")
    job_id = tasks(demo, image)[0]["id"].replace("-", "")

    native = demo.http.get(f"/calotype/v1/jobs/{job_id}").json()
    ims = demo.job(job_id)

    assert (native["state"], native["type"]) == ("succeeded", "interoperableImportJob")
    steps = ["fetch", "decompress", "inspect", "convert", "verify", "publish"]
    assert [(step["name"], step["state"]) for step in native["steps"]] == [(step, "done") for step in steps]
    assert (ims["status"], ims["entities"]["image_id"]) == ("SUCCESS", image["id"])


def test_bytes_that_the_gate_refuses_leave_the_image_queued_and_nothing_behind(demo: Client, service: Service) -> None:
    image = staged(demo, disk_format="qcow2")

    task = failed(demo, image, "glance-direct")

    shown = demo.image(image["id"])
    assert (shown["status"], shown["os_glance_failed_import"]) == ("queued", "local")
    assert "declared as qcow2" in task["message"]
    assert task["result"] is None
    job_id = task["id"].replace("-", "")
    until(lambda: not [name for name in waiting(service) if job_id in name], "the staged bytes to go")
    assert stage(demo, image, b"\0" * 1024).status_code == 204


def test_a_failed_import_gives_the_quota_back(demo: Client) -> None:
    before = demo.http.get("/v2/info/usage").json()["usage"]
    image = staged(demo, bytes(3 * 2**20), disk_format="qcow2")
    between = demo.http.get("/v2/info/usage").json()["usage"]

    failed(demo, image, "glance-direct")
    demo.http.delete(image["self"])

    assert between["image_stage_total"]["usage"] >= before["image_stage_total"]["usage"] + 3
    assert demo.http.get("/v2/info/usage").json()["usage"] == before


def test_an_import_goes_to_the_stores_that_are_named_heaviest_first(demo: Client, service: Service) -> None:
    everywhere = imported(demo, staged(demo), "glance-direct", {"all_stores": True})
    chosen = imported(demo, staged(demo, b"other" * 512), "glance-direct", {"stores": ["slow", "fast"]})
    by_header = create(demo)
    stage(demo, by_header, b"third" * 512)
    answer = demo.http.post(
        f"{by_header['self']}/import",
        json={"method": {"name": "glance-direct"}},
        headers={"X-Image-Meta-Store": "slow"},
    )
    ended(demo, by_header)

    assert everywhere["stores"] == "fast,local,slow"
    assert chosen["stores"] == "fast,slow"
    assert answer.status_code == 202
    assert demo.image(by_header["id"])["stores"] == "slow"
    assert data(demo, everywhere) == CONTENT


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        ({}, 400, "'method'"),
        ({"method": "glance-direct"}, 400, "'method'"),
        ({"method": {}}, 400, "'name'"),
        ({"method": {"name": "magic"}}, 400, "nknown import method name 'magic'"),
        ({"method": {"name": 5}}, 400, "name"),
        ({"method": {"name": "glance-direct"}, "all_stores": "yes"}, 400, "all_stores"),
        ({"method": {"name": "glance-direct"}, "all_stores_must_succeed": 1}, 400, "all_stores_must_succeed"),
        ({"method": {"name": "glance-direct"}, "all_stores": True, "stores": ["fast"]}, 400, "all_stores"),
        ({"method": {"name": "glance-direct"}, "stores": []}, 400, "stores"),
        ({"method": {"name": "glance-direct"}, "stores": [5]}, 400, "stores"),
        ({"method": {"name": "glance-direct"}, "stores": ["nowhere"]}, 409, "nowhere"),
        ({"method": {"name": "glance-direct"}, "stores": ["web"]}, 409, "web"),
        ({"method": {"name": "web-download", "uri": "http://a.test/"}}, 409, "'queued'"),
        ({"method": {"name": "copy-image"}}, 409, "active"),
    ],
)
def test_an_import_that_cannot_be_changes_nothing(demo: Client, body: Any, status: int, part: str) -> None:
    image = staged(demo)
    before = demo.image(image["id"])

    answer = demo.http.post(f"{image['self']}/import", json=body)

    assert answer.status_code == status, answer.text
    assert part in told(answer)
    assert demo.image(image["id"]) == before
    assert tasks(demo, image) == []


def test_an_import_wants_staged_bytes_formats_and_no_second_import(demo: Client) -> None:
    unstaged = create(demo)
    without = create(demo, disk_format=None)
    active = imported(demo, staged(demo), "glance-direct")
    stage(demo, without)

    assert "staged" in told(ask(demo, unstaged, "glance-direct"))
    assert ask(demo, without, "glance-direct").status_code == 409
    assert "disk_format" in told(ask(demo, without, "glance-direct"))
    assert ask(demo, active, "glance-direct").status_code == 409


def test_nobody_imports_into_what_is_not_his(demo: Client, admin: Client) -> None:
    foreign, public = staged(admin), staged(admin, visibility="public")

    assert ask(demo, foreign, "glance-direct").status_code == 404
    assert ask(demo, public, "glance-direct").status_code == 403
    assert demo.http.post(f"/v2/images/{UNKNOWN}/import", json={"method": {"name": "copy-image"}}).status_code == 404


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_tasks_are_an_admins_to_list_and_show(demo: Client, admin: Client) -> None:
    image = staged(demo)
    imported(demo, image, "glance-direct")
    task = tasks(demo, image)[0]

    shown = admin.http.get(f"/v2/tasks/{task['id']}")
    without_dashes = admin.http.get(f"/v2/tasks/{task['id'].replace('-', '')}")

    assert shown.json() == without_dashes.json() == task
    assert demo.http.get("/v2/tasks").status_code == 403
    assert demo.http.get(f"/v2/tasks/{task['id']}").status_code == 403
    assert admin.http.get(f"/v2/tasks/{UNKNOWN}").status_code == 404
    assert admin.http.get("/v2/tasks/x").status_code == 404
    refused = admin.http.delete(f"/v2/tasks/{task['id']}")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET")


def test_a_list_of_tasks_is_paged_filtered_and_sorted(demo: Client, admin: Client) -> None:
    for _ in range(3):
        imported(demo, staged(demo), "glance-direct")
    failed(demo, staged(demo, disk_format="qcow2"), "glance-direct")

    for key in ("created_at", "id", "status", "type"):
        for direction in ("asc", "desc"):
            query = f"sort_key={key}&sort_dir={direction}"
            whole = admin.http.get(f"/v2/tasks?{query}&limit=1000").json()
            paged, link = [], f"/v2/tasks?{query}&limit=2"
            while link:
                page = admin.http.get(link).json()
                paged += page["tasks"]
                link = page.get("next")
            assert paged == whole["tasks"], query
            values = [(task[key], task["id"].replace("-", "")) for task in whole["tasks"]]
            if key != "created_at":  # shown in whole seconds
                assert values == sorted(values, reverse=direction == "desc")
    failures = admin.http.get("/v2/tasks?status=failure&type=api_image_import").json()["tasks"]
    assert {task["status"] for task in failures} == {"failure"}
    assert {"input", "result", "message"}.isdisjoint(failures[0])
    assert admin.http.get("/v2/tasks?limit=0").json()["tasks"] == []


@pytest.mark.parametrize(
    "query",
    ["status=done", "type=magic", "sort_key=owner", "sort_dir=up", "limit=-1", "limit=x", "marker=x"],
)
def test_a_list_of_tasks_refuses_what_it_does_not_know(admin: Client, query: str) -> None:
    answer = admin.http.get(f"/v2/tasks?{query}")

    assert answer.status_code == 400, answer.text
    assert query.partition("=")[0] in told(answer)


def test_the_tasks_of_an_image_are_those_of_who_may_know(demo: Client, admin: Client) -> None:
    public = staged(admin, visibility="public")
    imported(admin, public, "glance-direct")

    assert len(tasks(admin, public)) == 1
    assert tasks(demo, public) == []
    assert demo.http.get(f"{staged(admin)['self']}/tasks").status_code == 404


@pytest.mark.parametrize("name", ["task", "tasks"])
def test_tasks_have_schemas(demo: Client, name: str) -> None:
    schema = demo.http.get(f"/v2/schemas/{name}").json()

    assert schema["name"] == name
    assert schema["properties"]


# --- web-download -----------------------------------------------------------------------------------------------------


def test_a_url_becomes_the_image(demo: Client, source: Source, alpine: Path) -> None:
    content = alpine.read_bytes()
    image = create(demo, disk_format="qcow2")

    active = imported(demo, image, "web-download", uri=source.url(content))

    assert (active["status"], active["size"]) == ("active", len(content))
    assert active["checksum"] == hashlib.md5(content).hexdigest()  # noqa: S324 - the API's word
    assert active["disk_format"] == "qcow2"
    assert active["virtual_size"] == 2**30
    assert active["injected"] == "by the operator"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost/",
        "file:///etc/passwd",
        "ftp://a.test/x",
        "not a url",
        "http://user:secret@example.test/",
    ],
)
def test_a_url_that_is_barred_is_refused_at_once(demo: Client, url: str) -> None:
    image = create(demo)

    answer = ask(demo, image, "web-download", uri=url)

    assert answer.status_code == 400
    assert "does not pass filtering" in told(answer)
    assert "secret" not in told(answer)
    assert demo.image(image["id"])["status"] == "queued"
    assert tasks(demo, image) == []


def test_our_own_endpoint_is_not_open_to_users(demo: Client, service: Service) -> None:
    answer = ask(demo, create(demo), "web-download", uri=f"{service.url}/health/live")

    assert answer.status_code == 400
    assert "does not pass filtering" in told(answer)


def test_a_download_wants_a_url(demo: Client) -> None:
    answer = ask(demo, create(demo), "web-download")

    assert (answer.status_code, "'uri'" in told(answer)) == (400, True)


def test_a_url_without_a_file_ends_as_a_failed_import(demo: Client, source: Source, service: Service) -> None:
    image = create(demo)

    task = failed(demo, image, "web-download", {"stores": ["fast", "slow"]}, uri=f"http://{source.address}/nothing")

    shown = demo.image(image["id"])
    assert (shown["status"], shown["os_glance_failed_import"]) == ("queued", "fast,slow")
    assert (shown["os_glance_importing_to_stores"], "os_glance_import_task" in shown) == ("", False)
    assert "404" in task["message"]


def test_the_file_of_a_url_is_not_larger_than_an_image_may_be(demo: Client, source: Source) -> None:
    source.files["/large"] = bytes(FILE_BYTES + 1)

    task = failed(demo, create(demo), "web-download", uri=f"http://{source.address}/large")

    assert str(FILE_BYTES) in task["message"]
    del source.files["/large"]


def test_an_import_that_failed_can_be_tried_again(demo: Client, source: Source) -> None:
    image = create(demo)
    failed(demo, image, "web-download", uri=f"http://{source.address}/nothing")

    active = imported(demo, image, "web-download", uri=source.url(CONTENT))

    assert (active["status"], active["os_glance_failed_import"]) == ("active", "")
    assert [task["status"] for task in tasks(demo, image)] == ["success", "failure"]


@pytest.mark.parametrize("how", ["delete", "cancel"])
def test_a_download_that_stalls_is_ended_by_deleting_or_cancelling(
    demo: Client, source: Source, service: Service, how: str
) -> None:
    image = create(demo)
    ask(demo, image, "web-download", uri=f"http://{source.address}/stalls")
    job_id = tasks(demo, image)[0]["id"].replace("-", "")
    until(lambda: [name for name in waiting(service) if job_id in name], "the download to begin")

    if how == "delete":
        assert demo.http.delete(image["self"]).status_code == 204
    else:
        assert demo.http.post(f"/calotype/v1/jobs/{job_id}:cancel").status_code == 202

    job = demo.ended(job_id, within_s=60)
    assert (job["status"], job["fail_reason"]) == (
        "FAIL",
        "the image was deleted" if how == "delete" else "cancelled by demo",
    )
    until(lambda: not [name for name in service.files() if job_id in name], "its files to be gone")
    if how == "cancel":
        assert demo.image(image["id"])["status"] == "queued"


def test_an_admins_import_is_left_as_it_is(admin: Client, source: Source) -> None:
    assert "injected" not in imported(admin, create(admin), "web-download", uri=source.url(CONTENT))


# --- copy-image -------------------------------------------------------------------------------------------------------


def test_an_active_image_gets_more_stores(demo: Client, service: Service) -> None:
    image = uploaded(demo, b"to be copied " * 100)

    one = imported(demo, image, "copy-image", {"stores": ["slow"]})
    rest = imported(demo, image, "copy-image", {"all_stores": True, "all_stores_must_succeed": False})
    nothing_left = ask(demo, image, "copy-image", {"all_stores": True})

    assert (image["stores"], one["stores"], rest["stores"]) == ("local", "local,slow", "fast,local,slow")
    assert (rest["os_glance_importing_to_stores"], rest["os_glance_failed_import"]) == ("", "")
    assert (rest["status"], "os_glance_import_task" in rest) == ("active", False)
    assert nothing_left.status_code == 202
    assert len(tasks(demo, image)) == 2
    assert data(demo, image) == b"to be copied " * 100


def test_a_store_that_has_the_image_is_not_copied_to(demo: Client) -> None:
    answer = ask(demo, uploaded(demo, b"here already " * 100), "copy-image", {"stores": ["local"]})

    assert answer.status_code == 400
    assert "already present at store 'local'" in told(answer)


def test_an_admin_copies_anyones_image_and_others_only_their_own(demo: Client, admin: Client) -> None:
    theirs = uploaded(demo, b"an image of demo " * 100)
    public = uploaded(admin, b"of the admin " * 100, visibility="public")

    assert imported(admin, theirs, "copy-image", {"stores": ["slow"]})["stores"] == "local,slow"
    assert ask(demo, public, "copy-image", {"stores": ["slow"]}).status_code == 403


def test_a_store_that_fails_is_told_and_the_others_have_the_image(demo: Client, service: Service) -> None:
    image = uploaded(demo, b"to two stores, of which one fails " * 100)
    folder = service.data_dir.parent / "slow"
    aside = folder.rename(folder.with_name("slow-aside"))
    folder.write_bytes(b"not a folder")
    try:
        strict = failed(demo, image, "copy-image", {"stores": ["slow"]})
        both = {"stores": ["fast", "slow"], "all_stores_must_succeed": False}
        lenient = imported(demo, image, "copy-image", both)
        new = imported(demo, staged(demo, b"new, to two stores " * 50), "glance-direct", both)
        all_or_nothing = failed(demo, staged(demo), "glance-direct", {"stores": ["fast", "slow"]})
    finally:
        folder.unlink()
        aside.rename(folder)

    assert strict["message"]
    assert (lenient["stores"], lenient["os_glance_failed_import"]) == ("fast,local", "slow")
    assert (new["stores"], new["os_glance_failed_import"]) == ("fast", "slow")
    assert demo.image(all_or_nothing["image_id"])["status"] == "queued"


# --- glance-download --------------------------------------------------------------------------------------------------


def change(client: Client, image: Mapping[str, Any], **values: str) -> None:
    operations = [{"op": "add", "path": f"/{name}", "value": value} for name, value in values.items()]
    answer = client.http.patch(image["self"], content=json.dumps(operations), headers=PATCH)
    assert answer.status_code == 200, answer.text


def test_an_image_of_another_service_is_taken_over_with_what_the_settings_name(demo: Client) -> None:
    origin = uploaded(demo, b"in the other service " * 100)
    change(demo, origin, hw_cpu_cores="5", **{"trait:STORAGE_DISK_SSD": "required"}, os_distro="rhel", speed="88mph")
    image = create(demo, disk_format="iso", container_format="ovf")
    change(demo, image, hw_cpu_cores="1", os_distro="windows")

    taken = imported(
        demo,
        image,
        "glance-download",
        glance_image_id=origin["id"],
        glance_region="RegionOne",
        glance_service_interface="public",
    )

    wanted = {"hw_cpu_cores": "5", "trait:STORAGE_DISK_SSD": "required", "os_distro": "rhel", "disk_format": "raw"}
    assert {name: taken[name] for name in wanted} == wanted
    assert (taken["container_format"], taken["os_hash_value"]) == ("bare", origin["os_hash_value"])
    assert "speed" not in taken
    assert data(demo, taken) == b"in the other service " * 100


@pytest.mark.parametrize(
    ("region", "interface", "image_id", "part"),
    [
        ("not a region", "public", UNKNOWN, "region 'not a region'"),
        ("RegionOne", "not an interface", UNKNOWN, "'not an interface'"),
        ("RegionOne", "internal", UNKNOWN, f"no image {UNKNOWN}"),
    ],
)
def test_what_the_other_service_does_not_have_leaves_the_image_as_it_was(
    demo: Client, region: str, interface: str, image_id: str, part: str
) -> None:
    image = create(demo)
    change(demo, image, hw_cpu_cores="1", os_distro="windows")
    where = {"glance_region": region, "glance_service_interface": interface}

    task = failed(demo, image, "glance-download", glance_image_id=image_id, **where)

    shown = demo.image(image["id"])
    assert part in task["message"]
    assert (shown["status"], shown["hw_cpu_cores"], shown["os_distro"]) == ("queued", "1", "windows")


def test_a_foreign_image_is_not_taken_over(demo: Client, admin: Client) -> None:
    foreign = uploaded(admin, b"of the admin alone " * 100)

    task = failed(demo, create(demo), "glance-download", glance_image_id=foreign["id"], glance_region="RegionOne")

    assert f"no image {foreign['id']}" in task["message"]


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"glance_region": "RegionOne", "glance_image_id": "foo"}, "image id does not look like a UUID"),
        ({"glance_region": "RegionOne"}, "'glance_image_id'"),
        ({"glance_image_id": UNKNOWN}, "'glance_region'"),
    ],
)
def test_a_take_over_wants_an_image_and_a_region(demo: Client, fields: dict[str, Any], part: str) -> None:
    answer = ask(demo, create(demo), "glance-download", **fields)

    assert (answer.status_code, part in told(answer)) == (400, True)


def test_no_token_is_kept_with_a_job_or_logged(demo: Client, service: Service) -> None:
    origin = uploaded(demo, b"fetched with a token " * 100)
    image = create(demo)
    imported(demo, image, "glance-download", glance_image_id=origin["id"], glance_region="RegionOne")

    kept = json.dumps(tasks(demo, image)) + service.log.read_text()

    assert "X-Auth-Token" not in kept
    assert "eyJ" not in kept  # how a signed token begins
    assert demo.token[:16] not in kept


# --- what an import does on the way -----------------------------------------------------------------------------------

DISK: Final = b"\x33\xc0 a raw disk in a packed file " * 40_000


def zstd(content: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=content, capture_output=True, check=True).stdout


PACKERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstd,
}


@pytest.mark.parametrize("packer", PACKERS)
def test_compression_is_taken_off(demo: Client, packer: str) -> None:
    active = imported(demo, staged(demo, PACKERS[packer](DISK)), "glance-direct")

    assert (active["size"], active["os_hash_value"]) == (len(DISK), hashlib.sha512(DISK).hexdigest())
    assert data(demo, active) == DISK


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize(
    ("spoilt", "part"),
    [
        (lambda pack: pack(pack(DISK)), "packed twice"),
        (lambda pack: pack(DISK)[:-20], ""),
        (lambda pack: pack(bytes(FILE_BYTES)) + pack(bytes(1000)), "more than"),
    ],
    ids=["twice", "cut", "bomb"],
)
def test_packed_bytes_that_are_spoilt_are_refused(
    demo: Client, packer: str, spoilt: Callable[[Callable[[bytes], bytes]], bytes], part: str, service: Service
) -> None:
    image = staged(demo, spoilt(PACKERS[packer]))

    task = failed(demo, image, "glance-direct")

    assert part in task["message"]
    assert demo.image(image["id"])["status"] == "queued"
    job_id = task["id"].replace("-", "")
    until(lambda: not [name for name in service.files() if job_id in name], "its files to be gone")


def test_what_is_meant_to_be_packed_stays_packed(demo: Client) -> None:
    packed = gzip.compress(DISK)

    active = imported(demo, staged(demo, packed, container_format="compressed"), "glance-direct")

    assert active["checksum"] == hashlib.md5(packed).hexdigest()  # noqa: S324 - the API's word


@pytest.mark.parametrize("wanted", ["raw", "qcow2"])
def test_an_import_is_converted_where_the_settings_say_so(
    make_service: Callable[..., Service], tmp_path: Path, wanted: str
) -> None:
    service = make_service(environment={"CALOTYPE_IMAGEV2_CONVERT_TO": wanted}).start()
    raw, qcow2 = tmp_path / "raw", tmp_path / "qcow2"
    raw.write_bytes(DISK.ljust(2**23, b"\0"))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2)], check=True)
    given = {"raw": ("qcow2", qcow2), "qcow2": ("raw", raw)}[wanted]
    with service.demo() as demo:
        image = staged(demo, given[1].read_bytes(), disk_format=given[0])

        converted = imported(demo, image, "glance-direct")
        left = imported(demo, staged(demo, _iso(), disk_format="iso"), "glance-direct")

        out = tmp_path / "out"
        out.write_bytes(data(demo, converted))
        assert (converted["disk_format"], converted["virtual_size"]) == (wanted, 2**23)
        compare = ["qemu-img", "compare", "-f", wanted, "-F", "raw", str(out), str(raw)]
        subprocess.run(compare, check=True, capture_output=True)
        assert (left["disk_format"], left["size"]) == ("iso", len(_iso()))
        until(lambda: len(service.files()) == 2, f"no stray file: {service.files()}")


def _iso() -> bytes:
    """The least that is an ISO 9660 image: a primary volume descriptor and the end of the descriptors."""
    primary = bytearray(2048)
    primary[:7] = b"\x01CD001\x01"
    primary[80:88] = (20).to_bytes(4, "little") + (20).to_bytes(4, "big")
    primary[128:132] = (2048).to_bytes(2, "little") + (2048).to_bytes(2, "big")
    end = b"\xffCD001\x01".ljust(2048, b"\0")
    return bytes(16 * 2048) + bytes(primary) + end + bytes(2 * 2048)


# --- tasks that import ------------------------------------------------------------------------------------------------


def task_body(url: str, **properties: Any) -> dict[str, Any]:
    formats = {"disk_format": "raw", "container_format": "bare", "name": "of a task", **properties}
    return {"type": "import", "input": {"import_from": url, "import_from_format": "raw", "image_properties": formats}}


def test_a_task_makes_an_image_from_a_url(admin: Client, source: Source) -> None:
    body = task_body(source.url(CONTENT), visibility="public", os_distro="debian")

    answer = admin.http.post("/v2/tasks", json=body)

    assert answer.status_code == 201, answer.text
    task = answer.json()
    assert answer.headers["Location"] == task["self"]
    assert (task["type"], task["input"]) == ("import", body["input"])
    shown = until(lambda: (now := admin.http.get(task["self"]).json())["status"] in ENDED and now, "the task")
    assert shown["status"] == "success"
    image = admin.image(shown["result"]["image_id"])
    assert (image["status"], image["visibility"], image["os_distro"]) == ("active", "public", "debian")
    assert image["checksum"] == hashlib.md5(CONTENT).hexdigest()  # noqa: S324 - the API's word


def test_a_task_that_fails_leaves_no_image(admin: Client, source: Source) -> None:
    answer = admin.http.post("/v2/tasks", json=task_body(f"http://{source.address}/nothing"))

    task = answer.json()
    shown = until(lambda: (now := admin.http.get(task["self"]).json())["status"] in ENDED and now, "the task")
    assert (shown["status"], shown["result"]) == ("failure", None)
    assert admin.http.get(f"/v2/images/{task['image_id']}").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "import"},
        {"type": "export", "input": {}},
        {"type": "import", "input": []},
        {"type": "import", "input": {"import_from": "http://a.test/"}},
        task_body("http://127.0.0.1:1/"),
        task_body("http://a-name-without-a-dot.qcow2:99999/"),
        task_body("http://a.test/", disk_format=None),
        task_body("http://a.test/", min_disk="x"),
    ],
)
def test_a_task_that_cannot_be_is_refused_at_once(admin: Client, body: Any) -> None:
    before = admin.http.get("/v2/tasks?limit=1000").json()

    answer = admin.http.post("/v2/tasks", json=body)

    assert answer.status_code == 400, answer.text
    assert admin.http.get("/v2/tasks?limit=1000").json() == before


def test_only_admins_make_tasks(demo: Client, source: Source) -> None:
    assert demo.http.post("/v2/tasks", json=task_body(source.url(CONTENT))).status_code == 403
