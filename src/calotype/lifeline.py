"""A process that must not outlive the one that started it."""

import ctypes
import os
import signal
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def die_with_parent(wanted: signal.Signals = signal.SIGKILL, parent: int | None = None) -> None:
    """Ask the kernel to send this process `wanted` when its parent ends, and end at once if it already has.

    `parent`: the process id that the parent is known to have, where the starter said so.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(wanted), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() == 1 or (parent is not None and os.getppid() != parent):
        os.kill(os.getpid(), signal.SIGTERM)
