"""The IMS calls that make an image, of a file, of a server, of disks. Each answers with a job id. The body decides what
is made of what; contract: images-ims.md §2, §3, §5."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import (
    InvalidOsType,
    InvalidSize,
    MalformedBody,
    MissingOsVersion,
    MissingServerId,
    QuickFormat,
    UnknownOsVersion,
    UnknownResource,
    VolumeUnusable,
    WrongImageType,
)
from calotype.identity.permissions import OneOf, require
from calotype.images.model import DEFAULT_OS_VERSION, ImageCreate
from calotype.images.os_versions import find
from calotype.jobs.kinds import capture, import_file, import_ova
from calotype.jobs.kinds.import_file import File
from calotype.jobs.model import JobId
from calotype.web.described import NewDataImage, NewImsImage, QuickImport
from calotype.web.ims import fields
from calotype.web.ims.accepting import accepted, route
from calotype.web.request import app_of, body, caller

MOST_SYSTEM_GB: Final = 1024  # min_disk of a system disk image
MOST_DATA_GB: Final = 2048  # and of a data disk image
LONGEST_ID: Final = 64  # of a server or a volume
DATA: Final = "cloudimages/dataimages/action"
OF_TYPE: Final = {"Windows": "Other Windows(64 bit)"}  # the OS version of a system of which only the type is given
CREATE_SYSTEM: Final = "ims:serverImages:create"
CREATE_DATA: Final = "ims:dataImages:create"
CREATE_EITHER: Final = OneOf((CREATE_SYSTEM, CREATE_DATA))  # what the body asks for tells which


async def create_image(request: Request) -> Response:
    """One call, several sources, tried in the order of the contract."""
    given = await body(request, dict[str, Any])
    image_url = fields.text(given, "image_url")
    listed = fields.objects(given, "data_images")
    if listed and image_url is None:
        return accepted(await _from_volumes(request, given, listed))
    if image_url is not None:
        if request.url.path.startswith("/v1/") and not (fields.text(given, "os_version") or fields.text(given, "type")):
            return accepted(await _data_import(request, given))
        return accepted(await _import(request, given, listed))
    require(caller(request), CREATE_SYSTEM)
    if fields.text(given, "instance_id") is not None:
        return accepted(await _from_server(request, given))
    if fields.text(given, "volume_id") is not None:
        return accepted(await _from_volume(request, given))
    if "instance_id" in given:
        raise MissingServerId("instance_id: wants the id of a server")
    raise UnknownResource("give one of image_url, instance_id, volume_id and data_images: what the image is made from")


async def create_data_image(request: Request) -> Response:
    return accepted(await _data_import(request, await body(request, dict[str, Any])))


async def quick_import(request: Request) -> Response:
    given = await body(request, dict[str, Any])
    if given.get("type") == "DataImage":
        return accepted(await _data_import(request, given, quick=True))
    if given.get("type") not in (None, "", "ECS", "BMS"):
        raise WrongImageType("type: a quick import wants ECS, BMS or DataImage")
    return accepted(await _import(request, given, (), quick=True))


# --- from files -------------------------------------------------------------------------------------------------------


async def _import(
    request: Request, given: fields.Body, data_images: Sequence[fields.Body], *, quick: bool = False
) -> JobId:
    app, who = app_of(request), caller(request)
    require(who, CREATE_SYSTEM)  # the path may be open to those who make data disk images only
    spec, environment = draft(request, given), fields.kind(given)
    iso = environment == "IsoImage"
    os_version, os_properties = fields.os_properties(given)
    quick = quick or fields.flag(given, "is_quick_import")
    config = fields.flag(given, "is_config") or fields.flag(given, "is_config_init")
    if os_version is None and iso:
        raise MissingOsVersion("an ISO image wants os_version")
    if iso and quick:
        raise QuickFormat("a quick import takes raw files, not ISOs; leave is_quick_import out")
    if os_version is None and quick:
        raise UnknownOsVersion("a quick import of a system disk wants os_version")
    min_disk = fields.number(given, "min_disk", least=1, most=MOST_SYSTEM_GB, default=None)
    if min_disk is None:
        raise InvalidSize(f"min_disk: wants the size of the system disk in GB, 1 to {MOST_SYSTEM_GB}")
    fields.no_encryption(given, environment)
    address, digest = fields.address(given, "image_url"), fields.source_digest(given)
    if iso:
        fields.iso_name(address)
    spec = replace(
        spec,
        min_disk=min_disk,
        os_version=os_version or OF_TYPE.get(os_properties.get("__os_type", ""), DEFAULT_OS_VERSION),
        properties={
            **os_properties,
            **fields.boot_properties(given),
            "virtual_env_type": environment,
            "__root_origin": "file",
            "__data_origin": f"file,{address.bucket}:{address.key}",
            "__originalimagename": "",
            **({"__is_config_init": "true"} if config else {}),
            **spec.properties,
        },
    )
    if await import_ova.is_ova(who, address, app.buckets):
        _check_ova(data_images, iso=iso, quick=quick)
        return await import_ova.submit(
            who,
            address,
            spec,
            os_given=os_version is not None or "__os_type" in os_properties,
            config=config,
            source_digest=digest,
            images=app.images,
            buckets=app.buckets,
            jobs=app.jobs,
            settings=app.settings,
        )
    if not data_images:
        return await import_file.submit_import(
            who,
            address,
            spec,
            iso=iso,
            quick=quick,
            config=config,
            source_digest=digest,
            images=app.images,
            buckets=app.buckets,
            jobs=app.jobs,
            settings=app.settings,
        )
    os_type = find(os_version).os_type if os_version else str(os_properties.get("__os_type", "Linux"))
    data = [
        _data_file(request, given, {**entry, "os_type": os_type}, number) for number, entry in enumerate(data_images, 1)
    ]
    return await import_file.submit_imports(
        who,
        File(address=address, spec=spec, quick=quick, source_digest=digest),
        data,
        iso=iso,
        config=config,
        images=app.images,
        buckets=app.buckets,
        jobs=app.jobs,
        settings=app.settings,
    )


def _check_ova(data_images: Sequence[fields.Body], *, iso: bool, quick: bool) -> None:
    if iso:
        raise WrongImageType("type: the file is an OVA, not an ISO")
    if quick:
        raise QuickFormat("a quick import takes raw files, not OVAs; leave is_quick_import out")
    if data_images:
        raise MalformedBody("data_images: not together with an OVA, which brings its data disks")


async def _data_import(request: Request, given: fields.Body, *, quick: bool = False) -> JobId:
    app = app_of(request)
    require(caller(request), CREATE_DATA)  # the path may be that of a system disk image
    return await import_file.submit_data_import(
        caller(request),
        _data_file(request, {}, {**given, "is_quick_import": quick}, None),
        images=app.images,
        buckets=app.buckets,
        jobs=app.jobs,
        settings=app.settings,
    )


def _data_file(request: Request, beside: fields.Body, given: fields.Body, number: int | None) -> File:
    """A file that becomes a data disk image. `beside`: the request that the disk is listed in, as the `number`th."""
    if number is not None and fields.text(given, "name") is None:
        given = {**given, "name": f"{fields.name(beside)[:120]}-data{number}"}
    spec = draft(request, {**_inherited(beside), **_filled(given)})
    min_disk = fields.number(given, "min_disk", least=1, most=MOST_DATA_GB, default=None)
    if min_disk is None:
        raise InvalidSize(f"min_disk: wants the size of the data disk in GB, 1 to {MOST_DATA_GB}")
    os_type = fields.os_type(given) or "Linux"
    if number is None and os_type == "Other":  # of a listed disk it is the system disk's
        raise InvalidOsType("os_type: wants Linux or Windows for a data disk")
    fields.no_encryption(given, "DataImage")
    address = fields.address(given, "image_url")
    spec = replace(
        spec,
        min_disk=min_disk,
        os_version=None,
        properties={
            "virtual_env_type": "DataImage",
            "__os_type": os_type,
            "__root_origin": "file",
            "__data_origin": f"file,{address.bucket}:{address.key}",
            "__originalimagename": "",
            **spec.properties,
        },
    )
    quick = fields.flag(given, "is_quick_import")
    return File(address=address, spec=spec, quick=quick, source_digest=fields.source_digest(given))


# --- from servers and disks -------------------------------------------------------------------------------------------


async def _from_server(request: Request, given: fields.Body) -> JobId:
    app = app_of(request)
    return await capture.submit_from_server(
        caller(request),
        _id(given, "instance_id"),
        draft(request, given),
        images=app.images,
        jobs=app.jobs,
        servers=app.servers,
        settings=app.settings,
    )


async def _from_volume(request: Request, given: fields.Body) -> JobId:
    app = app_of(request)
    spec = draft(request, given)
    os_version, _ = fields.os_properties(given)
    if os_version is None:
        raise UnknownOsVersion("an image of a disk wants os_version")
    environment = fields.kind(given)
    if environment == "IsoImage":
        raise WrongImageType("type: an image of a disk is of the type ECS, FusionCompute, BMS or Ironic")
    return await capture.submit_from_volume(
        caller(request),
        _id(given, "volume_id"),
        replace(
            spec,
            os_version=os_version,
            properties={"virtual_env_type": environment, **fields.boot_properties(given), **spec.properties},
        ),
        images=app.images,
        jobs=app.jobs,
        servers=app.servers,
        settings=app.settings,
    )


async def _from_volumes(request: Request, given: fields.Body, listed: Sequence[fields.Body]) -> JobId:
    app = app_of(request)
    require(caller(request), CREATE_SYSTEM)
    if fields.text(given, "instance_id") is not None:
        raise MalformedBody("instance_id: not together with data_images; the disks say whose they are")
    if len(listed) > app.settings.jobs.creations_per_project:
        raise MalformedBody(f"data_images: at most {app.settings.jobs.creations_per_project} at once")
    wanted = []
    for entry in listed:
        if fields.text(entry, "volume_id") is None:
            raise VolumeUnusable("data_images: each wants a volume_id")
        spec = draft(request, {**_inherited(given), **_filled(entry)})
        wanted.append((_id(entry, "volume_id"), spec))
    if len({volume_id for volume_id, _ in wanted}) < len(wanted):
        raise MalformedBody("data_images: a volume is named twice")
    return await capture.submit_from_volumes(
        caller(request),
        wanted,
        images=app.images,
        jobs=app.jobs,
        servers=app.servers,
        settings=app.settings,
    )


# --- what all have in common ------------------------------------------------------------------------------------------


def draft(request: Request, given: fields.Body) -> ImageCreate:
    """The image as far as the fields tell that every way of making one takes."""
    name, description = fields.name(given), fields.description(given)
    min_ram, max_ram = fields.memory(given)
    enterprise_project = fields.enterprise_project(given)
    told = {
        "__description": description,
        "max_ram": None if max_ram is None else str(max_ram),
        "enterprise_project_id": enterprise_project,
    }
    return ImageCreate(
        name=name,
        container_format="bare",
        min_ram=min_ram,
        properties={key: value for key, value in told.items() if value},
        tags=fields.tags(given, most=app_of(request).settings.image.tags),
    )


def _inherited(beside: fields.Body) -> Mapping[str, Any]:
    """What a listed disk has from the request that lists it, unless it says otherwise."""
    names = ("name", "description", "tags", "image_tags", "enterprise_project_id")
    return {key: beside[key] for key in names if beside.get(key)}


def _filled(given: fields.Body) -> Mapping[str, Any]:
    filled = {key: value for key, value in given.items() if value not in (None, "", [])}
    if "tags" in filled or "image_tags" in filled:
        return {"tags": None, "image_tags": None, **filled}
    return filled


def _id(given: fields.Body, field: str) -> str:
    """An id is what the source of servers says; it is looked up, never interpreted."""
    value = fields.text(given, field)
    if value is None or len(value) > LONGEST_ID or not value.isprintable():
        unusable = MissingServerId if field == "instance_id" else VolumeUnusable
        raise unusable(f"{field}: wants an id of at most {LONGEST_ID} characters")
    return value


# The calls of v2.1 ask for the caller's own rights where a key is used: with no keys here, they are the same.
ROUTES = [
    *(
        route("POST", f"/{version}/cloudimages/action", create_image, wanted, summary, NewImsImage)
        for version, wanted, summary in (
            ("v2", CREATE_SYSTEM, "Create an image from a file, a server or disks"),
            ("v1", CREATE_EITHER, "The same, under its older path; a file without os_version and type is a data disk"),
            ("v2.1", CREATE_SYSTEM, "The same, in safe mode"),
        )
    ),
    *(
        route("POST", f"/{version}/{DATA}", create_data_image, CREATE_DATA, summary, NewDataImage)
        for version, summary in (
            ("v1", "Create a data disk image from a file"),
            ("v2.1", "The same, in safe mode"),
        )
    ),
    *(
        route("POST", f"/{version}/cloudimages/quickimport/action", quick_import, CREATE_EITHER, summary, QuickImport)
        for version, summary in (
            ("v2", "Create an image from a large raw file, which is kept as it is"),
            ("v2.1", "The same, in safe mode"),
        )
    ),
]
