"""Full-server images over IMS, and the backups that the service keeps of servers: each way of making one, its job, its
refusals with their codes, and what is left when they go."""

import hashlib
import os
import sqlite3
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.test_ims_servers import guest_bytes
from tests.disks import guest
from tests.inventory import MIB, Described
from tests.service import Client, Service, until

PATH: Final = "/v1/cloudimages/wholeimages/action"
MakeService = Callable[..., Service]


@pytest.fixture
def described(service: Service) -> Described:
    return Described(service)


def disk(mib: int = 2) -> bytes:
    return os.urandom(4096) + bytes(mib * MIB - 8192) + os.urandom(4096)


def whole(client: Client, **fields: Any) -> dict[str, Any]:
    """The job of a full-server image, that succeeded."""
    return client.succeeded(client.submit("POST", PATH, {"name": "whole", **fields}))


def image_of(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    return client.image(job["entities"]["image_id"])


def backup(client: Client, backup_id: str) -> dict[str, Any]:
    answer = client.http.get(f"/calotype/v1/backups/{backup_id}")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def bytes_of(client: Client, path: str, folder: Path) -> bytes:
    """What a guest sees in a file that the service gives out."""
    answer = client.http.get(path)
    assert answer.status_code == 200, answer.text
    target = folder / uuid.uuid4().hex
    target.write_bytes(answer.content)
    return guest_bytes(target, folder)


def contents(client: Client, told: dict[str, Any], folder: Path) -> list[bytes]:
    """What guests see in the disks of a backup."""
    path = f"/calotype/v1/backups/{told['id']}/disks"
    return [bytes_of(client, f"{path}/{one['slot']}/file", folder) for one in told["disks"]]


def used(client: Client) -> int:
    """Bytes that count in the project's quota, as the service has them: the API tells them in MiB."""
    with closing(sqlite3.connect(client.service.data_dir / "calotype.db")) as db:
        row = db.execute("SELECT bytes FROM image_usage WHERE project_id = ?", [client.project_id]).fetchone()
    return 0 if row is None else int(row[0])


def deleted(client: Client, image: dict[str, Any], **body: Any) -> None:
    answer = client.http.request("DELETE", image["self"], json=body)
    assert answer.status_code == 204, answer.text
    assert client.http.get(image["self"]).status_code == 404


def refused(client: Client, body: dict[str, Any]) -> str:
    """The code of a refusal, after which nothing is different."""
    before = (client.http.get("/calotype/v1/jobs?limit=1").json(), used(client))
    answer = client.http.post(PATH, json={"name": "whole", **body})
    assert answer.status_code == 400, answer.text
    assert (client.http.get("/calotype/v1/jobs?limit=1").json(), used(client)) == before
    return str(answer.json()["error"]["code"])


# --- of a server ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_a_server_becomes_an_image_with_a_backup_of_all_its_disks(
    demo: Client, described: Described, tmp_path: Path, status: str
) -> None:
    system, data, logs = disk(), disk(3), disk(1)
    server = described.server(
        (system, {}), (data, {"name": "data"}), (logs, {}), status=status, os_version="Ubuntu 18.04 server 64bit",
        image_id=str(uuid.uuid4()),
    )  # fmt: skip

    job = whole(demo, instance_id=server, description="nightly", tags=["team.blue"], max_ram=4096)
    image = image_of(demo, job)
    kept = backup(demo, image["__backup_id"])

    assert job["job_type"] == "imsCreateWholeImageByInstanceJob"
    assert job["entities"] == {"image_name": "whole", "image_id": image["id"]}
    assert (image["status"], image["__whole_image"], image["virtual_env_type"]) == ("active", "true", "FusionCompute")
    assert (image["__data_origin"], image["__os_version"]) == (f"instance,{server}", "Ubuntu 18.04 server 64bit")
    assert "__originalimagename" not in image
    assert (image["__description"], image["tags"], image["max_ram"]) == ("nightly", ["team=blue"], "4096")
    assert image["min_disk"] == 1
    assert bytes_of(demo, image["file"], tmp_path) == system
    assert contents(demo, kept, tmp_path) == [system, data, logs]
    assert (kept["status"], kept["kind"], kept["origin"], kept["image_id"]) == (
        "available", "CBR", "service", image["id"],
    )  # fmt: skip
    assert [one["name"] for one in kept["disks"]] == ["", "data", ""]
    assert kept["size"] == sum(one["size"] for one in kept["disks"])
    assert kept["server"]["id"] == server


