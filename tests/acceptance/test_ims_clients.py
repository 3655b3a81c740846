"""Clients of IMS: the calls that Terraform's resources and the Go SDK make, replayed with the strict decoding that they
do; the vendor's SDK and otcextensions as they come from PyPI."""

import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx
import openstack
import pytest
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkims import v2 as ims
from otcextensions import sdk
from otcextensions.sdk.imsv2.v2.image import Image as OtcImage

from tests.acceptance.test_imagev2 import CONTENT, OCTETS, active, create, name
from tests.acceptance.test_signatures import credentials_of, made
from tests.actors import Actors
from tests.inventory import MIB, Described
from tests.service import Client, Service, until

# The SDKs warn of their own affairs.
pytestmark = pytest.mark.filterwarnings("ignore")

RFC_3339: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")
# The Go struct of an item of the list: a value of another JSON type, or a time of another form, fails the whole answer.
IMAGE: Final[Mapping[str, Any]] = {
    "protected": bool,
    "min_disk": int,
    "min_ram": int,
    "size": int,
    "virtual_size": (int, type(None)),
    "tags": list,
    "created_at": RFC_3339,
    "updated_at": RFC_3339,
    **dict.fromkeys(
        (
            *("id", "name", "owner", "status", "visibility", "container_format", "disk_format", "max_ram", "checksum"),
            *("self", "file", "schema", "active_at", "enterprise_project_id", "hw_firmware_type", "virtual_env_type"),
            *("hw_vif_multiqueue_enabled", "__image_login_user", "__account_code", "__image_location"),
        ),
        str,
    ),
}
MEMBER: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("status", "image_id", "member_id", "schema"), str),
    "created_at": RFC_3339,
    "updated_at": RFC_3339,
}
# Of a job: absent and null are the same to Go, a value of another type is not.
JOB: Final[Mapping[str, Any]] = dict.fromkeys(
    ("status", "job_id", "job_type", "begin_time", "end_time", "error_code", "fail_reason"), (str, type(None))
)
ENTITIES: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("image_id", "image_name", "current_task"), (str, type(None))),
    **dict.fromkeys(("results", "sub_jobs_result", "sub_jobs_list"), list),
    "process_percent": (int, float),
}


