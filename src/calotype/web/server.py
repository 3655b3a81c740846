"""The process that holds the port: Granian, with one API process a core behind it. Started by the supervisor."""

import argparse

from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from calotype import logs
from calotype.lifeline import die_with_parent
from calotype.settings import load

BACKLOG = 1024
STOP_WITHIN_S = 8  # requests under way get so long to end
BUFFER_BYTES = 512 * 1024  # of a connection: the largest piece in which a body arrives


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process id of the supervisor")
    arguments = parser.parse_args()
    die_with_parent(parent=arguments.parent)
    settings = load()
    logs.configure(settings)
    Granian(
        target="calotype.web.app:application",
        factory=True,
        address=settings.http.host,
        port=settings.http.port,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        workers=settings.processes,
        websockets=False,
        backlog=BACKLOG,
        http1_settings=HTTP1Settings(max_buffer_size=BUFFER_BYTES),
        respawn_failed_workers=True,
        log_enabled=True,
        log_level=LogLevels.warning,
        workers_kill_timeout=STOP_WITHIN_S,
    ).serve()


if __name__ == "__main__":
    main()
