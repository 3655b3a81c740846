"""Where the bytes of an image lie: what is told of it, and what a patch of `locations` makes of it. Pure.

An image has *places*, in order: the stores that hold its bytes, heaviest first, then the URLs that it points at. A
store that holds bytes is told as an opaque URL, `calotype://STORE/IMAGE`, that says nothing of disks.
Source of the rules: the Image API v2 reference, "Update image", and its behaviour as its functional tests have it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from calotype.errors import (
    DuplicateLocation,
    Forbidden,
    LastCopy,
    LocationConflict,
    MalformedBody,
    ReadOnlyAttribute,
    WrongStatus,
)
from calotype.images.model import Image, ImageStatus, Location, Operation

MOST_LOCATIONS: Final = 16  # of one image
MOST_METADATA_BYTES: Final = 4096  # of one location, as JSON
SCHEME: Final = "calotype"
DIGEST_SIZES: Final[Mapping[str, int]] = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}  # bytes

Policy = Literal["hidden", "shown", "set"]
Ordered = Callable[[Iterable[str]], tuple[str, ...]]  # names of stores -> each once, heaviest first


class Claim(Struct, frozen=True, kw_only=True):
    """What the owner says of bytes at a URL, or what an image has. Empty: unknown."""

    checksum: str = ""  # md5
    os_hash_algo: str = ""
    os_hash_value: str = ""


class Survey(Struct, frozen=True, kw_only=True):
    """What was found at a URL by the gate."""

    size: int  # bytes
    virtual_size: int | None  # bytes; None when nobody can tell


class Placed(Struct, frozen=True, kw_only=True):
    """What operations make of an image's places. `image` has the new `locations`; of a queued one `survey` and `claim`
    say what it becomes active with. `dropped` are stores that are to hold it no longer."""

    image: Image
    survey: Survey | None = None
    claim: Claim = Claim()
    dropped: tuple[str, ...] = ()


def stores_of(image: Image, ordered: Ordered) -> tuple[str, ...]:
    return ordered([*image.stores, *(location.store for location in image.locations)])


def told(image: Image, *, ordered: Ordered, several: bool, policy: Policy, mine: bool) -> dict[str, Any]:
    """The attributes that tell where the bytes lie. `several`: there is more than one store; `mine`: the caller is of
    the owner's project, or an admin."""
    attributes: dict[str, Any] = {}
    stores = stores_of(image, ordered)
    if several and stores:
        attributes["stores"] = ",".join(stores)
    if policy == "hidden":
        return attributes
    places = told_places(image, ordered) if mine else []
    attributes["locations"] = places
    if places:
        attributes["direct_url"] = places[0]["url"]
    return attributes


def told_places(image: Image, ordered: Ordered) -> list[dict[str, Any]]:
    held = [{"url": held_url(image, store), "metadata": {"store": store}} for store in ordered(image.stores)]
    return held + [
        {"url": location.url, "metadata": {**location.metadata, "store": location.store}}
        for location in image.locations
    ]


def held_url(image: Image, store: str) -> str:
    return f"{SCHEME}://{store}/{image.id}"


# --- patches ----------------------------------------------------------------------------------------------------------


def check_patch(policy: Policy, operations: Sequence[Operation], *, is_admin: bool) -> None:
    """Raises `ReadOnlyAttribute` where owners may not set locations, `Forbidden` for what only an admin may."""
    if policy != "set":
        raise ReadOnlyAttribute("attribute 'locations' is read-only: where the bytes are is the service's affair")
    if not is_admin and any(operation.op == "remove" for operation in operations):
        raise Forbidden("only an admin may remove a location; delete the image if it is no longer wanted")


def new_urls(image: Image, operations: Sequence[Operation]) -> list[str]:
    """The URLs that operations bring and the image does not point at yet. Raises `MalformedBody`."""
    given: list[str] = []
    for operation in operations:
        if operation.op != "remove":
            values = operation.value if operation.op == "replace" else [operation.value]
            given += [_given(value)[0].url for value in _listed(values)]
    known = set() if image.status is ImageStatus.QUEUED else {location.url for location in image.locations}
    return [url for url in dict.fromkeys(given) if url not in known and not url.startswith(f"{SCHEME}://")]