def test_the_image_counts_for_its_system_disk_and_the_backup_for_all_disks(demo: Client, described: Described) -> None:
    server = described.server((disk(), {}), (disk(3), {}))
    before = used(demo)

    image = image_of(demo, whole(demo, instance_id=server))
    kept = backup(demo, image["__backup_id"])

    assert used(demo) - before == image["size"] + kept["size"]
    deleted(demo, image)
    assert used(demo) - before == kept["size"]
    assert demo.http.delete(f"/calotype/v1/backups/{kept['id']}").status_code == 204
    assert used(demo) == before


def test_disks_of_the_same_bytes_are_stored_once(make_service: MakeService, tmp_path: Path) -> None:
    """Where they are kept as they are: of a conversion's file, the order of the clusters is chance."""
    service = make_service(environment={"CALOTYPE_IMPORTS_FORMAT": "keep"}).start()
    with service.demo() as client:
        content = disk()
        server = Described(service).server((content, {}), (content, {}), (content, {}))

        image = image_of(client, whole(client, instance_id=server))

        kept = backup(client, image["__backup_id"])
        assert contents(client, kept, tmp_path) == [content] * 3
        until(lambda: len(service.files()) == 1, f"one file: {service.files()}")
        deleted(client, image, delete_backup=True)
        until(lambda: not service.files(), f"no file left: {service.files()}")
        assert used(client) == 0


def test_a_disk_that_holds_no_disk_ends_the_job_and_leaves_nothing(make_service: MakeService) -> None:
    service = make_service().start()
    with service.demo() as client:
        described = Described(service)
        odd = described.server((disk(), {}), (b"VMDK, they say", {"format": "vmdk", "size_gb": 1}))

        job = client.ended(client.submit("POST", PATH, {"name": "odd", "instance_id": odd}))

        assert job["status"] == "FAIL"
        assert client.http.get("/v2/images").json()["images"] == []
        assert client.http.get("/calotype/v1/backups?origin=service").json()["backups"] == []
        until(lambda: not service.files(), f"no file left: {service.files()}")
        assert used(client) == 0


def test_a_project_without_room_for_all_disks_is_told_so_and_keeps_nothing(make_service: MakeService) -> None:
    service = make_service(environment={"CALOTYPE_IMAGE_STORED_BYTES_PER_PROJECT": str(5 * MIB)}).start()
    with service.demo() as client:
        server = Described(service).server((disk(2), {}), (disk(3), {}))

        job = client.ended(client.submit("POST", PATH, {"name": "big", "instance_id": server}))

        assert (job["status"], job["error_code"]) == ("FAIL", "IMG.0059")
        assert used(client) == 0
        until(lambda: not service.files(), f"no file left: {service.files()}")


# --- of a backup ------------------------------------------------------------------------------------------------------


def test_a_backup_of_the_source_becomes_an_image_and_is_kept_here(
    demo: Client, described: Described, tmp_path: Path
) -> None:
    system, data = disk(), disk(3)
    saved = described.backup((system, {}), (data, {}), name="before the upgrade", server={"id": "web-1"})

    job = whole(demo, backup_id=saved, whole_image_type="CBR")
    image = image_of(demo, job)
    kept = backup(demo, saved)

    assert job["job_type"] == "imsCreateWholeImageByBackupJob"
    assert (image["__backup_id"], image["__data_origin"]) == (saved, f"server_backup,{saved}")
    assert image["__whole_image"] == "true"
    assert bytes_of(demo, image["file"], tmp_path) == system
    assert contents(demo, kept, tmp_path) == [system, data]
    assert (kept["name"], kept["origin"], kept["server"]["id"]) == ("before the upgrade", "service", "web-1")
    listed = demo.http.get("/calotype/v1/backups?limit=1000").json()["backups"]
    assert [one["origin"] for one in listed if one["id"] == saved] == ["service"]


