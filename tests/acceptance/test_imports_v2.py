"""Interoperable import over HTTP against the running service: staging, the four methods, and tasks."""

import contextlib
import hashlib
import http.server
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx
import pytest

from tests.service import Client, Service, until

OCTETS: Final = {"Content-Type": "application/octet-stream"}
PATCH: Final = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
UNKNOWN: Final = "9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"
CONTENT: Final = b"bytes of a raw disk, staged " * 500
ENDED: Final = ("success", "failure")


class Source:
    """A web server on this machine that users import from. `files`: path -> content."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        files = self.files

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = files.get(self.path)
                self.send_response(200 if content is not None else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                return None

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, content: bytes) -> str:
        path = f"/{uuid.uuid4().hex}"
        self.files[path] = content
        return f"http://{self.address}{path}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


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
        "CALOTYPE_IMAGE_FILE_BYTES": "200000000",
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


def create(client: Client, **fields: Any) -> dict[str, Any]:
    name = f"import-{uuid.uuid4().hex[:12]}"
    answer = client.http.post(
        "/v2/images", json={"name": name, "disk_format": "raw", "container_format": "bare", **fields}
    )
    assert answer.status_code == 201, answer.text
    image: dict[str, Any] = answer.json()
    return image


def stage(client: Client, image: Mapping[str, Any], content: bytes = CONTENT) -> httpx.Response:
    return client.http.put(f"{image['self']}/stage", content=content, headers=OCTETS)


def staged(client: Client, content: bytes = CONTENT, **fields: Any) -> dict[str, Any]:
    image = create(client, **fields)
    answer = stage(client, image, content)
    assert answer.status_code == 204, answer.text
    return image


def ask(client: Client, image: Mapping[str, Any], method: str, more: Mapping[str, Any] = {}, **fields: Any) -> Any:
    body = {"method": {"name": method, **fields}, **more}
    return client.http.post(f"{image['self']}/import", json=body)


def tasks(client: Client, image: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.http.get(f"{image['self']}/tasks").json()["tasks"]
    return found


def ended(client: Client, image: Mapping[str, Any]) -> dict[str, Any]:
    """The newest task of an image, once it has ended."""
    task: dict[str, Any] = until(
        lambda: (newest := tasks(client, image)[0])["status"] in ENDED and newest, "the import"
    )
    return task


def imported(client: Client, image: Mapping[str, Any], method: str, *args: Any, **fields: Any) -> dict[str, Any]:
    answer = ask(client, image, method, *args, **fields)
    assert answer.status_code == 202, answer.text
    task = ended(client, image)
    assert task["status"] == "success", task
    return client.image(image["id"])


def failed(client: Client, image: Mapping[str, Any], method: str, *args: Any, **fields: Any) -> dict[str, Any]:
    answer = ask(client, image, method, *args, **fields)
    assert answer.status_code == 202, answer.text
    task = ended(client, image)
    assert task["status"] == "failure", task
    return task


def told(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["message"])


def data(client: Client, image: Mapping[str, Any]) -> bytes:
    answer = client.http.get(f"/v2/images/{image['id']}/file")
    assert answer.status_code == 200, answer.text
    return answer.content


def staged_bytes(client: Client) -> int:
    used = client.http.get("/v2/info/usage").json()["usage"]["image_stage_total"]["usage"]
    return int(used)


def waiting(service: Service) -> list[str]:
    return [path.name for path in (service.data_dir / "blobs" / "staging").iterdir()]


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
