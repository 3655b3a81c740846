"""What goes wrong with metadata definitions."""

from calotype.errors.families import Conflict, Forbidden, NotFound, TooLarge


class NamespaceNotFound(NotFound):
    """No such namespace of metadata definitions, or it is another project's."""

    code = "namespace_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"no namespace {name[:80]}")


class NamespaceExists(Conflict):
    code = "namespace_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"namespace {name} exists")


class MetadefNotFound(NotFound):
    """The namespace has no such object, property, tag or resource type."""

    code = "metadef_not_found"

    def __init__(self, kind: str, name: str, namespace: str) -> None:
        super().__init__(f"namespace {namespace} has no {kind} {name[:80]}")


class MetadefExists(Conflict):
    code = "metadef_exists"

    def __init__(self, kind: str, name: str, namespace: str) -> None:
        super().__init__(f"namespace {namespace} has the {kind} {name} already")


class MetadefProtected(Forbidden):
    code = "metadef_protected"

    def __init__(self, namespace: str) -> None:
        super().__init__(f"namespace {namespace} is protected: neither it nor what is in it can be deleted")


class TooManyMetadefs(TooLarge):
    code = "too_many_metadefs"
