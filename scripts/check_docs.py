"""Check the documentation: every link leads somewhere, and every setting, error code and command is told in it.

Exit status 1 and one line for each thing that is wrong. No network: links to other sites are not followed.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import typer.main

from calotype import errors
from calotype.cli import app
from calotype.settings import variables

ROOT: Final = Path(__file__).resolve().parent.parent
LINK: Final = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
FENCED: Final = re.compile(r"^ {0,3}(```|~~~).*?^ {0,3}\1", re.MULTILINE | re.DOTALL)
INLINE: Final = re.compile(r"`[^`\n]*`")
HEADING: Final = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
ANCHOR: Final = re.compile(r"""<a\s+(?:id|name)=["']([^"']+)["']""")


def pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def anchors(page: Path) -> set[str]:
    """The names that a link into the page may have, as the common renderers make them from headings."""
    text = FENCED.sub("", page.read_text())
    found: set[str] = set(ANCHOR.findall(text))
    for heading in HEADING.findall(text):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        taken = name
        for number in range(1, 100):
            if taken not in found:
                break
            taken = f"{name}-{number}"
        found.add(taken)
    return found


def broken_links(page: Path) -> Iterator[str]:
    text = INLINE.sub("", FENCED.sub("", page.read_text()))
    for match in LINK.finditer(text):
        link = match[1] or match[2]
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        place, _, anchor = unquote(link).partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.is_relative_to(ROOT):
            yield f"{link} leads out of the repository"
        elif not target.exists():
            yield f"{link} leads nowhere"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            yield f"{link}: the page has no such heading"


def error_codes() -> set[str]:
    found = set()
    pending: list[type[errors.CalotypeError]] = [errors.CalotypeError]
    while pending:
        kind = pending.pop()
        found.add(kind.code)
        pending += kind.__subclasses__()
    return found


def commands() -> set[str]:
    """Every command as it is typed: "calotype image create"."""
    found = set()
    pending: list[tuple[str, Any]] = [("calotype", typer.main.get_command(app))]
    while pending:
        name, command = pending.pop()
        below = getattr(command, "commands", None)
        if below is None:
            found.add(name)
        else:
            pending += [(f"{name} {each}", inner) for each, inner in below.items() if not inner.hidden]
    return found


def untold() -> Iterator[str]:
    """What the reference pages leave out."""
    text = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").rglob("*.md"))
    for variable, name in sorted(variables().items()):
        if not (re.search(rf"\b{re.escape(name)}\b", text) or variable in text):
            yield f"the setting {name} ({variable})"
    for code in sorted(error_codes()):
        if f"`{code}`" not in text:
            yield f"the error code {code}"
    for command in sorted(commands()):
        if not re.search(rf"{re.escape(command)}\b", text):
            yield f"the command {command}"


def main() -> int:
    wrong = [f"{page.relative_to(ROOT)}: {problem}" for page in pages() for problem in broken_links(page)]
    wrong += [f"docs/reference says nothing of {thing}" for thing in untold()]
    for line in wrong:
        print(line)
    print(f"{len(pages())} pages, {len(wrong)} things wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
