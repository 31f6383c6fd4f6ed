"""What a file is: a model, a calibration table or an engine."""

from __future__ import annotations

from pathlib import Path

from edgeres.core.artifacts import EngineArtifact, OnnxArtifact, is_engine, load_engine
from edgeres.core.table import CalibrationTable, load_table
from edgeres.onnx_file import load_onnx


def inspect_artifact(path: Path) -> OnnxArtifact | CalibrationTable | EngineArtifact:
    """Returns what `path` holds, checked against its hashes.

    An engine is known by the manifest beside it, and may be named by that manifest; a table
    by its `.json`; anything else has to be an ONNX model.

    Raises:
        ArtifactError: it is none of the three, or damaged.
    """
    if is_engine(path):
        return load_engine(path)
    if path.suffix == ".json":
        # `a.plan.json` is the manifest of `a.plan`, and means that engine.
        engine = path.with_suffix("")
        named = engine.exists() and is_engine(engine)
        return load_engine(engine) if named else load_table(path)
    return load_onnx(path).artifact
