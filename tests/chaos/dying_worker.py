"""A real worker that kills itself with SIGKILL, stops itself with SIGSTOP, or holds still, at an exact point of a job.

Run as `python -m tests.chaos.dying_worker STEP MOMENT SIGNAL` with the settings in the environment. With HOLD for the
signal the job holds still until the folder `run` has a file `go`; the process lives on, and no lock of the database is
held, as might be when a process is stopped anywhere.
"""

import os
import signal
import sys
import time
from typing import Final

from calotype import compose, logs
from calotype.settings import load

HOLD: Final = "HOLD"
HOLDING, GO = "holding", "go"


def main() -> None:
    step, moment, name = sys.argv[1:4]
    settings = load()
    run = settings.folder / "run"

    def observer(at_step: str, at_moment: str) -> None:
        if (at_step, at_moment) != (step, moment):
            return
        if name != HOLD:
            os.kill(os.getpid(), signal.Signals[name])
            return
        (run / HOLDING).touch()
        while not (run / GO).exists():
            time.sleep(0.02)
        (run / HOLDING).unlink()

    logs.configure(settings)
    with compose.worker(settings, observer=observer) as work:
        work()


if __name__ == "__main__":
    main()
