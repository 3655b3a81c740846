"""Whatever is called in whatever order: the usage is what the images hold, bytes stay while an image has them, and the
bytes of an active image are never exchanged."""

import random
import uuid
from pathlib import Path

import pytest
from sqlalchemy import text

from calotype.errors import CalotypeError
from calotype.images.model import Image, ImageStatus
from tests.contract.catalogue import OTHER, OWNER, Catalogue, blob_of, caller, opened

PROJECTS = (OWNER, OTHER)
CONTENTS = ("one", "two", "three")


class Walk:
    """Random calls, with the knowledge of what must not change."""

    def __init__(self, catalogue: Catalogue, seed: int) -> None:
        self.catalogue = catalogue
        self.images = catalogue.images
        self.dice = random.Random(seed)
        self.known: list[str] = []
        self.uploads = [f"{kind}{uuid.UUID(int=n).hex}" for n, kind in enumerate("uuj")]
        self.digests: dict[str, str] = {}  # of images that were active once

    def step(self, now: int) -> None:
        call = self.dice.choice([self._create, self._begin, self._reserve, self._activate, self._activate,
                                 self._abandon, self._copy, self._delete])  # fmt: skip
        try:
            call(now)
        except CalotypeError:
            return  # refused: the invariants must hold all the same

    def _any(self) -> str:
        return self.dice.choice(self.known[-4:])

    def _create(self, now: int) -> None:
        self.known.append(self.catalogue.queued(self.dice.choice(PROJECTS), now=now).id)

    def _begin(self, now: int) -> None:
        upload, reserve = self.dice.choice(self.uploads), self.dice.randrange(60)
        image_id = self._any()
        self.catalogue.write(lambda c: self.images.begin_bytes_in(c, image_id, upload, reserve=reserve, now=now))

    def _reserve(self, now: int) -> None:
        upload, total = self.dice.choice(self.uploads), self.dice.randrange(120)
        image_id = self._any()
        self.catalogue.write(lambda c: self.images.reserve_in(c, image_id, upload, total, now))

    def _activate(self, now: int) -> None:
        image = self.catalogue.read(lambda c: self.images.by_id_in(c, self._any()))
        if image is not None:
            blob = blob_of(self.dice.choice(CONTENTS), self.dice.choice([20, 40]))
            guess = self.dice.choice(self.uploads)
            upload = image.upload_id if image.upload_id and self.dice.random() < 0.7 else guess
            self.catalogue.activate(image, upload, blob, now=now)

    def _abandon(self, now: int) -> None:
        upload, image_id = self.dice.choice(self.uploads), self._any()
        deleted = self.dice.random() < 0.3
        self.catalogue.write(
            lambda c: self.images.abandon_in(c, image_id, upload, to="deleted" if deleted else "queued", now=now)
        )

    def _copy(self, now: int) -> None:
        source = self.catalogue.read(lambda c: self.images.by_id_in(c, self._any()))
        image_id = self._any()
        if source is not None:
            self.catalogue.write(lambda c: self.images.adopt_blob_in(c, image_id, source, now))

    def _delete(self, now: int) -> None:
        image_id = self._any()
        self.catalogue.write(lambda c: self.images.delete_in(c, caller(self.dice.choice(PROJECTS)), image_id, now))

    def check(self) -> None:
        alive = [image for image in map(self._found, self.known) if image is not None]
        for project in PROJECTS:
            mine = [image for image in alive if image.project_id == project]
            held = sum((image.size or 0) + image.reserved_bytes for image in mine)
            assert self.catalogue.usage(project) == (len(mine), held)
            assert held <= self.images.limits.stored_bytes_per_project
        blobs = set(self.catalogue.read(lambda c: c.execute(text("SELECT id FROM blobs")).scalars().all()))
        assert blobs == {image.blob_id for image in alive if image.blob_id}
        for image in alive:
            assert (image.status is ImageStatus.ACTIVE) == (image.blob_id is not None)
            assert (image.status is ImageStatus.SAVING) == (image.upload_id is not None)
            if image.hash_value is not None:
                assert self.digests.setdefault(image.id, image.hash_value) == image.hash_value

    def _found(self, image_id: str) -> Image | None:
        return self.catalogue.read(lambda c: self.images.by_id_in(c, image_id))


@pytest.mark.parametrize("seed", range(3))
def test_what_must_always_hold_holds_after_every_call(tmp_path: Path, seed: int) -> None:
    with opened("sqlite", tmp_path, count_per_project=6, stored_bytes_per_project=300) as catalogue:
        walk = Walk(catalogue, seed)
        walk._create(1)

        for now in range(2, 150):
            walk.step(now)
            walk.check()

        assert len(walk.digests) >= 2  # the walk came by what it is about
