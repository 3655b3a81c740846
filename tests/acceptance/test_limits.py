"""Each limit of docs/reference/limits.md at its edge: what is at the limit is taken, one more is refused with its code.

The limits that settings set are small here. Those of exports and of the members of an image have their edges in
`test_export.py` and `test_ims_members.py`, the ten tags of an image in `test_ims_tags.py`.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from calotype.settings import load
from tests.inventory import MIB, Described
from tests.service import Client, Service

CREATE: Final = "/v2/cloudimages/action"
DATA: Final = "/v1/cloudimages/dataimages/action"
QUICK: Final = "/v2/cloudimages/quickimport/action"
KNOWN: Final = "Ubuntu 18.04 server 64bit"
OCTETS: Final = {"Content-Type": "application/octet-stream"}
FILE_BYTES, QUICK_BYTES, COPY_BYTES, DISK_BYTES = 65536, 131072, 32768, MIB
IMAGES, CREATIONS, COPIES = 6, 4, 2
SIZES: Final = (COPY_BYTES, FILE_BYTES, FILE_BYTES + 1, QUICK_BYTES, QUICK_BYTES + 1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without a worker, so that jobs stay open. Its bucket `files` holds a file of each size."""
    folder = tmp_path_factory.mktemp("small")
    files = folder / "files"
    files.mkdir()
    for size in SIZES:
        (files / f"{size}.raw").write_bytes(os.urandom(size))
        (files / f"{size}.mf").write_bytes(b"bitmap")
    config = folder / "calotype.toml"
    config.write_text(f"[buckets.files]\nfolder = {json.dumps(str(files))}\n")
    limits = {
        "IMAGE_FILE_BYTES": FILE_BYTES,
        "IMAGE_QUICK_BYTES": QUICK_BYTES,
        "IMAGE_EXPORT_BYTES": COPY_BYTES,
        "SERVERS_DISK_BYTES": DISK_BYTES,
        "IMAGE_COUNT_PER_PROJECT": IMAGES,
        "JOBS_CREATIONS_PER_PROJECT": CREATIONS,
        "JOBS_COPIES_PER_PROJECT": COPIES,
    }
    environment = {"CALOTYPE_CONFIG": str(config), **{f"CALOTYPE_{name}": str(n) for name, n in limits.items()}}
    running = Service(folder, environment=environment, arguments=["--no-worker"])
    try:
        yield running.start()
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


@pytest.fixture(scope="module")
def new_client(small: Service) -> Iterator[Callable[[], Client]]:
    """Clients of projects that are new, and have all of their quota."""
    opened: list[Client] = []
    with small.admin() as admin:
        roles = admin.http.get("/identity/v3/roles", params={"name": "member"}).json()["roles"]
        name = uuid.uuid4().hex
        user = {"user": {"name": name, "password": "a long password"}}
        user_id = admin.http.post("/identity/v3/users", json=user).json()["user"]["id"]

        def make() -> Client:
            project = {"project": {"name": uuid.uuid4().hex}}
            made = admin.http.post("/identity/v3/projects", json=project).json()["project"]
            path = f"/identity/v3/projects/{made['id']}/users/{user_id}/roles/{roles[0]['id']}"
            assert admin.http.put(path).status_code == 204
            opened.append(Client(small, name, "a long password", made["name"]))
            return opened[-1]

        yield make
        for client in opened:
            client.http.close()


@pytest.fixture
def client(new_client: Callable[[], Client]) -> Client:
    return new_client()


@pytest.fixture(scope="module")
def plain(new_client: Callable[[], Client]) -> Client:
    """For calls that use nothing up."""
    return new_client()


def body(size: int = COPY_BYTES, **fields: Any) -> dict[str, Any]:
    return {"name": "n", "image_url": f"files:{size}.raw", "min_disk": 1, **fields}


def told(answer: httpx.Response) -> tuple[int, str]:
    if answer.status_code < 400:
        return answer.status_code, ""
    return answer.status_code, answer.json()["error"]["code"]


def queued(client: Client, **fields: Any) -> str:
    given = {"name": "q", "disk_format": "raw", "container_format": "bare", **fields}
    answer = client.http.post("/v2/images", json=given)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def uploaded(client: Client, size: int) -> str:
    image_id = queued(client)
    assert upload(client, image_id, size) == 204
    return image_id


