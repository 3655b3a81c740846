"""The documentation tells everything there is: checked against the code, so that neither can change alone."""

import importlib.util
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from calotype.errors import Unauthenticated
from calotype.settings import SECTIONS, variables
from calotype.web.app import ROUTES

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
REFERENCE: Final = ROOT / "docs" / "reference"


@cache
def script(name: str) -> ModuleType:
    """A program of `scripts/`, which is no package."""
    found = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_every_link_between_pages_leads_somewhere(page: str) -> None:
    assert list(script("check_docs").broken_links(ROOT / page)) == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    pending, reached = [ROOT / "README.md"], set()
    while pending:
        page = pending.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        pending += [(page.parent / link).resolve() for link in links if "://" not in link]

    assert sorted({ROOT / page for page in PAGES} - reached) == []


def test_the_generated_parts_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "docs_reference.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_is_in_the_reference() -> None:
    page = (REFERENCE / "settings.md").read_text()

    told = {name for variable, name in variables().items() if f"`{name}`" in page and f"`{variable}`" in page}

    assert set(variables().values()) - told == set()
    assert [section for section in SECTIONS if f"`[{section}]`" not in page] == []


def test_every_error_code_is_in_the_reference() -> None:
    page = (REFERENCE / "errors.md").read_text()
    kinds = list(script("docs_reference").kinds_of_error())

    assert [kind.code for kind in kinds if f"| `{kind.code}` |" not in page] == []
    assert [kind.img for kind in kinds if f"`{kind.img}`" not in page and not issubclass(kind, Unauthenticated)] == []


def test_every_error_code_that_is_explained_exists() -> None:
    reference = script("docs_reference")
    told = reference.words_of_errors()
    of_the_service = {kind.code for kind in reference.kinds_of_error()}

    assert set(told["service"]) == of_the_service
    assert set(told["command_line"]) == reference.codes_of_the_command_line() - of_the_service


def test_every_img_code_that_an_error_has_is_documented_with_its_message() -> None:
    known = json.loads((ROOT / "src" / "calotype" / "jobs" / "img_codes.json").read_text())

    assert [kind.img for kind in script("docs_reference").kinds_of_error() if kind.img not in known] == []


def test_every_command_is_in_the_reference() -> None:
    page = (REFERENCE / "commands.md").read_text()

    left_out = [command for command in script("check_docs").commands() if f"## `{command}`" not in page]

    assert left_out == []


@pytest.mark.parametrize("method_and_path", sorted({f"{route.method} {route.path}" for route in ROUTES}))
def test_every_route_is_in_the_reference(method_and_path: str) -> None:
    assert f"`{method_and_path.replace(':path', '')}`" in (REFERENCE / "api.md").read_text()


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        (page, target)
        for page in PAGES
        for target in re.findall(r"(?:`|^|&& )make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE)
    }

    assert named
    assert [(page, target) for page, target in sorted(named) if target not in targets] == []


def test_the_picture_is_readable_on_light_and_dark_pages() -> None:
    """It brings its own background, and other colours where the reader's system is dark."""
    picture = (ROOT / "docs" / "explanation" / "architecture.svg").read_text()

    assert '<rect class="page"' in picture
    assert "prefers-color-scheme: dark" in picture
    assert "<title" in picture


def test_decisions_are_numbered_and_have_their_three_parts() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text()
    decisions = sorted(path for path in folder.glob("*.md") if path.name != "README.md")

    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text()
        assert text.startswith(f"# {int(path.name[:4])}. "), path.name
        assert re.findall(r"^## (\w+)", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], path.name
        assert f"({path.name})" in index, path.name
