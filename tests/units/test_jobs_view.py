"""Every status and kind of job, in both forms of the query, to the byte."""

import json

import msgspec
import pytest

from calotype.jobs import tasks, view
from calotype.jobs.kinds.undo import MAKING
from calotype.jobs.model import SHARING, Job, JobId, JobStatus, JobType
from calotype.jobs.plan import PLANS

BEGIN = 1767323045678  # 2026-01-02T03:04:05.678Z
END = 1767323381002  # 2026-01-02T03:09:41.002Z
ID = "4f1c2d3e4b5a69788796a5b4c3d2e1f0"
IMAGE = "9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"


def job(kind: JobType, status: JobStatus) -> Job:
    entities: dict[str, object] = {"image_name": "web-golden-17", "image_id": IMAGE}
    if kind in SHARING:
        entities = {"results": [{"image_id": IMAGE, "status": "success"}]} if status is JobStatus.SUCCESS else {}
    if status is JobStatus.FAIL:
        entities = {"image_name": "web-golden-17", "error_code": "IMG.0057", "error": "object b:k not found"}
    return Job(
        id=JobId(ID),
        project_id="0f0e0d0c0b0a09080706050403020100",
        user_id="00112233445566778899aabbccddeeff",
        kind=kind,
        status=status,
        begin_time=BEGIN,
        end_time=END if status in (JobStatus.SUCCESS, JobStatus.FAIL) else None,
        error_code="IMG.0057" if status is JobStatus.FAIL else None,
        fail_reason="object b:k not found" if status is JobStatus.FAIL else None,
        entities=entities,
        image_id=IMAGE,
        percent=10000 if status is JobStatus.SUCCESS else 3567 if status is JobStatus.RUNNING else 0,
        current_task="ImportImageTask:ObtainImageInfoTask" if status is JobStatus.RUNNING else "",
    )


NAME_AND_ID = f'{{"image_name":"web-golden-17","image_id":"{IMAGE}"}}'
ONLY_ID = f'{{"image_id":"{IMAGE}"}}'
RUNNING = (
    f'{{"image_name":"web-golden-17","image_id":"{IMAGE}","process_percent":0.35,'
    '"current_task":"ImportImageTask:ObtainImageInfoTask"}'
)
FAILED = '{"image_name":"web-golden-17","error_code":"IMG.0057","error":"object b:k not found"}'
WHOLE = (JobType.WHOLE_FROM_SERVER, JobType.WHOLE_FROM_BACKUP)
WORKER_ID = view.worker_step_id(ID)


def _worker(status: str, entities: str) -> str:
    """What a client that reads the first sub job finds in a data disk's import."""
    end = '""' if status == "RUNNING" else '"2026-01-02T03:09:41.002Z"'
    error = ('"IMG.0057"', '"object b:k not found"') if status == "FAIL" else ("null", "null")
    return (
        f',"sub_jobs_list":["{WORKER_ID}"],"sub_jobs_result":[{{"job_id":"{WORKER_ID}",'
        f'"job_type":"imsGoofysImportImageWithoutconfigJob","begin_time":"2026-01-02T03:04:05.678Z","end_time":{end},'
        f'"status":"{status}","error_code":{error[0]},"fail_reason":{error[1]},"entities":{entities}}}]'
    )