def upload(client: Client, image_id: str, size: int) -> int:
    return client.http.put(f"/v2/images/{image_id}/file", content=bytes(size), headers=OCTETS).status_code


OK: Final = (200, "")


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "more", "most"),
    [
        (CREATE, {}, FILE_BYTES),
        (DATA, {}, FILE_BYTES),
        (CREATE, {"is_quick_import": True, "os_version": KNOWN}, QUICK_BYTES),
        (QUICK, {"os_version": KNOWN}, QUICK_BYTES),
        (QUICK, {"type": "DataImage"}, QUICK_BYTES),
    ],
    ids=["system disk", "data disk", "quick by flag", "quick system disk", "quick data disk"],
)
def test_a_file_that_is_imported_has_a_largest_size(
    client: Client, path: str, more: Mapping[str, Any], most: int
) -> None:
    assert told(client.http.post(path, json=body(most, **more))) == OK
    assert told(client.http.post(path, json=body(most + 1, **more))) == (400, "IMG.0059")


def test_a_file_beside_a_system_disk_has_the_same_largest_size(client: Client) -> None:
    def beside(size: int) -> dict[str, Any]:
        return body(data_images=[{"image_url": f"files:{size}.raw", "min_disk": 1}])

    assert told(client.http.post(CREATE, json=beside(FILE_BYTES + 1))) == (400, "IMG.0059")
    assert told(client.http.post(CREATE, json=beside(FILE_BYTES))) == OK


def test_a_file_that_is_registered_has_a_largest_size(client: Client) -> None:
    path = f"/v1/cloudimages/{queued(client)}/upload"

    assert told(client.http.put(path, json={"image_url": f"files:{FILE_BYTES + 1}.raw"})) == (400, "IMG.0059")
    assert told(client.http.put(path, json={"image_url": f"files:{FILE_BYTES}.raw"})) == OK


def test_an_upload_has_a_largest_size(client: Client) -> None:
    image_id = queued(client)

    assert upload(client, image_id, FILE_BYTES + 1) == 413
    assert upload(client, image_id, FILE_BYTES) == 204


def test_an_object_is_as_large_as_the_largest_file_that_an_import_takes(client: Client) -> None:
    client.http.put("/calotype/v1/buckets/large")

    for size, status in ((QUICK_BYTES, 201), (QUICK_BYTES + 1, 413)):
        answer = client.http.put(f"/calotype/v1/buckets/large/objects/{size}", content=bytes(size))
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize("version", ["v1", "v2.1"])
def test_an_image_that_is_copied_has_a_largest_size(client: Client, version: str) -> None:
    def copied(size: int) -> tuple[int, str]:
        path = f"/{version}/cloudimages/{uploaded(client, size)}/copy"
        return told(client.http.post(path, json={"name": "copy"}))

    assert copied(COPY_BYTES) == OK
    assert copied(COPY_BYTES + 1) == (400, "IMG.0059")


def test_a_disk_of_a_server_has_a_largest_size(client: Client, small: Service) -> None:
    described = Described(small)

    def of_server(size: int) -> tuple[int, str]:
        server = described.server((bytes(size), {}))
        return told(client.http.post(CREATE, json={"name": "n", "instance_id": server}))

    def of_data_disk(size: int) -> tuple[int, str]:
        server = described.server((bytes(4096), {}), (bytes(size), {}))
        entry = {"name": "n", "volume_id": f"{server[:8]}-vol1"}
        return told(client.http.post(CREATE, json={"data_images": [entry]}))

    assert (of_server(DISK_BYTES), of_data_disk(DISK_BYTES)) == (OK, OK)
    assert of_server(DISK_BYTES + 512) == (400, "IMG.0111")
    assert of_data_disk(DISK_BYTES + 512) == (400, "IMG.0022")


# --- counts -----------------------------------------------------------------------------------------------------------