def test_a_backup_gives_one_image_and_another_when_that_is_gone(demo: Client, described: Described) -> None:
    saved = described.backup((disk(), {}), (disk(), {}))
    first = image_of(demo, whole(demo, backup_id=saved, whole_image_type="CBR"))
    assert refused(demo, {"backup_id": saved, "whole_image_type": "CBR"}) == "IMG.0029"
    before = used(demo)

    deleted(demo, first)
    second = image_of(demo, whole(demo, backup_id=saved, whole_image_type="CBR"))

    assert second["checksum"] == first["checksum"]
    assert used(demo) == before
    assert backup(demo, saved)["image_id"] == second["id"]


def test_an_own_backup_becomes_an_image_again_although_the_server_is_gone(
    demo: Client, described: Described, tmp_path: Path
) -> None:
    system, data = disk(), disk()
    server = described.server((system, {}), (data, {}))
    first = image_of(demo, whole(demo, instance_id=server))
    deleted(demo, first)
    (described.folder / "servers" / server / "server.toml").unlink()

    second = image_of(demo, whole(demo, backup_id=first["__backup_id"], whole_image_type="CBR"))

    assert second["__data_origin"] == f"server_backup,{first['__backup_id']}"
    assert bytes_of(demo, second["file"], tmp_path) == system


def test_of_many_who_want_an_image_of_one_backup_at_once_one_gets_it(demo: Client, described: Described) -> None:
    saved = described.backup((disk(), {}))
    answers: list[tuple[int, dict[str, Any]]] = []

    def ask() -> None:
        body = {"name": "whole", "backup_id": saved, "whole_image_type": "CBR"}
        answer = demo.http.post(PATH, json=body)
        answers.append((answer.status_code, answer.json()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(status for status, _ in answers) == [200] + [400] * 7
    assert {told["error"]["code"] for status, told in answers if status == 400} == {"IMG.0029"}
    demo.succeeded(next(told["job_id"] for status, told in answers if status == 200))


def test_a_backup_whose_job_was_cancelled_can_be_used_again(make_service: MakeService) -> None:
    service = make_service().start("--no-worker")
    with service.demo() as client:
        saved = Described(service).backup((disk(), {}))
        body = {"name": "whole", "backup_id": saved, "whole_image_type": "CBR"}
        job_id = client.submit("POST", PATH, body)
        assert backup(client, saved)["status"] == "creating"
        assert client.http.delete(f"/calotype/v1/backups/{saved}").status_code == 409

        assert client.http.post(f"/calotype/v1/jobs/{job_id}:cancel").status_code == 202

        assert client.ended(job_id)["status"] == "FAIL"
        assert (backup(client, saved)["origin"], used(client)) == ("source", 0)
        assert client.http.get("/v2/images").json()["images"] == []
        assert client.submit("POST", PATH, body)


def test_the_image_of_an_older_backup_wants_no_type(demo: Client, described: Described) -> None:
    saved = described.backup((disk(), {}), kind="CSBS")

    image = image_of(demo, whole(demo, backup_id=saved))

    assert image["__backup_id"] == saved
    assert refused(demo, {"backup_id": saved}) == "IMG.0134"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"status": "other"}, "IMG.0126"),
        ({"being_backed_up": True}, "IMG.0136"),
        ({"task": "resizing"}, "IMG.0010"),
        ({"frozen": True}, "IMG.0063"),
        ({"kind": "bms"}, "IMG.0063"),
        ({"reclaimed": True}, "IMG.0164"),
        ({"older_backups": True}, "IMG.0186"),
    ],
)
def test_a_server_that_no_image_can_be_made_of_is_refused(
    demo: Client, described: Described, fields: dict[str, Any], code: str
) -> None:
    server = described.server((b"x" * 512, {}), **fields)

    assert refused(demo, {"instance_id": server}) == code


