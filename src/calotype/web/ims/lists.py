"""The list of images as IMS tells it."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.images.view import ims_view
from calotype.web.ims import bodies, filters
from calotype.web.request import app_of, caller, json
from calotype.web.route import Parameter, Route


async def list_images(request: Request) -> Response:
    query = filters.parse(request.query_params.multi_items())
    page = await app_of(request).images.list(caller(request), query)
    document: dict[str, Any] = {"images": [ims_view(image) for image in page.images]}
    if page.next_marker is not None:
        document["page_info"] = {"next_marker": page.next_marker}
    return json(document)


LISTING: Final = tuple(Parameter(name=name, schema=schema) for name, schema in filters.parameters().items())
ROUTES: Final[list[Route]] = [
    Route(
        method="GET",
        path="/v2/cloudimages",
        handler=list_images,
        family="ims",
        permission="ims:images:list",
        summary="List images",
        reads=LISTING,
        gives=bodies.IMAGES,
    ),
]
