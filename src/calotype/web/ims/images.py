"""The IMS calls that start jobs on an image that is there: register a file, export, copy."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import ImageNotFound
from calotype.images.attributes import IMAGE_ID
from calotype.images.model import ImageId
from calotype.jobs.kinds import copy_image, export, import_file
from calotype.web.described import ImsCopy, ImsExport, ImsFile
from calotype.web.ims import fields
from calotype.web.ims.accepting import accepted, route
from calotype.web.request import app_of, body, caller


async def register_image(request: Request) -> Response:
    app = app_of(request)
    image_id = _image_id(request)
    given = await body(request, dict[str, Any])
    job_id = await import_file.submit_register(
        caller(request),
        image_id,
        fields.address(given, "image_url"),
        source_digest=fields.source_digest(given),
        images=app.images,
        buckets=app.buckets,
        jobs=app.jobs,
        settings=app.settings,
    )
    return accepted(job_id)


async def export_image(request: Request) -> Response:
    app = app_of(request)
    image_id = _image_id(request)
    given = await body(request, dict[str, Any])
    address = fields.address(given, "bucket_url")
    job_id = await export.submit(
        caller(request),
        image_id,
        address,
        fields.text(given, "file_format") or "",
        quick=fields.flag(given, "is_quick_export"),
        images=app.images,
        buckets=app.buckets,
        jobs=app.jobs,
    )
    return accepted(job_id)


async def copy_image_in_region(request: Request) -> Response:
    app = app_of(request)
    image_id = _image_id(request)
    given = await body(request, dict[str, Any])
    name = fields.name(given)
    description = fields.description(given)
    fields.no_encryption(given, "FusionCompute")
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
    return accepted(job_id)


def _image_id(request: Request) -> ImageId:
    image_id: str = request.path_params["image_id"]
    if not IMAGE_ID.fullmatch(image_id):
        raise ImageNotFound(image_id[:64])
    return ImageId(image_id.lower())


UPLOAD: Final = ("ims:images:upload", "ims:images:get", "ims:images:update")
EXPORT: Final = "ims:images:export"
COPY: Final = "ims:images:copy"
ROUTES = [
    route("PUT", "/v1/cloudimages/{image_id}/upload", register_image, UPLOAD, "Fill a queued image", ImsFile),
    route("POST", "/v1/cloudimages/{image_id}/file", export_image, EXPORT, "Export an image to a file", ImsExport),
    route("POST", "/v2.1/cloudimages/{image_id}/file", export_image, EXPORT, "The same, in safe mode", ImsExport),
    route(
        "POST", "/v1/cloudimages/{image_id}/copy", copy_image_in_region, COPY, "Copy an image in the region", ImsCopy
    ),
    route("POST", "/v2.1/cloudimages/{image_id}/copy", copy_image_in_region, COPY, "The same, in safe mode", ImsCopy),
]
