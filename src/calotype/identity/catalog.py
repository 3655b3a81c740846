"""The service catalog, computed from the settings: what is offered where. Nothing of it is stored."""

import hashlib

from msgspec import Struct

from calotype.settings import INTERFACES, EndpointSettings, Settings


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
    """What is offered here, then what `[endpoints.NAME]` adds; services of one type are one, with several endpoints.

    `image` and `ims` are the unversioned root without a path: clients append `v1/`, `v2/` themselves.
    """
    own = (
        ("identity", "keystone", f"{settings.url}/identity/v3"),
        ("image", "glance", settings.url),
        ("ims", "ims", settings.url),
    )
    names = {kind: name for kind, name, _ in own}
    endpoints = {kind: _endpoints(settings.region, kind, INTERFACES, url) for kind, _, url in own}
    for name, added in settings.endpoints.items():
        names.setdefault(added.type, name)
        region = added.region or settings.region
        endpoints.setdefault(added.type, []).extend(
            _endpoints(region, added.type, _interfaces(added), added.url.rstrip("/"))
        )
    return tuple(
        Service(id=_id(settings.region, kind), name=name, type=kind, endpoints=tuple(endpoints[kind]))
        for kind, name in names.items()
    )


def regions(settings: Settings) -> list[str]:
    """Ours first, then the others that the catalog names."""
    return list(dict.fromkeys((settings.region, *(e.region for s in catalog(settings) for e in s.endpoints))))


def _interfaces(added: EndpointSettings) -> tuple[str, ...]:
    return INTERFACES if added.interface == "all" else (added.interface,)


def _endpoints(region: str, kind: str, interfaces: tuple[str, ...], url: str) -> list[Endpoint]:
    return [
        Endpoint(id=_id(region, kind, interface), interface=interface, region=region, region_id=region, url=url)
        for interface in interfaces
    ]


def _id(*parts: str) -> str:
    """32 hex characters that are the same in every process and after every start."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
