"""The composition root: settings in, a running application out. The only place that knows every class.

`api` is what an API process has, `worker` what a worker process has; both are the same services over one database.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import structlog
from msgspec import Struct

from calotype.backups.service import Backups
from calotype.blobs.budget import BufferBudget
from calotype.blobs.stores import Stores
from calotype.buckets.service import Buckets
from calotype.cache.service import Cache
from calotype.db.engine import Database, open_engine
from calotype.db.fast import FastReads, fast_reads
from calotype.disks.convert import Converter
from calotype.disks.sandbox import Sandbox
from calotype.fetch.fetcher import Fetcher
from calotype.identity.service import Identity
from calotype.images.downloads import Downloads
from calotype.images.locations import Locations
from calotype.images.service import Images
from calotype.jobs.engine import Enqueuer
from calotype.jobs.kinds.capture import Capture
from calotype.jobs.kinds.copy_image import CopyImage
from calotype.jobs.kinds.cross_region import CrossRegionCopy
from calotype.jobs.kinds.export import Export
from calotype.jobs.kinds.import_ova import ImportDisk, ImportOva
from calotype.jobs.kinds.imports import Imports
from calotype.jobs.kinds.ingest_file import IngestFile
from calotype.jobs.kinds.interoperable import Interoperable
from calotype.jobs.kinds.locate import Locate
from calotype.jobs.kinds.members import ChangeMembers
from calotype.jobs.kinds.parts import Parts
from calotype.jobs.kinds.remote_image import RemoteImages, trusted_endpoints
from calotype.jobs.kinds.replicate import Replicate
from calotype.jobs.kinds.undo import undo_table
from calotype.jobs.kinds.whole_accepting import Whole
from calotype.jobs.kinds.whole_server import WholeServer
from calotype.jobs.model import SHARING, WHOLE, JobType
from calotype.jobs.performer import Observer, Performer
from calotype.jobs.reaper import Reaper
from calotype.jobs.run import Kind
from calotype.jobs.scratch import ScratchSpace
from calotype.jobs.service import Jobs
from calotype.jobs.worker import run_worker, slot
from calotype.metadefs.service import Metadefs
from calotype.regions.client import Regions
from calotype.servers.opening import source_of
from calotype.servers.source import ServerSource
from calotype.settings import Settings

log = structlog.get_logger()


class App(Struct, frozen=True, kw_only=True):
    """What the handlers of an API process work with."""

    settings: Settings
    db: Database
    fast: FastReads
    identity: Identity
    blobs: Stores
    budget: BufferBudget
    buckets: Buckets
    images: Images
    downloads: Downloads
    locations: Locations
    cache: Cache
    fetcher: Fetcher
    jobs: Jobs
    imports: Imports
    metadefs: Metadefs
    servers: ServerSource
    backups: Backups
    whole: Whole


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[App]:
    async with contextlib.AsyncExitStack() as opened:
        db = Database(open_engine(settings))
        opened.callback(db.close)
        fast = await opened.enter_async_context(fast_reads(settings))
        identity = await Identity.open(db, settings)
        opened.callback(identity.close)
        fresh = asyncio.create_task(identity.keep_fresh(), name="revocations")
        opened.push_async_callback(_ended, fresh)
        blobs = Stores(settings)
        images = Images(db, blobs, settings)
        downloads = Downloads(db, settings.image.recheck_s)
        checking = asyncio.create_task(downloads.keep_checking(), name="downloads")
        opened.push_async_callback(_ended, checking)
        buckets = Buckets(db, settings)
        opened.callback(buckets.close)
        enqueuer = Enqueuer(settings)
        opened.callback(enqueuer.close)
        jobs = Jobs(db, settings.jobs, enqueuer, undo_table(images))
        fetcher = Fetcher(settings.fetch)
        locations = Locations(db, images, blobs, fetcher, settings)
        opened.callback(locations.close)
        cache = Cache(db, images, fetcher, settings)
        opened.push_async_callback(cache.close)
        caching = asyncio.create_task(cache.keep_up(), name="cache")
        opened.push_async_callback(_ended, caching)
        servers, backups = source_of(settings), Backups(db, blobs, images)
        yield App(
            settings=settings,
            db=db,
            fast=fast,
            identity=identity,
            blobs=blobs,
            budget=BufferBudget(settings.http.buffer_budget_bytes),
            buckets=buckets,
            images=images,
            downloads=downloads,
            locations=locations,
            cache=cache,
            fetcher=fetcher,
            jobs=jobs,
            imports=Imports(settings=settings, images=images, jobs=jobs, stores=blobs, fetcher=fetcher),
            metadefs=Metadefs(db),
            servers=servers,
            backups=backups,
            whole=Whole(images=images, backups=backups, jobs=jobs, servers=servers, settings=settings),
        )


@contextmanager
def worker(settings: Settings, observer: Observer | None = None) -> Iterator[Callable[[], None]]:
    """Yields the function that works until the process is told to stop."""
    with ExitStack() as opened:
        db = Database(open_engine(settings))
        opened.callback(db.close)
        name = opened.enter_context(slot(settings.folder))
        blobs = Stores(settings)
        images = Images(db, blobs, settings)
        buckets = Buckets(db, settings)
        opened.callback(buckets.close)
        enqueuer = Enqueuer(settings)
        opened.callback(enqueuer.close)
        sandbox = Sandbox.detect(required=settings.security.sandbox == "required")
        log.info("sandbox", **sandbox.describe())
        converter = Converter(sandbox)
        parts = Parts(
            settings=settings,
            images=images,
            blobs=blobs,
            buckets=buckets,
            converter=converter,
            sandbox=sandbox,
            fetcher=Fetcher(settings.fetch),
            remote=RemoteImages(settings, db, Fetcher(settings.fetch, trusted=trusted_endpoints(settings))),
            servers=source_of(settings, converter),
        )
        jobs = Jobs(db, settings.jobs, enqueuer, undo_table(images))
        kinds = _kinds(db, parts, jobs)
        scratch = settings.folder / "scratch"
        watching = {} if observer is None else {"observer": observer}
        space = ScratchSpace(db, settings.jobs, scratch, blobs.staging)
        performer = Performer(db=db, jobs=jobs, kinds=kinds, space=space, worker=name, **watching)
        reaper = Reaper(
            settings=settings,
            db=db,
            jobs=jobs,
            kinds=kinds,
            scratch=scratch,
            worker=name,
            sweeps=(images.sweep, buckets.sweep),
        )
        opened.callback(reaper.close)
        yield lambda: run_worker(settings, db, performer, reaper)


def _kinds(db: Database, parts: Parts, jobs: Jobs) -> dict[JobType, Kind]:
    doers: list[Kind] = [
        ImportDisk(JobType.IMPORT, parts),
        ImportDisk(JobType.IMPORT_DATA, parts),
        ImportOva(parts, jobs),
        IngestFile(JobType.REGISTER, parts),
        Capture(JobType.FROM_SERVER, parts),
        Capture(JobType.FROM_VOLUME, parts),
        Capture(JobType.COPY_VOLUME, parts),
        *(WholeServer(kind, parts, Backups(db, parts.blobs, parts.images)) for kind in sorted(WHOLE)),
        Interoperable(JobType.INTEROPERABLE, parts),
        Interoperable(JobType.TASK, parts),
        Replicate(parts),
        Locate(parts),
        Export(parts),
        CopyImage(db=db, images=parts.images),
        CrossRegionCopy(parts, Regions(parts.settings)),
        *(ChangeMembers(kind, db=db, images=parts.images) for kind in sorted(SHARING)),
    ]
    return {doer.type: doer for doer in doers}


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
