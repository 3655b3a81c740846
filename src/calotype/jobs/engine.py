"""The one place that knows DBOS: handing a job to it inside a transaction, and what its parts are called.

The record of a job is ours and is the truth; DBOS remembers which steps are done and which worker has the job.
"""

from typing import Final

from dbos import DBOSClient
from sqlalchemy import Connection

from calotype.db.engine import database_url
from calotype.jobs.model import JobId, JobType
from calotype.jobs.plan import PLANS
from calotype.settings import Settings

APPLICATION: Final = "calotype"
# Constant on purpose: DBOS never gives a workflow to a worker of another version, not even after a restart.
APPLICATION_VERSION: Final = "1"
WORKFLOW: Final = "calotype.job"


class Enqueuer:
    """Puts jobs into the queues. Only the caller's transaction is used: the job and its place in the queue are one."""

    def __init__(self, settings: Settings) -> None:
        self._client = DBOSClient(
            system_database_url=database_url(settings),
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,
        )

    def enqueue_in(self, c: Connection, job_id: JobId, kind: JobType, *, project_id: str, priority: int) -> None:
        queue = PLANS[kind].queue
        self._client.enqueue_in_transaction(
            c,
            {
                "workflow_name": WORKFLOW,
                "queue_name": queue,
                "workflow_id": job_id,
                "app_version": APPLICATION_VERSION,
                "priority": priority,
                # Partitioned by project, so that one project's hundred jobs do not keep another's single one waiting.
                "queue_partition_key": project_id,
            },
            job_id,
            kind.value,
        )

    def close(self) -> None:
        self._client.destroy()