def apply(
    image: Image,
    operations: Sequence[Operation],
    *,
    surveys: Mapping[str, Survey],
    ordered: Ordered,
    remote: Sequence[str],
    hash_algorithm: str,
) -> Placed:
    """Do all operations in order, or raise and none has an effect.

    `surveys`: what was found at new URLs; `remote`: the http stores. Of a queued image, a URL that an earlier import
    left behind is forgotten. Raises `MalformedBody`, `DuplicateLocation`, `LocationConflict`, `LastCopy`,
    `WrongStatus`, `Forbidden`.
    """
    patch = _Patch(image, ordered, remote)
    for operation in operations:
        patch.do(operation)
    return patch.placed(surveys, hash_algorithm)


class _Patch:
    def __init__(self, image: Image, ordered: Ordered, remote: Sequence[str]) -> None:
        self.image = image
        self.remote = remote
        self.queued = image.status is ImageStatus.QUEUED
        # A place is the name of a store that holds the bytes, or a location.
        self.places: list[str | Location] = [] if self.queued else [*ordered(image.stores), *image.locations]
        self.before = list(self.places)
        self.claims: list[Mapping[str, str]] = []

    def do(self, operation: Operation) -> None:
        match operation.op:
            case "add":
                self._add(operation)
            case "replace":
                self._replace(operation)
            case _:
                self._remove(operation)

    def _add(self, operation: Operation) -> None:
        self._changeable("added")
        location = self._located(operation.value)
        position = operation.position or ""
        at = len(self.places) if position == "-" else int(position) if re.fullmatch("[0-9]{1,4}", position) else -1
        if not 0 <= at <= len(self.places):
            raise MalformedBody(f"a location is added at - or at 0 to {len(self.places)}")
        if any(isinstance(place, str) for place in self.places):
            raise LocationConflict("stores of the service hold the bytes of the image; it cannot point elsewhere too")
        if any(isinstance(place, Location) and place.url == location.url for place in self.places):
            raise DuplicateLocation("the image has this location already")
        if len(self.places) >= MOST_LOCATIONS:
            raise MalformedBody(f"an image has at most {MOST_LOCATIONS} locations")
        self.places.insert(at, location)

    def _replace(self, operation: Operation) -> None:
        self._changeable("replaced")
        if operation.position is not None:
            raise MalformedBody("path: locations are replaced as a whole, as in /locations")
        values = _listed(operation.value)
        if not values:
            raise Forbidden("locations cannot be set to an empty list; delete the image instead")
        if not self.places:
            for value in values:
                self._add(Operation(op="add", name="locations", value=value, position="-"))
            return
        if [_given(value)[0].url for value in values] != [self._url(place) for place in self.places]:
            raise MalformedBody("locations that are there cannot be replaced by others; only their metadata can")
        self.places = [
            place if isinstance(place, str) else self._located(value)
            for place, value in zip(self.places, values, strict=True)
        ]

    def _remove(self, operation: Operation) -> None:
        if self.image.status is not ImageStatus.ACTIVE:
            raise WrongStatus(now=self.image.status, wanted="a location is removed only while it is active")
        if len(self.places) == 1:
            raise LastCopy("the last location of an image cannot be removed; delete the image instead")
        position = operation.position or ""
        at = len(self.places) - 1 if position == "-" else int(position) if re.fullmatch("[0-9]{1,4}", position) else -1
        if not 0 <= at < len(self.places):
            raise MalformedBody(f"the image has locations 0 to {len(self.places) - 1}")
        del self.places[at]

    def _changeable(self, done: str) -> None:
        if self.image.status not in (ImageStatus.ACTIVE, ImageStatus.QUEUED):
            raise WrongStatus(now=self.image.status, wanted=f"locations are {done} only while it is queued or active")

    def _url(self, place: str | Location) -> str:
        return place.url if isinstance(place, Location) else held_url(self.image, place)

    def _located(self, value: object) -> Location:
        location, claim = _given(value)
        if claim is not None:
            self.claims.append(claim)
        if location.url.startswith(f"{SCHEME}://"):
            raise MalformedBody(f"url: a URL of {SCHEME}:// cannot be set")
        if not self.remote:
            raise MalformedBody("no http store is configured: images cannot point at URLs")
        if location.store and location.store not in self.remote:
            raise MalformedBody(f"metadata.store: wants one of {', '.join(self.remote)}")
        return location if location.store else replace(location, store=self.remote[0])

    def placed(self, surveys: Mapping[str, Survey], hash_algorithm: str) -> Placed:
        claim = _agreed(self.image, self.claims, hash_algorithm)
        locations = tuple(place for place in self.places if isinstance(place, Location))
        known = {place.url for place in self.before if isinstance(place, Location)}
        new = [location.url for location in locations if location.url not in known]
        if not surveys.keys() >= set(new):
            raise LocationConflict("the locations of the image were changed meanwhile; try again")
        found = [surveys[url] for url in new]
        size = found[0].size if self.queued and found else self.image.size
        if any(survey.size != size for survey in found):
            raise LocationConflict(f"a location has another number of bytes than the {size} of the image")
        dropped = tuple(place for place in self.before if isinstance(place, str) and place not in self.places)
        return Placed(
            image=replace(self.image, locations=locations),
            survey=found[0] if self.queued and found else None,
            claim=claim,
            dropped=dropped,
        )


