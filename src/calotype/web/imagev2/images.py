"""Images themselves: create, list, show, patch, delete."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import MalformedBody, UnsupportedMedia
from calotype.images import attributes, patch
from calotype.images.dialect import Dialect
from calotype.images.model import DEFAULT_OS_VERSION, Image, ImageCreate, ImageId
from calotype.images.os_versions import find
from calotype.images.query import parse
from calotype.images.view import image_view
from calotype.settings import ImageSettings
from calotype.web.described import DeleteImage
from calotype.web.imagev2 import bodies
from calotype.web.imagev2.versions import base_url
from calotype.web.request import app_of, body, body_bytes, caller, decoded, json
from calotype.web.route import Media, Route

PAGE: Final = 25  # images, when a list does not say how many
# What a document to create from may hold besides properties.
SETTABLE: Final = attributes.BASE | {"id", "owner", "__os_version"}

DELETION: Final = Media(form=DeleteImage, required=False)


async def create_image(request: Request) -> Response:
    document = await body(request, dict[str, Any])
    app = app_of(request)
    spec = created_from(document, app.settings.image, app.images.dialect, is_admin=caller(request).is_admin)
    owner = document.get("owner")
    if owner is not None:
        owner = attributes.project_id("owner", owner)
    image = await app.images.create(caller(request), spec, project_id=owner)
    headers = {"Location": f"{base_url(request)}/v2/images/{image.id}"}
    if app.imports.methods:
        headers["OpenStack-image-import-methods"] = ",".join(app.imports.methods)
    headers["OpenStack-image-store-ids"] = ",".join(app.blobs.ids)
    return json(_view(request, image), status=201, headers=headers)


def _view(request: Request, image: Image) -> dict[str, Any]:
    return image_view(image) | app_of(request).locations.told(caller(request), image)


def created_from(
    document: Mapping[str, Any], limits: ImageSettings, dialect: Dialect, *, is_admin: bool
) -> ImageCreate:
    """Check a document to create an image from; what it does not say is as the dialect has it.

    Raises the leaves of `Invalid`, `ReadOnlyAttribute`, `UnknownOsVersion`.
    """
    properties = {}
    for name, value in document.items():
        if name not in SETTABLE:
            attributes.may_set(name, is_admin=is_admin)
            properties[name] = attributes.property_value(name, value)
    chosen = document.get("id")
    if chosen is not None and not (isinstance(chosen, str) and attributes.IMAGE_ID.fullmatch(chosen)):
        raise MalformedBody("id: wants a UUID")
    os_version = document.get("__os_version", DEFAULT_OS_VERSION)
    if not isinstance(os_version, str):
        raise MalformedBody("__os_version: wants a string")
    return ImageCreate(
        id=ImageId(chosen.lower()) if chosen else None,
        name=attributes.name(document.get("name")),
        visibility=attributes.visibility(document.get("visibility", dialect.visibility.value)),
        protected=attributes.boolean("protected", document.get("protected", False)),
        hidden=attributes.boolean("os_hidden", document.get("os_hidden", False)),
        disk_format=attributes.one_of(
            "disk_format", document.get("disk_format", dialect.disk_format), attributes.DISK_FORMATS
        ),
        container_format=attributes.one_of(
            "container_format",
            document.get("container_format", dialect.container_format),
            attributes.CONTAINER_FORMATS,
        ),
        min_disk=attributes.megabytes("min_disk", document.get("min_disk", 0)),
        min_ram=attributes.megabytes("min_ram", document.get("min_ram", 0)),
        os_version=find(os_version).os_version,
        properties=properties,
        tags=attributes.tags(document.get("tags", []), most=dialect.most_tags or limits.tags),
    )


async def list_images(request: Request) -> Response:
    parameters = request.query_params.multi_items()
    images = app_of(request).images
    page = await images.list(caller(request), parse(parameters, default_limit=PAGE))
    always = images.dialect.listed_as
    kept = [*always, *(pair for pair in parameters if pair[0] != "marker" and pair not in always)]
    document: dict[str, Any] = {
        "images": [_view(request, image) for image in page.images],
        "schema": "/v2/schemas/images",
        "first": _link(kept),
    }
    if page.next_marker is not None:
        document["next"] = _link([*kept, ("marker", page.next_marker)])
    return json(document)


def _link(parameters: list[tuple[str, str]]) -> str:
    return f"/v2/images?{urlencode(parameters)}" if parameters else "/v2/images"


async def show_image(request: Request) -> Response:
    app = app_of(request)
    return json(_view(request, await app.images.show(caller(request), request.path_params["image_id"], app.fast)))


async def update_image(request: Request) -> Response:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (patch.V2_1, patch.V2_0):
        raise UnsupportedMedia(f"a patch of an image wants the Content-Type {patch.V2_1} or {patch.V2_0}")
    operations = patch.parse(await body(request, list[Any]), media_type=media_type)
    app = app_of(request)
    patching = app.locations if any(operation.name == "locations" for operation in operations) else app.images
    return json(_view(request, await patching.patch(caller(request), request.path_params["image_id"], operations)))


async def delete_image(request: Request) -> Response:
    """`{"delete_backup": true}`, which clients send for any image, removes the backup that a full-server image was made
    from together with it."""
    app, image_id = app_of(request), request.path_params["image_id"]
    if await _with_backup(request):
        await app.backups.delete_image(caller(request), image_id)
    else:
        await app.images.delete(caller(request), image_id)
    await app.jobs.give_up_on(image_id.lower(), "the image was deleted")
    return Response(status_code=204)


async def _with_backup(request: Request) -> bool:
    """Raises `MalformedBody`, `TooLarge`."""
    given = await body_bytes(request)
    wanted = decoded(given, dict[str, Any]).get("delete_backup") if given.strip() else None
    if wanted is not None and not isinstance(wanted, bool):
        raise MalformedBody("delete_backup: wants true or false")
    return bool(wanted)


def _route(
    method: str, path: str, handler: Any, permission: str, summary: str, status: int = 200, **told: Any
) -> Route:
    return Route(
        method=method,
        path=path,
        handler=handler,
        family="imagev2",
        permission=permission,
        summary=summary,
        status=status,
        **told,
    )


ROUTES: Final[list[Route]] = [
    _route(
        "POST",
        "/v2/images",
        create_image,
        "ims:images:create",
        "Create an image",
        201,
        takes=bodies.NEW_IMAGE,
        gives=bodies.IMAGE,
    ),
    _route(
        "GET",
        "/v2/images",
        list_images,
        "ims:images:list",
        "List images",
        reads=bodies.LISTING,
        gives=bodies.IMAGES,
    ),
    _route("GET", "/v2/images/{image_id}", show_image, "ims:images:get", "Show an image", gives=bodies.IMAGE),
    _route(
        "PATCH",
        "/v2/images/{image_id}",
        update_image,
        "ims:images:update",
        "Update an image",
        takes=bodies.PATCH,
        gives=bodies.IMAGE,
    ),
    _route(
        "DELETE",
        "/v2/images/{image_id}",
        delete_image,
        "ims:images:delete",
        "Delete an image",
        204,
        takes=DELETION,
    ),
]
