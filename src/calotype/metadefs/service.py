"""The catalogue of metadata definitions, as request handlers use it: who may see what, and what may be changed.

Who may change anything at all is decided before, by the permission of the route. Names come as they were sent: one
that nothing can have is the same as one that nothing has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from calotype.db.engine import Database, now_ms
from calotype.errors import (
    MetadefExists,
    MetadefNotFound,
    MetadefProtected,
    NamespaceExists,
    NamespaceNotFound,
    TooManyMetadefs,
)
from calotype.identity.model import Caller
from calotype.metadefs import sql
from calotype.metadefs.forms import (
    AssociationForm,
    NamespaceForm,
    encoded,
    is_name,
    object_document,
    property_document,
)
from calotype.metadefs.model import (
    LONGEST_DOCUMENTS,
    MOST_ASSOCIATIONS,
    MOST_DEFINITIONS,
    MOST_NAMESPACES,
    MOST_RESOURCE_TYPES,
    Association,
    Definition,
    DefinitionPage,
    DefinitionQuery,
    Kind,
    Namespace,
    NamespaceContent,
    NamespacePage,
    NamespaceQuery,
    ResourceType,
    Visibility,
)

RESOURCE_TYPE = "resource type"  # what a `MetadefNotFound` calls an association


class Metadefs:
    """Every method that names a namespace raises `NamespaceNotFound` where the caller may not see one of that name."""

    def __init__(self, db: Database) -> None:
        self.db = db

    # --- namespaces ---------------------------------------------------------------------------------------------------

    async def list(self, caller: Caller, query: NamespaceQuery) -> NamespacePage:
        """Raises `NamespaceNotFound` for the marker."""

        def work(c: Connection) -> NamespacePage:
            after = None if query.marker is None else self.visible_in(c, caller, query.marker).id
            if query.limit == 0:
                return NamespacePage(namespaces=())
            found = sql.namespaces(c, query, after, **_seer(caller))
            page = found[: query.limit]
            associated = sql.associations(c, [namespace.id for namespace in page])
            return NamespacePage(
                namespaces=tuple(NamespaceContent(namespace=n, associations=associated[n.id]) for n in page),
                next_marker=page[-1].name if len(found) > query.limit else None,
            )

        return await self.db.read(work)

    async def create(self, caller: Caller, form: NamespaceForm) -> NamespaceContent:
        """Create a namespace with everything that the form says is in it, or nothing.

        Raises `NamespaceExists`, `MetadefExists` for a name that is given twice, `TooManyMetadefs`, `MalformedBody`.
        """
        return await self.db.write(lambda c: self.create_in(c, form, owner=_owner(caller, form), now=now_ms()))

    async def get(self, caller: Caller, name: str) -> NamespaceContent:
        return await self.db.read(lambda c: self._content_in(c, self.visible_in(c, caller, name)))

    async def update(self, caller: Caller, name: str, form: NamespaceForm) -> Namespace:
        """Replace what a namespace says of itself; what is in it stays. Raises `NamespaceExists` for its new name."""

        def work(c: Connection) -> Namespace:
            namespace = self._held_in(c, caller, name)
            fields = _fields(form, _owner(caller, form))
            try:
                sql.run(c, sql.UPDATE_NAMESPACE, id=namespace.id, now=now_ms(), **fields)
            except IntegrityError as error:
                raise NamespaceExists(form.namespace) from error
            return self.visible_in(c, caller, form.namespace)

        return await self.db.write(work)

    async def delete(self, caller: Caller, name: str) -> None:
        """Raises `MetadefProtected`."""

        def work(c: Connection) -> None:
            sql.run(c, sql.DELETE_NAMESPACE, id=self._unprotected_in(c, caller, name).id)

        await self.db.write(work)

    # --- objects, properties, tags ------------------------------------------------------------------------------------

    async def definitions(self, caller: Caller, namespace: str, kind: Kind, query: DefinitionQuery) -> DefinitionPage:
        """Raises `MetadefNotFound` for the marker."""

        def work(c: Connection) -> DefinitionPage:
            found = self.visible_in(c, caller, namespace)
            marker = query.marker
            page = None
            if marker is None or is_name(marker):
                page = sql.definitions_page(c, found.id, kind, query)
            if page is None:
                raise MetadefNotFound(kind, marker or "", found.name)
            return page

        return await self.db.read(work)

    async def definition(self, caller: Caller, namespace: str, kind: Kind, name: str) -> Definition:
        """Raises `MetadefNotFound`."""
        return await self.db.read(
            lambda c: self._definition_in(c, self.visible_in(c, caller, namespace), kind, name),
        )

    async def prefixed_property(self, caller: Caller, namespace: str, name: str, resource_type: str) -> Definition:
        """The property that a resource of this type has under `name`, which begins with the association's prefix.

        Raises `MetadefNotFound` when there is no such association, when it has no prefix, when the name has another.
        """

        def work(c: Connection) -> Definition:
            found = self.visible_in(c, caller, namespace)
            for association in self._associations_in(c, found):
                if association.name == resource_type:
                    prefix = association.prefix
                    if not prefix or not name.startswith(prefix):
                        raise MetadefNotFound(Kind.PROPERTY, name, found.name)
                    return self._definition_in(c, found, Kind.PROPERTY, name.removeprefix(prefix))
            raise MetadefNotFound(RESOURCE_TYPE, resource_type, found.name)

        return await self.db.read(work)

    async def add(
        self, caller: Caller, namespace: str, kind: Kind, name: str, document: Mapping[str, Any]
    ) -> Definition:
        """Raises `MetadefExists`, `TooManyMetadefs`."""

        def work(c: Connection) -> Definition:
            found = self._held_in(c, caller, namespace)
            self._add_in(c, found, kind, {name: document}, now_ms())
            return self._definition_in(c, found, kind, name)

        return await self.db.write(work)

    async def add_tags(self, caller: Caller, namespace: str, names: Sequence[str], *, append: bool) -> None:
        """Add tags to those that are there, or put them in their place. None given changes nothing, as upstream.

        Raises `MetadefExists` for one that is there, or given twice; `TooManyMetadefs`.
        """

        def work(c: Connection) -> None:
            found = self._held_in(c, caller, namespace)
            if names and not append:
                sql.run(c, sql.DELETE_DEFINITIONS, namespace_id=found.id, kind=Kind.TAG.value)
            self._add_in(c, found, Kind.TAG, _once(Kind.TAG, found.name, [(name, {}) for name in names]), now_ms())

        await self.db.write(work)

    async def replace(
        self, caller: Caller, namespace: str, kind: Kind, name: str, new_name: str, document: Mapping[str, Any]
    ) -> Definition:
        """Raises `MetadefNotFound`, `MetadefExists` for the new name, `TooManyMetadefs`."""

        def work(c: Connection) -> Definition:
            found = self._held_in(c, caller, namespace)
            self._definition_in(c, found, kind, name)
            if new_name != name and sql.definition(c, found.id, kind, new_name) is not None:
                raise MetadefExists(kind, new_name, found.name)
            of_it = {"namespace_id": found.id, "kind": kind.value, "name": name}
            params = {"new_name": new_name, "document": encoded(document), "now": now_ms()}
            sql.run(c, sql.UPDATE_DEFINITION, **of_it, **params)
            self._bounded_in(c, found)
            return self._definition_in(c, found, kind, new_name)

        return await self.db.write(work)

    async def remove(self, caller: Caller, namespace: str, kind: Kind, name: str) -> None:
        """Raises `MetadefNotFound`, `MetadefProtected`."""

        def work(c: Connection) -> None:
            found = self._held_in(c, caller, namespace)
            self._definition_in(c, found, kind, name)
            _unprotected(found)
            sql.run(c, sql.DELETE_DEFINITION, namespace_id=found.id, kind=kind.value, name=name)

        await self.db.write(work)

    async def clear(self, caller: Caller, namespace: str, kind: Kind) -> None:
        """Remove all objects, properties or tags. Raises `MetadefProtected`."""

        def work(c: Connection) -> None:
            found = self._unprotected_in(c, caller, namespace)
            sql.run(c, sql.DELETE_DEFINITIONS, namespace_id=found.id, kind=kind.value)

        await self.db.write(work)

    # --- resource types -----------------------------------------------------------------------------------------------

    async def resource_types(self) -> tuple[ResourceType, ...]:
        return await self.db.read(sql.resource_types)

    async def associations(self, caller: Caller, namespace: str) -> tuple[Association, ...]:
        return await self.db.read(lambda c: self._associations_in(c, self.visible_in(c, caller, namespace)))

    async def associate(self, caller: Caller, namespace: str, form: AssociationForm) -> Association:
        """A resource type that is not known yet becomes known. Raises `MetadefExists`, `TooManyMetadefs`."""

        def work(c: Connection) -> Association:
            found = self._held_in(c, caller, namespace)
            self._associate_in(c, found, [form], now_ms())
            return next(a for a in self._associations_in(c, found) if a.name == form.name)

        return await self.db.write(work)

    async def dissociate(self, caller: Caller, namespace: str, resource_type: str) -> None:
        """Raises `MetadefNotFound`, `MetadefProtected`."""

        def work(c: Connection) -> None:
            found = self._held_in(c, caller, namespace)
            if not any(a.name == resource_type for a in self._associations_in(c, found)):
                raise MetadefNotFound(RESOURCE_TYPE, resource_type, found.name)
            _unprotected(found)
            sql.run(c, sql.DELETE_ASSOCIATION, namespace_id=found.id, name=resource_type)

        await self.db.write(work)

    # --- within a transaction -----------------------------------------------------------------------------------------

    def create_in(self, connection: Connection, form: NamespaceForm, *, owner: str, now: int) -> NamespaceContent:
        """What `create` does."""
        if sql.count(connection, sql.COUNT_NAMESPACES) >= MOST_NAMESPACES:
            raise TooManyMetadefs(f"there are {MOST_NAMESPACES} namespaces, and no more can be; delete one")
        namespace_id = sql.insert_namespace(connection, _fields(form, owner), now)
        if namespace_id is None:
            raise NamespaceExists(form.namespace)
        namespace = sql.namespace(connection, form.namespace, project_id=owner, is_admin=True)
        if namespace is None:  # inserted above
            raise NamespaceNotFound(form.namespace)
        self._associate_in(connection, namespace, form.resource_type_associations or (), now)
        objects = [(each.name, object_document(each)) for each in form.objects or ()]
        properties = {name: property_document(each) for name, each in (form.properties or {}).items()}
        tags: list[tuple[str, Mapping[str, Any]]] = [(each.name, {}) for each in form.tags or ()]
        self._add_in(connection, namespace, Kind.OBJECT, _once(Kind.OBJECT, namespace.name, objects), now)
        self._add_in(connection, namespace, Kind.PROPERTY, properties, now)
        self._add_in(connection, namespace, Kind.TAG, _once(Kind.TAG, namespace.name, tags), now)
        return self._content_in(connection, namespace)

    def visible_in(self, connection: Connection, caller: Caller, name: str, *, lock: bool = False) -> Namespace:
        """The namespace, if the caller may see it. Raises `NamespaceNotFound`."""
        found = sql.namespace(connection, name, **_seer(caller), lock=lock) if is_name(name) else None
        if found is None:
            raise NamespaceNotFound(name)
        return found

    def _held_in(self, connection: Connection, caller: Caller, name: str) -> Namespace:
        """For a change: nobody else changes it, or what is in it, until the transaction ends."""
        return self.visible_in(connection, caller, name, lock=True)

    def _unprotected_in(self, connection: Connection, caller: Caller, name: str) -> Namespace:
        found = self._held_in(connection, caller, name)
        _unprotected(found)
        return found

    def _content_in(self, connection: Connection, namespace: Namespace) -> NamespaceContent:
        found = sql.definitions(connection, namespace.id)
        return NamespaceContent(
            namespace=namespace,
            associations=self._associations_in(connection, namespace),
            properties=found[Kind.PROPERTY],
            objects=found[Kind.OBJECT],
            tags=found[Kind.TAG],
        )

    def _associations_in(self, connection: Connection, namespace: Namespace) -> tuple[Association, ...]:
        return sql.associations(connection, [namespace.id])[namespace.id]

    def _definition_in(self, connection: Connection, namespace: Namespace, kind: Kind, name: str) -> Definition:
        found = sql.definition(connection, namespace.id, kind, name) if is_name(name) else None
        if found is None:
            raise MetadefNotFound(kind, name, namespace.name)
        return found

    def _add_in(
        self,
        connection: Connection,
        namespace: Namespace,
        kind: Kind,
        documents: Mapping[str, Mapping[str, Any]],
        now: int,
    ) -> None:
        for name, document in documents.items():
            params = {"kind": kind.value, "name": name, "document": encoded(document), "now": now}
            if not sql.run(connection, sql.INSERT_DEFINITION, namespace_id=namespace.id, **params):
                raise MetadefExists(kind, name, namespace.name)
        if documents:
            self._bounded_in(connection, namespace)

    def _bounded_in(self, connection: Connection, namespace: Namespace) -> None:
        number, characters = sql.size_of_definitions(connection, namespace.id)
        if number > MOST_DEFINITIONS:
            raise TooManyMetadefs(f"a namespace holds at most {MOST_DEFINITIONS} objects, properties and tags")
        if characters > LONGEST_DOCUMENTS:
            raise TooManyMetadefs(f"the definitions of a namespace have at most {LONGEST_DOCUMENTS} characters of JSON")

    def _associate_in(
        self, connection: Connection, namespace: Namespace, forms: Sequence[AssociationForm], now: int
    ) -> None:
        for form in forms:
            if sql.run(connection, sql.INSERT_RESOURCE_TYPE, name=form.name, protected=False, now=now):
                self._bounded_types_in(connection)
            params = {"name": form.name, "prefix": form.prefix, "properties_target": form.properties_target}
            if not sql.run(connection, sql.INSERT_ASSOCIATION, namespace_id=namespace.id, now=now, **params):
                raise MetadefExists(RESOURCE_TYPE, form.name, namespace.name)
        if forms and len(self._associations_in(connection, namespace)) > MOST_ASSOCIATIONS:
            raise TooManyMetadefs(f"a namespace has at most {MOST_ASSOCIATIONS} resource types")

    def _bounded_types_in(self, connection: Connection) -> None:
        if sql.count(connection, sql.COUNT_RESOURCE_TYPES) > MOST_RESOURCE_TYPES:
            raise TooManyMetadefs(f"there are {MOST_RESOURCE_TYPES} resource types, and no more can be")


def _seer(caller: Caller) -> dict[str, Any]:
    return {"project_id": caller.project_id or "", "is_admin": caller.is_admin}


def _owner(caller: Caller, form: NamespaceForm) -> str:
    return form.owner or caller.project_id or ""


def _fields(form: NamespaceForm, owner: str) -> dict[str, object]:
    return {
        "name": form.namespace,
        "display_name": form.display_name,
        "description": form.description,
        "visibility": (form.visibility or Visibility.PRIVATE).value,
        "protected": bool(form.protected),
        "owner": owner,
    }


def _unprotected(namespace: Namespace) -> None:
    if namespace.protected:
        raise MetadefProtected(namespace.name)


def _once(
    kind: Kind, namespace: str, documents: Sequence[tuple[str, Mapping[str, Any]]]
) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for name, document in documents:
        if name in found:
            raise MetadefExists(kind, name, namespace)
        found[name] = document
    return found
