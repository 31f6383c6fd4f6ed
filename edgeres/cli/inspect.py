"""`edgeres inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeres.cli.options import PATH, common_options
from edgeres.cli.output import show, show_json


@click.command(short_help="Tell what a model, table or engine is.")
@click.argument("artifact", type=PATH)
@common_options
def inspect(artifact: Path, as_json: bool) -> None:
    """Tell what a model, table or engine is, where it came from, layer by layer.

    \b
    Example:
      edgeres inspect resnet50.int8.onnx
    """
    from edgeres.core.artifacts import EngineArtifact
    from edgeres.report import render_artifact
    from edgeres.workflows import inspect_artifact  # onnx

    found = inspect_artifact(artifact)
    if not as_json:
        show(render_artifact(found))
        return
    show_json(found.manifest if isinstance(found, EngineArtifact) else found)
