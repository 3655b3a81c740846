"""Definitions that the service brings: the resource types that clients know, and namespaces of properties that images
commonly have (`defaults.json`). Each is given once: what an operator has changed or deleted stays so."""

from importlib import resources
from typing import Final

import msgspec

from calotype.db.engine import Database, now_ms
from calotype.metadefs import sql
from calotype.metadefs.forms import NamespaceForm
from calotype.metadefs.service import Metadefs

# Those that upstream's own definitions name.
RESOURCE_TYPES: Final = (
    "OS::Cinder::Volume",
    "OS::Glance::Image",
    "OS::Nova::Aggregate",
    "OS::Nova::Flavor",
    "OS::Nova::Server",
    "OS::Trove::Instance",
)
OWNER: Final = "admin"  # no project's id: upstream's owner of what nobody created through the API


def namespaces() -> list[NamespaceForm]:
    raw = resources.files("calotype.metadefs").joinpath("defaults.json").read_bytes()
    return msgspec.json.decode(raw, type=list[NamespaceForm])


def load(db: Database) -> int:
    """Give what was not given before; return how many namespaces that were."""
    metadefs = Metadefs(db)
    loaded = 0
    with db.writing() as connection:
        now = now_ms()
        for name in RESOURCE_TYPES:
            sql.run(connection, sql.INSERT_RESOURCE_TYPE, name=name, protected=True, now=now)
        for form in namespaces():
            if not sql.run(connection, sql.CLAIM_DEFAULT, name=form.namespace, now=now):
                continue
            if sql.namespace(connection, form.namespace, project_id=OWNER, is_admin=True) is None:
                metadefs.create_in(connection, form, owner=OWNER, now=now)
                loaded += 1
    return loaded