@pytest.mark.parametrize(
    ("system", "data", "code"),
    [
        ({"slot": 1}, {"slot": 2}, "IMG.0119"),
        ({"file": "gone.raw"}, {}, "IMG.0110"),
        ({"status": "error"}, {}, "IMG.0006"),
        ({"shareable": True}, {}, "IMG.0006"),
        ({"dedicated": True}, {}, "IMG.0153"),
        ({"cmk_id": "k"}, {}, "IMG.0095"),
        ({}, {"status": "busy"}, "IMG.0139"),
        ({}, {"file": "gone.raw"}, "IMG.0120"),
        ({}, {"shareable": True}, "IMG.0120"),
        ({}, {"status": "error"}, "IMG.0120"),
        ({}, {"dedicated": True}, "IMG.0153"),
        ({}, {"cmk_id": "k"}, "IMG.0095"),
        ({"file": "gone.raw", "size_gb": 4096}, {}, "IMG.0110"),
    ],
)
def test_a_server_with_a_disk_that_cannot_be_read_is_refused(
    demo: Client, described: Described, system: dict[str, Any], data: dict[str, Any], code: str
) -> None:
    server = described.server((b"x" * 512, system), (b"y" * 512, data))

    assert refused(demo, {"instance_id": server}) == code


def test_a_disk_above_a_terabyte_is_taken_and_one_above_the_largest_virtual_disk_is_not(
    demo: Client, described: Described
) -> None:
    server = described.server((disk(), {}), (b"", {}))
    with described.path(server, 1).open("wb") as file:
        file.truncate(1024**4 + MIB)

    kept = backup(demo, image_of(demo, whole(demo, instance_id=server))["__backup_id"])

    assert kept["disks"][1]["virtual_size"] == 1024**4 + MIB
    with described.path(server, 1).open("wb") as file:
        file.truncate(2 * 1024**4 + MIB)
    assert refused(demo, {"instance_id": server}) == "IMG.0022"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"usable": False}, "IMG.0188"),
        ({"type": "disk"}, "IMG.0193"),
        ({"free_gb": 0}, "IMG.0182"),
        ({"servers": ["a", "b"], "most_servers": 2}, "IMG.0185"),
    ],
)
def test_a_vault_that_cannot_take_the_backup_is_refused(
    demo: Client, described: Described, fields: dict[str, Any], code: str
) -> None:
    server = described.server((disk(), {}))
    vault = described.vault(project="demo", **fields)
    try:
        assert refused(demo, {"instance_id": server, "vault_id": vault}) == code
    finally:
        (described.folder / "vaults" / f"{vault}.toml").unlink()


def test_a_server_of_another_vault_is_refused_and_one_of_this_taken(demo: Client, described: Described) -> None:
    vault, other = described.vault(project="demo", free_gb=1), described.vault(project="demo")
    try:
        server = described.server((disk(), {}), vault=vault)

        assert refused(demo, {"instance_id": server, "vault_id": other}) == "IMG.0183"
        kept = backup(demo, image_of(demo, whole(demo, instance_id=server))["__backup_id"])
        assert kept["vault_id"] == vault
    finally:
        for name in (vault, other):
            (described.folder / "vaults" / f"{name}.toml").unlink()


def test_what_is_kept_here_takes_room_in_its_vault(make_service: MakeService) -> None:
    service = make_service().start()
    with service.demo() as client:
        described = Described(service)
        vault = described.vault(free_gb=1, most_servers=1)
        server, second = described.server((disk(), {})), described.server((b"x", {"size_gb": 1}))
        with described.path(second).open("wb") as file:
            file.truncate(1023 * MIB)

        image = image_of(client, whole(client, instance_id=server, vault_id=vault))

        assert refused(client, {"instance_id": second, "vault_id": vault}) == "IMG.0182"
        (described.folder / "vaults" / f"{vault}.toml").write_text("free_gb = 2\nmost_servers = 1\n")
        assert refused(client, {"instance_id": second, "vault_id": vault}) == "IMG.0185"
        deleted(client, image, delete_backup=True)
        whole(client, instance_id=second, vault_id=vault)


def test_without_a_vault_a_full_server_image_is_refused_where_one_is_required(make_service: MakeService) -> None:
    service = make_service(environment={"CALOTYPE_SERVERS_VAULT_REQUIRED": "true"}).start("--no-worker")
    with service.demo() as client:
        described = Described(service)
        server = described.server((disk(), {}))

        assert refused(client, {"instance_id": server}) == "IMG.0184"
        assert refused(client, {"instance_id": server, "vault_id": "none"}) == "IMG.0184"
        described.vault()
        assert client.submit("POST", PATH, {"name": "whole", "instance_id": server})


