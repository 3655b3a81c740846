"""Statements that look for tags by their keys, and the conditions that they and the list query are made of.

`image_tags` is `images.sql`'s to write; it is only read here. A tag compares by its bytes, on PostgreSQL by the
collation of the column: so a key is a range of the index.
"""

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection, text

from calotype.images import sql
from calotype.images.model import Image, TagFilter
from calotype.images.tagging import TagQuery

MOST_TAGS: Final = 100_000  # distinct ones of a project that are told

OF_PROJECT: Final = text("SELECT DISTINCT tag FROM image_tags WHERE project_id = :project_id ORDER BY tag LIMIT :most")

Add = Callable[[object], str]  # a value of the statement; returns the name that stands for it


def is_one(wanted: TagFilter, add: Add, column: str) -> str:
    """The condition that the tag in `column` is one that is wanted."""
    ways = []
    if len(wanted.strings) == 1:
        ways.append(f"{column} = {add(wanted.strings[0])}")
    elif wanted.strings:
        ways.append(f"{column} IN ({', '.join(add(text) for text in wanted.strings)})")
    if wanted.key is not None:
        ways.append(f"({column} >= {add(wanted.key + '=')} AND {column} < {add(wanted.key + '>')})")
        if "." not in wanted.key:  # else the key would end at that dot
            dotted = f"{column} >= {add(wanted.key + '.')} AND {column} < {add(wanted.key + '/')}"
            ways.append(f"({dotted} AND replace({column}, '=', '') = {column})")
    return f"({' OR '.join(ways)})" if ways else "1 = 0"


def has(wanted: TagFilter, add: Add) -> str:
    """The condition that an image `i` has a tag that is wanted."""
    mine = "t.project_id = i.project_id AND t.created_at = i.created_at AND t.image_id = i.id"
    return f"EXISTS (SELECT 1 FROM image_tags t WHERE {is_one(wanted, add, 't.tag')} AND {mine})"  # noqa: S608 - names are constants, values parameters


def of_project(connection: Connection, project_id: str) -> Sequence[str]:
    return connection.execute(OF_PROJECT, {"project_id": project_id, "most": MOST_TAGS}).scalars().all()


def count(connection: Connection, project_id: str, query: TagQuery) -> int:
    wanted, values = _wanted(project_id, query)
    statement = f"SELECT count(*) FROM images i WHERE {wanted}"  # noqa: S608 - names are constants, values parameters
    return int(connection.execute(text(statement), values).scalar_one())


def find(connection: Connection, project_id: str, query: TagQuery, *, limit: int, offset: int) -> tuple[Image, ...]:
    """The newest first."""
    wanted, values = _wanted(project_id, query)
    statement = (
        f"SELECT {sql.COLUMNS} FROM images i WHERE {wanted}"  # noqa: S608 - names are constants, values parameters
        " ORDER BY i.created_at DESC, i.id DESC LIMIT :most OFFSET :offset"
    )
    rows = connection.execute(text(statement), {**values, "most": limit, "offset": offset})
    return tuple(sql.to_image(row) for row in rows)


def _wanted(project_id: str, query: TagQuery) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {}

    def add(value: object) -> str:
        name = f"q{len(values)}"
        values[name] = value
        return f":{name}"

    wanted = [f"i.project_id = {add(project_id)}", "i.status <> 'deleted'", f"i.hidden = {add(False)}"]
    if query.untagged:
        wanted.append("i.tags = '[]'")
    else:
        wanted.extend(has(tag, add) for tag in query.all_of)
        for some, joined in ((query.any_of, "({})"), (query.none_of, "NOT ({})")):
            if some:
                wanted.append(joined.format(" OR ".join(has(tag, add) for tag in some)))
        if query.not_all_of:
            wanted.append(f"NOT ({' AND '.join(has(tag, add) for tag in query.not_all_of)})")
    if query.image_id is not None:
        wanted.append(f"i.id = {add(query.image_id)}")
    if query.name is not None:
        name = "COALESCE(i.name, '')"
        wanted.append(f"replace({name}, {add(query.name)}, '') <> {name}" if query.name else f"{name} = ''")
    return " AND ".join(wanted), values