def test_a_project_has_so_many_images_and_those_that_are_made_count(client: Client) -> None:
    for _ in range(IMAGES - 1):
        queued(client)
    assert told(client.http.post(CREATE, json=body())) == OK

    assert told(client.http.post(CREATE, json=body())) == (400, "IMG.0015")
    assert client.http.post("/v2/images", json={"name": "one more"}).status_code == 413
    used = client.http.get("/v1/cloudimages/quota").json()["quotas"]["resources"][0]
    assert (used["used"], used["quota"]) == (IMAGES, IMAGES)


def test_a_project_makes_so_many_images_at_once(client: Client) -> None:
    jobs = [client.submit("POST", CREATE, body()) for _ in range(CREATIONS)]

    assert told(client.http.post(CREATE, json=body()))[1] == "IMG.0060"
    assert told(client.http.post(DATA, json=body()))[1] == "IMG.0060"
    assert client.http.post(f"/calotype/v1/jobs/{jobs[0]}:cancel").status_code in (200, 202)
    assert told(client.http.post(CREATE, json=body())) == OK


def test_a_project_copies_so_many_images_at_once(client: Client) -> None:
    path = f"/v1/cloudimages/{uploaded(client, 512)}/copy"

    answers = [told(client.http.post(path, json={"name": "copy"})) for _ in range(COPIES + 1)]

    assert answers[:COPIES] == [OK] * COPIES
    assert answers[COPIES][1] == "IMG.0060"


def test_an_import_has_three_data_disks_at_most(client: Client) -> None:
    four = [{"image_url": f"files:{size}.mf", "min_disk": 1} for size in SIZES[:4]]

    assert told(client.http.post(CREATE, json=body(data_images=four))) == (400, "IMG.0194")
    assert told(client.http.post(CREATE, json=body(data_images=four[:3]))) == OK


@pytest.mark.parametrize("field", ["tags", "image_tags"])
def test_an_image_is_made_with_ten_tags_at_most(client: Client, field: str) -> None:
    def tags(count: int) -> dict[str, Any]:
        keys = [f"k{n}" for n in range(count)]
        return {field: keys if field == "tags" else [{"key": key, "value": "v"} for key in keys]}

    assert told(client.http.post(CREATE, json=body(**tags(11)))) == (400, "IMG.0116")
    assert told(client.http.post(CREATE, json=body(**tags(10)))) == OK


# --- numbers and texts ------------------------------------------------------------------------------------------------

EDGES: Final[list[tuple[str, dict[str, Any], dict[str, Any], str]]] = [
    (CREATE, {"name": "n" * 128}, {"name": "n" * 129}, "IMG.0002"),
    (CREATE, {"description": "d" * 1024}, {"description": "d" * 1025}, "IMG.0004"),
    (CREATE, {"min_disk": 1024}, {"min_disk": 1025}, "IMG.0055"),
    (DATA, {"min_disk": 2048}, {"min_disk": 2049}, "IMG.0055"),
    (CREATE, {"min_disk": 1}, {"min_disk": 0}, "IMG.0055"),
    (DATA, {"min_disk": 1}, {"min_disk": 0}, "IMG.0055"),
    (QUICK, {"os_version": KNOWN, "min_disk": 1024}, {"os_version": KNOWN, "min_disk": 1025}, "IMG.0055"),
    (QUICK, {"type": "DataImage", "min_disk": 2048}, {"type": "DataImage", "min_disk": 2049}, "IMG.0055"),
    (CREATE, {"min_ram": 8, "max_ram": 8}, {"min_ram": 8, "max_ram": 7}, "IMG.0055"),
    (CREATE, {"image_tags": [{"key": "k" * 36}]}, {"image_tags": [{"key": "k" * 37}]}, "IMG.0115"),
    (
        CREATE,
        {"image_tags": [{"key": "k", "value": "v" * 43}]},
        {"image_tags": [{"key": "k", "value": "v" * 44}]},
        "IMG.0115",
    ),
]


@pytest.mark.parametrize(
    ("path", "taken", "refused", "code"), EDGES, ids=[f"{n}-{'-'.join(edge[1])}" for n, edge in enumerate(EDGES)]
)
def test_a_field_of_a_request_has_its_edges(
    client: Client, path: str, taken: dict[str, Any], refused: dict[str, Any], code: str
) -> None:
    assert told(client.http.post(path, json=body(**refused))) == (400, code)
    assert told(client.http.post(path, json=body(**taken))) == OK