@pytest.mark.parametrize(
    ("fields", "wanted", "code"),
    [
        ({}, {}, "IMG.0198"),
        ({"kind": "CSBS"}, {"whole_image_type": "CBR"}, "IMG.0198"),
        ({"status": "creating"}, {"whole_image_type": "CBR"}, "IMG.0032"),
        ({"status": "error", "kind": "CSBS"}, {}, "IMG.0132"),
        ({"accessible": False}, {"whole_image_type": "CBR"}, "IMG.0133"),
        (
            {"accessible": False, "project": "admin", "shared_with": ["demo"]},
            {"whole_image_type": "CBR"},
            "IMG.0165",
        ),
        ({"project": "admin"}, {"whole_image_type": "CBR"}, "IMG.0020"),
    ],
)
def test_a_backup_that_cannot_be_used_is_refused(
    demo: Client, described: Described, fields: dict[str, Any], wanted: dict[str, Any], code: str
) -> None:
    saved = described.backup((b"x" * 512, {}), **fields)

    assert refused(demo, {"backup_id": saved, **wanted}) == code


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"slot": 1}, "IMG.0195"),
        ({"shareable": True}, "IMG.0032"),
        ({"file": "gone.raw"}, "IMG.0032"),
        ({"cmk_id": "k"}, "IMG.0095"),
    ],
)
def test_a_backup_with_a_disk_that_cannot_be_used_is_refused(
    demo: Client, described: Described, told: dict[str, Any], code: str
) -> None:
    saved = described.backup((b"x" * 512, told))

    assert refused(demo, {"backup_id": saved, "whole_image_type": "CBR"}) == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "IMG.0021"),
        ({"instance_id": ""}, "IMG.0012"),
        ({"backup_id": ""}, "IMG.0019"),
        ({"instance_id": "none"}, "IMG.0005"),
        ({"backup_id": "none"}, "IMG.0127"),
        ({"backup_id": "none", "whole_image_type": "CBR"}, "IMG.0020"),
        ({"backup_id": "none", "whole_image_type": "EVS"}, "IMG.0001"),
        ({"backup_id": "none", "instance_id": "none"}, "IMG.0001"),
        ({"backup_id": 5}, "IMG.0001"),
        ({"instance_id": "x" * 65}, "IMG.0001"),
        ({"instance_id": "none", "name": ""}, "IMG.0013"),
    ],
)
def test_a_request_that_names_nothing_to_make_an_image_of_is_refused(
    demo: Client, body: dict[str, Any], code: str
) -> None:
    assert refused(demo, body) == code


# --- what may be done with one ----------------------------------------------------------------------------------------


def test_it_can_be_neither_exported_nor_copied(demo: Client, described: Described) -> None:
    image = image_of(demo, whole(demo, instance_id=described.server((disk(), {}))))
    demo.http.put("/calotype/v1/buckets/golden")
    body = {"bucket_url": "golden:whole.qcow2", "file_format": "qcow2"}

    export = demo.http.post(f"/v1/cloudimages/{image['id']}/file", json=body)
    copy = demo.http.post(f"/v1/cloudimages/{image['id']}/copy", json={"name": "copy"})

    assert (export.status_code, export.json()["error"]["code"]) == (400, "IMG.0128")
    assert (copy.status_code, copy.json()["error"]["code"]) == (400, "IMG.0130")


@pytest.mark.parametrize(
    ("fields", "wanted", "shared"),
    [
        ({}, {"whole_image_type": "CBR"}, True),
        ({"kind": "CSBS"}, {}, False),
        ({"project": "admin", "shared_with": ["demo"]}, {"whole_image_type": "CBR"}, False),
    ],
)
def test_it_is_shared_when_it_is_of_an_own_backup_of_the_newer_service(
    demo: Client, admin: Client, described: Described, fields: dict[str, Any], wanted: dict[str, Any], shared: bool
) -> None:
    image = image_of(demo, whole(demo, backup_id=described.backup((disk(), {}), **fields), **wanted))
    body = {"images": [image["id"]], "projects": [admin.project_id]}

    answer = demo.http.post("/v1/cloudimages/members", json=body)

    if shared:
        demo.succeeded(answer.json()["job_id"])
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "IMG.0135")


