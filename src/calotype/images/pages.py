"""The list query: pages by key, never by offset. Puts its statement together, which `sql` has no constants for.

What a caller may see comes from a few *sources*, each with an index of its own: own images, public ones, shared ones.
Each is asked for one page in order, and the database merges the pages. Where a filter names a value that few images
have, whoever owns them, those few are the only source instead: an index look-up says so before. What is common is found
soon by walking a source in order; so neither walks the table.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from sqlalchemy import Connection, text

from calotype.errors import BadFilter
from calotype.identity.model import Caller
from calotype.images import sql, tags_sql
from calotype.images.attributes import IMAGE_ID
from calotype.images.model import Image, ImageQuery, MemberStatus, Page, TimeFilter, Visibility
from calotype.images.query import SIZES

COLUMN: Final[Mapping[str, str]] = {
    "id": "i.id",
    "name": "i.name",
    "status": "i.status",
    "owner": "i.project_id",
    "disk_format": "i.disk_format",
    "container_format": "i.container_format",
    "checksum": "i.checksum",
    "os_hash_algo": "i.hash_algorithm",
    "os_hash_value": "i.hash_value",
}
# What is null sorts before everything else, on both databases alike.
SORTED: Final[Mapping[str, str]] = {
    "id": "i.id",
    "name": "COALESCE(i.name, '')",
    "status": "i.status",
    "container_format": "COALESCE(i.container_format, '')",
    "disk_format": "COALESCE(i.disk_format, '')",
    "size": "COALESCE(i.size, -1)",
    "created_at": "i.created_at",
    "updated_at": "i.updated_at",
}
SECOND_MS: Final = 1000
LONGEST_NUMBER: Final = 19  # digits; more are above what the database counts to
HAS_MEMBERS: Final = "EXISTS (SELECT 1 FROM image_members o WHERE o.image_id = i.id)"
# Attributes that every image has alike, and one that follows from columns: none is stored as a property.
CONSTANT: Final[Mapping[str, str]] = {"__isregistered": "true", "__image_source_type": "uds"}
IMAGE_TYPE: Final[Mapping[str, str]] = {
    "gold": "i.visibility = 'public'",
    "shared": f"(i.visibility = 'shared' AND {HAS_MEMBERS})",
    "private": f"(i.visibility <> 'public' AND NOT (i.visibility = 'shared' AND {HAS_MEMBERS}))",
}
# By whether it has members, as IMS tells it.
BY_MEMBERS: Final[Mapping[str, str]] = {
    "private": f"(i.visibility = 'private' OR (i.visibility = 'shared' AND NOT {HAS_MEMBERS}))",
    "shared": f"(i.visibility = 'shared' AND {HAS_MEMBERS})",
}
NOTHING: Final = "1 = 0"
THERE: Final = "status <> 'deleted'"  # tombstones are no images
RARE: Final = 500  # images that have a value, up to which they are looked at one by one
MOST_LOOKUPS: Final = 4  # values that are looked up to find a rare one; each costs at most RARE index entries
# Filters by one column, with an index that begins with it.
SELECTIVE: Final = ("checksum", "os_hash_value", "name", "owner", "status")


class _Params(dict[str, object]):
    """Values of a statement under names that are given out."""

    def __init__(self, prefix: str = "p") -> None:
        super().__init__()
        self._prefix = prefix

    def add(self, value: object) -> str:
        name = f"{self._prefix}{len(self)}"
        self[name] = value
        return f":{name}"

    def all(self, values: Sequence[object]) -> str:
        return ", ".join(self.add(value) for value in values)


def page(connection: Connection, caller: Caller, query: ImageQuery, *, few: int = RARE) -> Page:
    """One page of what the caller may see. Raises `BadFilter` when the marker is no image that the caller may see."""
    marker = None if query.marker is None else _marker(connection, caller, query.marker)
    if query.limit == 0:
        return Page(images=())
    statement, params = listing(caller, query, marker, rare(connection, query, few=few))
    rows = connection.execute(text(statement), params).all()
    images = tuple(sql.to_image(row) for row in rows[: query.limit])
    return Page(images=images, next_marker=images[-1].id if len(rows) > query.limit else None)


def tags(connection: Connection, caller: Caller, query: ImageQuery, *, limit: int, offset: int) -> list[str]:
    """The distinct tags of the images of one page, in order: `limit` of them after the first `offset`.

    Raises `BadFilter` as `page`.
    """
    marker = None if query.marker is None else _marker(connection, caller, query.marker)
    statement, params = listing(caller, query, marker, rare(connection, query))
    distinct = (
        f"SELECT DISTINCT t.tag FROM ({statement}) AS found JOIN image_tags t ON t.image_id = found.id"  # noqa: S608 - as in `listing`
        " ORDER BY t.tag LIMIT :most_tags OFFSET :first_tag"
    )
    given = {**params, "most_tags": limit, "first_tag": offset}
    return list(connection.execute(text(distinct), given).scalars())


class Lookup(NamedTuple):
    """A statement for the ids of all images, whoever's, that have what one filter asks for."""

    ids: str
    values: Mapping[str, object]