OF_SHARING = {
    JobStatus.SUCCESS: f'{{"results":[{{"image_id":"{IMAGE}","status":"success"}}]}}',
    JobStatus.RUNNING: '{"process_percent":0.35,"current_task":"ImportImageTask:ObtainImageInfoTask"}',
}
ENTITIES = {
    (JobType.IMPORT, JobStatus.SUCCESS): NAME_AND_ID,
    (JobType.COPY, JobStatus.SUCCESS): NAME_AND_ID,
    (JobType.COPY_ACROSS, JobStatus.SUCCESS): NAME_AND_ID,
    (JobType.REGISTER, JobStatus.SUCCESS): ONLY_ID,
    (JobType.EXPORT, JobStatus.SUCCESS): ONLY_ID,
    (JobType.INTEROPERABLE, JobStatus.SUCCESS): NAME_AND_ID,
    (JobType.REPLICATE, JobStatus.SUCCESS): NAME_AND_ID,
    (JobType.TASK, JobStatus.SUCCESS): NAME_AND_ID,
    (JobType.LOCATE, JobStatus.SUCCESS): NAME_AND_ID,
    **{(kind, JobStatus.SUCCESS): NAME_AND_ID for kind in (*MAKING, JobType.FROM_VOLUMES, *WHOLE)},
    (JobType.IMPORT_DATA, JobStatus.SUCCESS): NAME_AND_ID[:-1] + _worker("SUCCESS", f"{NAME_AND_ID}") + "}",
    (JobType.IMPORT_DATA, JobStatus.RUNNING): RUNNING[:-1] + _worker("RUNNING", RUNNING) + "}",
    (JobType.IMPORT_DATA, JobStatus.FAIL): FAILED[:-1] + _worker("FAIL", FAILED) + "}",
    **{(kind, status): entities for kind in SHARING for status, entities in OF_SHARING.items()},
}
OF_STATUS = {JobStatus.INIT: "{}", JobStatus.RUNNING: RUNNING, JobStatus.FAIL: FAILED}


@pytest.mark.parametrize("kind", JobType)
@pytest.mark.parametrize("status", JobStatus)
def test_the_current_form_of_each_status_and_kind_is_exact_to_the_byte(kind: JobType, status: JobStatus) -> None:
    told = msgspec.json.encode(view.current(job(kind, status))).decode()

    end = '"2026-01-02T03:09:41.002Z"' if status in (JobStatus.SUCCESS, JobStatus.FAIL) else '""'
    error = ('"IMG.0057"', '"object b:k not found"') if status is JobStatus.FAIL else ("null", "null")
    assert told == (
        f'{{"job_id":"{ID}","job_type":"{kind.value}","begin_time":"2026-01-02T03:04:05.678Z","end_time":{end},'
        f'"status":"{status.value}","error_code":{error[0]},"fail_reason":{error[1]},'
        f'"entities":{ENTITIES.get((kind, status)) or OF_STATUS[status]}}}'
    )


@pytest.mark.parametrize("kind", JobType)
@pytest.mark.parametrize("status", JobStatus)
def test_the_form_of_2022_10_of_each_status_and_kind_is_exact_to_the_byte(kind: JobType, status: JobStatus) -> None:
    told = msgspec.json.encode(view.of_2022_10(job(kind, status))).decode()

    end = '"02-Jan-2026 03:09:41:002"' if status in (JobStatus.SUCCESS, JobStatus.FAIL) else '""'
    error = ('"IMG.0057"', '"object b:k not found"') if status is JobStatus.FAIL else ("null", "null")
    name = "createImageByInstance" if kind is JobType.FROM_SERVER else kind.value
    entities = ONLY_ID if status in (JobStatus.RUNNING, JobStatus.SUCCESS) and kind not in SHARING else "{}"
    assert told == (
        f'{{"status":"{status.value}","entities":{entities},"job_id":"{ID}","job_type":"{name}",'
        f'"begin_time":"02-Jan-2026 03:04:05:678","end_time":{end},"error_code":{error[0]},"fail_reason":{error[1]}}}'
    )


@pytest.mark.parametrize(
    ("kind", "request_", "worker"),
    [
        (JobType.IMPORT, {}, "imsGoofysImportImageWithoutconfigJob"),
        (JobType.IMPORT, {"config": True}, "imsGoofysImportImageJob"),
        (JobType.IMPORT, {"iso": True}, "imsImportIsoFileImageJob"),
        (JobType.IMPORT, {"quick": True}, "imsImportBigFileImageJob"),
        (JobType.IMPORT_DATA, {"quick": True}, "imsImportBigFileImageJob"),
        (JobType.REGISTER, {}, "imsGoofysUploadImageJob"),
        (JobType.EXPORT, {}, "imsGoofysExportImageJob"),
        (JobType.EXPORT, {"quick": True}, "imsQuickExportImageJob"),
    ],
)
def test_the_workers_part_of_a_job_is_told_under_an_id_that_leads_back(
    kind: JobType, request_: dict[str, object], worker: str
) -> None:
    one = msgspec.structs.replace(job(kind, JobStatus.SUCCESS), request=request_)

    told = view.worker_step(one)

    assert (told["job_id"], told["job_type"], told["status"]) == (view.worker_step_id(ID), worker, "SUCCESS")
    assert told["entities"] == {"image_name": "web-golden-17", "image_id": IMAGE}
    assert view.worker_step_id(told["job_id"]) == ID != told["job_id"]


