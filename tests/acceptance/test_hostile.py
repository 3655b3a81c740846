"""Hostile images over HTTP: each way in, a file of each kind; each file, by the ways that answer at once.

The service runs without bubblewrap, so that nothing but the gate keeps an image from the files of the host; and the
files and services that images point at are there, and watched. The whole matrix: `services/test_hostile_matrix.py`.
"""

import itertools
import json
import socket
from collections.abc import Iterator
from typing import Final

import pytest

from calotype.errors import FormatMismatch
from tests import hostile
from tests.decoys import Decoys
from tests.disks import corpus
from tests.disks.corpus import Case
from tests.entry_drivers import Ground
from tests.entry_paths import PATHS
from tests.hostile import attacked, every_kind, left_of
from tests.service import until

CASES: Final = list(corpus.hostile())
FAMILIES: Final = sorted({case.family for case in CASES})
AT_ONCE: Final = ("upload", "location-patch")  # answered while the request waits
# Ways that write a disk as raw, where the settings say so.
CONVERTING: Final = ("stage", "web-download", "task", "import", "import-data", "import-ova", "register", "volume")
OPENED: Final = ("import-zvhd", "import-zvhd2")  # what is in them is a VHD, or that and something else


@pytest.fixture(scope="module")
def decoys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoys]:
    with Decoys(tmp_path_factory.mktemp("host") / "decoys") as watched:
        yield watched


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with hostile.ground(tmp_path_factory.mktemp("hostile"), bubblewrap=False) as made:
        yield made


@pytest.fixture(scope="module")
def pointing(decoys: Decoys) -> list[Case]:
    """Images that point at the decoys."""
    return list(corpus.pointing(*map(str, decoys.paths.values()), port=decoys.port))


def test_what_is_opened_read_or_connected_to_is_seen(decoys: Decoys) -> None:
    decoys.touched()
    for name, path in decoys.paths.items():
        if name == "socket":
            continue
        with path.open("rb", buffering=0):
            assert decoys.touched() == ["file" if name == "link" else name]
    with socket.create_connection(("127.0.0.1", decoys.port)):
        until(lambda: decoys.touched() == ["a connection"], "the connection to be seen")

    assert decoys.touched() == []


def test_the_log_says_at_start_which_layers_are_in_force(ground: Ground) -> None:
    lines = [json.loads(line) for line in ground.service.log.read_text().splitlines() if line.startswith("{")]
    told = next(line for line in lines if line["event"] == "sandbox")

    assert (told["bubblewrap"], told["network"], told["files"]) == (False, "as the service", "as the service")
    assert (told["limits"], told["dies_with_worker"]) == (True, True)
    assert "bubblewrap is not installed" in told["missing"]


@pytest.mark.parametrize("way", PATHS)
def test_an_attack_of_each_kind_is_refused_with_its_code_and_leaves_nothing(
    way: str, ground: Ground, decoys: Decoys, pointing: list[Case]
) -> None:
    attacks = list(every_kind(way, CASES, pointing))

    wrong = attacked(ground, attacks)

    assert wrong == []
    assert left_of(ground) == {}
    assert decoys.touched() == []
    assert len({case.family for _, case in attacks}) == (2 if way in OPENED else len(FAMILIES))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_hostile_file_is_refused_with_its_code_and_leaves_nothing(
    family: str, ground: Ground, decoys: Decoys, pointing: list[Case]
) -> None:
    cases = [case for case in (*CASES, *pointing) if case.family == family]

    wrong = attacked(ground, [(AT_ONCE[number % 2], case) for number, case in enumerate(cases)])

    assert wrong == []
    assert left_of(ground) == {}
    assert decoys.touched() == []


@pytest.mark.parametrize("way", CONVERTING)
def test_a_raw_disk_that_would_be_taken_for_an_image_is_not_made_of_one(way: str, ground: Ground) -> None:
    """What a conversion writes goes through the gate again: it may be an image of the guest's making."""
    waiting = []
    number = CONVERTING.index(way)
    for name, format_, content in itertools.islice(corpus.payloads(), number % 3, None, 3):
        case = Case.of(name=name, format_=format_, content=content, error=FormatMismatch)
        waiting.append((name, PATHS[way].drive(ground, case)))

    for name, wait in waiting:
        outcome = wait()
        assert "declared as raw, but the content is" in outcome.told or "LUKS" in outcome.told, (name, outcome)
        assert outcome.code in (None, "IMG.0057")
    assert left_of(ground) == {}


def test_what_is_kept_as_it_came_keeps_its_format(ground: Ground) -> None:
    """The same disks, not converted: each is downloaded as the format that it is, and what is in it stays in it."""
    for name, format_, content in corpus.payloads():
        image = ground.demo.http.post(
            "/v2/images", json={"name": name, "disk_format": format_, "container_format": "bare"}
        ).json()
        headers = {"Content-Type": "application/octet-stream"}
        assert ground.demo.http.put(image["file"], content=content, headers=headers).status_code == 204
        shown = ground.demo.image(image["id"])
        assert (shown["status"], shown["disk_format"]) == ("active", format_)
        assert ground.demo.http.get(image["file"]).content == content
        assert ground.demo.http.delete(image["self"]).status_code == 204

    assert left_of(ground) == {}