def lookups(query: ImageQuery) -> list[Lookup]:
    """One for each filter that an index serves, the most selective kinds first."""
    found = []
    if "id" in query.one_of:
        found.append(_lookup("images", "id", query.one_of["id"]))
    for name, value in query.properties:
        if _is_stored(name):
            where = "name = :d_name AND value = :d_value"
            values = {"d_name": name, "d_value": sql.indexed(value)}
            found.append(Lookup(f"SELECT image_id AS id FROM image_props WHERE {where}", values))  # noqa: S608 - as in `listing`
    found.extend(
        Lookup("SELECT image_id AS id FROM image_tags WHERE tag = :d_tag", {"d_tag": tag}) for tag in query.tags
    )
    for wanted in query.tagged:
        given = _Params(prefix="d_")
        where = tags_sql.is_one(wanted, given.add, "tag")
        found.append(Lookup(f"SELECT DISTINCT image_id AS id FROM image_tags WHERE {where}", given))  # noqa: S608 - as in `listing`
    found.extend(_lookup("images", name, query.one_of[name]) for name in SELECTIVE if name in query.one_of)
    return found


def _lookup(table: str, attribute: str, values: Sequence[str]) -> Lookup:
    column = COLUMN[attribute].removeprefix("i.")
    given = {f"d_{n}": value for n, value in enumerate(values)}
    wanted = f"{column} IN ({', '.join(f':{name}' for name in given)})" if given else NOTHING
    return Lookup(f"SELECT id FROM {table} WHERE {wanted} AND {THERE}", given)  # noqa: S608 - as in `listing`


def rare(connection: Connection, query: ImageQuery, *, few: int = RARE) -> Lookup | None:
    """The first look-up that finds `few` images or fewer."""
    for lookup in lookups(query)[:MOST_LOOKUPS]:
        counted = f"SELECT count(*) FROM (SELECT 1 FROM ({lookup.ids}) AS d LIMIT {few + 1}) AS few"  # noqa: S608 - as in `listing`
        if connection.execute(text(counted), lookup.values).scalar_one() <= few:
            return lookup
    return None


def listing(
    caller: Caller, query: ImageQuery, marker: Image | None, rare: Lookup | None
) -> tuple[str, dict[str, object]]:
    """The statement for a page and one image more, and its parameters."""
    params = _Params()
    order = _order(query)
    conditions = _conditions(query, params)
    limit = params.add(query.limit + 1)
    if rare is None:
        sources = _sources(caller, query, params)
    else:
        params |= rare.values
        sources = [(f"({rare.ids}) d CROSS JOIN images i", ["i.id = d.id", _listed(caller, query, params)])]
    keys = ", ".join(f"{SORTED[key]} AS sort_{n}" for n, (key, _) in enumerate(order))
    merged = ", ".join(f"sort_{n} {direction}" for n, (_, direction) in enumerate(order))
    parts = []
    for tables, mine in sources:
        inner = ", ".join(f"{_driven(SORTED[key], tables)} {direction}" for key, direction in order)
        later = [] if marker is None else [_after(marker, order, params, tables)]
        where = " AND ".join([*mine, *later, *conditions])
        parts.append(
            f"SELECT {sql.COLUMNS}, {keys} FROM {tables} WHERE {where}"  # noqa: S608 - names are constants, values parameters
            f" ORDER BY {inner} LIMIT {limit}"
        )
    if len(parts) == 1:
        return parts[0], params
    parts = [f"SELECT * FROM ({part}) AS s{number}" for number, part in enumerate(parts)]  # noqa: S608 - as above
    statement = f"SELECT * FROM ({' UNION ALL '.join(parts)}) AS merged ORDER BY {merged} LIMIT {limit}"  # noqa: S608 - as above
    return statement, params


