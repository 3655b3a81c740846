"""Where a copy is to go: which of the regions and projects that the settings name. Pure."""

from collections.abc import Mapping

from msgspec import Struct

from calotype.errors import AgencyRefused, MissingProjectName, UnknownRegion, WrongProjectName
from calotype.settings import RegionSettings


class Destination(Struct, frozen=True, kw_only=True):
    region: str
    project: str  # its name there


def destination(
    regions: Mapping[str, RegionSettings],
    *,
    own: str,
    region: str | None,
    project: str | None,
    agency: str | None,
) -> Destination:
    """What a request names, each None where it names nothing. `own`: the region of this service.

    Raises `UnknownRegion`: its code is that of a field with a wrong value, since none of the documented ones says more
    (IMG.0177 is of tenants). `MissingProjectName`, `WrongProjectName`, `AgencyRefused`.
    """
    if region is None:
        raise UnknownRegion("region: wants the name of the region to copy to")
    if region == own:
        raise UnknownRegion(f"region: {own} is the region of the image; copy it with /v1/cloudimages/{{image_id}}/copy")
    found = regions.get(region)
    if found is None:
        raise UnknownRegion("region: no region of this name is set up here to copy to")
    if project is None and len(found.projects) > 1:
        raise MissingProjectName(f"project_name: region {region} has several projects; name the one to copy to")
    if project is not None and project not in found.projects:
        raise WrongProjectName(f"project_name: not the name of a project that region {region} is set up for")
    if agency is None:
        raise AgencyRefused("agency_name: wants the name of the agency that may copy to the region")
    if found.agencies and agency not in found.agencies:
        raise AgencyRefused(f"agency_name: not an agency that region {region} is set up for")
    return Destination(region=region, project=project or found.projects[0])
