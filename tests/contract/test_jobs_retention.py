"""Finished jobs go when their time is over, with what the engine keeps of them; others stay."""

from pathlib import Path

from sqlalchemy import text

from calotype.blobs.stores import Stores
from calotype.db.engine import Database, now_ms, open_engine
from calotype.db.migrate import migrate
from calotype.errors import CalotypeError
from calotype.identity.model import Caller, ProjectId, UserId
from calotype.images.service import Images
from calotype.jobs import sql
from calotype.jobs.engine import Enqueuer
from calotype.jobs.kinds.undo import undo_table
from calotype.jobs.model import JobType
from calotype.jobs.reaper import Reaper
from calotype.jobs.service import DAY_MS, Jobs
from calotype.settings import Settings

CALLER = Caller(
    user_id=UserId("1" * 32),
    user_name="demo",
    user_domain_id="default",
    project_id=ProjectId("2" * 32),
    roles=frozenset({"member"}),
    audit_id="audit",
    issued_at=0,
    expires_at=0,
)


def test_an_expired_job_is_forgotten_everywhere_and_an_open_one_is_not(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path))
    migrate(settings)
    db = Database(open_engine(settings))
    enqueuer = Enqueuer(settings)
    images = Images(db, Stores(settings), settings)
    jobs = Jobs(db, settings.jobs, enqueuer, undo_table(images))
    reaper = Reaper(settings=settings, db=db, jobs=jobs, kinds={}, scratch=tmp_path / "scratch", worker="w-0")
    with db.writing() as c:
        ended, waiting = (
            jobs.submit_in(c, CALLER, JobType.EXPORT, request={}, entities={}, image_id=None) for _ in range(2)
        )
    with db.writing() as c:
        job = sql.by_id(c, ended)
        assert job is not None
        assert jobs.fail_in(c, job, CalotypeError("over"), now_ms())

    reaper.sweep(now_ms() + (settings.jobs.retention_days + 1) * DAY_MS)

    with db.reading() as c:
        kept = [row[0] for row in c.execute(text("SELECT id FROM jobs"))]
        engine = [row[0] for row in c.execute(text("SELECT workflow_uuid FROM workflow_status"))]
    assert kept == [waiting]
    assert engine == [waiting]
    reaper.close()
    enqueuer.close()
    db.close()