def _order(query: ImageQuery) -> list[tuple[str, str]]:
    """What to sort by, completed so that no two images are equal: a later key goes as all given ones go, else down."""
    directions = {direction for _, direction in query.sort}
    rest = directions.pop() if len(directions) == 1 else "desc"
    order: dict[str, str] = {}
    for key, direction in (*query.sort, ("created_at", rest), ("id", rest)):
        order.setdefault(key, direction)
    return list(order.items())


def _marker(connection: Connection, caller: Caller, marker: str) -> Image:
    """The image that the page before ended with. Its tombstone will do: it may be deleted while a client pages."""
    image = sql.image(connection, marker.lower()) if IMAGE_ID.fullmatch(marker) else None
    if image is not None and image.deleted_at is None:
        project_id = caller.project_id or ""
        image = sql.visible_image(connection, image.id, project_id, is_admin=caller.is_admin)
    elif image is not None and not (caller.is_admin or image.project_id == caller.project_id):
        image = image if image.visibility is Visibility.PUBLIC else None
    if image is None:
        raise BadFilter(f"marker: no image {marker}")
    return image


def _conditions(query: ImageQuery, params: _Params) -> list[str]:
    """What must hold of an image `i`, whatever the source."""
    wanted = [f"i.{THERE}"]
    if query.hidden is not None:
        wanted.append(f"i.hidden = {params.add(query.hidden)}")
    if query.protected is not None:
        wanted.append(f"i.protected = {params.add(query.protected)}")
    for attribute, asked in query.one_of.items():
        column = COLUMN[attribute]
        values = [value for value in asked if (attribute, value) != ("status", "deleted")]
        if len(values) == 1:
            wanted.append(f"{column} = {params.add(values[0])}")
        else:
            wanted.append(f"{column} IN ({params.all(values)})" if values else NOTHING)
    for attribute, number in query.numbers.items():
        column, comparison = _compared(attribute)
        wanted.append(f"i.{column} {comparison} {params.add(number)}")
    for column, time in query.times:
        wanted.append(_timed(f"i.{column}", time, params))
    wanted.extend(_tag(tag, params) for tag in query.tags)
    wanted.extend(tags_sql.has(tag, params.add) for tag in query.tagged)
    wanted.extend(_property(name, value, params) for name, value in query.properties)
    wanted.extend(_defaulted(name, value, params) for name, value in query.defaulted)
    if query.by_members and query.visibility is not None:
        wanted.extend(way for kind, way in BY_MEMBERS.items() if kind == query.visibility)
    return wanted


def _compared(attribute: str) -> tuple[str, str]:
    """The column of a filter by number, and how it is compared."""
    if attribute in SIZES:
        return attribute, "="
    return attribute.removesuffix("_min").removesuffix("_max"), ">=" if attribute.endswith("_min") else "<="


def _tag(tag: str, params: _Params) -> str:
    return f"EXISTS (SELECT 1 FROM image_tags t WHERE t.tag = {params.add(tag)} AND {_of_image('t')})"  # noqa: S608 - as in `listing`


def _of_image(alias: str) -> str:
    """The rest of the key of a row about image `i`, so that it is found by one look into the index."""
    return f"{alias}.project_id = i.project_id AND {alias}.created_at = i.created_at AND {alias}.image_id = i.id"


