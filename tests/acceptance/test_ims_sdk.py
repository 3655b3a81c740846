"""Every method of the vendor's SDK, `huaweicloudsdkims` as it comes from PyPI, against the service: requests that it
signs, and answers that are what it declares them to be."""

import ast
import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.http.http_handler import HttpHandler
from huaweicloudsdkims import v2 as ims

from tests.acceptance.test_ims_servers import guest_bytes
from tests.acceptance.test_signatures import Key, credentials_of, made
from tests.actors import Actors
from tests.importing import OCTETS
from tests.inventory import MIB, Described
from tests.regions import THERE, Network, assert_arrived, region_here, region_there, started
from tests.service import Client, Service, until

# The SDK warns of its own affairs.
pytestmark = pytest.mark.filterwarnings("ignore")

STATUS: Final = {  # of success, where it is not 200
    "add_image_tag": 204,
    "batch_add_or_delete_tags": 204,
    "batch_delete_tags": 204,
    "create_or_update_tags": 204,
    "delete_image_tag": 204,
    "glance_create_image_metadata": 201,
    "glance_create_tag": 204,
    "glance_delete_image": 204,
    "glance_delete_image_member": 204,
    "glance_delete_tag": 204,
    "list_versions": 300,
    "show_version": 300,
}
PRIMITIVES: Final[dict[str, tuple[type, ...]]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "object": (dict,),
}
KNOWN: Final = "Ubuntu 18.04 server 64bit"
TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
JOB_ID: Final = re.compile(r"[0-9a-f]{32}")


class Vendor:
    """The SDK's client, by the names of its methods and the fields of their requests.

    The SDK makes whatever it is given into the type that it declares, so an answer is held against what came: each
    field that the SDK knows has the JSON type that it declares, and its value is that of the field.
    """

    def __init__(self, key: Key) -> None:
        self._answers: list[Any] = []
        handler = HttpHandler().add_response_handler(lambda **told: self._answers.append(told["response"]))
        self._client = (
            ims.ImsClient.new_builder()
            .with_http_handler(handler)
            .with_credentials(BasicCredentials(key.access, key.secret, key.project_id))
            .with_endpoint(key.service.url)
            .build()
        )

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(**fields: Any) -> Any:
            kind = "".join(word.capitalize() for word in method.split("_"))
            found = getattr(self._client, method)(getattr(ims, f"{kind}Request")(**fields))
            answer = self._answers[-1]
            assert answer.status_code == STATUS.get(method, 200)
            hold(found, answer.json() if answer.content else {}, f"{kind}Response", method)
            return found

        return call

    def ended(self, job_id: str) -> Any:
        """The job, once it has: asked for by both calls, which tell the same of it."""
        assert JOB_ID.fullmatch(job_id)
        job = until(lambda: (now := self.show_job(job_id=job_id)).status in ("SUCCESS", "FAIL") and now, "the job")
        progress = self.show_job_progress(job_id=job_id)
        for field in ("status", "job_id", "job_type", "begin_time", "end_time", "error_code", "fail_reason"):
            assert getattr(progress, field) == getattr(job, field)
        assert job.job_id == job_id
        assert TIME.fullmatch(job.begin_time)
        assert TIME.fullmatch(job.end_time)
        if job.status == "SUCCESS":
            assert (progress.entities.process_percent, progress.entities.current_task) == (1, "")
        return job

    def succeeded(self, accepted: Any, job_type: str) -> Any:
        """The entities of a job."""
        job = self.ended(accepted.job_id)
        told = (job.status, job.job_type, job.error_code, job.fail_reason)
        assert told == ("SUCCESS", job_type, None, None)
        return job.entities

    def image(self, accepted: Any, job_type: str, name: str) -> Any:
        """The image that a job made, as the list of IMS has it."""
        entities = self.succeeded(accepted, job_type)
        assert entities.image_name == name
        (image,) = self.list_images(id=entities.image_id).images
        assert (image.id, image.name, image.status) == (entities.image_id, name, "active")
        return image