def _listed(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedBody("locations: wants an array")
    if len(value) > MOST_LOCATIONS:
        raise MalformedBody(f"an image has at most {MOST_LOCATIONS} locations")
    return value


def _given(value: object) -> tuple[Location, Mapping[str, str] | None]:
    """A location as a patch has it, its store empty unless its metadata names one, and its validation data."""
    if not isinstance(value, dict) or not {"url", "metadata"} <= set(value) <= {"url", "metadata", "validation_data"}:
        raise MalformedBody("a location is an object with url, metadata, and validation_data if wanted")
    url, metadata = value["url"], value["metadata"]
    if not isinstance(url, str) or not isinstance(metadata, dict):
        raise MalformedBody("url: wants a string; metadata: wants an object")
    if len(msgspec.json.encode(metadata)) > MOST_METADATA_BYTES:
        raise MalformedBody(f"metadata: at most {MOST_METADATA_BYTES} bytes")
    store = metadata.get("store", "")
    if not isinstance(store, str):
        raise MalformedBody("metadata.store: wants the id of a store")
    own = {name: item for name, item in metadata.items() if name != "store"}
    claim = _claimed(value["validation_data"]) if "validation_data" in value else None
    return Location(url=url, store=store, metadata=own), claim


def _claimed(value: object) -> Mapping[str, str]:
    names = {"checksum", "os_hash_algo", "os_hash_value"}
    if not isinstance(value, dict) or not {"os_hash_algo", "os_hash_value"} <= set(value) <= names:
        raise MalformedBody("validation_data: wants os_hash_algo and os_hash_value, and checksum if known")
    if not all(isinstance(item, str) for item in value.values()):
        raise MalformedBody("validation_data: wants strings")
    return value


def _agreed(image: Image, claims: Sequence[Mapping[str, str]], hash_algorithm: str) -> Claim:
    """What all say, as far as the image does not know it. Raises `LocationConflict`."""
    present = {
        "checksum": image.checksum,
        "os_hash_algo": image.hash_algorithm,
        "os_hash_value": image.hash_value,
    }
    new: dict[str, str] = {}
    for claim in claims:
        for name, value in claim.items():
            if new.setdefault(name, value) != value:
                raise LocationConflict(f"{name} is given with two values")
            if present[name] not in (None, value):
                raise LocationConflict(f"{name} is set already, with another value")
    if not new or all(present[name] == value for name, value in new.items()):
        return Claim()
    if image.status is not ImageStatus.QUEUED:
        raise LocationConflict("digests can be given only while the image is queued")
    if new["os_hash_algo"] != hash_algorithm:
        raise LocationConflict(f"os_hash_algo: wants {hash_algorithm}")
    for name, algorithm in (("checksum", "md5"), ("os_hash_value", hash_algorithm)):
        if name in new and not is_digest(new[name], algorithm):
            raise LocationConflict(f"{name}: wants {2 * DIGEST_SIZES[algorithm]} hexadecimal digits")
    return Claim(**{name: value if name == "os_hash_algo" else value.lower() for name, value in new.items()})


def is_digest(value: str, algorithm: str) -> bool:
    """Whether it has the form of a digest of one of `DIGEST_SIZES`, in hex."""
    return re.fullmatch(rf"[0-9a-fA-F]{{{2 * DIGEST_SIZES[algorithm]}}}", value) is not None
