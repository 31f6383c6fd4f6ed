"""`edgeres doctor`."""

from __future__ import annotations

import click

from edgeres.cli.options import common_options
from edgeres.cli.output import show, show_json
from edgeres.cli.remote import RemoteCommand


@click.command(cls=RemoteCommand)
@common_options
def doctor(as_json: bool) -> None:
    """Show what this machine can do, and what to install or set for the rest.

    On a Jetson also its JetPack, power mode, clocks and temperatures; with sudo the memory's
    clock too.

    \b
    Example:
      edgeres doctor
    """
    from edgeres.machine import examine_machine

    report = examine_machine()
    if as_json:
        show_json(report)
        return
    from edgeres.report import render_doctor

    show(render_doctor(report))
