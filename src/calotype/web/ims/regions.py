"""The IMS call that copies an image to another region."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import ImageNotFound
from calotype.images.attributes import IMAGE_ID
from calotype.images.model import ImageId
from calotype.jobs.kinds import cross_region
from calotype.regions.destination import destination
from calotype.web.described import ImsCrossRegionCopy
from calotype.web.ims import fields
from calotype.web.ims.accepting import accepted, route
from calotype.web.request import app_of, body, caller


async def copy_image_across_regions(request: Request) -> Response:
    app = app_of(request)
    image_id: str = request.path_params["image_id"]
    if not IMAGE_ID.fullmatch(image_id):
        raise ImageNotFound(image_id[:64])
    given = await body(request, dict[str, Any])
    name = fields.name(given)
    description = fields.description(given)
    where = destination(
        app.settings.regions,
        own=app.settings.region,
        region=fields.text(given, "region"),
        project=fields.text(given, "project_name"),
        agency=fields.text(given, "agency_name"),
    )
    job_id = await cross_region.submit(
        caller(request),
        ImageId(image_id.lower()),
        where,
        name=name,
        description=description,
        images=app.images,
        jobs=app.jobs,
        settings=app.settings,
    )
    return accepted(job_id)


PATH: Final = "/v1/cloudimages/{image_id}/cross_region_copy"
ROUTES = [
    route(
        "POST",
        PATH,
        copy_image_across_regions,
        "ims:images:copy",
        "Copy an image to another region",
        ImsCrossRegionCopy,
    )
]
