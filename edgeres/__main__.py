"""`python -m edgeres`, and the command `edgeres`."""

from __future__ import annotations

import signal
import sys


def run() -> None:
    """Runs the words of this process; Ctrl-C ends it as quietly while it is still being loaded."""
    try:
        from edgeres.cli import main

        main(prog_name="edgeres")
    except KeyboardInterrupt:
        # What is sent to a group of processes may come twice.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write("Interrupted: nothing half-written was left behind.\n")
        # Source: POSIX shells, 128 + SIGINT.
        sys.exit(130)


if __name__ == "__main__":
    run()
