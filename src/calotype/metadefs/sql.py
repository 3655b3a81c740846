"""Every statement on the tables of the metadata definitions."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, bindparam, text

from calotype.metadefs.model import (
    Association,
    Definition,
    DefinitionPage,
    DefinitionQuery,
    Kind,
    Namespace,
    NamespaceId,
    NamespaceQuery,
    ResourceType,
    Visibility,
)

COLUMNS: Final = """
n.id, n.name, n.display_name, n.description, n.visibility, n.protected, n.owner, n.created_at, n.updated_at
"""
VISIBLE: Final = "(:is_admin OR n.visibility = 'public' OR n.owner = :project_id)"

SELECT_NAMESPACE = f"SELECT {COLUMNS} FROM metadef_namespaces n WHERE n.name = :name AND {VISIBLE}"  # noqa: S608 - constants

COUNT_NAMESPACES = "SELECT COUNT(*) FROM metadef_namespaces"

INSERT_NAMESPACE = """
INSERT INTO metadef_namespaces (name, display_name, description, visibility, protected, owner, created_at, updated_at)
VALUES (:name, :display_name, :description, :visibility, :protected, :owner, :now, :now)
ON CONFLICT (name) DO NOTHING
RETURNING id
"""

UPDATE_NAMESPACE = """
UPDATE metadef_namespaces SET name = :name, display_name = :display_name, description = :description,
       visibility = :visibility, protected = :protected, owner = :owner, updated_at = :now
 WHERE id = :id
"""

# What is in it goes with it.
DELETE_NAMESPACE = "DELETE FROM metadef_namespaces WHERE id = :id"

# --- objects, properties, tags ----------------------------------------------------------------------------------------

SELECT_DEFINITION = """
SELECT id, name, document, created_at, updated_at FROM metadef_definitions
 WHERE namespace_id = :namespace_id AND kind = :kind AND name = :name
"""

# In the order in which they came.
SELECT_DEFINITIONS = """
SELECT kind, name, document, created_at, updated_at FROM metadef_definitions
 WHERE namespace_id = :namespace_id ORDER BY id
"""

# How many a namespace holds, of how many characters.
SIZE_OF_DEFINITIONS = """
SELECT COUNT(*) AS number, COALESCE(SUM(LENGTH(document)), 0) AS characters FROM metadef_definitions
 WHERE namespace_id = :namespace_id
"""

INSERT_DEFINITION = """
INSERT INTO metadef_definitions (namespace_id, kind, name, document, created_at, updated_at)
VALUES (:namespace_id, :kind, :name, :document, :now, :now)
ON CONFLICT (namespace_id, kind, name) DO NOTHING
"""

UPDATE_DEFINITION = """
UPDATE metadef_definitions SET name = :new_name, document = :document, updated_at = :now
 WHERE namespace_id = :namespace_id AND kind = :kind AND name = :name
"""

DELETE_DEFINITION = """
DELETE FROM metadef_definitions WHERE namespace_id = :namespace_id AND kind = :kind AND name = :name
"""
DELETE_DEFINITIONS = "DELETE FROM metadef_definitions WHERE namespace_id = :namespace_id AND kind = :kind"

# --- resource types ---------------------------------------------------------------------------------------------------

SELECT_RESOURCE_TYPES = "SELECT name, created_at, updated_at FROM metadef_resource_types ORDER BY name"

COUNT_RESOURCE_TYPES = "SELECT COUNT(*) FROM metadef_resource_types"

INSERT_RESOURCE_TYPE = """
INSERT INTO metadef_resource_types (name, protected, created_at, updated_at) VALUES (:name, :protected, :now, :now)
ON CONFLICT (name) DO NOTHING
"""

SELECT_ASSOCIATIONS = """
SELECT namespace_id, resource_type, prefix, properties_target, created_at, updated_at FROM metadef_associations
 WHERE namespace_id IN :namespace_ids ORDER BY namespace_id, resource_type
