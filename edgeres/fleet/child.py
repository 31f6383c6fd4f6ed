"""Runs edgeres as a job's command: it ends when the process that started it does.

Run as `python -m edgeres.fleet.child COMMAND ...`.
"""

from __future__ import annotations

import os
import runpy
import sys

from edgeres.processes import end_with_parent


def main() -> None:
    """Ties this process to its parent, and runs the command."""
    end_with_parent(int(os.environ.get("EDGERES_PARENT", os.getppid())))
    sys.argv[0] = "edgeres"
    runpy.run_module("edgeres", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
