"""python-glanceclient as it comes from PyPI: its library, and its command as a user runs it in a terminal."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import glanceclient
from keystoneauth1 import loading, session

from tests.service import Service, clean_environment

Glance = Any  # a client whose methods and models are made from schemas at run time


def connect(service: Service, cloud: str = "calotype-demo", **options: Any) -> Glance:
    authentication: Any = loading.get_plugin_loader("password").load_from_options(**service.cloud(cloud)["auth"])
    return glanceclient.Client("2", session=session.Session(auth=authentication), **options)


class Command:
    """The command `glance`, with a home folder of its own for the schemas that it keeps."""

    def __init__(self, service: Service, home: Path, terminal: int) -> None:
        self.service, self.home, self.terminal = service, home, terminal

    def __call__(self, *arguments: str, cloud: str = "calotype-demo", ok: bool = True) -> str:
        """What it printed."""
        given = {f"OS_{key.upper()}": value for key, value in self.service.cloud(cloud)["auth"].items()}
        done = subprocess.run(
            [str(Path(sys.executable).with_name("glance")), *arguments],
            env={**clean_environment(), **given, "HOME": str(self.home), "PYTHONWARNINGS": "ignore"},
            stdin=self.terminal,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode == 0) == ok, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@contextmanager
def command(service: Service, home: Path) -> Iterator[Command]:
    """Where standard input is no terminal, the client uploads what it reads there: so it gets one."""
    ends = os.openpty()
    try:
        yield Command(service, home, ends[1])
    finally:
        for end in ends:
            os.close(end)


def shown(table: str) -> dict[str, str]:
    """The two columns of a table that the command printed."""
    rows = [line.strip("| ").split(" | ", 1) for line in table.splitlines() if line.startswith("|")]
    return {row[0].strip(): row[1].strip(" |") for row in rows if len(row) == 2}