"""

INSERT_ASSOCIATION = """
INSERT INTO metadef_associations (namespace_id, resource_type, prefix, properties_target, created_at, updated_at)
VALUES (:namespace_id, :name, :prefix, :properties_target, :now, :now)
ON CONFLICT (namespace_id, resource_type) DO NOTHING
"""

DELETE_ASSOCIATION = """
DELETE FROM metadef_associations WHERE namespace_id = :namespace_id AND resource_type = :name
"""

# --- what the service brings ------------------------------------------------------------------------------------------

# True the first time only: what an operator has deleted or renamed does not come back.
CLAIM_DEFAULT = "INSERT INTO metadef_defaults (name, loaded_at) VALUES (:name, :now) ON CONFLICT (name) DO NOTHING"


def run(connection: Connection, statement: str, **params: object) -> int:
    """Run a statement that changes rows; return how many it changed."""
    return int(connection.execute(text(statement), params).rowcount)


def namespace(
    connection: Connection, name: str, *, project_id: str, is_admin: bool, lock: bool = False
) -> Namespace | None:
    """A namespace that the project may see. `lock`: nobody else changes it, or what is in it, in this transaction."""
    statement = SELECT_NAMESPACE
    if lock and connection.dialect.name != "sqlite":  # where a writing transaction holds everything
        statement += " FOR UPDATE"
    params = {"name": name, "project_id": project_id, "is_admin": is_admin}
    row = connection.execute(text(statement), params).one_or_none()
    return None if row is None else _to_namespace(row)


def insert_namespace(connection: Connection, fields: Mapping[str, object], now: int) -> NamespaceId | None:
    """None when there is one of this name."""
    found = connection.execute(text(INSERT_NAMESPACE), {**fields, "now": now}).scalar_one_or_none()
    return None if found is None else NamespaceId(found)


def definition(connection: Connection, namespace_id: NamespaceId, kind: Kind, name: str) -> Definition | None:
    params = {"namespace_id": namespace_id, "kind": kind.value, "name": name}
    row = connection.execute(text(SELECT_DEFINITION), params).one_or_none()
    return None if row is None else _to_definition(row)


def definitions(connection: Connection, namespace_id: NamespaceId) -> dict[Kind, tuple[Definition, ...]]:
    rows = connection.execute(text(SELECT_DEFINITIONS), {"namespace_id": namespace_id}).all()
    return {kind: tuple(_to_definition(row) for row in rows if row.kind == kind) for kind in Kind}


def size_of_definitions(connection: Connection, namespace_id: NamespaceId) -> tuple[int, int]:
    row = connection.execute(text(SIZE_OF_DEFINITIONS), {"namespace_id": namespace_id}).one()
    return row.number, row.characters


def associations(connection: Connection, ids: Sequence[NamespaceId]) -> dict[NamespaceId, tuple[Association, ...]]:
    found: dict[NamespaceId, list[Association]] = {namespace_id: [] for namespace_id in ids}
    if ids:
        statement = text(SELECT_ASSOCIATIONS).bindparams(bindparam("namespace_ids", expanding=True))
        for row in connection.execute(statement, {"namespace_ids": list(ids)}):
            found[row.namespace_id].append(
                Association(
                    name=row.resource_type,
                    prefix=row.prefix,
                    properties_target=row.properties_target,
                    created_at=row.created_at,
                    updated_at=row.updated_at,
                )
            )
    return {namespace_id: tuple(those) for namespace_id, those in found.items()}


def resource_types(connection: Connection) -> tuple[ResourceType, ...]:
    rows = connection.execute(text(SELECT_RESOURCE_TYPES)).all()
    return tuple(ResourceType(name=row.name, created_at=row.created_at, updated_at=row.updated_at) for row in rows)


def count(connection: Connection, statement: str) -> int:
    return int(connection.execute(text(statement)).scalar_one())


# --- pages, by key ----------------------------------------------------------------------------------------------------

# What is null sorts before everything else, on both databases alike.
NAMESPACES_SORTED: Final[Mapping[str, str]] = {
    "namespace": "n.name",
    "display_name": "COALESCE(n.display_name, '')",
    "visibility": "n.visibility",
    "protected": "CASE WHEN n.protected THEN 1 ELSE 0 END",
    "owner": "n.owner",
    "created_at": "n.created_at",
    "updated_at": "n.updated_at",
    "id": "n.id",
}
DEFINITIONS_SORTED: Final[Mapping[str, str]] = {
    "name": "n.name",
    "created_at": "n.created_at",
    "updated_at": "n.updated_at",
    "id": "n.id",
}


def namespaces(
    connection: Connection, query: NamespaceQuery, after: NamespaceId | None, *, project_id: str, is_admin: bool
) -> tuple[Namespace, ...]:
    """At most `limit` + 1 of those that the project may see: one more says that a page follows."""
    where = [VISIBLE]
    params: dict[str, object] = {"project_id": project_id, "is_admin": is_admin}
    expanding: list[Any] = []
    if query.visibility is not None:
        where.append("n.visibility = :visibility")
        params["visibility"] = query.visibility.value
    if query.protected is not None:
        where.append("n.protected = :protected")
        params["protected"] = query.protected
    if query.resource_types is not None:
        where.append(
            "EXISTS (SELECT 1 FROM metadef_associations a"
            " WHERE a.namespace_id = n.id AND a.resource_type IN :resource_types)"
        )
        params["resource_types"] = list(query.resource_types)
        expanding.append(bindparam("resource_types", expanding=True))
    keys = _keys(NAMESPACES_SORTED, query.sort_key)
    order = _order(keys, descending=query.descending)
    if after is not None:
        where.append(_later(keys, "metadef_namespaces", descending=query.descending))
        params["after"] = after
    statement = f"SELECT {COLUMNS} FROM metadef_namespaces n WHERE {' AND '.join(where)} ORDER BY {order} LIMIT :most"  # noqa: S608 - names are constants, values parameters
    rows = connection.execute(text(statement).bindparams(*expanding), {**params, "most": query.limit + 1})
    return tuple(_to_namespace(row) for row in rows)


def definitions_page(
    connection: Connection, namespace_id: NamespaceId, kind: Kind, query: DefinitionQuery
) -> DefinitionPage | None:
    """None when the marker is not there."""
    params: dict[str, object] = {"namespace_id": namespace_id, "kind": kind.value, "most": query.limit + 1}
    keys = _keys(DEFINITIONS_SORTED, query.sort_key)
    where = "n.namespace_id = :namespace_id AND n.kind = :kind"
    if query.marker is not None:
        marker = connection.execute(text(SELECT_DEFINITION), {**params, "name": query.marker}).one_or_none()
        if marker is None:
            return None
        where += f" AND {_later(keys, 'metadef_definitions', descending=query.descending)}"
        params["after"] = marker.id
    order = _order(keys, descending=query.descending)
    statement = (
        "SELECT n.name, n.document, n.created_at, n.updated_at FROM metadef_definitions n"  # noqa: S608 - as above
        f" WHERE {where} ORDER BY {order} LIMIT :most"
    )
    rows = connection.execute(text(statement), params).all()
    found = tuple(_to_definition(row) for row in rows[: query.limit])
    more = len(rows) > query.limit > 0
    return DefinitionPage(definitions=found, next_marker=found[-1].name if more else None)


def _keys(sorted_by: Mapping[str, str], key: str) -> list[str]:
    """Completed so that no two rows are equal."""
    return list(dict.fromkeys((sorted_by[key], "n.created_at", "n.id")))


def _order(keys: Sequence[str], *, descending: bool) -> str:
    return ", ".join(f"{key} {'DESC' if descending else 'ASC'}" for key in keys)


def _later(keys: Sequence[str], table: str, *, descending: bool) -> str:
    """The condition that a row comes after the one with the id `:after`."""
    of_marker = ", ".join(key.replace("n.", "m.") for key in keys)
    sign = "<" if descending else ">"
    return f"({', '.join(keys)}) {sign} (SELECT {of_marker} FROM {table} m WHERE m.id = :after)"  # noqa: S608 - as above


_DOCUMENT: Final = msgspec.json.Decoder(dict[str, Any])


def _to_namespace(row: Row[Any]) -> Namespace:
    return Namespace(
        id=NamespaceId(row.id),
        name=row.name,
        display_name=row.display_name,
        description=row.description,
        visibility=Visibility(row.visibility),
        protected=bool(row.protected),
        owner=row.owner,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _to_definition(row: Row[Any]) -> Definition:
    return Definition(
        name=row.name, document=_DOCUMENT.decode(row.document), created_at=row.created_at, updated_at=row.updated_at
    )