def hold(value: Any, came: Any, kind: str, where: str) -> None:
    """`value`: what the SDK has made of what came, which it takes for a `kind`."""
    if listed := re.fullmatch(r"list\[(.*)\]", kind):
        assert isinstance(came, list), where
        assert len(value) == len(came), where
        for n, (one, other) in enumerate(zip(value, came, strict=True)):
            hold(one, other, listed[1], f"{where}[{n}]")
    elif kind in PRIMITIVES:
        assert type(came) in PRIMITIVES[kind], (where, came)
        assert value == came, where
    else:
        declared = getattr(ims, kind)
        for attribute, inner in declared.openapi_types.items():
            field = declared.attribute_map[attribute]
            found = came if field == "body" and isinstance(came, list) else came.get(field)
            if found is None:
                assert getattr(value, attribute) is None, f"{where}.{field}"
            else:
                hold(getattr(value, attribute), found, inner, f"{where}.{field}")


@pytest.fixture
def sdk(demo: Client) -> Iterator[Vendor]:
    key = made(demo)
    yield Vendor(key)
    demo.http.delete(f"{credentials_of(demo)}/{key.access}")


@pytest.fixture
def bucket() -> str:
    return f"sdk-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def described(service: Service) -> Described:
    return Described(service)


def disk(mib: int = 1) -> bytes:
    return os.urandom(4096) + bytes(mib * MIB - 8192) + os.urandom(4096)


def unique(word: str) -> str:
    return f"{word}-{uuid.uuid4().hex[:12]}"


def tag(key: str, value: str = "") -> Any:
    return ims.TagKeyValue(key=key, value=value)


def tags_of(sdk: Vendor, image_id: str) -> dict[str, str]:
    return {one.key: one.value for one in sdk.list_image_tags(image_id=image_id).tags}


def image_of(sdk: Vendor, **fields: Any) -> Any:
    """One that is made at once, without bytes."""
    body = ims.GlanceCreateImageMetadataRequestBody(
        **{"name": unique("empty"), "disk_format": "raw", "container_format": "bare", **fields}
    )
    return sdk.glance_create_image_metadata(body=body)


def uploaded(sdk: Vendor, demo: Client, **fields: Any) -> Any:
    """One with bytes. The SDK has no method for the upload."""
    image = image_of(sdk, **fields)
    assert demo.http.put(image.file, content=disk(), headers=OCTETS).status_code == 204
    return sdk.glance_show_image(image_id=image.id)


def guest(demo: Client, image_id: str, folder: Path) -> bytes:
    """What a guest sees in an image."""
    target = folder / uuid.uuid4().hex
    target.write_bytes(demo.http.get(f"/v2/images/{image_id}/file").content)
    return guest_bytes(target, folder)


def refused(call: Callable[..., Any], **fields: Any) -> tuple[int, str]:
    with pytest.raises(ClientRequestException) as error:
        call(**fields)
    assert error.value.request_id
    return error.value.status_code, error.value.error_code


