"""`edgeres doctor`."""

from __future__ import annotations

import click

from edgeres.cli.options import common_options
from edgeres.cli.output import show, show_json


@click.command()
@common_options
def doctor(as_json: bool) -> None:
    """Tell what this machine can do, and what to install or set for the rest.

    \b
    Example:
      edgeres doctor
    """
    from edgeres.environment import capabilities, describe_machine

    machine, found = describe_machine(), capabilities()
    if as_json:
        described = {"machine": machine.to_dict(), "capabilities": [c.to_dict() for c in found]}
        show_json({"schema_version": 1, **described})
        return
    from edgeres.report import render_doctor

    show(render_doctor(machine, found))
