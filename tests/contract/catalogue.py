"""A catalogue over a database and a blob folder of its own, for the contract tests of `calotype.images`."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, create_engine, text

from calotype.blobs.model import Blob, BlobId, Digests
from calotype.blobs.stores import Stores
from calotype.db.engine import Database, open_engine
from calotype.db.schema import METADATA
from calotype.identity.model import Caller, ProjectId, UserId
from calotype.images.model import Image, ImageCreate
from calotype.images.service import Images
from calotype.settings import ImageSettings, Settings

T = TypeVar("T")
OWNER, OTHER, THIRD = ("a" * 32, "b" * 32, "c" * 32)
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.services)]


def caller(project_id: str = OWNER, *roles: str) -> Caller:
    return Caller(
        user_id=UserId("e" * 32),
        user_name="someone",
        user_domain_id="default",
        project_id=ProjectId(project_id),
        roles=frozenset(roles or ("member",)),
        audit_id="audit",
        issued_at=0,
        expires_at=2**50,
    )


ADMIN = caller("f" * 32, "admin")


class Catalogue:
    """`Images` and the shortest way to states that tests begin with. Times are numbers that the test chooses."""

    def __init__(self, images: Images, db: Database, blobs: Stores) -> None:
        self.images = images
        self.db = db
        self.blobs = blobs

    def write(self, work: Callable[[Connection], T]) -> T:
        with self.db.writing() as c:
            return work(c)

    def read(self, work: Callable[[Connection], T]) -> T:
        with self.db.reading() as c:
            return work(c)

    def queued(self, project_id: str = OWNER, *, now: int = 1000, **spec: Any) -> Image:
        given = ImageCreate(**{"disk_format": "raw", "container_format": "bare", **spec})
        return self.write(lambda c: self.images.create_in(c, project_id=project_id, spec=given, now=now))

    def active(self, project_id: str = OWNER, *, content: str = "content", size: int = 5, **spec: Any) -> Image:
        """An image with a blob row; no file is behind it."""
        image = self.queued(project_id, **spec)
        upload = f"u{uuid.uuid4().hex}"
        self.write(lambda c: self.images.begin_bytes_in(c, image.id, upload, reserve=size, now=1000))
        self.activate(image, upload, blob_of(content, size))
        return self.image(image.id)

    def activate(self, image: Image, upload_id: str, blob: Blob, **given: Any) -> BlobId:
        arguments = {"disk_format": "raw", "virtual_size": blob.digests.size, "properties": {}, "now": 1000, **given}
        return self.write(lambda c: self.images.activate_in(c, image.id, upload_id, blob, **arguments))

    def image(self, image_id: str) -> Image:
        found = self.read(lambda c: self.images.by_id_in(c, image_id))
        assert found is not None
        return found

    def usage(self, project_id: str = OWNER) -> tuple[int, int]:
        row = self.read(
            lambda c: c.execute(
                text("SELECT images, bytes FROM image_usage WHERE project_id = :p"), {"p": project_id}
            ).one_or_none()
        )
        return (0, 0) if row is None else (row.images, row.bytes)

    def count(self, table: str, where: str = "1 = 1") -> int:
        statement = text(f"SELECT count(*) FROM {table} WHERE {where}")  # noqa: S608 - the tests' own words
        return int(self.read(lambda c: c.execute(statement).scalar_one()))


def blob_of(content: str, size: int = 5) -> Blob:
    """A blob whose digests are those of `content`, as far as the catalogue can tell."""
    padded = content.encode().hex().ljust(32, "0")[:32]
    digests = Digests(size=size, md5=padded, hash_algorithm="sha512", hash_value=padded * 4)
    return Blob(id=BlobId(uuid.uuid4().hex), digests=digests)


@contextmanager
def opened(kind: str, folder: Path, **limits: Any) -> Iterator[Catalogue]:
    with _settings(kind, folder, ImageSettings(**limits)) as settings:
        db = Database(open_engine(settings))
        try:
            METADATA.create_all(db.engine)
            blobs = Stores(settings)
            yield Catalogue(Images(db, blobs, settings), db, blobs)
        finally:
            db.close()


@contextmanager
def _settings(kind: str, folder: Path, limits: ImageSettings) -> Iterator[Settings]:
    if kind == "sqlite":
        yield Settings(data_dir=str(folder), image=limits)
        return
    url = os.environ.get("TEST_POSTGRESQL_URL") or pytest.skip("wants a PostgreSQL server: make test-services")
    name = f"images_{uuid.uuid4().hex}"
    server = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), isolation_level="AUTOCOMMIT")
    with server.connect() as c:
        c.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield Settings(data_dir=str(folder), image=limits, database=f"{url.rpartition('/')[0]}/{name}")
    finally:
        with server.connect() as c:
            c.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()
