"""Fill the reference pages with what the code says of itself: settings, commands, errors, job types, routes, formats.

A page holds generated parts between two comments, `<!-- generated: NAME -->` and `<!-- end of NAME -->`; all else in it
is written by hand. Without an option the pages are rewritten; with `--check` nothing is, and exit status 1 tells that
a page is not what it would be.
"""

import ast
import io
import json
import re
import sys
import tokenize
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec
import typer.main
from typer.testing import CliRunner

from calotype import errors, settings
from calotype.cli import app
from calotype.disks.formats import signatures
from calotype.disks.gate import DECLARED, NEVER_KEPT, NEVER_TAKEN
from calotype.disks.model import DiskFormat
from calotype.disks.targets import FILE_FORMATS, FileFormat
from calotype.disks.targets import TARGETS as WRITTEN
from calotype.identity.permissions import BESIDE, GRANTS, OneOf
from calotype.images.attributes import DISK_FORMATS
from calotype.jobs import view
from calotype.jobs.model import COPIES, CREATIONS, SHARING, Job, JobId, JobStatus, JobType, Step, StepState
from calotype.jobs.plan import PLANS
from calotype.web import problems
from calotype.web.app import ROUTES
from calotype.web.route import Route

ROOT: Final = Path(__file__).resolve().parent.parent
REFERENCE: Final = ROOT / "docs" / "reference"
WORDS: Final = ROOT / "scripts" / "docs_errors.toml"
PART: Final = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)
WIDTH: Final = 100


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def code(value: object) -> str:
    return f"`{value}`"


