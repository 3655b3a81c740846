"""`make bench-lists`: lists of 25 from a thousand images and from a million, over HTTP. Prints, asserts nothing.

The images are written into the database of a running service (SQLite) in bulk: a twentieth are the caller's own, one in
a hundred is public, one in two hundred shared with the caller, all others are private images of a thousand projects.
"""

import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from msgspec.json import encode
from tests.service import Client, Service

from calotype.db.engine import sqlite_file
from calotype.settings import Settings

FEW: Final = 1000
MANY: Final = 1_000_000
AT_ONCE: Final = 20_000
LAPS: Final = 41
BEGAN: Final = 1_700_000_000_000  # ms; images are a second apart
RARE: Final = "one-of-a-kind"

IMAGE: Final = """
INSERT INTO images (id, project_id, name, status, visibility, disk_format, container_format, properties, tags,
                    created_at, updated_at) VALUES (?, ?, ?, 'queued', ?, 'qcow2', 'bare', ?, ?, ?, ?)
"""
PROPERTY: Final = "INSERT INTO image_props (project_id, name, value, created_at, image_id) VALUES (?, ?, ?, ?, ?)"
TAG: Final = "INSERT INTO image_tags (project_id, tag, created_at, image_id) VALUES (?, ?, ?, ?)"
MEMBER: Final = """
INSERT INTO image_members (member_id, image_id, status, created_at, updated_at, image_created_at)
VALUES (?, ?, 'accepted', ?, ?, ?)
"""
# What is asked for: as a user whose own images are among them, and as an admin, who sees all.
LISTS: Final = {
    "the newest": "",
    "from the middle on": "marker={middle}",
    "all of one visibility": "visibility=public",
    "shared with me": "visibility=shared",
    "by a common name": "name=web-7",
    "by a rare name": f"name={RARE}",
    "by a name that is not there": "name=nothing",
    "by a common tag": "tag=common",
    "by a rare tag": f"tag={RARE}",
    "by a common property": "os_distro=debian",
    "by a rare property": f"serial={RARE}",
    "by a property and a tag": "os_distro=debian&tag=common",
    "by a status": "status=queued",
}


def rows(count: int, me: str) -> Iterator[tuple[str, str, str, str, dict[str, str], list[str], int]]:
    dice = random.Random(11)
    others = [f"{number:032x}" for number in range(1000)]
    for number in range(count):
        kind = number % 200
        project = me if kind < 10 else others[number % 1000]
        visibility = {10: "public", 11: "public", 12: "shared"}.get(kind, "private")
        rare = number in (5, count // 2 + 10, count - 190)  # one is the caller's, one everyone's, one another's
        properties = {"os_distro": dice.choice(["debian", "alpine", "rocky"]), "serial": RARE if rare else str(number)}
        tags = (["common"] if number % 10 < 2 else [f"t{number % 997}"]) + ([RARE] if rare else [])
        name = RARE if rare else f"web-{number % 50}"
        image_id = f"{number:08x}-0000-4000-8000-{dice.getrandbits(48):012x}"
        yield image_id, project, name, visibility, properties, tags, BEGAN + number * 1000


def fill(settings: Settings, count: int, me: str) -> str:
    """Write the images; the id of the one in the middle of the caller's."""
    middle = ""
    with sqlite3.connect(sqlite_file(settings), timeout=60, isolation_level=None) as connection:
        connection.execute("PRAGMA cache_size = -400000")  # KiB
        connection.execute("PRAGMA synchronous = OFF")
        made = list[tuple[str, str, str, str, dict[str, str], list[str], int]]()
        for image in rows(count, me):
            made.append(image)
            if image[1] == me and image[6] <= BEGAN + count * 500:
                middle = image[0]
            if len(made) == AT_ONCE:
                _write(connection, made, me)
                made.clear()
        _write(connection, made, me)
    connection.close()
    return middle


def _write(connection: sqlite3.Connection, images: list[Any], me: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(IMAGE, [(i, p, n, v, encode(k).decode(), encode(t).decode(), at, at)
                                   for i, p, n, v, k, t, at in images])  # fmt: skip
    connection.executemany(PROPERTY, [(p, key, value, at, i) for i, p, _, _, k, _, at in images
                                      for key, value in k.items()])  # fmt: skip
    connection.executemany(TAG, [(p, tag, at, i) for i, p, _, _, _, t, at in images for tag in t])
    connection.executemany(MEMBER, [(me, i, at, at, at) for i, _, _, v, _, _, at in images if v == "shared"])
    connection.execute("COMMIT")


def measured(client: Client, query: str) -> float:
    """The median of a list, in ms."""
    laps = []
    for _ in range(LAPS):
        began = time.perf_counter()
        answer = client.http.get(f"/v2/images?limit=25&{query}")
        laps.append(time.perf_counter() - began)
        assert answer.status_code == 200, answer.text
    return statistics.median(laps) * 1000


def run(count: int, folder: Path) -> dict[str, tuple[float, float]]:
    service = Service(folder).start("--no-worker")
    try:
        with service.demo() as demo, service.admin() as admin:
            began = time.perf_counter()
            middle = fill(Settings(data_dir=str(service.data_dir)), count, demo.project_id)
            print(f"{count} images written in {time.perf_counter() - began:.0f} s", file=sys.stderr)
            found = {}
            for name, query in LISTS.items():
                asked = query.format(middle=middle)
                found[name] = (measured(demo, asked), measured(admin, asked))
            return found
    finally:
        service.stop()


def main() -> None:
    counts = [int(argument) for argument in sys.argv[1:]] or [FEW, MANY]
    with tempfile.TemporaryDirectory(prefix="calotype-bench-") as temporary:
        results = [run(count, Path(temporary) / str(count)) for count in counts]
    print(
        "median of a list of 25 in ms, as a user / as an admin: "
        + ", ".join(f"of {count:,} images" for count in counts)
    )
    for name in LISTS:
        told = ["{:6.1f} /{:6.1f}".format(*result[name]) for result in results]
        print(f"  {name:28}" + "   ".join(told))


if __name__ == "__main__":
    main()
