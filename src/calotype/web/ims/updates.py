"""Updating an image as IMS has it."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.identity.permissions import require
from calotype.images import ims_patch, patch
from calotype.images.view import ims_view
from calotype.web.imagev2.bodies import PATCH as IMAGEV2_PATCH
from calotype.web.ims import bodies
from calotype.web.request import app_of, body, caller, json
from calotype.web.route import Media, Route

TYPES: Final = ("application/json", *IMAGEV2_PATCH.types)


async def update_image(request: Request) -> Response:
    """The older media type of Image v2 names the form of the operations; whatever else is sent, they have the newer."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    form = patch.V2_0 if media_type == patch.V2_0 else patch.V2_1
    operations = patch.parse(await body(request, list[Any]), media_type=form)
    if ims_patch.moves_enterprise_project(operations):
        require(caller(request), "ims:serverImages:create")
    image_id = request.path_params["image_id"]
    return json(ims_view(await ims_patch.update(app_of(request).images, caller(request), image_id, operations)))


ROUTES: Final[list[Route]] = [
    Route(
        method="PATCH",
        path="/v2/cloudimages/{image_id}",
        handler=update_image,
        family="ims",
        permission="ims:images:update",
        summary="Update an image",
        takes=Media(types=TYPES, form=IMAGEV2_PATCH.form),
        gives=bodies.IMAGE,
    ),
]