def test_the_older_time_has_english_months_and_two_digits_for_the_day() -> None:
    assert view.old_ms(1433441466586) == "04-Jun-2015 18:11:06:586"


def test_the_progress_call_tells_percent_and_task_and_reaches_one_only_at_the_end() -> None:
    almost = msgspec.structs.replace(job(JobType.IMPORT, JobStatus.RUNNING), percent=9999)

    assert view.progress(almost)["entities"]["process_percent"] == 0.99
    assert view.progress(job(JobType.IMPORT, JobStatus.SUCCESS))["entities"] == {
        "image_name": "web-golden-17",
        "process_percent": 1,
        "current_task": "",
        "image_id": IMAGE,
        "subJobId": WORKER_ID,
    }


@pytest.mark.parametrize("kind", [kind for kind in JobType if PLANS[kind].steps])
def test_the_percent_of_a_job_never_falls_from_step_to_step_and_stays_below_the_whole(kind: JobType) -> None:
    plan = PLANS[kind]

    told = [plan.percent(n, fraction) for n in range(len(plan.steps)) for fraction in (0.0, 0.25, 0.5, 1.0)]

    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] == 9999


def test_a_cancelled_job_is_failed_for_ims_and_cancelled_in_the_native_form() -> None:
    cancelled = msgspec.structs.replace(job(JobType.IMPORT, JobStatus.FAIL), cancel_requested=True)

    assert view.native(cancelled, now=END)["state"] == "cancelled"
    assert view.current(cancelled)["status"] == "FAIL"
    assert json.loads(msgspec.json.encode(view.native(cancelled, now=END)))["error"]["code"] == "IMG.0057"


@pytest.mark.parametrize("kind", JobType)
@pytest.mark.parametrize(
    ("status", "word"),
    [
        (JobStatus.INIT, "pending"),
        (JobStatus.RUNNING, "processing"),
        (JobStatus.SUCCESS, "success"),
        (JobStatus.FAIL, "failure"),
    ],
)
def test_every_job_is_a_task_in_the_words_of_image_v2(kind: JobType, status: JobStatus, word: str) -> None:
    task = tasks.whole(job(kind, status))

    assert (task["status"], task["owner"], task["image_id"]) == (word, "0f0e0d0c0b0a09080706050403020100", IMAGE)
    assert tasks.job_id(task["id"]) == ID
    assert (task["result"] is not None) == (status is JobStatus.SUCCESS)
    assert task["message"] == ("object b:k not found" if status is JobStatus.FAIL else "")


@pytest.mark.parametrize(
    "text", ["", "x", ID[:-1], ID + "0", f"{ID[:8]}-{ID[8:]}", "9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d11g"]
)
def test_what_is_no_task_id_is_none(text: str) -> None:
    assert tasks.job_id(text) is None


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        (JobType.INTEROPERABLE, {"import_req": {"method": {"name": "web-download", "uri": "https://h/d?sig=canary"}}}),
        (JobType.TASK, {"input": {"import_from": "https://h/d?sig=canary"}, "import_req": {"method": {}}}),
    ],
)
def test_the_query_of_an_address_is_shown_to_no_reader_of_a_job(kind: JobType, request_: dict[str, object]) -> None:
    one = msgspec.structs.replace(job(kind, JobStatus.RUNNING), request=request_)

    for shown in (tasks.whole(one), view.native(one, now=END), view.current(one), view.progress(one)):
        assert b"canary" not in msgspec.json.encode(shown)
    assert b"https://h/d?***" in msgspec.json.encode(tasks.whole(one))
