"""`calotype serve`: one parent that starts the API processes and a worker, keeps them running, and ends them.

The parent does nothing else, so that it has little to fail. A child that ends is started again after a pause that
grows; one that says its settings are wrong ends everything. Children die with the parent, however it dies.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final

import structlog

from calotype.settings import Settings

log = structlog.get_logger()

EX_CONFIG: Final = 78  # sysexits.h: a child that ends with it cannot work with these settings
LONGEST_PAUSE_S: Final = 30.0
STEADY_AFTER_S: Final = 60.0  # a child that ran for so long is started again without a pause
API_STOP_S: Final = 10.0
LOOK_EVERY_S: Final = 0.1
PASSWORDS: Final = ("CALOTYPE_ADMIN_PASSWORD", "CALOTYPE_DEMO_PASSWORD")  # of the first start; nobody else needs them


class CannotStart(Exception):
    """The service cannot be started as it is set. The text says what to change."""


class Child:
    """A process that is to be running."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.command = [*command, "--parent", str(os.getpid())]
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.due = 0.0
        self.pause = 0.0

    def start(self) -> None:
        # A session of its own: Ctrl-C in the terminal reaches the parent only, which then ends its children in order.
        self.process = subprocess.Popen(self.command, env=dict(self.environment), start_new_session=True)
        self.started = time.monotonic()

    def look(self) -> int | None:
        """Start it when it is due; its exit status when it has just ended."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.due:
                self.start()
            return None
        status = self.process.poll()
        if status is None:
            return None
        self.process = None
        steady = now - self.started >= STEADY_AFTER_S
        self.pause = 0.0 if steady else min(LONGEST_PAUSE_S, max(0.5, self.pause * 2))
        self.due = now + self.pause
        return status

    def stop(self, wanted: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(wanted)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


def serve(settings: Settings, *, with_worker: bool, environment: Mapping[str, str], ready_message: str) -> int:
    """Run until SIGTERM or SIGINT; the exit status of the command. Raises `CannotStart`."""
    _check_port(settings)
    if subprocess.run([sys.executable, "-m", "calotype.prepare"], env=dict(environment), check=False).returncode != 0:
        raise CannotStart("the database could not be prepared; what is above says why")
    environment = {name: value for name, value in environment.items() if name not in PASSWORDS}
    children = [Child("api", [sys.executable, "-m", "calotype.web.server"], environment)]
    if with_worker:
        children.append(Child("worker", [sys.executable, "-m", "calotype.cli", "worker"], environment))
    stopping: list[int] = []
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, lambda number, _frame: stopping.append(number))
    for child in children:
        child.start()
    told = False
    status = 0
    try:
        while not stopping:
            for child in children:
                ended = child.look()
                if ended is None:
                    continue
                log.error("process_ended", process=child.name, status=ended, restart_in_s=child.pause)
                if ended == EX_CONFIG:
                    status = 1
                    stopping.append(signal.SIGTERM)
            if not told and _ready(settings, workers=int(with_worker)):
                told = True
                sys.stderr.write(ready_message)
                sys.stderr.flush()
            time.sleep(LOOK_EVERY_S)
    finally:
        _end(children, settings, stopping)
    return status


def _end(children: Sequence[Child], settings: Settings, stopping: Sequence[int]) -> None:
    """SIGTERM to all and a time to end in; a second signal, or the time's end, kills."""
    for child in children:
        child.stop(signal.SIGTERM)
    deadline = time.monotonic() + max(API_STOP_S, settings.jobs.drain_s + 5)
    signals = len(stopping)
    while any(child.running for child in children) and time.monotonic() < deadline and len(stopping) <= max(1, signals):
        time.sleep(0.05)
    for child in children:
        child.stop(signal.SIGKILL)
        if child.process is not None:
            child.process.wait()


def _check_port(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.http.host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.http.host, settings.http.port))
        except OSError as error:
            raise CannotStart(
                f"cannot listen on {settings.http.host} port {settings.http.port}: {error.strerror}. "
                "Choose another with --port, or end what uses it"
            ) from error


def _ready(settings: Settings, *, workers: int) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.http.host, settings.http.host)  # noqa: S104 - compared
    connection = http.client.HTTPConnection(host, settings.http.port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        told = json.loads(answer.read())
        return answer.status == http.HTTPStatus.OK and told["workers"] >= workers
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
