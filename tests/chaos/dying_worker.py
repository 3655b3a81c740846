"""A real worker that kills itself with SIGKILL, or stops itself with SIGSTOP, at an exact point of a job.

Run as `python -m tests.chaos.dying_worker STEP MOMENT SIGNAL` with the settings in the environment.
"""

import os
import signal
import sys

from calotype import compose, logs
from calotype.settings import load


def main() -> None:
    step, moment, name = sys.argv[1:4]

    def observer(at_step: str, at_moment: str) -> None:
        if (at_step, at_moment) == (step, moment):
            os.kill(os.getpid(), signal.Signals[name])

    settings = load()
    logs.configure(settings)
    with compose.worker(settings, observer=observer) as work:
        work()


if __name__ == "__main__":
    main()