@pytest.mark.parametrize("path", ["/v2/images", "/v1.1/images"])
@pytest.mark.parametrize(("body", "kept"), [(None, True), ({}, True), ({"delete_backup": False}, True),
                                            ({"delete_backup": True}, False)])  # fmt: skip
def test_its_backup_goes_with_it_only_when_that_is_asked_for(
    demo: Client, described: Described, path: str, body: Any, kept: bool
) -> None:
    image = image_of(demo, whole(demo, instance_id=described.server((disk(), {}), (disk(), {}))))
    told, before = backup(demo, image["__backup_id"]), used(demo)

    answer = demo.http.request("DELETE", f"{path}/{image['id']}", **({} if body is None else {"json": body}))

    assert answer.status_code == 204, answer.text
    there = demo.http.get(f"/calotype/v1/backups/{told['id']}")
    assert there.status_code == (200 if kept else 404)
    assert before - used(demo) == image["size"] + (0 if kept else told["size"])
    if kept:
        assert there.json()["image_id"] is None


def test_delete_backup_means_nothing_for_an_image_that_has_none(demo: Client) -> None:
    made = demo.http.post("/v2/images", json={"name": "plain", "disk_format": "raw", "container_format": "bare"})

    deleted(demo, made.json(), delete_backup=True)


@pytest.mark.parametrize("content", [b'{"delete_backup": "yes"}', b"[]", b"{", b"\xff"])
def test_a_body_that_makes_no_sense_deletes_nothing(demo: Client, content: bytes) -> None:
    made = demo.http.post("/v2/images", json={"name": "plain", "disk_format": "raw", "container_format": "bare"})

    answer = demo.http.request("DELETE", made.json()["self"], content=content)

    assert answer.status_code == 400
    assert demo.image(made.json()["id"])["status"] == "queued"


# --- backups ----------------------------------------------------------------------------------------------------------


def test_a_backup_with_an_image_is_not_deleted_and_one_of_the_source_never(demo: Client, described: Described) -> None:
    image = image_of(demo, whole(demo, instance_id=described.server((disk(), {}))))
    saved = described.backup((disk(), {}))

    used_one = demo.http.delete(f"/calotype/v1/backups/{image['__backup_id']}")
    of_source = demo.http.delete(f"/calotype/v1/backups/{saved}")
    unknown = demo.http.delete("/calotype/v1/backups/none")

    assert (used_one.status_code, used_one.json()["error"]["code"]) == (409, "backup_in_use")
    assert of_source.status_code == 403
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "backup_not_found")


def test_a_backup_of_another_project_does_not_exist(demo: Client, admin: Client, described: Described) -> None:
    image = image_of(demo, whole(demo, instance_id=described.server((disk(), {}))))
    path = f"/calotype/v1/backups/{image['__backup_id']}"

    answers = [
        admin.http.get(path),
        admin.http.delete(path),
        admin.http.get(f"{path}/disks/0/file"),
        admin.http.post(PATH, json={"name": "n", "backup_id": image["__backup_id"], "whole_image_type": "CBR"}),
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404, 400]


def test_a_disk_is_downloaded_whole_and_in_parts(demo: Client, described: Described) -> None:
    image = image_of(demo, whole(demo, instance_id=described.server((disk(), {}), (disk(), {}))))
    told = backup(demo, image["__backup_id"])["disks"][1]
    path = f"/calotype/v1/backups/{image['__backup_id']}/disks/1/file"

    full = demo.http.get(path)
    part = demo.http.get(path, headers={"Range": "bytes=100-199"})
    head = demo.http.head(path)
    same = demo.http.get(path, headers={"If-None-Match": full.headers["ETag"]})
    beyond = demo.http.get(path, headers={"Range": f"bytes={told['size']}-"})

    assert hashlib.md5(full.content, usedforsecurity=False).hexdigest() == told["checksum"]
    assert full.headers["Content-MD5"] == told["checksum"]
    assert (part.status_code, part.content) == (206, full.content[100:200])
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(told["size"]), b"")
    assert (same.status_code, beyond.status_code) == (304, 416)