@pytest.mark.parametrize(("taken", "refused"), [("60", "59"), ("300", "301")])
def test_a_server_is_given_one_to_five_minutes_to_stop(client: Client, taken: str, refused: str) -> None:
    image, path = f"/v2/cloudimages/{uploaded(client, 512)}", "/os_shutdown_timeout"

    assert client.http.patch(image, json=[{"op": "add", "path": path, "value": refused}]).status_code == 400
    assert client.http.patch(image, json=[{"op": "add", "path": path, "value": taken}]).status_code == 200


FIND: Final = "/v2/{}/images/resource_instances/action"


@pytest.mark.parametrize(
    ("taken", "refused"),
    [
        ({"limit": "1000"}, {"limit": "1001"}),
        ({"limit": "1"}, {"limit": "0"}),
        ({"offset": "0"}, {"offset": "-1"}),
        *(
            (
                {field: [{"key": f"k{n}", "values": []} for n in range(10)]},
                {field: [{"key": f"k{n}", "values": []} for n in range(11)]},
            )
            for field in ("tags", "tags_any", "not_tags", "not_tags_any")
        ),
        (
            {"tags": [{"key": "k", "values": [str(n) for n in range(10)]}]},
            {"tags": [{"key": "k", "values": [str(n) for n in range(11)]}]},
        ),
        ({"tags": [{"key": "k" * 128, "values": []}]}, {"tags": [{"key": "k" * 129, "values": []}]}),
        ({"tags": [{"key": "k", "values": ["v" * 255]}]}, {"tags": [{"key": "k", "values": ["v" * 256]}]}),
        (
            {"matches": [{"key": "resource_name", "value": "v" * 255}]},
            {"matches": [{"key": "resource_name", "value": "v" * 256}]},
        ),
    ],
    ids=["limit", "least limit", "offset", "all", "any", "not all", "not any", "values", "key", "value", "match"],
)
def test_a_query_by_tags_has_its_edges(plain: Client, taken: dict[str, Any], refused: dict[str, Any]) -> None:
    path = FIND.format(plain.project_id)

    assert plain.http.post(path, json={"action": "filter", **taken}).status_code == 200
    assert plain.http.post(path, json={"action": "filter", **refused}).status_code == 400


def test_a_tag_that_is_removed_may_be_longer_than_one_that_is_added(client: Client) -> None:
    path = f"/v1/{client.project_id}/cloudimages/{queued(client)}/tags/delete"

    def removed(key: int, value: int) -> tuple[int, str]:
        tags = [{"key": "k" * key, "value": "v" * value}]
        return told(client.http.request("DELETE", path, json={"tags": tags}))

    assert removed(127, 255) == (204, "")
    assert removed(128, 255) == (400, "IMG.0115")
    assert removed(127, 256) == (400, "IMG.0115")


def test_a_page_of_members_has_at_most_a_thousand(client: Client) -> None:
    path = f"/v1/{client.project_id}/cloudimages/{queued(client)}/members"

    answers = [client.http.get(path, params={"limit": limit}).status_code for limit in (1, 1000, 0, 1001)]

    assert answers == [200, 200, 400, 400]


def test_an_enterprise_project_is_a_uuid_or_zero(client: Client) -> None:
    def made(project: str) -> tuple[int, str]:
        return told(client.http.post(CREATE, json=body(enterprise_project_id=project)))

    assert made("9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d11") == (400, "IMG.0155")
    assert made("9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111") == OK
    assert made("0") == OK


def test_the_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    """What the settings are when nobody sets them."""
    settings = load({"CALOTYPE_DATA_DIR": str(tmp_path)})

    gib = 1024**3
    image, jobs = settings.image, settings.jobs
    assert (image.file_bytes, image.quick_bytes, image.export_bytes) == (128 * gib, 1024 * gib, 128 * gib)
    assert settings.servers.disk_bytes == 1024 * gib
    assert (image.count_per_project, image.tags, image.data_disks) == (50, 10, 3)
    assert (image.members, image.whole_image_members) == (256, 10)
    assert (jobs.creations_per_project, jobs.copies_per_project, jobs.retention_days) == (40, 5, 30)
    assert settings.identity.token_lifetime_s == 24 * 3600