def block(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"


# --- settings ---------------------------------------------------------------------------------------------------------


def remarks() -> dict[tuple[str, str], str]:
    """(class, field) -> the comment behind the field, in `settings.py`."""
    source = Path(str(settings.__file__)).read_text()
    comments = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return {
        (holder.name, field.target.id): comments[field.end_lineno or field.lineno]
        for holder in ast.parse(source).body
        if isinstance(holder, ast.ClassDef)
        for field in holder.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if (field.end_lineno or field.lineno) in comments
    }


def allowed(kind: Any) -> str:
    """What a value of this type may be, in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        meta = arguments[1]
        if meta.pattern:
            return f"text that matches {code(meta.pattern)}"
        name = "whole number" if arguments[0] is int else "number"
        bounds = [
            f"{word} {number:g}" if isinstance(number, float) else f"{word} {number}"
            for word, number in (("from", meta.ge), ("above", meta.gt), ("to", meta.le), ("below", meta.lt))
            if number is not None
        ]
        return f"{name}, {' '.join(bounds)}"
    if origin is typing.Literal:
        return ", ".join(code(value) for value in arguments)
    if origin is tuple:
        return f"list of: {allowed(arguments[0])}"
    if origin is dict:
        return "table of names and texts"
    return {str: "text", bool: "`true`, `false`", int: "whole number", float: "number"}[kind]


def _default(field: Any) -> object:
    return field.default_factory() if field.default is msgspec.NODEFAULT else field.default


def shown_default(value: object) -> str:
    return code(json.dumps(value)) if value != "" else '`""`'


def settings_tables() -> str:
    told = remarks()
    variables = {dotted: variable for variable, dotted in settings.variables().items()}
    holders: dict[str, type[msgspec.Struct]] = {"": settings.Settings, **settings.SECTIONS}
    parts = []
    for section, holder in holders.items():
        rows = []
        for field in msgspec.structs.fields(holder):
            if field.name in settings.TABLES or field.name in settings.SECTIONS:
                continue
            dotted = f"{section}.{field.name}" if section else field.name
            words = [told[holder.__name__, field.name], allowed(field.type)]
            rows.append(
                [
                    code(dotted),
                    shown_default(_default(field)),
                    *words,
                    code(variables[dotted]) if dotted in variables else "in the file only",
                ]
            )
        title = f"## `[{section}]`" if section else "## Without a section"
        columns = ["Setting", "Default", "Meaning", "Allowed", "Variable"]
        parts.append(f"{title}\n\n{table(columns, rows)}")
    for name, holder in settings.TABLES.items():
        rows = [
            [
                code(f"{name}.NAME.{field.name}"),
                "must be given" if field.default is msgspec.NODEFAULT else shown_default(field.default),
                told[holder.__name__, field.name],
                allowed(field.type),
            ]
            for field in msgspec.structs.fields(holder)
        ]
        parts.append(f"## `[{name}.NAME]`\n\n{table(['Setting', 'Default', 'Meaning', 'Allowed'], rows)}")
    return "\n".join(parts)


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> Iterator[list[str]]:
    """The words of every command, in the order of `--help`."""
    pending: list[tuple[list[str], Any]] = [([], typer.main.get_command(app))]
    while pending:
        words, command = pending.pop(0)
        below = getattr(command, "commands", None)
        if below is None:
            yield words
        else:
            pending[:0] = [([*words, name], inner) for name, inner in below.items() if not inner.hidden]


def help_text(words: Sequence[str]) -> str:
    shown = CliRunner().invoke(app, [*words, "--help"], prog_name="calotype", terminal_width=WIDTH)
    if shown.exit_code != 0:
        raise RuntimeError(f"calotype {' '.join(words)} --help: exit status {shown.exit_code}")
    return "\n".join(line.rstrip() for line in shown.output.splitlines())


def command_pages() -> str:
    parts = [f"## `calotype`\n\n{block('text', help_text([]))}"]
    parts += [f"## `calotype {' '.join(words)}`\n\n{block('text', help_text(words))}" for words in commands()]
    return "\n".join(parts)


# --- errors -----------------------------------------------------------------------------------------------------------


def kinds_of_error() -> Iterator[type[errors.CalotypeError]]:
    """Every class, in the order of the source; each code once, by the class that brings it in."""
    seen = set()
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.CalotypeError) and value.code not in seen:
            seen.add(value.code)
            yield value


def words_of_errors() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    return tomllib.loads(WORDS.read_text())


def _statuses(kind: type[errors.CalotypeError]) -> tuple[str, str]:
    """HTTP status on the IMS face, and on the others."""
    status = problems.status_of(kind.__new__(kind))
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return "job only", "job only"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.SERVICE_UNAVAILABLE):
        return str(status.value), str(status.value)
    if issubclass(kind, errors.ImageNotFound):
        return "404", str(status.value)
    if issubclass(kind, errors.KeyReused):
        return str(status.value), str(status.value)
    return str(problems.img_codes()[kind.img]["status"]), str(status.value)


def error_table() -> str:
    words = words_of_errors()["service"]
    rows = []
    for kind in kinds_of_error():
        ims, others = _statuses(kind)
        told = words[kind.code]
        img = "APIGW.0301" if issubclass(kind, errors.Unauthenticated) else kind.img
        rows.append([code(kind.code), f"{ims} {code(img)}", others, told["means"], told["do"]])
    return table(["Code", "IMS", "Elsewhere", "What it means", "What to do"], rows)


def img_table() -> str:
    codes: dict[str, list[str]] = {}
    for kind in kinds_of_error():
        if not issubclass(kind, errors.Unauthenticated):
            codes.setdefault(kind.img, []).append(code(kind.code))
    rows = [
        [code(img), str(problems.img_codes()[img]["status"]), problems.img_codes()[img]["message"], ", ".join(names)]
        for img, names in sorted(codes.items())
    ]
    return table(["Code", "Status", "Message, as documented", "Stands for"], rows)


def unreachable_table() -> str:
    rows = [
        [code(img), told["message"], told["unreachable"]]
        for img, told in sorted(problems.img_codes().items())
        if "unreachable" in told
    ]
    return table(["Code", "Message, as documented", "Why it is never answered"], rows)


def codes_of_the_command_line() -> set[str]:
    """The codes that `Failure` is raised with anywhere in `cli/`."""
    raised = re.compile(r"(?:Failure|_NotFound)\(\s*\"([a-z_]+)\"")
    return {
        name for path in sorted((ROOT / "src/calotype/cli").glob("*.py")) for name in raised.findall(path.read_text())
    }


def command_line_errors() -> str:
    words = words_of_errors()["command_line"]
    of_the_service = {kind.code for kind in kinds_of_error()}
    own = sorted(codes_of_the_command_line() - of_the_service)
    return table(["Code", "What it means", "What to do"], [[code(n), words[n]["means"], words[n]["do"]] for n in own])


# --- jobs -------------------------------------------------------------------------------------------------------------

CALLS: Final[Mapping[JobType, str]] = {
    JobType.IMPORT: "`POST /v2/cloudimages/action`",
    JobType.REGISTER: "`PUT /v1/cloudimages/{image_id}/upload`",
    JobType.EXPORT: "`POST /v1/cloudimages/{image_id}/file`",
    JobType.COPY: "`POST /v1/cloudimages/{image_id}/copy`",
    JobType.COPY_ACROSS: "`POST /v1/cloudimages/{image_id}/cross_region_copy`",
    JobType.INTEROPERABLE: "`POST /v2/images/{image_id}/import`",
    JobType.REPLICATE: "`POST /v2/images/{image_id}/import` with `copy-image`",
    JobType.TASK: "`POST /v2/tasks`",
    JobType.LOCATE: "`POST /v2/images/{image_id}/locations`",
    JobType.IMPORT_DATA: "`POST /v1/cloudimages/dataimages/action`",
    JobType.OVA: "`POST /v2/cloudimages/action` with an OVA",
    JobType.FROM_SERVER: "`POST /v2/cloudimages/action` with `instance_id`",
    JobType.FROM_VOLUME: "`POST /v2/cloudimages/action` with `volume_id`",
    JobType.FROM_VOLUMES: "`POST /v2/cloudimages/action` with `data_images`",
    JobType.COPY_VOLUME: "the same: one for each disk",
    JobType.WHOLE_FROM_SERVER: "`POST /v1/cloudimages/wholeimages/action` with `instance_id`",
    JobType.WHOLE_FROM_BACKUP: "`POST /v1/cloudimages/wholeimages/action` with `backup_id`",
    JobType.ADD_MEMBERS: "`POST /v1/cloudimages/members`",
    JobType.REMOVE_MEMBERS: "`DELETE /v1/cloudimages/members`",
    JobType.ANSWER_OFFERS: "`PUT /v1/cloudimages/members`",
}


def job_types() -> str:
    counted = {
        **dict.fromkeys(CREATIONS | SHARING, "`jobs.creations_per_project`"),
        **dict.fromkeys(COPIES, "`jobs.copies_per_project`"),
    }
    rows = [
        [
            code(kind.value),
            CALLS[kind],
            ", ".join(view.SUCCESS_ENTITIES[kind]),
            PLANS[kind].queue,
            counted.get(kind, "one at once for each image" if PLANS[kind].steps else "its sub jobs"),
        ]
        for kind in JobType
    ]
    return table(["Type", "Begun by", "`entities` on success", "Queue", "Limited by"], rows)


def job_steps() -> str:
    rows = [
        [code(kind.value) if n == 0 else "", code(step.name), f"{_share(kind, n)} %", code(step.task)]
        for kind in JobType
        for n, step in enumerate(PLANS[kind].steps)
    ]
    return table(["Type", "Step", "Share of the progress", "`current_task`"], rows)


def _share(kind: JobType, position: int) -> int:
    steps = PLANS[kind].steps
    return round(100 * steps[position].weight / sum(step.weight for step in steps))


BEGUN: Final = 1_767_323_045_678  # 2026-01-02T03:04:05.678Z
IMAGE: Final = "9a1d8a5e-3c0b-4b62-8d3f-77b0a7c6d111"


def sample(status: JobStatus) -> Job:
    """One import, as it stands at four moments."""
    entities: dict[str, str] = {"image_name": "web-golden-17", "image_id": IMAGE}
    ended: dict[str, Any] = {}
    if status is JobStatus.FAIL:
        reason = "object disks:web.qcow2 was changed meanwhile"
        entities = {"image_name": "web-golden-17", "error_code": "IMG.0057", "error": reason}
        ended = {"end_time": BEGUN + 47_222, "error_code": "IMG.0057", "fail_reason": reason}
    elif status is JobStatus.SUCCESS:
        ended = {"end_time": BEGUN + 41_002, "percent": 10_000}
    elif status is JobStatus.RUNNING:
        ended = {"percent": 3_512, "current_task": PLANS[JobType.IMPORT].steps[2].task}
    return Job(
        id=JobId("4f1c2d3e4b5a69788796a5b4c3d2e1f0"),
        project_id="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        user_id="a0b1c2d3e4f5061728394a5b6c7d8e9f",
        kind=JobType.IMPORT,
        status=status,
        begin_time=BEGUN,
        entities=entities,
        request={"bucket": "disks", "key": "web.qcow2", "iso": False},
        image_id=IMAGE,
        attempt=0 if status is JobStatus.INIT else 1,
        **ended,
    )


def sample_steps() -> list[Step]:
    """Of the running sample: it converts."""
    sizes = {"done_bytes": 64_421_888, "total_bytes": 64_421_888}
    at = BEGUN + 200
    steps = []
    for position, name in enumerate(PLANS[JobType.IMPORT].names):
        if position < 2:
            ended = {"started_at": at, "ended_at": at + 400, **(sizes if position == 0 else {})}
            steps.append(Step(position=position, name=name, state=StepState.DONE, attempts=1, **ended))
            at += 410
        elif position == 2:
            steps.append(Step(position=position, name=name, state=StepState.RUNNING, attempts=1, started_at=at))
        else:
            steps.append(Step(position=position, name=name, state=StepState.PENDING))
    return steps


def _json(value: Any) -> str:
    return block("json", json.dumps(value, indent=2))


def job_current() -> str:
    moments = {
        JobStatus.INIT: "Accepted, not begun:",
        JobStatus.RUNNING: "Under way:",
        JobStatus.SUCCESS: "Done:",
        JobStatus.FAIL: "Failed:",
    }
    return "\n".join(f"{words}\n\n{_json(view.current(sample(status)))}" for status, words in moments.items())


def job_old() -> str:
    return _json(view.of_2022_10(sample(JobStatus.RUNNING)))


def job_progress() -> str:
    return _json(view.progress(sample(JobStatus.RUNNING)))


def job_native() -> str:
    return _json(view.native(sample(JobStatus.RUNNING), sample_steps(), now=BEGUN + 9_000))


# --- routes and permissions -------------------------------------------------------------------------------------------


def routes(family: str) -> str:
    """One row for each handler: a path and the same with a slash at its end are one."""
    together: dict[tuple[object, ...], list[Route]] = {}
    for route in ROUTES:
        if route.family == family:
            together.setdefault((route.handler, route.method, route.summary, route.permission), []).append(route)
    rows = [
        [", ".join(code(told_path(route)) for route in same), same[0].summary, _needed(same[0]), str(same[0].status)]
        for same in together.values()
    ]
    return table(["Call", "What it does", "Permission", "Status"], rows)


def told_path(route: Route) -> str:
    return f"{route.method} {route.path.replace(':path', '')}"


def _needed(route: Route) -> str:
    if route.permission is None:
        return "none, no token"
    if route.permission == "":
        return "any token"
    if isinstance(route.permission, OneOf):
        return " or ".join(code(action) for action in route.permission.actions)
    return ", ".join(code(action) for action in _actions(route))


def _actions(route: Route) -> list[str]:
    """All that the route names, in its order."""
    if isinstance(route.permission, OneOf):
        return [*route.permission.actions]
    given = [route.permission or ""] if isinstance(route.permission, str | None) else route.permission
    return [action for action in dict.fromkeys(given) if action]


def permissions() -> str:
    """Of the actions that anything asks for."""
    roles = [role for role, granted in GRANTS.items() if granted]
    sources = [path.read_text() for path in (ROOT / "src").rglob("*.py") if path.name != "permissions.py"]
    rows = [
        [code(action), *("yes" if action in GRANTS[role] else "" for role in roles)]
        for action in sorted(set().union(*GRANTS.values()))
        if any(f'"{action}"' in source for source in sources)
    ]
    columns = [f"{role} (1)" if role in BESIDE else role for role in roles]
    beside = "; ".join(f"{role} with {other}" for role, other in BESIDE.items())
    return (
        f"{table(['Action', *columns], rows)}\n(1) Grants nothing without another role on the same project: {beside}.\n"
    )


def calls_of_actions() -> str:
    """The calls that want each action, of every face. Of those with a slash at the end and without, one."""
    wanting: dict[str, dict[str, None]] = {}
    for route in ROUTES:
        for action in _actions(route):
            either = " (or another)" if isinstance(route.permission, OneOf) else ""
            wanting.setdefault(action, {})[code(told_path(route).removesuffix("/")) + either] = None
    return table(["Action", "Calls"], [[code(action), "<br>".join(wanting[action])] for action in sorted(wanting)])


# --- limits -----------------------------------------------------------------------------------------------------------

# What is limited, the setting, the code of IMS when there is more.
SET_LIMITS: Final = (
    ("bytes of a file that is imported, registered or uploaded", "image.file_bytes", "IMG.0059"),
    ("bytes of a file of a quick import", "image.quick_bytes", "IMG.0059"),
    ("bytes of an image that is exported without `is_quick_export`", "image.export_bytes", "IMG.0160"),
    ("bytes of an image that is copied, here or to another region", "image.export_bytes", "IMG.0059"),
    ("bytes of an image that is exported: fewer than", "image.quick_bytes", "IMG.0071"),
    ("bytes of the system disk of a server, save in a full-server image", "servers.disk_bytes", "IMG.0111"),
    ("bytes of another disk of a server", "servers.disk_bytes", "IMG.0022"),
    ("virtual size of a disk in bytes", "image.virtual_bytes_per_image", "IMG.0059"),
    ("images of a project, with those that are being made", "image.count_per_project", "IMG.0015"),
    ("bytes that a project stores", "image.stored_bytes_per_project", "IMG.0059"),
    ("images that a project makes at once", "jobs.creations_per_project", "IMG.0060"),
    ("images that a project copies at once", "jobs.copies_per_project", "IMG.0060"),
    ("projects that an image is shared with", "image.members", "IMG.0088"),
    ("projects that a full-server image is shared with", "image.whole_image_members", "IMG.0088"),
    ("data disks that one import brings", "image.data_disks", "IMG.0194"),
    ("buckets of a project", "image.buckets_per_project", ""),
    ("tags of an image", "image.tags", "IMG.0116"),
    ("days that a finished job can be read", "jobs.retention_days", ""),
    ("seconds that a token is valid", "identity.token_lifetime_s", ""),
)
UNITS: Final = ((1024**4, "TiB"), (1024**3, "GiB"))


def limits() -> str:
    in_force = settings.Settings()
    variables = {dotted: variable for variable, dotted in settings.variables().items()}
    rows = []
    for what, dotted, img in SET_LIMITS:
        section, _, name = dotted.partition(".")
        value = getattr(getattr(in_force, section), name)
        sizes = [f"{value // unit} {word}" for unit, word in UNITS if "bytes" in name and value % unit == 0]
        rows.append(
            [what, sizes[0] if sizes else str(value), code(dotted), code(variables[dotted]), code(img) if img else ""]
        )
    return table(["What", "Default", "Setting", "Variable", "Code on IMS"], rows)


# --- formats ----------------------------------------------------------------------------------------------------------


def formats_declared() -> str:
    unsaid = "what is found, else kept unseen"
    rows = [[code(name), code(found) if found else unsaid] for name, found in DECLARED.items() if name in DISK_FORMATS]
    return table(["`disk_format` of the Image API", "What the bytes must be"], rows)


def formats_out() -> str:
    rows = []
    for name, wanted in FILE_FORMATS.items():
        target = WRITTEN[wanted.kind]
        largest = "any" if target.most_bytes is None else _largest(target.most_bytes)
        rows.append([code(name), wanted.summary, " ".join((code(wanted.format), *target.options)), largest])
    return table(["`file_format`", "What is written", "As `qemu-img` names it", "Largest disk"], rows)


def formats_pairs() -> str:
    rows = []
    for stored in DiskFormat:
        if stored in NEVER_KEPT:
            continue  # no image is stored as such
        rows.append([code(stored), *(_mark(stored, wanted) for wanted in FILE_FORMATS.values())])
    return table(["Stored as", *map(code, FILE_FORMATS)], rows)


def _mark(stored: DiskFormat, wanted: FileFormat) -> str:
    if stored is DiskFormat.ISO:
        return "no"
    return "=" if wanted.as_stored and wanted.format is stored else "•"


def _largest(size: int) -> str:
    exactly = [f"{size // unit} {word}" for unit, word in UNITS if size % unit == 0]
    return exactly[0] if exactly else f"just under {-(-size // UNITS[0][0])} {UNITS[0][1]}"


def formats_refused() -> str:
    names = [
        *dict.fromkeys(signatures.FOREIGN.values()),
        *(f"{name} (declared)" for name in sorted(NEVER_TAKEN)),
        "LUKS (encrypted)",
    ]
    packed = [name.removeprefix("a ") for name in dict.fromkeys(signatures.PACKED.values())]
    return f"Disk formats: {', '.join(names)}.\n\nPacked files: {', '.join(packed)}.\n"


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "settings": settings_tables,
    "commands": command_pages,
    "errors": error_table,
    "img-codes": img_table,
    "img-unreachable": unreachable_table,
    "command-line-errors": command_line_errors,
    "job-types": job_types,
    "job-steps": job_steps,
    "job-current": job_current,
    "job-2022-10": job_old,
    "job-progress": job_progress,
    "job-native": job_native,
    "routes-ims": lambda: routes("ims"),
    "routes-imagev2": lambda: routes("imagev2"),
    "routes-identity": lambda: routes("identity"),
    "routes-native": lambda: routes("native"),
    "permissions": permissions,
    "calls-of-actions": calls_of_actions,
    "limits": limits,
    "formats-declared": formats_declared,
    "formats-out": formats_out,
    "formats-pairs": formats_pairs,
    "formats-refused": formats_refused,
}


def filled(text: str) -> str:
    """A page with its generated parts made anew."""
    return PART.sub(lambda part: f"{part[1]}\n{PARTS[part['name']]()}\n{part[3]}", text)


def main(arguments: Sequence[str]) -> int:
    pages = sorted(REFERENCE.glob("*.md"))
    held = [name for page in pages for name in re.findall(r"<!-- generated: ([\w-]+) -->", page.read_text())]
    wrong = [f"no page holds the part {name}" for name in PARTS if name not in held]
    wrong += [f"{name} is no part, or is held twice" for name in {*held} if name not in PARTS or held.count(name) > 1]
    if not wrong:
        for page in pages:
            now = page.read_text()
            new = filled(now)
            if new != now and "--check" in arguments:
                wrong.append(f"{page.relative_to(ROOT)} is not what the code says: make docs writes it anew")
            elif new != now:
                page.write_text(new)
                print(f"{page.relative_to(ROOT)} written anew")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
