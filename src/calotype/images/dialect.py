"""Whose rules hold on `/v2/images` where the Image API and IMS differ: one table, chosen by `imagev2.dialect`. Pure.

Everything that is not here is the same in both. Sources: Image API v2 reference; IMS API reference, "Image management
(OpenStack native)".
"""

import re
from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from calotype.errors import CalotypeError, Forbidden, MalformedBody
from calotype.images.model import Visibility

Status = Literal["CURRENT", "SUPPORTED", "DEPRECATED"]

VERSION: Final = re.compile(r"/v[0-9]+\.[0-9]+/?")
NEWEST: Final = 18  # the minor of v2 that upstream speaks, with a cache and several stores


class Dialect(Struct, frozen=True, kw_only=True):
    """One column of the table."""

    versions: tuple[tuple[str, Status], ...]  # as the versions document tells them, newest first
    disk_format: str | None = None  # of an image that is created without
    container_format: str | None = None
    visibility: Visibility = Visibility.SHARED
    not_chosen: Mapping[Visibility, type[CalotypeError]] = {}  # visibilities that a user cannot give an image
    most_tags: int | None = None  # of one image; None: as many as `image.tags` says
    private_takes_members: bool = False  # a private image that is offered becomes a shared one
    listed_as: tuple[tuple[str, str], ...] = ()  # parameters that the links of every list carry
    absent: tuple[str, ...] = ()  # beginnings of paths that this API does not have
    absent_of_image: frozenset[str] = frozenset()  # what follows /v2/images/{image_id}/ and this API does not have

    def offers(self, path: str) -> bool:
        """Whether a path of the route table is part of this API."""
        if VERSION.fullmatch(path):
            return path.strip("/") in dict(self.versions)
        rest = path.removeprefix("/v2/images/{image_id}/")
        if rest != path:
            return rest.partition("/")[0] not in self.absent_of_image
        return not path.startswith(self.absent)

    def check_chosen(self, visibility: Visibility) -> None:
        """Pass for a visibility that a user may give an image. Raises the error that the table names."""
        error = self.not_chosen.get(visibility)
        if error is not None:
            raise error(f"visibility: an image is private, and shared by its members; {visibility} it cannot be made")


DIALECTS: Final[Mapping[str, Dialect]] = {
    "upstream": Dialect(
        versions=(
            (f"v2.{NEWEST}", "CURRENT"),
            *((f"v2.{minor}", "SUPPORTED") for minor in range(NEWEST - 1, -1, -1)),
        ),
        most_tags=128,  # upstream's image_tag_quota
    ),
    "ims": Dialect(
        versions=(
            ("v2.2", "CURRENT"),
            ("v2.1", "SUPPORTED"),
            ("v2.0", "SUPPORTED"),
            ("v1.1", "DEPRECATED"),
            ("v1.0", "DEPRECATED"),
        ),
        disk_format="zvhd2",
        container_format="bare",
        visibility=Visibility.PRIVATE,
        not_chosen={
            Visibility.PUBLIC: Forbidden,
            Visibility.SHARED: MalformedBody,
            Visibility.COMMUNITY: MalformedBody,
        },
        private_takes_members=True,
        listed_as=(("__isregistered", "true"),),
        absent=("/v2/info/", "/v2/tasks", "/v2/stores/", "/v2/cache", "/v2/metadefs/", "/v2/schemas/metadefs/",
                "/v2/schemas/task"),
        absent_of_image=frozenset({"import", "stage", "tasks", "actions", "locations"}),
    ),
}  # fmt: skip