@pytest.mark.parametrize("slot", ["1", "7", "-1", "x", "99999", "%C2%B2"])
def test_a_disk_that_a_backup_does_not_have_is_not_found(demo: Client, described: Described, slot: str) -> None:
    image = image_of(demo, whole(demo, instance_id=described.server((b"one disk" * 1000, {}))))

    answer = demo.http.get(f"/calotype/v1/backups/{image['__backup_id']}/disks/{slot}/file")

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "backup_not_found")


def test_lists_tell_kept_backups_and_those_of_the_source_in_pages(make_service: MakeService) -> None:
    service = make_service().start()
    with service.demo() as client:
        described = Described(service)
        saved = [described.backup((disk(), {})) for _ in range(3)]
        whole(client, backup_id=saved[1], whole_image_type="CBR")
        own = image_of(client, whole(client, instance_id=described.server((disk(), {}))))["__backup_id"]

        def listed(query: str) -> list[tuple[str, str]]:
            found, marker = [], ""
            while True:
                page = client.http.get(f"/calotype/v1/backups?limit=2&marker={marker}&{query}").json()
                found += [(one["id"], one["origin"]) for one in page["backups"]]
                marker = page["next_marker"]
                if marker is None:
                    return found

        kept = {saved[1]: "service", own: "service"}
        assert listed("") == sorted({**dict.fromkeys(saved, "source"), **kept}.items())
        assert listed("origin=service") == sorted(kept.items())
        assert listed("origin=source") == sorted(dict.fromkeys(saved, "source").items())
        assert client.http.get("/calotype/v1/backups?origin=mars").status_code == 400


# --- what runs there --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "known"),
    [({}, "Ubuntu 22.04 Server 64bit"), ({"os_version": "Windows 10 64bit"}, "Windows 10 64bit")],
)
def test_the_system_on_the_disk_is_found_where_the_source_does_not_know_it_and_remembered(
    demo: Client, described: Described, tmp_path: Path, told: dict[str, Any], known: str
) -> None:
    root = guest.ext(tmp_path / "root.img", guest.linux_root(tmp_path / "root"), mib=8)
    system = guest.gpt(tmp_path / "disk", [(guest.LINUX_DATA, root)]).read_bytes()

    first = image_of(demo, whole(demo, instance_id=described.server((system, {}), (disk(), {}), **told)))
    deleted(demo, first)
    second = image_of(demo, whole(demo, backup_id=first["__backup_id"], whole_image_type="CBR"))

    assert (first["__os_version"], second["__os_version"]) == (known, known)
    assert backup(demo, second["__backup_id"])["server"]["os_version"] == known


# --- the commands -----------------------------------------------------------------------------------------------------


def test_the_commands_show_download_and_delete_a_backup(
    service: Service, demo: Client, described: Described, tmp_path: Path
) -> None:
    data = disk()
    image = image_of(demo, whole(demo, instance_id=described.server((disk(), {}), (data, {"name": "logs"}))))
    backup_id, target = image["__backup_id"], tmp_path / "logs.qcow2"

    listed = service.run("calotype", "backup", "list", "--origin", "service").stdout
    shown = service.run("calotype", "backup", "show", backup_id).stdout
    service.run("calotype", "backup", "download", backup_id, "1", "-o", str(target))
    refusal = service.run("calotype", "backup", "delete", backup_id, ok=False)
    deleted(demo, image)
    gone = service.run_json("calotype", "backup", "delete", backup_id, "--json")

    assert (backup_id in listed, image["id"] in listed) == (True, True)
    assert "logs" in shown
    assert guest_bytes(target, tmp_path) == data
    assert (refusal.returncode, "backup_in_use" in refusal.stderr) == (1, True)
    assert gone == {"deleted": [backup_id]}
    assert demo.http.get(f"/calotype/v1/backups/{backup_id}").status_code == 404


@pytest.mark.parametrize(
    "arguments", [("show", "none"), ("show", "a/b"), ("delete", ""), ("download", "none", "0", "-o", "{folder}/x")]
)
def test_the_commands_tell_of_a_backup_that_is_not_there(
    service: Service, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    given = [argument.format(folder=tmp_path) for argument in arguments]

    done = service.run("calotype", "backup", *given, ok=False)

    assert done.returncode == 1
    assert "backup_not_found" in done.stderr
    assert not list(tmp_path.iterdir())
