"""Accepting interoperable imports: everything that can be known at once is checked, then the job is written.

What the jobs then do is in `interoperable.py` and `replicate.py`.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection

from calotype.blobs.stores import Stores
from calotype.db.engine import now_ms
from calotype.errors import Forbidden, ImportRefused, MalformedBody, StoreNotFound, StoreReadOnly, WrongStatus
from calotype.fetch.fetcher import Fetcher
from calotype.identity.model import Caller
from calotype.identity.permissions import require
from calotype.images import marks
from calotype.images.model import Image, ImageCreate, ImageStatus, Visibility
from calotype.images.service import PUBLISH, Images
from calotype.jobs.model import JobId, JobType
from calotype.jobs.run import upload_id_of
from calotype.jobs.service import Jobs
from calotype.jobs.tasks import task_id
from calotype.settings import Settings

STAGED, URL, COPY, OTHER = "glance-direct", "web-download", "copy-image", "glance-download"
# The state that an image must be in for a method, and what to say when it is not.
WANTED: Final[Mapping[str, tuple[ImageStatus, str]]] = {
    STAGED: (ImageStatus.UPLOADING, "its data needs to be staged before the glance-direct method can be used"),
    URL: (ImageStatus.QUEUED, "it needs to be in 'queued' state to use the web-download method"),
    OTHER: (ImageStatus.QUEUED, "it needs to be in 'queued' state to use the glance-download method"),
    COPY: (ImageStatus.ACTIVE, "only images with status active can be copied to other stores"),
}


class ImportRequest(Struct, frozen=True, kw_only=True):
    """What was asked for, of the right form. `stores` None and not `all_stores`: the default store."""

    method: Mapping[str, str]  # name, and uri or glance_image_id, glance_region, glance_service_interface
    stores: tuple[str, ...] | None = None
    all_stores: bool = False
    all_stores_must_succeed: bool = True

    @property
    def name(self) -> str:
        return self.method["name"]

    def document(self) -> dict[str, Any]:
        """As it is kept with the job and shown with its task."""
        told: dict[str, Any] = {"method": dict(self.method)}
        if self.stores is not None:
            told["stores"] = list(self.stores)
        return told | {"all_stores": self.all_stores, "all_stores_must_succeed": self.all_stores_must_succeed}


class Imports:
    def __init__(self, *, settings: Settings, images: Images, jobs: Jobs, stores: Stores, fetcher: Fetcher) -> None:
        self.settings = settings
        self.images = images
        self.jobs = jobs
        self.stores = stores
        self.fetcher = fetcher

    @property
    def methods(self) -> tuple[str, ...]:
        return self.settings.imagev2.import_methods

    async def submit(self, caller: Caller, image_id: str, wanted: ImportRequest, *, request_id: str) -> JobId | None:
        """Accept an import, or raise the first reason against it; None when there is nothing to do.

        The image is `importing` on return, except for copy-image. Raises `ImageNotFound`, `NotImageOwner`,
        `WrongStatus`, `ImportRefused`, `ImageInUse`, `MalformedBody`, `FetchRefused`, `StorageQuotaExceeded`,
        `TooManyJobs`.
        """
        return await self.images.db.write(lambda c: self._submit_in(c, caller, image_id, wanted, request_id))

    def _submit_in(
        self, c: Connection, caller: Caller, image_id: str, wanted: ImportRequest, request_id: str
    ) -> JobId | None:
        image = self.images.owned_in(c, caller, image_id)
        self._check_state(image, wanted.name)
        self.jobs.refuse_second_in(c, image.id)
        stores = self._stores(image, wanted)
        if not stores:
            return None
        if wanted.name == URL:
            self.fetcher.check(wanted.method["uri"])
        request: dict[str, Any] = {"import_req": wanted.document(), "backend": list(stores), "request_id": request_id}
        if wanted.name == COPY:
            job_id = self._write_in(c, caller, JobType.REPLICATE, image, request)
        else:
            staged = image.staged
            request |= {"inject": self._injected(caller), "staged": staged.token if staged else None}
            job_id = self._write_in(c, caller, JobType.INTEROPERABLE, image, request)
            size = staged.digests.size if staged else 0
            self.images.begin_import_in(c, image.id, upload_id_of(job_id), reserve=size, now=now_ms())
        marks.begin_in(c, image.id, task_id(job_id), stores, now_ms())
        return job_id

    def _check_state(self, image: Image, method: str) -> None:
        status, otherwise = WANTED[method]
        if image.status is not status or image.is_staging:
            raise WrongStatus(now=image.status, wanted=otherwise)
        for attribute in ("container_format", "disk_format"):
            if not getattr(image, attribute):
                raise ImportRefused(f"'{attribute}' needs to be set before import")
        if method == COPY and not image.stores:
            raise ImportRefused("its bytes lie at a URL and in no store; there is nothing to copy from")

    def _stores(self, image: Image, wanted: ImportRequest) -> tuple[str, ...]:
        if wanted.all_stores:
            present = image.stores if wanted.name == COPY else ()
            return tuple(name for name in self.stores.writable if name not in present)
        named = dict.fromkeys(wanted.stores if wanted.stores is not None else (self.stores.default,))
        for name in named:
            try:
                self.stores.check_writable(name)
            except (StoreNotFound, StoreReadOnly) as error:
                raise ImportRefused(error.message) from error
            if wanted.name == COPY and name in image.stores:
                raise MalformedBody(f"the image is already present at store '{name}'")
        return tuple(named)

    def _injected(self, caller: Caller) -> dict[str, str]:
        if caller.roles & set(self.settings.imagev2.inject_ignored_roles):
            return {}
        return dict(self.settings.imagev2.inject)

    def _write_in(
        self, c: Connection, caller: Caller, kind: JobType, image: Image, request: Mapping[str, Any]
    ) -> JobId:
        entities = {"image_name": image.name or "", "image_id": image.id}
        return self.jobs.submit_in(c, caller, kind, request=request, entities=entities, image_id=image.id)

    async def submit_task(
        self, caller: Caller, spec: ImageCreate, *, url: str, task_input: Mapping[str, Any], request_id: str
    ) -> JobId:
        """Make an image and import it from `url`. If that fails the image goes as well.

        Raises `FetchRefused`, `Forbidden`, `TooManyJobs`, `ImageQuotaExceeded`, and what makes an image impossible.
        """
        self.fetcher.check(url)
        if not (spec.disk_format and spec.container_format):
            raise MalformedBody("image_properties: wants disk_format and container_format")
        if spec.visibility is Visibility.PUBLIC:
            require(caller, PUBLISH)
        if caller.project_id is None:
            raise Forbidden("a task wants a token that is scoped to a project")
        wanted = ImportRequest(method={"name": URL, "uri": url})
        request = {
            "input": dict(task_input),
            "import_req": wanted.document(),
            "backend": [self.stores.default],
            "request_id": request_id,
            "inject": self._injected(caller),
        }

        def work(c: Connection) -> JobId:
            now = now_ms()
            image = self.images.create_in(c, project_id=str(caller.project_id), spec=spec, now=now)
            job_id = self._write_in(c, caller, JobType.TASK, image, request)
            self.images.begin_import_in(c, image.id, upload_id_of(job_id), reserve=0, now=now)
            marks.begin_in(c, image.id, task_id(job_id), request["backend"], now)
            return job_id

        return await self.images.db.write(work)
