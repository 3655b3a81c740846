"""Statements that look for tags by their keys, and the conditions that they and the list query are made of.

`image_tags` is `images.sql`'s to write; it is only read here. A tag compares by its bytes, on PostgreSQL by the
collation of the column: so a key is a range of the index.
"""

from collections.abc import Callable

from calotype.images.model import TagFilter

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
