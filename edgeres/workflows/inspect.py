"""What a file is: a model, a calibration table or an engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeres.core.artifacts import EngineArtifact, OnnxArtifact, is_engine, load_engine
from edgeres.core.table import CalibrationTable, load_table
from edgeres.graph_checks import low_precision
from edgeres.input_files import ENGINE, exists
from edgeres.onnx_file import load_onnx
from edgeres.targets.base import cpu_target


def inspect_artifact(path: Path) -> OnnxArtifact | CalibrationTable | EngineArtifact:
    """Returns what `path` holds, checked against its hashes.

    An engine is known by the manifest beside it, and may be named by that manifest; a table
    by its `.json`; anything else has to be an ONNX model. One that another tool quantized comes
    with the precision of its layers and what this machine's ONNX Runtime makes of them.

    Raises:
        ArtifactError: it is none of the three, or damaged.
    """
    if is_engine(path):
        return load_engine(path)
    if path.suffix == ".json":
        # `a.plan.json` is the manifest of `a.plan`, and means that engine.
        engine = path.with_suffix("")
        named = exists(engine, ENGINE) and is_engine(engine)
        return load_engine(engine) if named else load_table(path)
    model, target = load_onnx(path), cpu_target()
    if not low_precision(model.proto):
        return model.artifact
    layers, precision = target.precisions_of(model)
    return replace(
        model.artifact,
        precision=precision,
        layers=layers,
        audit=target.audit_model(model.content, layers, precision),
    )
