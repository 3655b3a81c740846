"""What an import tells about itself on its image: properties that upstream's clients read and wait for.

`os_glance_import_task` names the task while it runs. `os_glance_importing_to_stores` and `os_glance_failed_import` list
stores, with commas; both stay, empty or not, when it has ended. Each function is a step inside a caller's transaction
and does nothing to an image that another task has marked since, or that was deleted.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace
from sqlalchemy import Connection

from calotype.images import sql
from calotype.images.model import Image, ImageStatus

TASK: Final = "os_glance_import_task"
IMPORTING: Final = "os_glance_importing_to_stores"
FAILED: Final = "os_glance_failed_import"
ALL: Final = frozenset({TASK, IMPORTING, FAILED})


def begin_in(connection: Connection, image_id: str, task: str, stores: Iterable[str], now: int) -> None:
    """`task` is to bring the image to `stores`."""
    image = sql.locked_image(connection, image_id)
    if image is not None:
        marks = {TASK: task, IMPORTING: ",".join(stores), FAILED: ""}
        _write(connection, image, {**image.properties, **marks}, image.stores, now)


def stored_in(connection: Connection, image_id: str, task: str, store: str, stores: tuple[str, ...], now: int) -> bool:
    """`store` holds an active image now as well; `stores` are all that do, heaviest first. False: nothing was done."""
    image = _marked(connection, image_id, task)
    if image is None:
        return False
    remaining = [name for name in _listed(image, IMPORTING) if name != store]
    _write(connection, image, {**image.properties, IMPORTING: ",".join(remaining)}, stores, now)
    return True


def failed_in(connection: Connection, image_id: str, task: str, store: str, now: int) -> None:
    """The image could not be brought to `store`."""
    image = _marked(connection, image_id, task)
    if image is not None:
        remaining = [name for name in _listed(image, IMPORTING) if name != store]
        failed = [*(name for name in _listed(image, FAILED) if name != store), store]
        marks = {IMPORTING: ",".join(remaining), FAILED: ",".join(failed)}
        _write(connection, image, {**image.properties, **marks}, image.stores, now)


def end_in(connection: Connection, image_id: str, task: str, failed: Iterable[str], now: int) -> None:
    """The task has ended; `failed` are the stores that it could not bring the image to."""
    image = _marked(connection, image_id, task)
    if image is not None:
        left = {name: value for name, value in image.properties.items() if name != TASK}
        _write(connection, image, {**left, IMPORTING: "", FAILED: ",".join(failed)}, image.stores, now)


def break_in(connection: Connection, image_id: str, task: str, now: int) -> None:
    """The task has failed: whichever stores it had still to serve are told as failed."""
    image = _marked(connection, image_id, task)
    if image is not None:
        end_in(connection, image_id, task, [*_listed(image, FAILED), *_listed(image, IMPORTING)], now)


def _marked(connection: Connection, image_id: str, task: str) -> Image | None:
    image = sql.locked_image(connection, image_id)
    if image is None or image.status is ImageStatus.DELETED or image.properties.get(TASK) != task:
        return None
    return image


def _listed(image: Image, mark: str) -> list[str]:
    return [name for name in image.properties.get(mark, "").split(",") if name]


def _write(
    connection: Connection, image: Image, properties: Mapping[str, str], stores: tuple[str, ...], now: int
) -> None:
    after = replace(image, properties=properties, stores=stores)
    sql.run(
        connection,
        sql.PLACE,
        id=image.id,
        version=image.version,
        stores=sql.encoded(after.stores),
        locations=sql.encoded(after.locations),
        properties=sql.encoded(after.properties),
        now=now,
    )
    if after.properties != image.properties:
        sql.rewrite_properties(connection, after)
