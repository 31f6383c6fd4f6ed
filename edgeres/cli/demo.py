"""`edgeres demo`."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path

import click

from edgeres.cli.options import PATH, common_options
from edgeres.cli.output import progress_bars, show, show_json, show_status


@click.command()
@click.option("--keep", type=PATH, help="Folder to leave data, model, table and engines in.")
@common_options
@click.pass_context
def demo(ctx: click.Context, keep: Path | None, as_json: bool) -> None:
    """Run the whole path on handwritten digits, offline, for every target of this machine.

    \b
    Example:
      edgeres demo --keep demo/
    """
    # A folder that the user named stays; the temporary one goes with the command.
    folder_of_run = nullcontext(str(keep)) if keep else tempfile.TemporaryDirectory()
    with folder_of_run as folder, progress_bars() as progress:
        from edgeres.workflows import run_demo  # onnxruntime, torch

        results = run_demo(Path(folder), show_status=show_status, progress=progress)
    from edgeres.core.verdict import conclude

    if as_json:
        verdicts = {r.engine.manifest.target: r.verdict for r in results}
        show_json({"schema_version": 1, "verdicts": verdicts})
    else:
        from rich.text import Text

        from edgeres.report import render_verdict

        for result in results:
            manifest = result.engine.manifest
            place = (
                "evaluated on the CPU, by the same quantized network"
                if result.simulated
                else "run here"
            )
            show(
                Text.assemble(
                    "\n",
                    (manifest.target, "bold"),
                    f": {manifest.precision} engine, {result.engine_bytes / 1e6:.2f} MB, {place}\n",
                )
            )
            show(render_verdict(result.verdict))
    # All targets together: a script must not pass because the last one did.
    ctx.exit(conclude(check for one in results for check in one.verdict.checks).exit_code)
