"""The IMS calls that start jobs: import a file, register one, export an image, copy one. Each answers with a job id."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.buckets.address import parse_address
from calotype.buckets.model import ObjectAddress
from calotype.errors import (
    EmptyBucketName,
    ImageNotFound,
    InvalidObjectAddress,
    InvalidSize,
    MalformedBody,
    MissingOsVersion,
    NotSupported,
    UnknownResource,
)
from calotype.images.attributes import IMAGE_ID
from calotype.images.model import DEFAULT_OS_VERSION, ImageCreate, ImageId
from calotype.jobs.kinds import copy_image, export, import_file
from calotype.jobs.model import JobId
from calotype.web.described import Accepted, ImsCopy, ImsExport, ImsFile, NewImsImage
from calotype.web.ims import fields
from calotype.web.request import app_of, body, caller, json
from calotype.web.route import Route

MOST_DISK_GB: Final = 1024  # min_disk of a system disk image


async def create_image(request: Request) -> Response:
    """One call, several sources; the body decides. Files are offered; servers, volumes and data disks are not yet."""
    given = await body(request, dict[str, Any])
    if fields.text(given, "image_url") is None:
        if given.get("data_images") or fields.text(given, "instance_id") or fields.text(given, "volume_id"):
            raise NotSupported("this service makes images from files in buckets: give image_url")
        raise UnknownResource("give image_url: the file in a bucket that the image is made from, as bucket:key")
    if given.get("data_images"):
        raise NotSupported("data_images: data disks beside a system disk are not offered")
    if request.url.path.startswith("/v1/") and not (fields.text(given, "os_version") or fields.text(given, "type")):
        raise NotSupported("data disk images are not offered; for a system disk image give os_version or type")
    return await _import(request, given)


async def _import(request: Request, given: fields.Body) -> Response:
    app = app_of(request)
    name = fields.name(given)
    description = fields.description(given)
    environment = fields.kind(given)
    iso = environment == "IsoImage"
    os_version, os_properties = fields.os_properties(given)
    if iso and os_version is None:
        raise MissingOsVersion("an ISO image wants os_version")
    min_disk = fields.number(given, "min_disk", least=1, most=MOST_DISK_GB, default=None)
    if min_disk is None:
        raise InvalidSize(f"min_disk: wants the size of the system disk in GB, 1 to {MOST_DISK_GB}")
    min_ram, max_ram = fields.memory(given)
    fields.no_encryption(given)
    for unsupported in ("is_config", "is_config_init", "is_quick_import"):
        if fields.flag(given, unsupported):
            raise NotSupported(f"{unsupported}: not offered; leave it out")
    tags = fields.tags(given, most=app.settings.image.tags)
    enterprise_project = fields.enterprise_project(given)
    address = _address(given, "image_url")
    properties = {
        **os_properties,
        **fields.boot_properties(given),
        "virtual_env_type": environment,
        "__root_origin": "file",
        "__data_origin": f"file,{address.bucket}:{address.key}",
        "__originalimagename": "",
    }
    if description:
        properties["__description"] = description
    if max_ram is not None:
        properties["max_ram"] = str(max_ram)
    if enterprise_project:
        properties["enterprise_project_id"] = enterprise_project
    spec = ImageCreate(
        name=name,
        container_format="bare",
        min_disk=min_disk,
        min_ram=min_ram,
        properties=properties,
        tags=tags,
        os_version=os_version or DEFAULT_OS_VERSION,
    )
    job_id = await import_file.submit_import(
        caller(request),
        address,
        spec,
        iso=iso,
        images=app.images,
        buckets=app.buckets,
        jobs=app.jobs,
        settings=app.settings,
    )
    return _accepted(job_id)


async def register_image(request: Request) -> Response:
    app = app_of(request)
    image_id = _image_id(request)
    given = await body(request, dict[str, Any])
    job_id = await import_file.submit_register(
        caller(request),
        image_id,
        _address(given, "image_url"),
        images=app.images,
        buckets=app.buckets,
        jobs=app.jobs,
        settings=app.settings,
    )
    return _accepted(job_id)


async def export_image(request: Request) -> Response:
    app = app_of(request)
    image_id = _image_id(request)
    given = await body(request, dict[str, Any])
    if fields.flag(given, "is_quick_export"):
        raise NotSupported("is_quick_export: its format, ZVHD2, has no public description; give file_format instead")
    address = _address(given, "bucket_url")
    job_id = await export.submit(
        caller(request),
        image_id,
        address,
        fields.text(given, "file_format") or "",
        images=app.images,
        buckets=app.buckets,
        jobs=app.jobs,
    )
    return _accepted(job_id)


async def copy_image_in_region(request: Request) -> Response:
    app = app_of(request)
    image_id = _image_id(request)
    given = await body(request, dict[str, Any])
    name = fields.name(given)
    description = fields.description(given)
    fields.no_encryption(given)
    enterprise_project = fields.enterprise_project(given)
    job_id = await copy_image.submit(
        caller(request),
        image_id,
        name=name,
        description=description,
        extra={"enterprise_project_id": enterprise_project} if enterprise_project else {},
        images=app.images,
        jobs=app.jobs,
        settings=app.settings,
    )
    return _accepted(job_id)


def _accepted(job_id: JobId) -> Response:
    """200, not 202: a client of this API takes 202 for an error."""
    return json({"job_id": job_id})


def _image_id(request: Request) -> ImageId:
    image_id: str = request.path_params["image_id"]
    if not IMAGE_ID.fullmatch(image_id):
        raise ImageNotFound(image_id[:64])
    return ImageId(image_id.lower())


def _address(given: fields.Body, field: str) -> ObjectAddress:
    value = given.get(field)
    if value is None or value == "":
        raise InvalidObjectAddress(f"{field}: wants bucket:key")
    if not isinstance(value, str):
        raise MalformedBody(f"{field}: wants a string of the form bucket:key")
    if value.startswith(":"):
        raise EmptyBucketName(f"{field}: no bucket before the colon")
    return parse_address(value, ims=True)


def _route(method: str, path: str, handler: Any, permission: str | tuple[str, ...], summary: str, takes: Any) -> Route:
    return Route(
        method=method,
        path=path,
        handler=handler,
        family="ims",
        permission=permission,
        summary=summary,
        takes=takes,
        gives=Accepted,
        also=(429,),
    )


CREATE: Final = "ims:serverImages:create"
UPLOAD: Final = ("ims:images:upload", "ims:images:get", "ims:images:update")
ROUTES = [
    _route("POST", "/v2/cloudimages/action", create_image, CREATE, "Create an image from a file", NewImsImage),
    _route("POST", "/v1/cloudimages/action", create_image, CREATE, "The same, under its older path", NewImsImage),
    _route(
        "PUT",
        "/v1/cloudimages/{image_id}/upload",
        register_image,
        UPLOAD,
        "Fill a queued image from a file",
        ImsFile,
    ),
    _route(
        "POST",
        "/v1/cloudimages/{image_id}/file",
        export_image,
        "ims:images:export",
        "Export an image to a file",
        ImsExport,
    ),
    _route(
        "POST",
        "/v1/cloudimages/{image_id}/copy",
        copy_image_in_region,
        "ims:images:copy",
        "Copy an image in the region",
        ImsCopy,
    ),
]
