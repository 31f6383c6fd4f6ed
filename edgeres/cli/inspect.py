"""`edgeres inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeres.cli.options import PATH, common_options
from edgeres.cli.output import show, show_json


@click.command()
@click.argument("path", metavar="ARTIFACT", type=PATH)
@common_options
def inspect(path: Path, as_json: bool) -> None:
    """Show what a model, table or engine is, where it came from, layer by layer.

    \b
    Example:
      edgeres inspect resnet50.int8.onnx
    """
    from edgeres.core.artifacts import EngineArtifact
    from edgeres.report import render_artifact
    from edgeres.workflows import inspect_artifact  # onnx

    content = inspect_artifact(path)
    if not as_json:
        show(render_artifact(content))
        return
    # An engine in memory is a path, bytes and this; only this means something elsewhere.
    show_json(content.manifest if isinstance(content, EngineArtifact) else content)
