"""Every statement on `cached_images`. `images` is read to tell which entries are of images that are still there."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, text

MOST_ENTRIES: Final = 100_000  # of one node that are told

ADD: Final = text("""
INSERT INTO cached_images (node, image_id, state, size, queued_at, cached_at)
VALUES (:node, :image_id, :state, :size, :now, :cached_at)
ON CONFLICT (node, image_id) DO NOTHING
""")
_ALIVE: Final = "i.id = c.image_id AND i.status IN ('active', 'deactivated')"
ENTRIES: Final = text(f"""
SELECT c.image_id, c.state, c.size, c.hits, c.queued_at, c.cached_at, c.read_at, i.checksum,
       i.stores = '[]' AS elsewhere
  FROM cached_images c JOIN images i ON {_ALIVE}
 WHERE c.node = :node ORDER BY c.queued_at, c.image_id LIMIT {MOST_ENTRIES}
""")  # noqa: S608 - constants
NODES: Final = text(f"""
SELECT c.node FROM cached_images c JOIN images i ON {_ALIVE}
 WHERE c.image_id = :image_id AND c.state = 'cached' ORDER BY c.node
""")  # noqa: S608 - constants
FILLED: Final = text("""
UPDATE cached_images SET state = 'cached', size = :size, cached_at = :now
 WHERE node = :node AND image_id = :image_id AND state = 'queued'
""")
# Its file is lost: it is fetched again.
REQUEUE: Final = text("""
UPDATE cached_images SET state = 'queued', cached_at = NULL WHERE node = :node AND image_id = :image_id
""")
COUNT: Final = text("""
UPDATE cached_images SET hits = hits + :hits, read_at = :now
 WHERE node = :node AND image_id = :image_id AND state = 'cached'
""")
REMOVE: Final = text("DELETE FROM cached_images WHERE node = :node AND image_id = :image_id")
CLEAR: Final = text("DELETE FROM cached_images WHERE node = :node AND state = :state")
# Entries of images that are no more.
FORGET: Final = text("""
DELETE FROM cached_images WHERE node = :node
   AND NOT EXISTS (SELECT 1 FROM images i WHERE i.id = image_id AND i.status IN ('active', 'deactivated'))
""")


class Entry(Struct, frozen=True, kw_only=True):
    """Times in ms."""

    image_id: str
    cached: bool  # else it waits for being fetched
    size: int  # bytes
    hits: int
    queued_at: int
    cached_at: int | None
    read_at: int | None
    checksum: str | None  # of the image
    elsewhere: bool  # whether no store of the service holds the image


def entries(c: Connection, node: str) -> list[Entry]:
    """The oldest first; not those of images that were deleted."""
    return [
        Entry(
            image_id=row.image_id,
            cached=row.state == "cached",
            size=row.size,
            hits=row.hits,
            queued_at=row.queued_at,
            cached_at=row.cached_at,
            read_at=row.read_at,
            checksum=row.checksum,
            elsewhere=bool(row.elsewhere),
        )
        for row in c.execute(ENTRIES, {"node": node})
    ]


def nodes(c: Connection, image_id: str) -> list[str]:
    return [row.node for row in c.execute(NODES, {"image_id": image_id})]


def add(c: Connection, node: str, image_id: str, *, size: int, cached: bool, now: int) -> None:
    """An entry that is there stays as it is."""
    state, at = ("cached", now) if cached else ("queued", None)
    c.execute(ADD, {"node": node, "image_id": image_id, "state": state, "size": size, "now": now, "cached_at": at})


def filled(c: Connection, node: str, image_id: str, *, size: int, now: int) -> bool:
    """Return whether the entry is still wanted."""
    return c.execute(FILLED, {"node": node, "image_id": image_id, "size": size, "now": now}).rowcount > 0


def count(c: Connection, node: str, hits: Mapping[str, int], now: int) -> None:
    for image_id, n in hits.items():
        c.execute(COUNT, {"node": node, "image_id": image_id, "hits": n, "now": now})


def requeue(c: Connection, node: str, image_id: str) -> None:
    c.execute(REQUEUE, {"node": node, "image_id": image_id})


def remove(c: Connection, node: str, image_id: str) -> bool:
    """Return whether there was an entry."""
    return c.execute(REMOVE, {"node": node, "image_id": image_id}).rowcount > 0


def clear(c: Connection, node: str, *, cached: bool) -> None:
    c.execute(CLEAR, {"node": node, "state": "cached" if cached else "queued"})


def forget(c: Connection, node: str) -> int:
    return c.execute(FORGET, {"node": node}).rowcount
