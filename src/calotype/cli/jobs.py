"""`calotype job …`: what runs, how far it is, how it ended."""

import time
from typing import Annotated, Any, Final

import typer

from calotype.cli import show
from calotype.cli.failure import Failure
from calotype.cli.options import DEFAULT_TIMEOUT_S, AsJson, Timeout, service
from calotype.cli.session import Api, may_pass, quoted

ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
LOOK_EVERY_S: Final = 1  # the service answers earlier when the job ends
AWAY_S: Final = 60.0  # how long a wait goes on without an answer, as when the service is started anew

job = typer.Typer(no_args_is_help=True, help="Jobs: show, wait for, list and cancel them.")
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id: 32 hex digits.")]


@job.command("show")
def show_job(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job: state, progress, steps and, if it failed, why.

    Example:

        calotype job show 4f1c2d3e4b5a69788796a5b4c3d2e1f0
    """
    with service(context) as api:
        print_job(get(api, job_id), as_json=as_json)


@job.command("wait")
def wait_job(
    context: typer.Context, job_id: JobId, timeout_s: Timeout = DEFAULT_TIMEOUT_S, as_json: AsJson = False
) -> None:
    """Wait until a job has ended. Exit status 0 only if it succeeded.

    Example:

        calotype job wait 4f1c2d3e4b5a69788796a5b4c3d2e1f0 --timeout 600
    """
    with service(context) as api:
        ended = wait(api, job_id, timeout_s)
    print_job(ended, as_json=as_json)
    succeeded(ended)


@job.command("list")
def list_jobs(
    context: typer.Context,
    state: Annotated[
        str | None,
        typer.Option(help="E.g. running,queued; also cancelling, succeeded, failed, cancelled."),
    ] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Only jobs of this type, e.g. imsImportImageJob.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the jobs of the project, the newest first.

    Example:

        calotype job list --state running,queued
    """
    wanted = {name: value for name, value in (("state", state), ("type", kind)) if value}
    found: list[dict[str, Any]] = []
    more: str | None = None
    with service(context) as api:
        while len(found) < limit:
            page = api.call(
                "GET",
                "/calotype/v1/jobs",
                params={**wanted, "limit": min(100, limit - len(found)), **({"marker": more} if more else {})},
            )
            found += page["jobs"]
            more = page.get("next_marker")
            if not more:
                break
    if as_json:
        show.document(found)
        return
    columns = ("ID", "TYPE", "STATE", "PERCENT", "STEP", "IMAGE", "CREATED")
    show.table(columns, (_row(item) for item in found))
    if more:
        show.say(f"there are more: --limit {limit * 2}")


@job.command("cancel")
def cancel_job(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Stop a job that is queued or running. What it had made is removed.

    Example:

        calotype job cancel 4f1c2d3e4b5a69788796a5b4c3d2e1f0
    """
    with service(context) as api:
        api.call("POST", f"/calotype/v1/jobs/{quoted(job_id)}:cancel")
        now = get(api, job_id)
    if as_json:
        show.document(now)
    else:
        show.say(f"job {job_id} is {now['state']}")


def get(api: Api, job_id: str, wait_s: int | None = None) -> dict[str, Any]:
    if not job_id or "/" in job_id:
        raise Failure("job_not_found", f"no job {job_id}")
    params = {"wait": wait_s} if wait_s else None
    found: dict[str, Any] = api.call("GET", f"/calotype/v1/jobs/{quoted(job_id)}", params=params)
    return found


def wait(api: Api, job_id: str, timeout_s: float, label: str = "") -> dict[str, Any]:
    """The job as it ended. Shows its progress meanwhile, as that of `label`.

    Raises `Failure` when it has not ended in `timeout_s`, and when the service was away for a minute.
    """
    end = time.monotonic() + timeout_s
    seen = time.monotonic()
    with show.progress(label or f"job {job_id[:8]}") as meter:
        while True:
            try:
                now = get(api, job_id, LOOK_EVERY_S)
                seen = time.monotonic()
            except Failure as failure:
                if not may_pass(failure) or time.monotonic() - seen > AWAY_S:
                    raise
                continue
            meter.tell(_percent(now), _words(now))
            if now["state"] in ENDED:
                return now
            if time.monotonic() > end:
                so_far = f"job {job_id} is still {now['state']} after {timeout_s:.0f} s"
                raise Failure("timeout", so_far, f"calotype job wait {job_id}")


def succeeded(ended: dict[str, Any]) -> None:
    """Raise `Failure` with the job's own reason unless it succeeded."""
    if ended["state"] == "succeeded":
        return
    error = ended.get("error") or {}
    message = error.get("message") or f"the job was {ended['state']}"
    raise Failure(error.get("code") or f"job_{ended['state']}", f"job {ended['id']} {ended['state']}: {message}")


def print_job(item: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show.document(item)
        return
    subject = item.get("subject") or {}
    error = item.get("error") or {}
    named = f"({subject['image_id']})" if subject.get("image_id") else ""
    image = " ".join(part for part in (subject.get("image_name"), named) if part)
    show.facts(
        {
            "id": item["id"],
            "type": item["type"],
            "state": item["state"],
            "progress": f"{_percent(item) or 0:.0f} %  {_words(item)}".rstrip(),
            "image": image or None,
            "created": item.get("created"),
            "started": item.get("started"),
            "ended": item.get("ended"),
            "attempt": item.get("attempt"),
            "error": f"{error.get('code')}: {error.get('message')}" if error else None,
        }
    )
    steps = item.get("steps") or ()
    if steps:
        show.line("")
        show.table(
            ("STEP", "STATE", "STARTED", "ENDED", "ATTEMPTS"),
            ((s["name"], s["state"], s.get("started"), s.get("ended"), s.get("attempts")) for s in steps),
        )


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    subject = item.get("subject") or {}
    percent = f"{_percent(item) or 0:.0f}"
    image = subject.get("image_name") or subject.get("image_id")
    return (item["id"], item["type"], item["state"], percent, item.get("step"), image, item.get("created"))


def _percent(item: dict[str, Any]) -> float | None:
    if item["state"] == "succeeded":
        return 100.0
    percent = (item.get("progress") or {}).get("percent")
    return None if percent is None else float(percent)


def _words(item: dict[str, Any]) -> str:
    if item["state"] in ENDED:
        return str(item["state"])
    progress = item.get("progress") or {}
    words = show.words_of(
        progress.get("done_bytes"), progress.get("total_bytes"), progress.get("rate_bps"), progress.get("eta_seconds")
    )
    waits_for = f"waits for {item['waits_for']}" if item.get("waits_for") else ""
    return ", ".join(part for part in (item.get("step") or item["state"], waits_for, words) if part)