def test_every_method_of_the_sdk_is_called_here() -> None:
    methods = {name for name in vars(ims.ImsClient) if not name.startswith("_")} - {"new_builder", "call_api"}
    methods = {name for name in methods if not name.endswith(("_http_info", "_invoker"))}
    called = {
        node.func.attr
        for node in ast.walk(ast.parse(Path(__file__).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }

    assert len(methods) == 51
    assert methods <= called, methods - called


# --- images of files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["plain", "safe"])
def test_an_image_of_a_file_is_made_copied_and_exported(
    sdk: Vendor, demo: Client, bucket: str, tmp_path: Path, mode: str
) -> None:
    content, name = disk(), unique("file")
    demo.put_object(bucket, "disks/web.raw", content)
    body = ims.CreateImageRequestBody(
        name=name,
        description="nightly",
        image_url=f"{bucket}:disks/web.raw",
        os_version=KNOWN,
        min_disk=20,
        min_ram=1024,
        max_ram=4096,
        is_config=False,
        type="ECS",
        hw_firmware_type="uefi",
        architecture="x86",
        enterprise_project_id="0",
        image_tags=[tag("team", "blue"), tag("solo")],
    )

    if mode == "plain":
        image = sdk.image(sdk.create_image(body=body), "imsImportImageJob", name)
    else:
        image = sdk.image(sdk.create_image_in_safe_mode(body=body), "imsImportImageJob", name)

    assert (image.description, image.min_disk, image.min_ram, image.max_ram) == ("nightly", 20, 1024, "4096")
    assert (image.os_version, image.os_type, image.platform, image.os_bit) == (KNOWN, "Linux", "Ubuntu", "64")
    assert (image.hw_firmware_type, image.virtual_env_type) == ("uefi", "FusionCompute")
    assert (image.root_origin, image.data_origin) == ("file", f"file,{bucket}:disks/web.raw")
    assert (image.originalimagename, image.system__cmkid, image.backup_id) == ("", None, None)
    assert (image.imagetype, image.isregistered, image.image_source_type) == ("private", "true", "uds")
    assert (image.visibility, image.protected, image.container_format) == ("private", False, "bare")
    assert (image.owner, image.tags) == (demo.project_id, ["team=blue", "solo"])
    assert (image.size, image.image_size) == (int(image.image_size), str(image.size))
    assert (image._self, image.file) == (f"/v2/images/{image.id}", f"/v2/images/{image.id}/file")
    assert image.schema == "/v2/schemas/image"
    assert all(TIME.fullmatch(time) for time in (image.created_at, image.updated_at, image.active_at))
    assert guest(demo, image.id, tmp_path) == content

    copied = unique("copy")
    copy = ims.CopyImageInRegionRequestBody(name=copied, description="of it")
    export = ims.ExportImageRequestBody(bucket_url=f"{bucket}:out.qcow2", file_format="qcow2")
    if mode == "plain":
        second = sdk.image(sdk.copy_image_in_region(image_id=image.id, body=copy), "imsCopyImageInRegionJob", copied)
        exported = sdk.succeeded(sdk.export_image(image_id=image.id, body=export), "imsNativeExportImageJob")
    else:
        accepted = sdk.copy_image_in_region_in_safe_mode(image_id=image.id, body=copy)
        second = sdk.image(accepted, "imsCopyImageInRegionJob", copied)
        accepted = sdk.export_image_in_safe_mode(image_id=image.id, body=export)
        exported = sdk.succeeded(accepted, "imsNativeExportImageJob")

    assert (second.description, second.originalimagename) == ("of it", image.id)
    assert second.data_origin == f"image,RegionOne,{image.id}"
    assert (second.size, second.checksum, second.os_version) == (image.size, image.checksum, KNOWN)
    assert (second.root_origin, second.virtual_env_type, second.min_disk) == ("file", "FusionCompute", 20)
    assert exported.image_id == image.id
    out = tmp_path / "out.qcow2"
    out.write_bytes(demo.get_object(bucket, "out.qcow2"))
    assert guest_bytes(out, tmp_path) == content


@pytest.mark.parametrize("mode", ["plain", "safe"])
def test_a_data_disk_image_is_made_of_a_file(sdk: Vendor, demo: Client, bucket: str, mode: str) -> None:
    name = unique("data")
    demo.put_object(bucket, "data.raw", disk())
    body = ims.CreateDataImageRequestBody(
        name=name,
        description="of a database",
        image_url=f"{bucket}:data.raw",
        min_disk=40,
        os_type="Windows",
        image_tags=[ims.ImageTag(key="team", value="blue")],
    )

    accepted = sdk.create_data_image(body=body) if mode == "plain" else sdk.create_data_image_in_safe_mode(body=body)
    image = sdk.image(accepted, "imsImportDataImageJob", name)

    assert (image.virtual_env_type, image.os_type, image.min_disk) == ("DataImage", "Windows", 40)
    assert (image.root_origin, image.data_origin) == ("file", f"file,{bucket}:data.raw")
    assert (image.description, image.tags) == ("of a database", ["team=blue"])
    job = sdk.show_job(job_id=accepted.job_id)
    (step,) = job.entities.sub_jobs_result
    assert ([step.job_id], step.status) == (job.entities.sub_jobs_list, "SUCCESS")
    assert (step.entities.image_id, step.entities.image_name) == (image.id, name)


@pytest.mark.parametrize("mode", ["plain", "safe"])
@pytest.mark.parametrize("kind", ["ECS", "DataImage"])
def test_a_large_file_is_imported_quickly(sdk: Vendor, demo: Client, bucket: str, mode: str, kind: str) -> None:
    name, content = unique("quick"), disk()
    demo.put_object(bucket, "big.raw", content)
    demo.put_object(bucket, "big.mf", b"bitmap")
    more = {"os_version": KNOWN, "architecture": "x86", "hw_firmware_type": "bios"} if kind == "ECS" else {}
    body = ims.QuickImportImageByFileRequestBody(
        name=name,
        type=kind,
        image_url=f"{bucket}:big.raw",
        min_disk=1,
        image_tags=[ims.ResourceTag(key="size", value="big")],
        **more,
    )

    accepted = sdk.import_image_quick(body=body) if mode == "plain" else sdk.import_image_quick_in_safe_mode(body=body)
    image = sdk.image(accepted, "imsImportImageJob" if kind == "ECS" else "imsImportDataImageJob", name)

    assert image.virtual_env_type == ("FusionCompute" if kind == "ECS" else "DataImage")
    assert (image.disk_format, image.size, image.tags) == ("raw", len(content), ["size=big"])
    assert demo.http.get(image.file).content == content


def test_an_image_that_was_described_is_filled_from_a_file(
    sdk: Vendor, demo: Client, bucket: str, tmp_path: Path
) -> None:
    name, content = unique("registered"), disk()
    demo.put_object(bucket, "r.raw", content)
    body = ims.GlanceCreateImageMetadataRequestBody(
        name=name,
        os_version=KNOWN,
        visibility="private",
        protected=False,
        container_format="bare",
        disk_format="raw",
        tags=["team=blue"],
        min_ram=512,
        min_disk=2,
    )

    queued = sdk.glance_create_image_metadata(body=body)
    (listed,) = sdk.glance_list_images(id=queued.id, isregistered=True).images
    job = sdk.ended(sdk.register_image(image_id=queued.id, body=ims.RegisterImageRequestBody(f"{bucket}:r.raw")).job_id)
    image = sdk.glance_show_image(image_id=queued.id)

    assert (queued.name, queued.status, queued.owner) == (name, "queued", demo.project_id)
    assert (queued.os_version, queued.os_type, queued.platform, queued.os_bit) == (KNOWN, "Linux", "Ubuntu", "64")
    assert (queued.min_ram, queued.min_disk, queued.tags, queued.protected) == (512, 2, ["team=blue"], False)
    assert (queued.image_size, queued.imagetype, queued.isregistered) == ("0", "private", "true")
    assert (queued.image_source_type, queued.virtual_env_type) == ("uds", "FusionCompute")
    assert (listed.id, listed.status) == (queued.id, "queued")
    assert (job.status, job.job_type, job.entities.image_id) == ("SUCCESS", "imsNativeImportImageJob", queued.id)
    assert sdk.show_job_progress(job_id=job.job_id).entities.sub_job_id
    assert (image.status, image.image_size) == ("active", str(image.size))
    assert guest(demo, image.id, tmp_path) == content
    assert (image.root_origin, image.data_origin) == ("file", f"file,{bucket}:r.raw")
    assert (image.originalimagename, image.os_version) == ("", KNOWN)


def test_a_job_that_fails_says_why(sdk: Vendor, demo: Client, bucket: str) -> None:
    demo.put_object(bucket, "junk", b"QFI\xfb\x00\x00\x00\x03" + bytes(600))
    body = ims.CreateImageRequestBody(name=unique("junk"), image_url=f"{bucket}:junk", min_disk=1)

    job = sdk.ended(sdk.create_image(body=body).job_id)

    assert (job.status, job.error_code) == ("FAIL", "IMG.0057")
    assert (job.entities.error_code, job.entities.image_id) == ("IMG.0057", None)
    assert job.fail_reason
    assert job.entities.error in job.fail_reason


# --- images of servers ------------------------------------------------------------------------------------------------


def test_images_are_made_of_a_server_of_its_disks_and_of_one_alone(
    sdk: Vendor, demo: Client, described: Described, tmp_path: Path
) -> None:
    contents, parent = [disk(1), disk(2), disk(3)], str(uuid.uuid4())
    server = described.server(
        *((content, {}) for content in contents), os_version=KNOWN, image_id=parent, status="running"
    )
    alone = described.volume(contents[0])
    names = [unique(word) for word in ("system", "first", "second", "alone")]

    of_server = ims.CreateImageRequestBody(name=names[0], instance_id=server, tags=["team.blue"])
    of_disks = ims.CreateImageRequestBody(
        data_images=[
            ims.CreateDataImage(name=names[1], volume_id=f"{server[:8]}-vol1", description="d", tags=["n=1"]),
            ims.CreateDataImage(name=names[2], volume_id=f"{server[:8]}-vol2"),
        ]
    )
    of_volume = ims.CreateImageRequestBody(name=names[3], volume_id=alone, os_version=KNOWN, type="BMS")
    system = sdk.image(sdk.create_image(body=of_server), "imsCreateImageByInstance", names[0])
    disks = sdk.succeeded(sdk.create_image(body=of_disks), "imsVolumesToSysDataImagesJob")
    bare = sdk.image(sdk.create_image_in_safe_mode(body=of_volume), "imsVolumeCreateImageJob", names[3])

    assert (system.data_origin, system.originalimagename) == (f"instance,{server}", parent)
    assert (system.virtual_env_type, system.os_version, system.tags) == ("FusionCompute", KNOWN, ["team=blue"])
    assert (system.root_origin, system.min_disk) == (None, 1)
    assert guest(demo, system.id, tmp_path) == contents[0]
    assert [child.job_id for child in disks.sub_jobs_result] == disks.sub_jobs_list
    for child, name, content in zip(disks.sub_jobs_result, names[1:3], contents[1:], strict=True):
        assert (child.status, child.job_type) == ("SUCCESS", "imsCopyVolumeToImageJob")
        assert (child.error_code, child.fail_reason) == (None, None)
        assert child.entities.image_name == name
        (image,) = sdk.list_images(id=child.entities.image_id, virtual_env_type="DataImage").images
        assert guest(demo, image.id, tmp_path) == content
        assert image.data_origin == f"volume,{server[:8]}-vol{names.index(name)}"
    assert (disks.image_id, disks.image_name) == (disks.sub_jobs_result[0].entities.image_id, names[1])
    assert (bare.data_origin, bare.virtual_env_type) == (f"volume,{alone}", "Ironic")


def test_full_server_images_are_made_of_a_server_and_of_a_backup(
    sdk: Vendor, demo: Client, bucket: str, described: Described
) -> None:
    demo.put_object(bucket, "other", b"x")
    server = described.server((disk(), {}), (disk(), {}), os_version=KNOWN, status="stopped")
    backup = described.backup((disk(), {}))
    names = unique("whole"), unique("restored")

    of_server = ims.CreateWholeImageRequestBody(name=names[0], instance_id=server, image_tags=[tag("a", "b")])
    of_backup = ims.CreateWholeImageRequestBody(
        name=names[1], backup_id=backup, whole_image_type="CBR", description="of a backup", min_ram=64, max_ram=128
    )
    whole = sdk.image(sdk.create_whole_image(body=of_server), "imsCreateWholeImageByInstanceJob", names[0])
    restored = sdk.image(sdk.create_whole_image(body=of_backup), "imsCreateWholeImageByBackupJob", names[1])

    assert (whole.data_origin, whole.tags) == (f"instance,{server}", ["a=b"])
    assert whole.backup_id
    assert (restored.data_origin, restored.backup_id) == (f"server_backup,{backup}", backup)
    assert (restored.description, restored.min_ram, restored.max_ram) == ("of a backup", 64, "128")
    export = ims.ExportImageRequestBody(bucket_url=f"{bucket}:x", file_format="vhd")
    assert refused(sdk.export_image, image_id=whole.id, body=export) == (400, "IMG.0128")
    gone = ims.GlanceDeleteImageRequestBody(delete_backup=True)
    sdk.glance_delete_image(image_id=whole.id, body=gone)
    assert sdk.list_images(id=whole.id).images == []


# --- another region ---------------------------------------------------------------------------------------------------


def test_an_image_is_copied_to_another_region(tmp_path: Path) -> None:
    with region_there(tmp_path / "there") as there:
        network = Network(there.port)
        here = region_here(tmp_path / "here", there, network, arguments=[])
        with started(here), here.demo() as demo, there.demo() as over_there:
            sdk, name = Vendor(made(demo)), unique("far")
            image = uploaded(sdk, demo)
            body = ims.CopyImageCrossRegionRequestBody(
                name=name, region=THERE, project_name="demo", agency_name="ims_agency", description="far away"
            )

            job = sdk.ended(sdk.copy_image_cross_region(image_id=image.id, body=body).job_id)
            unknown = ims.CopyImageCrossRegionRequestBody(
                name=name, region="nowhere", project_name="demo", agency_name="ims_agency"
            )

            assert refused(sdk.copy_image_cross_region, image_id=image.id, body=unknown)[0] == 400
            assert job.entities.image_name == name
            assert_arrived(over_there, demo.job(job.job_id), name, demo.image(image.id))
        network.close()


# --- images that are there --------------------------------------------------------------------------------------------


def test_images_are_listed_by_what_they_are(sdk: Vendor, demo: Client) -> None:
    name = unique("listed")
    image = uploaded(sdk, demo, name=name, min_disk=3, min_ram=7, tags=["team=blue"], os_version=KNOWN)
    first = image_of(sdk, name=name)

    found = sdk.list_images(
        imagetype="private",
        isregistered="true",
        os_bit="64",
        os_type="Linux",
        platform="Ubuntu",
        container_format="bare",
        disk_format="raw",
        enterprise_project_id="0",
        id=image.id,
        limit=1,
        min_disk=3,
        min_ram=7,
        name=name,
        owner=demo.project_id,
        protected=False,
        sort_dir="asc",
        sort_key="created_at",
        status="active",
        tag="team=blue",
        virtual_env_type="FusionCompute",
        visibility="private",
        created_at=f"lte:{image.created_at}",
        updated_at=f"gte:{image.created_at}",
    )
    both = sdk.list_images(name=name, sort_key="created_at", sort_dir="desc").images
    after = sdk.list_images(name=name, sort_key="created_at", sort_dir="desc", marker=first.id).images
    page = sdk.glance_list_images(name=name, limit=1, sort_key="created_at", sort_dir="asc", isregistered=True)
    last = sdk.glance_list_images(name=name, limit=5, marker=page.images[0].id, sort_key="created_at", sort_dir="asc")

    assert [one.id for one in found.images] == [image.id]
    assert {one.id for one in both} == {first.id, image.id}
    assert [one.id for one in after] == [one.id for one in both[[one.id for one in both].index(first.id) + 1 :]]
    assert sdk.list_images(name=name, os_bit="32").images == []
    assert sdk.list_images(name=name, created_at="gt:2999-01-01T00:00:00Z").images == []
    assert page.schema == "/v2/schemas/images"
    assert "limit=1" in page.first
    assert f"marker={page.images[0].id}" in page.next
    assert {one.id for one in (*page.images, *last.images)} == {first.id, image.id}
    assert last.next is None


def test_an_image_is_updated_and_deleted(sdk: Vendor, demo: Client) -> None:
    image = uploaded(sdk, demo)

    def change(op: str, path: str, value: str) -> Any:
        return ims.UpdateImageRequestBody(op=op, path=path, value=value)

    changes = [
        change("replace", "/name", "renamed"),
        change("add", "/__description", "of now"),
        change("add", "/max_ram", "2048"),
        change("replace", "/min_ram", "1024"),
        change("add", "/__support_xen", "true"),
        change("add", "/os_shutdown_timeout", "90"),
    ]
    updated = sdk.update_image(image_id=image.id, body=changes)
    shown = sdk.glance_show_image(image_id=image.id)
    again = [ims.GlanceUpdateImageRequestBody(op="replace", path="/name", value="again")]
    renamed = sdk.glance_update_image(image_id=image.id, body=again)

    assert (updated.id, updated.name, updated.description) == (image.id, "renamed", "of now")
    assert (updated.max_ram, updated.min_ram) == ("2048", 1024)
    assert (updated.support_xen, updated.os_shutdown_timeout) == ("true", "90")
    assert (shown.name, shown.max_ram, shown.checksum) == ("renamed", "2048", image.checksum)
    assert (renamed.name, renamed.description) == ("again", "of now")
    absent = [change("replace", "/__productcode", "x")]
    assert refused(sdk.update_image, image_id=image.id, body=absent) == (400, "IMG.0035")
    sdk.glance_delete_image(image_id=image.id)
    assert refused(sdk.glance_show_image, image_id=image.id)[0] == 404
    assert refused(sdk.update_image, image_id=image.id, body=again) == (404, "IMG.0144")


def test_tags_are_added_found_and_removed(sdk: Vendor) -> None:
    mark = f"k{uuid.uuid4().hex[:12]}"
    image = image_of(sdk, name=unique("tagged"))

    sdk.add_image_tag(image_id=image.id, body=ims.AddImageTagRequestBody(tag=ims.ResourceTag(key=mark, value="1")))
    batch = ims.BatchAddOrDeleteTagsRequestBody(action="create", tags=[ims.ResourceTag(key="other", value="2")])
    sdk.batch_add_or_delete_tags(image_id=image.id, body=batch)
    sdk.create_or_update_tags(body=ims.AddOrUpdateTagsRequestBody(image_id=image.id, tag="third.3"))
    pair = ims.ResourceTag(key="third", value="4")
    sdk.create_or_update_tags(body=ims.AddOrUpdateTagsRequestBody(image_id=image.id, image_tag=pair))
    sdk.glance_create_tag(image_id=image.id, tag="bare")

    assert tags_of(sdk, image.id) == {mark: "1", "other": "2", "third": "4", "bare": ""}
    assert set(sdk.list_tags(id=image.id, limit=100, page=1).tags) == {f"{mark}=1", "other=2", "third=4", "bare"}
    assert [one.values for one in sdk.list_images_tags().tags if one.key == mark] == [["1"]]
    query = ims.ListImageByTagsRequestBody(
        action="filter",
        limit="10",
        offset="0",
        tags=[ims.Tags(key=mark, values=["1"])],
        tags_any=[ims.Tags(key="third", values=[])],
        not_tags=[ims.Tags(key="other", values=["9"])],
        not_tags_any=[ims.Tags(key="absent", values=[])],
        matches=[tag("resource_name", image.name)],
    )
    found = sdk.list_image_by_tags(body=query)
    (resource,) = found.resources
    assert (found.total_count, resource.resource_id, resource.resource_name) == (1, image.id, image.name)
    assert {one.key: one.value for one in resource.tags} == tags_of(sdk, image.id)
    counted = ims.ListImageByTagsRequestBody(action="count", tags=[ims.Tags(key=mark, values=[])])
    assert (sdk.list_image_by_tags(body=counted).total_count, sdk.list_image_by_tags(body=counted).resources) == (
        1,
        None,
    )

    sdk.delete_image_tag(image_id=image.id, key=mark)
    sdk.glance_delete_tag(image_id=image.id, tag="bare")
    gone = ims.BatchAddOrDeleteTagsRequestBody(action="delete", tags=[ims.ResourceTag(key="other")])
    sdk.batch_add_or_delete_tags(image_id=image.id, body=gone)
    sdk.batch_delete_tags(image_id=image.id, body=ims.BatchDeleteTagsRequestBody(tags=[ims.ResourceTag(key="third")]))
    assert sdk.list_image_tags(image_id=image.id).tags == []
    assert refused(sdk.delete_image_tag, image_id=image.id, key=mark)[0] == 404


# --- sharing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipient(service: Service, admin: Client) -> Iterator[Client]:
    actors = Actors(service, admin)
    yield actors.clients["stranger"]
    for client in actors.clients.values():
        if client is not admin:
            client.http.close()


def test_images_are_shared_in_batches(sdk: Vendor, demo: Client, recipient: Client) -> None:
    image, other = uploaded(sdk, demo), Vendor(made(recipient))
    pair = ims.BatchAddMembersRequestBody(images=[image.id], projects=[recipient.project_id])
    answer = ims.BatchUpdateMembersRequestBody(images=[image.id], project_id=recipient.project_id, status="accepted")

    added = sdk.succeeded(sdk.batch_add_members(body=pair), "imsAddImageMembersJob")
    offered = other.list_images(visibility="shared", member_status="pending", imagetype="shared").images
    answered = other.succeeded(other.batch_update_members(body=answer), "imsUpdateImageMembersJob")
    (seen,) = other.list_images(id=image.id).images
    members = sdk.list_image_members(image_id=image.id, limit=10)
    member = sdk.show_image_member(image_id=image.id, member_id=recipient.project_id)
    removed = sdk.succeeded(sdk.batch_delete_members(body=pair), "imsDelImageMembersJob")

    for results in (added.results, answered.results):
        assert [(one.image_id, one.project_id, one.status) for one in results] == [
            (image.id, recipient.project_id, "success")
        ]
    assert removed.results == []
    assert image.id in [one.id for one in offered]
    assert (seen.owner, seen.visibility, seen.imagetype) == (demo.project_id, "shared", "shared")
    assert [one.member_id for one in members.members] == [recipient.project_id]
    assert (members.schema, members.page_info.current_count) == ("/v2/schemas/members", 1)
    assert (member.image_id, member.member_id) == (image.id, recipient.project_id)
    assert (member.status, member.member_type, member.urn) == ("accepted", "project", None)
    assert member.schema == "/v2/schemas/member"
    assert TIME.fullmatch(member.created_at)
    assert TIME.fullmatch(member.updated_at)
    assert other.list_images(id=image.id).images == []


def test_an_image_is_shared_with_one_project(sdk: Vendor, demo: Client, recipient: Client) -> None:
    image, other = uploaded(sdk, demo), Vendor(made(recipient))
    one = {"image_id": image.id, "member_id": recipient.project_id}

    body = ims.GlanceAddImageMemberRequestBody(member=recipient.project_id)
    added = sdk.glance_add_image_member(image_id=image.id, body=body)
    listed = sdk.glance_list_image_members(image_id=image.id)
    accepted = other.glance_update_image_member(**one, body=ims.GlanceUpdateImageMemberRequestBody(status="accepted"))
    shown = sdk.glance_show_image_member(**one)
    sdk.glance_delete_image_member(**one)

    assert (added.status, added.image_id, added.member_id) == ("pending", *one.values())
    assert (listed.schema, [member.status for member in listed.members]) == ("/v2/schemas/members", ["pending"])
    assert (accepted.status, shown.status) == ("accepted", "accepted")
    assert (shown.schema, shown.created_at) == ("/v2/schemas/member", added.created_at)
    assert refused(sdk.glance_show_image_member, **one)[0] == 404


# --- facts ------------------------------------------------------------------------------------------------------------


def test_the_quota_counts_what_is_made(sdk: Vendor) -> None:
    (image, shared, member) = sdk.show_image_quota().quotas.resources
    image_of(sdk)
    after = sdk.show_image_quota().quotas.resources[0]

    assert (image.type, shared.type, member.type) == ("image", "image_shared", "image_member")
    assert (image.quota, image.min, image.max) == (1000, 1, 1000)
    assert after.used == image.used + 1


def test_os_versions_are_listed(sdk: Vendor) -> None:
    platforms = {one.platform: one.version_list for one in sdk.list_os_versions().body}
    (ubuntu,) = [one for one in platforms["Ubuntu"] if one.os_version_key == KNOWN]
    uefi = sdk.list_os_versions(tag="uefi").body

    assert (ubuntu.platform, ubuntu.os_version, ubuntu.os_bit, ubuntu.os_type) == ("Ubuntu", KNOWN, 64, "Linux")
    assert 0 < sum(len(one.version_list) for one in uefi) < sum(len(found) for found in platforms.values())


def test_versions_are_told_all_and_one(sdk: Vendor, service: Service) -> None:
    versions = sdk.list_versions().versions
    (one,) = sdk.show_version(version="v2.0").versions

    assert {version.id for version in versions} >= {"v2.0", "v2.1", "v2.2"}
    assert (one.id, one.status) == ("v2.0", "SUPPORTED")
    assert [(link.rel, link.href) for link in one.links] == [("self", f"{service.url}/v2/")]


def test_the_schemas_are_told(sdk: Vendor) -> None:
    image, images = sdk.glance_show_image_schemas(), sdk.glance_list_image_schemas()
    member, members = sdk.glance_show_image_member_schemas(), sdk.glance_list_image_member_schemas()

    assert [one.name for one in (image, images, member, members)] == ["image", "images", "member", "members"]
    assert image.additional_properties.type == "string"
    assert {link.rel: link.href for link in image.links} == {
        "self": "{self}",
        "enclosure": "{file}",
        "describedby": "{schema}",
    }
    assert {"id", "status", "tags", "min_disk"} <= set(image.properties)
    assert images.properties["images"]["items"]["name"] == "image"
    assert {"first", "next", "describedby"} == {link.rel for link in images.links}
    assert {"image_id", "member_id", "status"} <= set(member.properties)
    assert [link.href for link in members.links] == ["{schema}"]
