"""The pages' examples are true: each is run as it stands, on a fresh service, in the order of its page.

In a block marked `console`, a line that begins with `$ ` is a command, `> ` goes on with it, and every other line must
be printed by it. A block marked `python` is a program; a block marked `text` right behind it is what it prints. Ids,
times and widths differ from run to run and are not compared; `…` stands for anything.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from msgspec import Struct

from tests.service import Service, clean_environment

ROOT: Final = Path(__file__).parents[2]
BACKUP: Final = "docs/how-to/back-up-and-restore.md"  # has a test of its own
TOLD_URL: Final = "http://127.0.0.1:9292"  # of the pages; a test's service has another port
BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$(\n+(?=^```text$))?", re.MULTILINE | re.DOTALL)
WITHIN_S: Final = 300.0
SHELL: Final = "{\n%s\n} >%d.out 2>&1 </dev/null; echo $? >%d.status\n"


class Example(Struct, frozen=True, kw_only=True):
    """A command, and the lines that the page says it prints."""

    command: str
    shown: tuple[str, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether the page shows it being refused."""
        return any(line.startswith(("error:", "calotype:")) for line in self.shown)


def examples(page: Path) -> list[Example]:
    found: list[Example] = []
    expects_output = False
    for language, text, followed_by_output in BLOCK.findall(page.read_text()):
        if language == "console":
            found += console(text)
        elif language == "python":
            found.append(Example(command=f"python3 - <<'PROGRAM'\n{text}PROGRAM"))
        elif language == "text" and expects_output:
            found[-1] = Example(command=found[-1].command, shown=tuple(text.splitlines()))
        expects_output = language == "python" and bool(followed_by_output)
    return found


def console(text: str) -> Iterator[Example]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        first, *rest = part.splitlines()
        going_on = [line for line in rest if line.startswith(("> ", ">"))]
        yield Example(
            command="\n".join([first, *(line.removeprefix(">").removeprefix(" ") for line in going_on)]),
            shown=tuple(line for line in rest if line not in going_on and line.strip()),
        )


def pages() -> list[str]:
    every = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(page.relative_to(ROOT)) for page in every if page != ROOT / BACKUP and examples(page)]


def plain(line: str) -> str:
    """The line without what differs from run to run."""
    line = re.sub(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", "UUID", line)
    line = re.sub(r"\b[0-9a-f]{32}\b", "ID", line)
    line = re.sub(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", "TIME", line)
    line = re.sub(r"-{3,}", "-", line)
    return re.sub(r"\s+", " ", line).strip()


def is_printed(shown: str, lines: list[str]) -> bool:
    pattern = re.compile(".*".join(re.escape(part) for part in plain(shown).split("…")))
    return any(pattern.fullmatch(line) for line in lines)


def run_all(given: list[Example], service: Service, folder: Path) -> list[str]:
    """Run the examples in one shell, in `folder`; what is not as the page says."""
    # Where the pages' commands stand: in the repository, with the environment and the service's folder in it.
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "data").symlink_to(service.data_dir)
    script = "".join(SHELL % (one.command.replace(TOLD_URL, service.url), n, n) for n, one in enumerate(given))
    subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**clean_environment(), "HOME": str(folder), "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"},
        timeout=WITHIN_S,
        check=True,
    )
    wrong = []
    for n, one in enumerate(given):
        output = (folder / f"{n}.out").read_text().replace(service.url, TOLD_URL)
        status = int((folder / f"{n}.status").read_text())
        lines = [plain(line) for line in output.splitlines()]
        if (status != 0) is not one.fails:
            wrong.append(f"$ {one.command}\nexit status {status}\n{output}")
        wrong += [
            f"$ {one.command}\nnot printed: {line}\n{output}" for line in one.shown if not is_printed(line, lines)
        ]
    return wrong


@pytest.mark.parametrize("page", pages())
def test_the_commands_of_the_page_do_what_it_shows(
    page: str, make_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = make_service().start()
    folder = tmp_path / "here"
    folder.mkdir()

    wrong = run_all(examples(ROOT / page), service, folder)

    assert not wrong, "\n\n".join(wrong)


def test_what_was_backed_up_by_the_page_can_be_restored(
    make_service: Callable[..., Service], tmp_path: Path, alpine: Path
) -> None:
    """A backup that is made while the service runs, as the page says, holds every image whole."""
    service = make_service().start()
    with service.demo() as demo:
        demo.put_object("disks", "alpine.qcow2", alpine)
        image_id = demo.succeeded(demo.import_image("disks:alpine.qcow2", "alpine"))["entities"]["image_id"]
    folder = tmp_path / "here"
    folder.mkdir()
    assert run_all(examples(ROOT / BACKUP), service, folder) == []
    service.kill()

    restored = make_service()
    restored.data_dir.parent.mkdir(parents=True)
    (folder / "backup").rename(restored.data_dir)
    restored.start()

    with restored.demo() as demo:
        assert demo.image(image_id)["status"] == "active"
        assert demo.http.get(f"/v2/images/{image_id}/file").content == alpine.read_bytes()
        assert demo.get_object("disks", "alpine.qcow2") == alpine.read_bytes()