def decoded(item: dict[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """The item, when Go's decoder takes it."""
    for key, value in item.items():
        wanted = str if key.startswith("__") else types.get(key)
        if isinstance(wanted, re.Pattern):
            assert wanted.fullmatch(value), (key, value)
        elif wanted is not None:
            assert isinstance(value, wanted), (key, value)
            assert wanted is not int or not isinstance(value, bool), (key, value)
    for key in ("created_at", "updated_at"):
        assert key in item
    return item


def answered(answer: httpx.Response, status: int) -> Any:
    """Go takes one status and no other."""
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def listed(client: Client, **filters: Any) -> list[dict[str, Any]]:
    images = answered(client.http.get("/v2/cloudimages", params=filters), 200)["images"]
    return [decoded(image, IMAGE) for image in images]


def waited_for(client: Client, job_id: str) -> dict[str, Any]:
    """The entities of a job that succeeded, which is polled as Terraform polls it."""

    def polled() -> dict[str, Any] | None:
        job = answered(client.http.get(f"/v1/{client.project_id}/jobs/{job_id}"), 200)
        assert job["status"] in ("INIT", "RUNNING", "SUCCESS"), job
        typed(job, JOB)
        typed(job["entities"], ENTITIES)
        for child in job["entities"].get("sub_jobs_result", []):
            typed(child, JOB)
            typed(child["entities"], ENTITIES)
        entities: dict[str, Any] = job["entities"]
        return entities if job["status"] == "SUCCESS" else None

    found: dict[str, Any] = until(polled, f"job {job_id}")
    return found


def typed(item: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    for key, value in item.items():
        if key in types:
            assert isinstance(value, types[key]), (key, value)
            assert not isinstance(value, bool), (key, value)


def without_project(client: Client, path: str) -> str:
    return path.replace("{project}", client.project_id)


# --- Terraform --------------------------------------------------------------------------------------------------------


def test_images_image_v2(demo: Client) -> None:
    tags, given = ["foo.bar", "tag value"], {"container_format": "bare", "disk_format": "raw", "protected": False}
    image = answered(demo.http.post("/v2/images", json={"name": name(), "tags": tags, **given}), 201)
    (queued,) = listed(demo, id=image["id"])
    answered(demo.http.put(f"/v2/images/{image['id']}/file", content=CONTENT, headers=OCTETS), 204)

    def polled() -> str:
        (one,) = listed(demo, id=image["id"])
        assert one["status"] in ("queued", "saving", "active")
        return str(one["status"])

    until(lambda: polled() == "active", "the image to be active")
    (shown,) = listed(demo, id=image["id"])
    patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    changes = [
        {"op": "replace", "path": "/name", "value": "renamed"},
        {"op": "replace", "path": "/tags", "value": ["b"]},
    ]
    changed = answered(demo.http.patch(image["self"], json=changes, headers=patch), 200)
    unchanged = answered(demo.http.patch(image["self"], json=[], headers=patch), 200)
    gone = demo.http.request("DELETE", image["self"], json={"delete_backup": True})

    assert queued["status"] == "queued"
    assert int(shown["__image_size"]) == len(CONTENT)
    assert shown["tags"] == tags  # as they were given, though one looks like a key with a value
    assert shown["checksum"]
    assert (changed["name"], changed["tags"], unchanged["name"]) == ("renamed", ["b"], "renamed")
    assert (gone.status_code, demo.http.get(image["self"]).status_code, listed(demo, id=image["id"])) == (204, 404, [])


def test_ims_image_v2_and_its_tags(demo: Client) -> None:
    bucket = f"tf-{uuid.uuid4().hex[:12]}"
    demo.put_object(bucket, "disk.raw", b"\0" * 510 + b"\x55\xaa" + bytes(512))
    body = {
        "name": name(),
        "image_url": f"{bucket}:disk.raw",
        "min_disk": 1,
        "os_version": "Debian GNU/Linux 9.0.0 64bit",
    }
    job_id = demo.submit("POST", "/v2/cloudimages/action", {**body, "image_tags": [{"key": "muh", "value": "kuh"}]})
    image_id = demo.succeeded(job_id)["entities"]["image_id"]
    (image,) = listed(demo, id=image_id)
    path = without_project(demo, f"/v2/{{project}}/images/{image_id}/tags")

    before = answered(demo.http.get(path), 200)["tags"]
    old, new = [{"key": "muh", "value": "kuh"}], [{"key": "team", "value": "blue"}, {"key": "empty", "value": ""}]
    answered(demo.http.post(f"{path}/action", json={"action": "delete", "tags": old}), 204)
    answered(demo.http.post(f"{path}/action", json={"action": "create", "tags": new}), 204)
    rename = [{"op": "replace", "path": "/name", "value": "renamed"}]
    renamed = answered(demo.http.patch(f"/v2/cloudimages/{image_id}", json=rename), 200)

    assert image["__data_origin"] == f"file,{bucket}:disk.raw"
    assert (image["visibility"], image["file"]) == ("private", f"/v2/images/{image_id}/file")
    assert before == old
    assert answered(demo.http.get(path), 200)["tags"] == new
    assert decoded(renamed, IMAGE)["name"] == "renamed"


@pytest.fixture
def described(service: Service) -> Described:
    return Described(service)


def tagged(client: Client, image_id: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = answered(client.http.get(f"/v2/{client.project_id}/images/{image_id}/tags"), 200)[
        "tags"
    ]
    return found


@pytest.mark.parametrize("source", ["instance_id", "volume_id"])
def test_ims_image_v2_of_a_server_and_of_a_volume(demo: Client, described: Described, source: str) -> None:
    content, tags = bytes(MIB), [{"key": "muh", "value": "kuh"}]
    id_ = described.server((content, {}), status="stopped") if source == "instance_id" else described.volume(content)
    body = {"name": name(), "description": "of terraform", source: id_, "image_tags": tags}
    if source == "volume_id":
        body |= {"os_version": "Debian GNU/Linux 9.0.0 64bit"}

    job_id = answered(demo.http.post("/v2/cloudimages/action", json=body), 200)["job_id"]
    image_id = waited_for(demo, job_id)["image_id"]
    (image,) = listed(demo, id=image_id)

    assert (image["name"], image["__description"]) == (body["name"], "of terraform")
    assert image["__data_origin"] == f"{source.removesuffix('_id')},{id_}"
    assert int(image["__image_size"]) > 0
    assert (image["visibility"], image["file"]) == ("private", f"/v2/images/{image_id}/file")
    assert tagged(demo, image_id) == tags
    assert demo.http.request("DELETE", image["self"], json={}).status_code == 204
    assert listed(demo, id=image_id) == []


@pytest.mark.parametrize("with_tags", [False, True])
@pytest.mark.parametrize("source", ["volume", "file"])
def test_ims_data_image_v2(demo: Client, described: Described, source: str, with_tags: bool) -> None:
    """Without tags it reads the image's id beside the sub jobs, with tags that of the first sub job."""
    given = {"name": name(), "description": "a data disk"}
    if source == "volume":
        server = described.server((bytes(MIB), {}), (bytes(MIB), {}), status="running")
        path, volume_id = "/v2/cloudimages/action", f"{server[:8]}-vol1"
        body: dict[str, Any] = {"data_images": [{**given, "volume_id": volume_id}]}
        origin = f"volume,{volume_id}"
    else:
        bucket = f"tf-{uuid.uuid4().hex[:12]}"
        demo.put_object(bucket, "data.raw", bytes(MIB))
        path, origin = "/v1/cloudimages/action", f"file,{bucket}:data.raw"
        body = {**given, "image_url": f"{bucket}:data.raw", "min_disk": 40, "os_type": "Linux"}

    entities = waited_for(demo, answered(demo.http.post(path, json=body), 200)["job_id"])
    image_id = entities["sub_jobs_result"][0]["entities"]["image_id"] if with_tags else entities["image_id"]
    tags = [{"key": "foo", "value": "bar"}] if with_tags else []
    if with_tags:
        of_image = f"/v2/{demo.project_id}/images/{image_id}/tags/action"
        answered(demo.http.post(of_image, json={"action": "create", "tags": tags}), 204)
    (image,) = listed(demo, id=image_id)
    rename = [{"op": "replace", "path": "/name", "value": "renamed"}]
    renamed = answered(demo.http.patch(f"/v2/cloudimages/{image_id}", json=rename), 200)

    assert (image["name"], image["__description"]) == (given["name"], "a data disk")
    assert (image["virtual_env_type"], image["__data_origin"]) == ("DataImage", origin)
    assert (image["visibility"], tagged(demo, image_id)) == ("private", tags)
    assert decoded(renamed, IMAGE)["name"] == "renamed"
    assert demo.http.request("DELETE", image["self"], json={}).status_code == 204
    assert demo.http.get(image["self"]).status_code == 404


@pytest.mark.parametrize("delete_backup", [False, True])
def test_full_server_images_are_known_by_their_attributes(
    demo: Client, described: Described, delete_backup: bool
) -> None:
    server = described.server((bytes(MIB), {}), (bytes(MIB), {}), status="stopped")
    body = {"name": name(), "instance_id": server, "image_tags": [{"key": "a", "value": "b"}]}

    job_id = answered(demo.http.post("/v1/cloudimages/wholeimages/action", json=body), 200)["job_id"]
    image_id = waited_for(demo, job_id)["image_id"]
    (image,) = listed(demo, id=image_id, limit=1)

    assert image["__whole_image"] == "true"
    backup = image["__backup_id"]
    assert demo.http.request("DELETE", image["self"], json={"delete_backup": delete_backup}).status_code == 204
    left = demo.http.get(f"/calotype/v1/backups/{backup}").status_code
    assert (left == 404) == delete_backup


def test_images_image_access_v2_and_its_acceptance(service: Service, demo: Client, admin: Client) -> None:
    actors = Actors(service, admin)
    recipient, image = actors.clients["stranger"], active(demo)
    members = f"{image['self']}/members"
    one = f"{members}/{recipient.project_id}"

    added = answered(demo.http.post(members, json={"member": recipient.project_id}), 200)
    at_once = answered(recipient.http.get(one), 200)
    accepted = answered(recipient.http.put(one, json={"status": "accepted"}), 200)
    (seen,) = listed(recipient, id=image["id"], visibility="shared", member_status="accepted")
    rejected = answered(recipient.http.put(one, json={"status": "rejected"}), 200)
    answered(demo.http.delete(one), 204)

    told = [decoded(member, MEMBER)["status"] for member in (added, at_once, accepted, rejected)]
    assert told == ["pending", "pending", "accepted", "rejected"]
    assert seen["owner"] == demo.project_id
    assert demo.http.get(one).status_code == 404
    for client in actors.clients.values():
        if client is not admin:
            client.http.close()


def test_data_images_image_v2_and_lookups_by_name(demo: Client) -> None:
    mark = uuid.uuid4().hex
    first, second = (active(demo, name=f"{mark}-{n}", tags=["team=blue"]) for n in "ab")
    common = {"status": "active", "owner": demo.project_id, "visibility": "private", "tag": "team"}
    sizes = {"size_min": 1, "size_max": 1_000_000, "sort_key": "name", "sort_dir": "asc"}

    page = listed(demo, **common, **sizes, limit=1000)

    assert [image["id"] for image in page if image["name"].startswith(mark)] == [first["id"], second["id"]]
    assert [image["id"] for image in listed(demo, name=f"{mark}-a", limit=1)] == [first["id"]]


def test_an_update_falls_back_from_replace_to_add(demo: Client) -> None:
    image = active(demo)

    def sent(op: str, path: str, value: Any) -> httpx.Response:
        return demo.http.patch(f"/v2/cloudimages/{image['id']}", json=[{"op": op, "path": path, "value": value}])

    for path, value in (("/__description", "nightly"), ("/max_ram", 0)):
        refused = answered(sent("replace", path, value), 400)
        assert refused["error"]["code"] == "IMG.0035"
        answered(sent("add", path, value), 200)
        answered(sent("replace", path, value), 200)

    (shown,) = listed(demo, id=image["id"])
    assert (shown["max_ram"], shown["__description"]) == ("0", "nightly")


# --- the Go SDK -------------------------------------------------------------------------------------------------------


def test_the_go_sdk_shares_in_batches_and_asks_for_its_quota(service: Service, demo: Client, admin: Client) -> None:
    actors = Actors(service, admin)
    recipient, image = actors.clients["stranger"], active(demo)
    pair = {"images": [image["id"]], "projects": [recipient.project_id]}

    added = answered(demo.http.post("/v1/cloudimages/members", json=pair), 200)["job_id"]
    told = demo.succeeded(added)
    answer = {"images": [image["id"]], "project_id": recipient.project_id, "status": "accepted"}
    updated = answered(recipient.http.put("/v1/cloudimages/members", json=answer), 200)["job_id"]
    recipient.succeeded(updated)
    removed = answered(demo.http.request("DELETE", "/v1/cloudimages/members", json=pair), 200)["job_id"]
    demo.succeeded(removed)
    quotas = answered(demo.http.get("/v1/cloudimages/quota"), 200)["quotas"]["resources"]

    assert told["entities"]["results"][0]["status"] == "success"
    assert all(type(one[key]) is int for one in quotas for key in ("used", "quota", "min", "max"))
    for client in actors.clients.values():
        if client is not admin:
            client.http.close()


def test_the_go_sdk_puts_a_tag_and_lists_tags(demo: Client) -> None:
    image = create(demo)
    given = {"image_id": image["id"], "tag": "muh=kuh", "image_tag": {}}

    answered(demo.http.put("/v1/cloudimages/tags", json=given), 204)
    query = {"id": image["id"], "protected": "false", "__protected": "false", "limit": 10, "page": 1}

    assert answered(demo.http.get("/v1/cloudimages/tags", params=query), 200) == {"tags": ["muh=kuh"]}


# --- the vendor's SDK -------------------------------------------------------------------------------------------------


@pytest.fixture
def vendor(demo: Client) -> Iterator[Any]:
    key = made(demo)
    yield key.sdk()
    demo.http.delete(f"{credentials_of(demo)}/{key.access}")


def test_the_vendors_sdk_lists_and_updates(vendor: Any, demo: Client) -> None:
    image = active(demo, tags=["team=blue"], max_ram=2048)

    (found,) = vendor.list_images(ims.ListImagesRequest(id=image["id"], tag="team=blue", protected=False)).images
    change = [ims.UpdateImageRequestBody(op="replace", path="/name", value="renamed")]
    updated = vendor.update_image(ims.UpdateImageRequest(image_id=image["id"], body=change))

    assert (found.id, found.max_ram, found.imagetype, found.tags) == (image["id"], "2048", "private", ["team=blue"])
    assert updated.name == "renamed"
    with pytest.raises(ClientRequestException) as refused:
        vendor.update_image(ims.UpdateImageRequest(image_id=str(uuid.UUID(int=1)), body=change))
    assert (refused.value.status_code, refused.value.error_code) == (404, "IMG.0144")


def test_the_vendors_sdk_tags_and_finds_by_tags(vendor: Any, demo: Client) -> None:
    image, mark = create(demo), f"k{uuid.uuid4().hex[:12]}"

    def tag(**fields: str) -> Any:
        return ims.TagKeyValue(**fields)

    vendor.add_image_tag(
        ims.AddImageTagRequest(image_id=image["id"], body=ims.AddImageTagRequestBody(tag=tag(key=mark, value="1")))
    )
    batch = ims.BatchAddOrDeleteTagsRequestBody(action="create", tags=[tag(key="other", value="2")])
    vendor.batch_add_or_delete_tags(ims.BatchAddOrDeleteTagsRequest(image_id=image["id"], body=batch))
    shown = vendor.list_image_tags(ims.ListImageTagsRequest(image_id=image["id"])).tags
    query = ims.ListImageByTagsRequestBody(action="filter", limit="10", tags=[ims.Tags(key=mark, values=[])])
    found = vendor.list_image_by_tags(ims.ListImageByTagsRequest(body=query))
    project = vendor.list_images_tags(ims.ListImagesTagsRequest()).tags
    vendor.delete_image_tag(ims.DeleteImageTagRequest(image_id=image["id"], key=mark))
    gone = ims.BatchDeleteTagsRequestBody(tags=[ims.ResourceTag(key="other")])
    vendor.batch_delete_tags(ims.BatchDeleteTagsRequest(image_id=image["id"], body=gone))

    assert {(one.key, one.value) for one in shown} == {(mark, "1"), ("other", "2")}
    assert (found.total_count, found.resources[0].resource_id) == (1, image["id"])
    assert [one.values for one in project if one.key == mark] == [["1"]]
    assert vendor.list_image_tags(ims.ListImageTagsRequest(image_id=image["id"])).tags == []


def test_the_vendors_sdk_asks_for_facts(vendor: Any, demo: Client) -> None:
    quota = vendor.show_image_quota(ims.ShowImageQuotaRequest()).quotas.resources[0]
    platforms = vendor.list_os_versions(ims.ListOsVersionsRequest(tag=["uefi", "x86"])).body
    image = create(demo)
    members = vendor.list_image_members(ims.ListImageMembersRequest(image_id=image["id"], limit=10))

    assert (quota.type, type(quota.used)) == ("image", int)
    assert {entry.os_bit for platform in platforms for entry in platform.version_list} <= {32, 64}
    assert (members.members, members.page_info.current_count) == ([], 0)


# --- otcextensions ----------------------------------------------------------------------------------------------------


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


def test_otcextensions_lists_with_filters_and_updates(cloud: Any, demo: Client) -> None:
    image = active(demo)

    (found,) = cloud.imsv2.images(id=image["id"], status="active", protected=False)
    change = [{"op": "replace", "path": "/name", "value": "renamed"}]
    # As its update_image sends it; that then reads attributes which the present openstacksdk has no more.
    updated = OtcImage()._action(cloud.imsv2, change, image["id"]).json()

    assert (found.id, found.status, found.image_size) == (image["id"], "active", str(len(CONTENT)))
    assert (updated["id"], updated["name"]) == (image["id"], "renamed")
    assert demo.image(image["id"])["name"] == "renamed"


def test_otcextensions_makes_images_of_servers_and_disks(cloud: Any, demo: Client, service: Service) -> None:
    server = Described(service).server((bytes(MIB), {}), (bytes(MIB), {}), status="stopped")
    disks = [{"name": "data", "volume_id": f"{server[:8]}-vol1"}]

    system = cloud.imsv2.create_image(name="of-server", instance_id=server, tags=["team.blue"])
    data = cloud.imsv2.create_image(data_images=disks)
    ended = [cloud.imsv1.wait_for_async_job(job.job_id, timeout=120, wait=1) for job in (system, data)]

    assert [(job.status, job.job_type) for job in ended] == [
        ("SUCCESS", "imsCreateImageByInstance"),
        ("SUCCESS", "imsVolumesToSysDataImagesJob"),
    ]
    (found,) = cloud.imsv2.images(id=ended[0].entities.image_id)
    assert (found.name, found.tags) == ("of-server", ["team=blue"])
    assert demo.image(ended[1].entities.image_id)["virtual_env_type"] == "DataImage"