def _property(name: str, value: str, params: _Params) -> str:
    if name in CONSTANT:
        return "1 = 1" if value == CONSTANT[name] else NOTHING
    if name == "__imagetype":
        return IMAGE_TYPE.get(value, NOTHING)
    if name == "__image_size":
        counted = value.isascii() and value.isdigit() and len(value) < LONGEST_NUMBER
        return f"COALESCE(i.size, 0) = {params.add(int(value))}" if counted else NOTHING
    pair = f"v.name = {params.add(name)} AND v.value = {params.add(sql.indexed(value))}"
    return f"EXISTS (SELECT 1 FROM image_props v WHERE {pair} AND {_of_image('v')})"  # noqa: S608 - as in `listing`


def _defaulted(name: str, value: str, params: _Params) -> str:
    other = f"v.name = {params.add(name)} AND v.value <> {params.add(sql.indexed(value))}"
    return f"NOT EXISTS (SELECT 1 FROM image_props v WHERE {other} AND {_of_image('v')})"  # noqa: S608 - as in `listing`


def _timed(column: str, time: TimeFilter, params: _Params) -> str:
    """Times are shown in seconds and kept in milliseconds: a second is everything from its first to its last."""
    first, after = params.add(time.at), params.add(time.at + SECOND_MS)
    return {
        "gt": f"{column} >= {after}",
        "gte": f"{column} >= {first}",
        "lt": f"{column} < {first}",
        "lte": f"{column} < {after}",
        "eq": f"({column} >= {first} AND {column} < {after})",
        "neq": f"({column} < {first} OR {column} >= {after})",
    }[time.operator]


def _sources(caller: Caller, query: ImageQuery, params: _Params) -> list[tuple[str, list[str]]]:
    """Tables and conditions of each source. No image comes from two of them."""
    me = params.add(caller.project_id or "")
    asked = query.visibility
    if query.offered:
        return _offers(query, me)
    if caller.is_admin:
        return _sources_of_all(query, me, params)
    if asked in (Visibility.PUBLIC, Visibility.COMMUNITY):
        return [("images i", [f"i.visibility = '{asked}'"])]
    others = f"i.project_id <> {me}"
    own = [] if asked in (None, "all") or query.by_members else [f"i.visibility = '{asked}'"]
    sources = [_of_project(query, me, own, params)]
    if asked in (None, "all"):
        sources.append(("images i", ["i.visibility = 'public'", others]))
    if asked == "all":
        sources.append(("images i", ["i.visibility = 'community'", others]))
    if asked in (None, "all", Visibility.SHARED):
        sources += _offers(query, me)
    return sources


def _offers(query: ImageQuery, me: str) -> list[tuple[str, list[str]]]:
    """What others share with the caller: a source for each answer that it may have given."""
    shared = [f"m.member_id = {me}", "i.id = m.image_id", "i.visibility = 'shared'", f"i.project_id <> {me}"]
    answers = list(MemberStatus) if query.member_status == "all" else [query.member_status]
    return [("image_members m CROSS JOIN images i", [f"m.status = '{one}'", *shared]) for one in answers]


def _listed(caller: Caller, query: ImageQuery, params: _Params) -> str:
    """The condition that an image `i` is in one of the sources, for a few images whose source is not known."""
    me = params.add(caller.project_id or "")
    asked = query.visibility
    if caller.is_admin and not query.offered:
        return {None: f"(i.visibility <> 'community' OR i.project_id = {me})", "all": "1 = 1"}.get(
            asked, f"i.visibility IN ({_kinds(query)})"
        )
    member = f"m.member_id = {me} AND m.image_id = i.id"
    if query.member_status != "all":
        member += f" AND m.status = {params.add(query.member_status.value)}"
    shared = f"(i.visibility = 'shared' AND EXISTS (SELECT 1 FROM image_members m WHERE {member}))"  # noqa: S608 - as in `listing`
    if query.offered:
        return f"(i.project_id <> {me} AND {shared})"
    ways = [
        f"i.project_id = {me}",
        "i.visibility = 'public'",
        shared,
    ]
    if asked in ("all", Visibility.COMMUNITY):
        ways.append("i.visibility = 'community'")
    seen = f"({' OR '.join(ways)})"
    return seen if asked in (None, "all") else f"(i.visibility IN ({_kinds(query)}) AND {seen})"


