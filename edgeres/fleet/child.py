"""Runs edgeres as a job's command: it ends when the process that started it does.

Run as `python -m edgeres.fleet.child COMMAND ...`.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""Source: Linux, include/uapi/linux/prctl.h."""


def main() -> None:
    """Ties this process to its parent, and runs the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have ended before the call: then init, or a reaper, is the parent.
        if os.environ.get("EDGERES_PARENT", str(os.getppid())) != str(os.getppid()):
            sys.exit(1)
    sys.argv[0] = "edgeres"
    runpy.run_module("edgeres", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
