"""Images of servers and of disks over IMS: each mode, its job, its refusals with their codes."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.test_import import downloaded, jobs_and_images
from tests.chaos.test_kills import healthy_worker
from tests.inventory import MIB, Described
from tests.service import Client, Service


@pytest.fixture
def described(service: Service) -> Described:
    return Described(service)


def disk(mib: int = 2) -> bytes:
    """A disk with something at its start and its end, and a hole between."""
    return os.urandom(4096) + bytes(mib * MIB - 8192) + os.urandom(4096)


def guest_bytes(path: Path, folder: Path) -> bytes:

    raw = folder / f"{path.name}.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(path), str(raw)], check=True)
    return raw.read_bytes()


def made_of(client: Client, job: dict[str, Any], tmp_path: Path) -> tuple[dict[str, Any], bytes]:
    """The image of a job, and the bytes a guest sees in it."""
    target = tmp_path / "image"
    image = downloaded(client, job["entities"]["image_id"], target)
    return image, guest_bytes(target, tmp_path)


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_a_servers_system_disk_becomes_an_image(
    demo: Client, described: Described, tmp_path: Path, status: str
) -> None:
    content = disk()
    server = described.server(
        (content, {}),
        (disk(), {}),
        status=status,
        os_version="Ubuntu 18.04 server 64bit",
        firmware="uefi",
        image_id=str(uuid.uuid4()),
    )

    body = {"name": "golden", "instance_id": server, "description": "d", "tags": ["team.blue"], "max_ram": "4096"}
    job = demo.succeeded(demo.submit("POST", "/v2/cloudimages/action", body))
    image, seen = made_of(demo, job, tmp_path)

    assert job["job_type"] == "imsCreateImageByInstance"
    assert job["entities"] == {"image_name": "golden", "image_id": image["id"]}
    assert seen == content
    assert image["__data_origin"] == f"instance,{server}"
    assert (image["virtual_env_type"], image["min_disk"], image["tags"]) == ("FusionCompute", 1, ["team=blue"])
    assert (image["__os_version"], image["hw_firmware_type"]) == ("Ubuntu 18.04 server 64bit", "uefi")
    assert (image["__description"], image["max_ram"]) == ("d", "4096")


def test_the_older_form_of_the_job_has_the_older_name_of_the_type(demo: Client, described: Described) -> None:
    server = described.server((disk(), {}))
    job_id = demo.submit("POST", "/v2/cloudimages/action", {"name": "old", "instance_id": server})
    told = demo.succeeded(job_id)

    old = demo.job(job_id, **{"X-Ims-Revision": "2022-10"})

    assert old["job_type"] == "createImageByInstance"
    assert old["entities"] == {"image_id": told["entities"]["image_id"]}


def test_a_bare_metal_server_gives_an_image_for_bare_metal(demo: Client, described: Described) -> None:
    server = described.server((disk(), {}), kind="bms", architecture="arm")

    job = demo.succeeded(demo.submit("POST", "/v2/cloudimages/action", {"name": "bare", "instance_id": server}))

    image = demo.image(job["entities"]["image_id"])
    assert (image["virtual_env_type"], image["hw_firmware_type"]) == ("Ironic", "uefi")
    assert image["__support_arm"] == "true"


def test_each_data_disk_becomes_an_image_in_a_job_of_its_own_that_the_first_sums_up(
    demo: Client, described: Described, tmp_path: Path
) -> None:
    contents = [disk(1), disk(2), disk(3)]
    server = described.server(*((content, {}) for content in contents))
    volumes = [f"{server[:8]}-vol1", f"{server[:8]}-vol2"]

    body = {
        "name": "outer",
        "description": "of all",
        "tags": ["set=a"],
        "data_images": [
            {
                "name": "first",
                "volume_id": volumes[0],
                "description": "own",
                "image_tags": [{"key": "n", "value": "1"}],
            },
            {"volume_id": volumes[1]},
        ],
    }
    job_id = demo.submit("POST", "/v2/cloudimages/action", body)
    job = demo.succeeded(job_id)

    entities = job["entities"]
    assert job["job_type"] == "imsVolumesToSysDataImagesJob"
    assert [child["job_type"] for child in entities["sub_jobs_result"]] == ["imsCopyVolumeToImageJob"] * 2
    assert [child["job_id"] for child in entities["sub_jobs_result"]] == entities["sub_jobs_list"]
    first, second = entities["sub_jobs_result"]
    assert (entities["image_id"], entities["image_name"]) == (first["entities"]["image_id"], "first")
    assert demo.job(first["job_id"]) == first
    for child, content, wanted in (
        (first, contents[1], {"name": "first", "__description": "own", "tags": ["n=1"]}),
        (second, contents[2], {"name": "outer", "__description": "of all", "tags": ["set=a"]}),
    ):
        image, seen = made_of(demo, child, tmp_path)
        assert seen == content
        assert {key: image[key] for key in wanted} == wanted
        assert image["virtual_env_type"] == "DataImage"
    progress = demo.http.get(f"/v1/cloudimages/job/{job_id}").json()
    assert progress["entities"]["process_percent"] == 1
    assert progress["entities"]["sub_jobs_list"] == entities["sub_jobs_list"]


def test_a_family_of_which_one_fails_has_failed_and_tells_of_the_images_that_were_made(
    demo: Client, described: Described
) -> None:
    """The second disk says that it is raw and looks like a qcow2: that is refused when its bytes are looked at."""
    deceiving = b"QFI\xfb\x00\x00\x00\x03" + bytes(MIB - 8)
    server = described.server((disk(), {}), (disk(), {}), (deceiving, {}))
    volumes = [f"{server[:8]}-vol{n}" for n in (1, 2)]

    body = {"data_images": [{"name": f"n{n}", "volume_id": volume} for n, volume in enumerate(volumes)]}
    job_id = demo.submit("POST", "/v2/cloudimages/action", body)
    job = demo.ended(job_id)

    good, bad = job["entities"]["sub_jobs_result"]
    assert (job["status"], good["status"], bad["status"]) == ("FAIL", "SUCCESS", "FAIL")
    assert (job["error_code"], job["fail_reason"]) == (bad["error_code"], bad["fail_reason"])
    assert demo.image(good["entities"]["image_id"])["status"] == "active"
    listed = demo.http.get("/v2/images", params={"name": "n1", "limit": 100}).json()["images"]
    assert bad["entities"].get("image_id") is None
    assert all(image["status"] == "active" for image in listed)


def test_a_disk_of_no_server_becomes_a_system_disk_image(demo: Client, described: Described, tmp_path: Path) -> None:
    content = disk()
    volume = described.volume(content)

    body = {
        "name": "from-disk",
        "volume_id": volume,
        "os_version": "Ubuntu 18.04 server 64bit",
        "type": "BMS",
        "hw_firmware_type": "uefi",
    }
    job = demo.succeeded(demo.submit("POST", "/v1/cloudimages/action", body))
    image, seen = made_of(demo, job, tmp_path)

    assert (job["job_type"], list(job["entities"])) == ("imsVolumeCreateImageJob", ["image_name", "image_id"])
    assert seen == content
    assert image["__data_origin"] == f"volume,{volume}"
    assert (image["virtual_env_type"], image["__os_version"]) == ("Ironic", "Ubuntu 18.04 server 64bit")


def test_cancelling_a_family_ends_all_of_it(demo: Client, described: Described) -> None:
    server = described.server((disk(), {}), (disk(), {}), (disk(), {}))
    body = {"data_images": [{"name": f"c{n}", "volume_id": f"{server[:8]}-vol{n}"} for n in (1, 2)]}
    job_id = demo.submit("POST", "/v2/cloudimages/action", body)

    demo.http.post(f"/calotype/v1/jobs/{job_id}:cancel")
    job = demo.ended(job_id)

    children = [demo.ended(child) for child in job["entities"]["sub_jobs_list"]]
    assert {child["status"] for child in children} <= {"SUCCESS", "FAIL"}
    assert (job["status"] == "SUCCESS") == all(child["status"] == "SUCCESS" for child in children)


# --- refusals ---------------------------------------------------------------------------------------------------------

SYSTEM: Final[list[tuple[str, dict[str, Any], list[dict[str, Any]]]]] = [
    ("IMG.0008", {"status": "other"}, [{}]),
    ("IMG.0010", {"task": "resizing"}, [{}]),
    ("IMG.0010", {"being_backed_up": True}, [{}]),
    ("IMG.0063", {"frozen": True}, [{}]),
    ("IMG.0164", {"reclaimed": True}, [{}]),
    ("IMG.0119", {}, []),
    ("IMG.0119", {}, [{"slot": 1}]),
    ("IMG.0110", {}, [{"file": "gone.raw"}]),
    ("IMG.0006", {}, [{"status": "error"}]),
    ("IMG.0006", {}, [{"status": "busy"}]),
    ("IMG.0006", {}, [{"shareable": True}]),
    ("IMG.0153", {}, [{"dedicated": True}]),
    ("IMG.0139", {}, [{}, {"status": "busy"}]),
    ("IMG.0095", {}, [{"cmk_id": "00000000-0000-0000-0000-000000000001"}]),
]


@pytest.mark.parametrize(("code", "server", "disks"), SYSTEM, ids=lambda value: str(value)[:40])
def test_a_server_that_cannot_be_imaged_is_refused_with_its_code_and_nothing_changes(
    demo: Client, described: Described, code: str, server: dict[str, Any], disks: list[dict[str, Any]]
) -> None:
    server_id = described.server(*((disk(1), told) for told in disks), **server)
    before = jobs_and_images(demo)

    answer = demo.http.post("/v2/cloudimages/action", json={"name": "no", "instance_id": server_id})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), answer.text
    assert jobs_and_images(demo) == before


def test_a_system_disk_above_the_limit_is_refused(demo: Client, described: Described) -> None:
    server = described.server((disk(1), {}))
    os.truncate(described.path(server), 1024**4 + MIB)

    answer = demo.http.post("/v2/cloudimages/action", json={"name": "no", "instance_id": server})

    assert answer.json()["error"]["code"] == "IMG.0111"


VOLUMES: Final[list[tuple[str, dict[str, Any], dict[str, Any]]]] = [
    ("IMG.0120", {}, {"file": "gone.raw"}),
    ("IMG.0022", {}, {"status": "error"}),
    ("IMG.0022", {}, {"status": "busy"}),
    ("IMG.0153", {}, {"dedicated": True}),
    ("IMG.0095", {}, {"cmk_id": "00000000-0000-0000-0000-000000000001"}),
    ("IMG.0008", {"status": "other"}, {}),
    ("IMG.0010", {"task": "resizing"}, {}),
]


@pytest.mark.parametrize("mode", ["data_images", "volume_id"])
@pytest.mark.parametrize(("code", "server", "told"), VOLUMES, ids=lambda value: str(value)[:40])
def test_a_disk_that_cannot_be_imaged_is_refused_with_its_code_and_nothing_changes(
    demo: Client, described: Described, code: str, server: dict[str, Any], told: dict[str, Any], mode: str
) -> None:
    server_id = described.server((disk(1), {}), (disk(1), told), **server)
    volume = f"{server_id[:8]}-vol1"
    before = jobs_and_images(demo)
    body: dict[str, Any] = {"name": "no", "data_images": [{"name": "no", "volume_id": volume}]}
    if mode == "volume_id":
        body = {"name": "no", "volume_id": volume, "os_version": "Ubuntu 18.04 server 64bit"}

    answer = demo.http.post("/v2/cloudimages/action", json=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), answer.text
    assert jobs_and_images(demo) == before


def test_requests_about_servers_and_disks_that_make_no_sense_are_refused(demo: Client, described: Described) -> None:
    one = described.server((disk(1), {}), (disk(1), {}))
    other = described.server((disk(1), {}), (disk(1), {}))
    mine, theirs, system = f"{one[:8]}-vol1", f"{other[:8]}-vol1", f"{one[:8]}-vol0"
    known = "Ubuntu 18.04 server 64bit"
    before = jobs_and_images(demo)

    for body, code in (
        ({"name": "n", "instance_id": str(uuid.uuid4())}, "IMG.0005"),
        ({"name": "n", "instance_id": "../../etc"}, "IMG.0005"),
        ({"name": "n", "instance_id": ""}, "IMG.0012"),
        ({"name": "n", "instance_id": "x" * 65}, "IMG.0012"),
        ({"name": "n", "instance_id": 5}, "IMG.0001"),
        ({"instance_id": one}, "IMG.0013"),
        ({"name": "n"}, "IMG.0021"),
        ({"name": "n", "volume_id": mine}, "IMG.0056"),
        ({"name": "n", "volume_id": str(uuid.uuid4()), "os_version": known}, "IMG.0120"),
        ({"volume_id": mine, "os_version": known}, "IMG.0013"),
        ({"name": "n", "volume_id": mine, "os_version": known, "type": "IsoImage"}, "IMG.0024"),
        ({"name": "n", "data_images": "x"}, "IMG.0001"),
        ({"name": "n", "data_images": ["x"]}, "IMG.0001"),
        ({"name": "n", "data_images": [{"name": "d"}]}, "IMG.0120"),
        ({"data_images": [{"volume_id": mine}]}, "IMG.0013"),
        ({"name": "n", "data_images": [{"volume_id": system}]}, "IMG.0120"),
        ({"name": "n", "data_images": [{"volume_id": mine}, {"volume_id": mine}]}, "IMG.0001"),
        ({"name": "n", "data_images": [{"volume_id": mine}, {"volume_id": theirs}]}, "IMG.0140"),
        ({"name": "n", "instance_id": one, "data_images": [{"volume_id": mine}]}, "IMG.0001"),
        ({"name": "n", "data_images": [{"volume_id": mine}] * 41}, "IMG.0001"),
    ):
        answer = demo.http.post("/v2/cloudimages/action", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), (body, answer.text)
    assert jobs_and_images(demo) == before


def test_a_server_of_another_project_is_as_unknown_as_one_that_is_not_there(demo: Client, described: Described) -> None:
    theirs = described.server((disk(1), {}), project="admin")

    answer = demo.http.post("/v2/cloudimages/action", json={"name": "n", "instance_id": theirs})

    assert answer.json()["error"]["code"] == "IMG.0005"


# --- what fails later -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["instance_id", "volume_id"])
def test_a_disk_that_turns_out_to_be_something_else_fails_the_job_and_takes_the_image_back(
    demo: Client, described: Described, mode: str
) -> None:
    server = described.server((b"QFI\xfb\x00\x00\x00\x03" + bytes(MIB - 8), {}))
    name = f"deceived-{server[:8]}"
    body = {"name": name, "instance_id": server}
    if mode == "volume_id":
        body = {"name": name, "volume_id": f"{server[:8]}-vol0", "os_version": "Ubuntu 18.04 server 64bit"}

    job = demo.ended(demo.submit("POST", "/v2/cloudimages/action", body))

    assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0057")
    assert job["entities"] == {"image_name": name, "error_code": "IMG.0057", "error": job["fail_reason"]}
    assert demo.http.get("/v2/images", params={"name": name}).json()["images"] == []


def test_a_server_or_a_disk_that_is_gone_when_the_job_begins_fails_it_with_the_code_of_that(
    make_service: Callable[..., Service],
) -> None:
    service = make_service().start("--no-worker")
    described = Described(service)
    with service.demo() as client:
        server = described.server((disk(1), {}), (disk(1), {}))
        volume = described.volume(disk(1))
        known = "Ubuntu 18.04 server 64bit"
        jobs = {
            client.submit("POST", "/v2/cloudimages/action", body): code
            for body, code in (
                ({"name": "a", "instance_id": server}, "IMG.0005"),
                ({"name": "b", "volume_id": volume, "os_version": known}, "IMG.0120"),
                ({"data_images": [{"name": "c", "volume_id": f"{server[:8]}-vol1"}]}, "IMG.0005"),
            )
        }
        assert {client.job(job_id)["status"] for job_id in jobs} == {"INIT"}
        shutil.rmtree(described.folder)

        with healthy_worker(service):
            ended = {job_id: client.ended(job_id) for job_id in jobs}

        assert {job_id: job["error_code"] for job_id, job in ended.items()} == jobs
        assert client.http.get("/v2/images").json()["images"] == []
        assert service.files() == set()


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_makes_images_of_servers_disks_and_backups(service: Service, demo: Client) -> None:
    described = Described(service)
    server = described.server((disk(1), {}), (disk(1), {}))
    name = f"cli-{server[:8]}"

    def captured(*words: str) -> dict[str, Any]:
        made: dict[str, Any] = service.run_json(
            "calotype", "image", "capture", "--name", name, *words, "--wait", "--json"
        )
        return made

    system = captured("--server", server)
    data = captured("--volume", f"{server[:8]}-vol1", "--data")
    as_system = captured("--volume", f"{server[:8]}-vol1")
    whole = captured("--server", server, "--whole")
    backup = whole["__backup_id"]

    assert system["__data_origin"] == f"instance,{server}"
    assert (data["virtual_env_type"], as_system["virtual_env_type"]) == ("DataImage", "FusionCompute")
    assert whole["__whole_image"] == "true"
    service.run("calotype", "image", "delete", whole["id"])
    again = captured("--backup", backup)
    assert again["__backup_id"] == backup
    service.run("calotype", "image", "delete", again["id"], "--with-backup")
    assert demo.http.get(f"/calotype/v1/backups/{backup}").status_code == 404


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--server", "a", "--volume", "b"],
        ["--volume", "b", "--whole"],
        ["--server", "a", "--data"],
        ["--volume", "b", "--data", "--os-version", "x"],
    ],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_the_command_wants_one_thing_to_make_an_image_of(service: Service, words: list[str]) -> None:
    done = service.run("calotype", "image", "capture", "--name", "n", *words, ok=False)

    assert done.returncode == 2