def _kinds(query: ImageQuery) -> str:
    """The visibilities of the images that are asked for by one, as a list of SQL."""
    if query.by_members and query.visibility is Visibility.PRIVATE:
        return "'private', 'shared'"
    return f"'{query.visibility}'"


def _sources_of_all(query: ImageQuery, me: str, params: _Params) -> list[tuple[str, list[str]]]:
    """An admin sees every image; of the community images of others also only what is asked for."""
    asked = query.visibility
    kept = {None: [f"(i.visibility <> 'community' OR i.project_id = {me})"], "all": []}.get(
        asked, [f"i.visibility IN ({_kinds(query)})"]
    )
    owners = query.one_of.get("owner", ())
    if len(owners) == 1:
        return [_of_project(query, params.add(owners[0]), kept, params)]
    stored = [(name, value) for name, value in query.properties if _is_stored(name)]
    if stored or query.tags:
        table, wanted = _first(stored, query.tags, params)
        return [(f"{table} d CROSS JOIN images i", [*wanted, "i.id = d.image_id", *kept])]
    if any(len(query.one_of.get(attribute, ())) == 1 for attribute in ("name", "status")):
        return [("images i", kept)]
    kinds = [kind for kind in Visibility if asked in (None, "all") or f"'{kind}'" in _kinds(query)]
    return [("images i", [f"i.visibility = '{kind.value}'", *kept]) for kind in kinds]


def _of_project(query: ImageQuery, project: str, conditions: list[str], params: _Params) -> tuple[str, list[str]]:
    """The images of a project; by a property or a tag if one is asked for, so that only those that have it are read.

    CROSS JOIN keeps SQLite from turning the order around.
    """
    stored = [(name, value) for name, value in query.properties if _is_stored(name)]
    if not stored and not query.tags:
        return "images i", [f"i.project_id = {project}", *conditions]
    table, wanted = _first(stored, query.tags, params)
    return f"{table} d CROSS JOIN images i", [f"d.project_id = {project}", *wanted, "i.id = d.image_id", *conditions]


def _first(
    properties: Sequence[tuple[str, str]], tags: Sequence[str], params: _Params
) -> tuple[Literal["image_props", "image_tags"], list[str]]:
    """The table to walk for the first of what is asked for, and the conditions on its rows `d`."""
    if properties:
        name, value = properties[0]
        return "image_props", [f"d.name = {params.add(name)}", f"d.value = {params.add(sql.indexed(value))}"]
    return "image_tags", [f"d.tag = {params.add(tags[0])}"]


def _is_stored(name: str) -> bool:
    """Whether a property is one of the image's own, rather than of all images or made of columns."""
    return name not in CONSTANT and name not in ("__imagetype", "__image_size")


def _driven(expression: str, tables: str) -> str:
    """Order by the driving table where it has the column, so that its index is the order."""
    if tables.startswith(("image_props d", "image_tags d")):
        return {"i.created_at": "d.created_at", "i.id": "d.image_id"}.get(expression, expression)
    if tables.startswith("image_members m"):
        return {"i.created_at": "m.image_created_at", "i.id": "m.image_id"}.get(expression, expression)
    return expression


def _after(marker: Image, order: Sequence[tuple[str, str]], params: _Params, tables: str) -> str:
    """The condition that an image comes after the marker in this order."""
    values = [params.add(_key(marker, key)) for key, _ in order]
    expressions = [_driven(SORTED[key], tables) for key, _ in order]
    directions = {direction for _, direction in order}
    if len(directions) == 1:
        sign = ">" if directions == {"asc"} else "<"
        return f"({', '.join(expressions)}) {sign} ({', '.join(values)})"
    steps = []
    for n, (_, direction) in enumerate(order):
        equal = [f"{expressions[m]} = {values[m]}" for m in range(n)]
        steps.append(" AND ".join([*equal, f"{expressions[n]} {'>' if direction == 'asc' else '<'} {values[n]}"]))
    return "(" + " OR ".join(f"({step})" for step in steps) + ")"


def _key(image: Image, key: str) -> object:
    match key:
        case "name" | "container_format" | "disk_format":
            return getattr(image, key) or ""
        case "size":
            return -1 if image.size is None else image.size
        case "status":
            return image.status.value
        case _:
            return getattr(image, key)
