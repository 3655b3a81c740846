"""OpenStack's own integration tests of the Image API, as they come from PyPI, against two API nodes with every feature.

The bar is what Glance itself reaches with every feature on: 93 passed, none failed, five skipped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.services.deployment import Deployment, deployment
from tests.services.skips import SUITES, entries, skips
from tests.services.tempest import (
    ADMIN,
    FORMATS_OF_ANY_BYTES,
    Outcome,
    Workspace,
    accounts,
    accounts_file,
)

pytestmark = pytest.mark.services

ALL: Final = r"^tempest\.api\.image"
LISTS: Final = r"^tempest\.api\.image\.v2\.test_images\.ListUserImagesTest"
PASSED: Final = 93


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Deployment]:
    """disk_format is what the owner says."""
    with deployment(tmp_path / "told", {"CALOTYPE_IMAGE_FORMAT_ENFORCEMENT": "false"}) as running:
        yield running


@pytest.fixture
def enforced(tmp_path: Path) -> Iterator[Deployment]:
    """disk_format must be what the bytes are."""
    with deployment(tmp_path / "enforced", {"CALOTYPE_IMAGE_FORMAT_ENFORCEMENT": "true"}) as running:
        yield running


def fails(outcome: Outcome) -> str:
    return "\n".join([*sorted(outcome.failed), outcome.talk[-30_000:]]) if outcome.failed else ""


@pytest.mark.parametrize("suite", SUITES)
def test_every_skip_has_its_reason(suite: str) -> None:
    told = entries(suite)

    assert all(skip["reason"].strip() for skip in told)
    assert len({skip["test"] for skip in told}) == len(told)


def test_the_whole_suite_passes_where_disk_format_is_what_the_owner_says(told: Deployment, tmp_path: Path) -> None:
    with told.first.admin() as admin:
        auth = accounts_file(tmp_path / "accounts.yaml", accounts(admin))

    outcome = Workspace(tmp_path / "workspace", told, auth=auth).run(ALL)

    assert fails(outcome) == ""
    assert outcome.skipped == skips("tempest")
    assert len(outcome.passed) == PASSED


def test_the_whole_suite_passes_where_disk_format_must_be_what_the_bytes_are(
    enforced: Deployment, tmp_path: Path
) -> None:
    """Told so, Tempest leaves out its list tests, whose images lie: they are run with formats that random bytes are."""
    with enforced.first.admin() as admin:
        auth = accounts_file(tmp_path / "accounts.yaml", accounts(admin))

    most = Workspace(tmp_path / "workspace", enforced, auth=auth, formats_are_enforced=True).run(ALL)
    lists = Workspace(tmp_path / "lists", enforced, auth=auth, disk_formats=FORMATS_OF_ANY_BYTES).run(LISTS)

    assert (fails(most), fails(lists)) == ("", "")
    assert most.skipped == skips("tempest", "formats are enforced")
    assert lists.skipped == set()
    assert not most.passed & lists.passed
    assert len(most.passed | lists.passed) == PASSED


def test_tempest_makes_its_own_accounts_and_removes_them(told: Deployment, tmp_path: Path) -> None:
    """Dynamic credentials: an admin's account is all that Tempest is given."""
    outcome = Workspace(tmp_path / "workspace", told, auth=ADMIN).run(
        r"^tempest\.api\.image\.v2\.(test_images_member|test_images_tags|admin\.test_images\.BasicOperations)"
    )

    assert fails(outcome) == ""
    assert outcome.skipped == set()
    assert len(outcome.passed) == 14
    with told.first.admin() as admin:
        left = {
            kind: {one["name"] for one in admin.http.get(f"/identity/v3/{kind}").json()[kind]}
            for kind in ("users", "projects")
        }
    assert left == {"users": {"admin", "demo"}, "projects": {"admin", "demo"}}
