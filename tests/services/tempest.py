"""Tempest as it comes from PyPI: its workspace, its accounts, a run of it, and what the run said of each test."""

import csv
import io
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml
from msgspec import Struct

from tests.service import ADMIN_PASSWORD, Client, clean_environment
from tests.services.deployment import Account, Deployment, create_account

TEMPLATE: Final = Path(__file__).with_name("tempest.conf.in")
CONCURRENCY: Final = 2
RUN_WITHIN_S: Final = 1500
DISK_FORMATS: Final = "qcow2,raw,ami,ari,aki,vhd,vmdk,vdi,iso,vhdx,ploop,gpt"
# Six that random bytes are. Tempest's list tests upload random bytes as the first six of its list.
FORMATS_OF_ANY_BYTES: Final = "raw,ami,ari,aki,raw,raw"
ADMIN: Final = "\n".join(
    (
        "use_dynamic_credentials = true",
        "admin_username = admin",
        f"admin_password = {ADMIN_PASSWORD}",
        "admin_project_name = admin",
        "admin_domain_name = Default",
    )
)


class Outcome(Struct, frozen=True, kw_only=True):
    """Names of tests by what became of them. `talk` is what Tempest printed."""

    passed: frozenset[str]
    skipped: frozenset[str]
    failed: frozenset[str]
    talk: str


class Workspace:
    """A folder of Tempest's with its configuration."""

    def __init__(
        self,
        folder: Path,
        deployment: Deployment,
        *,
        auth: str,
        formats_are_enforced: bool = False,
        disk_formats: str = DISK_FORMATS,
    ) -> None:
        self.folder = folder
        self.environment = {**clean_environment(), "HOME": str(folder.parent), "PYTHONWARNINGS": "ignore"}
        self._tool("tempest", "init", "--workspace-path", str(folder.with_suffix(".yaml")), str(folder), cwd=Path("/"))
        values = {
            "WORKSPACE": str(folder),
            "AUTH": auth,
            "AUTH_URL": f"{deployment.first.url}/identity/v3",
            "REGION": "RegionOne",
            "HTTP_IMAGE": deployment.files.archive,
            "HTTP_QCOW2": deployment.files.disk,
            "DISK_FORMATS": disk_formats,
            "FORMAT_ENFORCEMENT": str(formats_are_enforced).lower(),
        }
        filled = re.sub(r"@([A-Z0-9_]+)@", lambda found: values[found[1]], TEMPLATE.read_text())
        self.configuration = folder / "etc" / "tempest.conf"
        self.configuration.write_text(filled)

    def run(self, regex: str, *, concurrency: int = CONCURRENCY) -> Outcome:
        options = ("--config-file", str(self.configuration), "--concurrency", str(concurrency))
        done = self._tool("tempest", "run", *options, "--regex", regex, cwd=self.folder)
        # One line a test; the second of these programs turns the stored stream of results into them.
        stored = self._tool("stestr", "last", "--subunit", cwd=self.folder).stdout
        lines = self._tool("subunit2csv", "--no-passthrough", cwd=self.folder, given=stored).stdout.decode()
        outcome: dict[str, set[str]] = {"success": set(), "skip": set(), "fail": set()}
        for row in csv.DictReader(io.StringIO(lines)):
            outcome.setdefault(row["status"], set()).add(re.sub(r"\[[^]]*\]$", "", row["test"]))
        others = frozenset().union(*(found for status, found in outcome.items() if status not in ("success", "skip")))
        return Outcome(
            passed=frozenset(outcome["success"]),
            skipped=frozenset(outcome["skip"]),
            failed=others,
            talk=(done.stdout + done.stderr).decode(errors="replace"),
        )

    def _tool(self, *command: str, cwd: Path, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Their exit statuses say whether a test failed, which is read from the results."""
        program = str(Path(sys.executable).with_name(command[0]))
        path = os.pathsep.join((str(Path(program).parent), self.environment.get("PATH", "")))
        return subprocess.run(
            [program, *command[1:]],
            cwd=cwd,
            env={**self.environment, "PATH": path},
            input=given,
            capture_output=True,
            timeout=RUN_WITHIN_S,
            check=False,
        )


def accounts(admin: Client) -> list[Account]:
    """For each of Tempest's processes: a stranger, a member and a reader of one project, an admin."""
    numbers = range(CONCURRENCY)
    return [
        *(create_account(admin, f"stranger-{n}", f"strangers-{n}", "member") for n in numbers),
        *(create_account(admin, f"{role}-{n}", f"tempest-{n}", role) for n in numbers for role in ("member", "reader")),
        *(create_account(admin, f"admin-{n}", f"admins-{n}", "admin") for n in numbers),
    ]


def accounts_file(file: Path, made: list[Account]) -> str:
    """Write them as Tempest reads them, in their order; the lines of its configuration that say so."""
    file.write_text(yaml.safe_dump([_entry(account) for account in made]))
    return f"use_dynamic_credentials = false\ntest_accounts_file = {file}"


def _entry(account: Account) -> Mapping[str, object]:
    entry: dict[str, object] = {
        "username": account.user,
        "password": account.password,
        "project_name": account.project,
        "domain_name": "Default",
    }
    if not account.user.startswith("stranger"):  # those are for whoever asks without a role
        entry["roles"] = [account.role]
    return entry
