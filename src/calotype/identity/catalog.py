"""The service catalog, computed from the settings: what is offered where. Nothing of it is stored."""

import hashlib
from typing import Final

from msgspec import Struct

from calotype.settings import Settings

INTERFACES: Final = ("public", "internal", "admin")


class Endpoint(Struct, frozen=True, kw_only=True):
    id: str
    interface: str
    region: str
    region_id: str
    url: str


class Service(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    type: str
    endpoints: tuple[Endpoint, ...]


def catalog(settings: Settings) -> tuple[Service, ...]:
    """`image` and `ims` are the unversioned root without a path: clients append `v1/`, `v2/` themselves."""
    offered = (
        ("identity", "keystone", f"{settings.url}/identity/v3"),
        ("image", "glance", settings.url),
        ("ims", "ims", settings.url),
    )
    return tuple(_service(settings.region, kind, name, url) for kind, name, url in offered)


def _service(region: str, kind: str, name: str, url: str) -> Service:
    endpoints = (
        Endpoint(id=_id(region, kind, interface), interface=interface, region=region, region_id=region, url=url)
        for interface in INTERFACES
    )
    return Service(id=_id(region, kind), name=name, type=kind, endpoints=tuple(endpoints))


def _id(*parts: str) -> str:
    """32 hex characters that are the same in every process and after every start."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
