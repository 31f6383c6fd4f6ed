"""What an artifact is, for people: facts first, then layers or tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import singledispatch

from rich.console import Group, RenderableType
from rich.text import Text

from edgeres.core.artifacts import EngineArtifact, Manifest, OnnxArtifact
from edgeres.core.builder_options import TensorRTOptions
from edgeres.core.contract import Contract
from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.report.audit import render_audit
from edgeres.report.tables import fact_grid, plain_table
from edgeres.report.tuning import describe_choice, describe_recovery, sensitivity_tables
from edgeres.serialization import to_json

_CLASSES = 10
"""Names of classes that are shown."""


@singledispatch
def render_artifact(artifact: object) -> RenderableType:
    """Returns what a rich Console prints of a model, a table or an engine."""
    raise TypeError(f"{type(artifact).__name__} is no artifact")


@render_artifact.register
def _(model: OnnxArtifact) -> RenderableType:
    facts = {
        "kind": "ONNX model",
        "architecture": model.architecture or "not recorded",
        "sha256": model.sha256,
        "checkpoint": model.checkpoint_sha256 or "not recorded",
        "input": f"{model.input.name} {_shape(model.input.shape)}",
        "output": f"{model.output.name} {_shape(model.output.shape)}",
        "preprocessing": _contract(model.contract),
        "classes": _classes(model.classes),
    }
    if model.precision is not None:
        facts["kind"] = f"ONNX model in {model.precision}, without a manifest of edgeres"
    parts: list[RenderableType] = [fact_grid(facts.items(), name_style="bold")]
    if model.audit is not None and model.precision is not None:
        parts += render_audit(model.audit, model.precision)
    return Group(*parts)


@render_artifact.register
def _(table: CalibrationTable) -> RenderableType:
    facts = {
        "kind": "calibration table",
        "model": table.model_sha256,
        "images": (
            f"none: imported from {table.data.path}, for INT8 of TensorRT's targets"
            if table.is_imported
            else f"{table.samples} from {table.data.path}, seed {table.seed}"
        ),
        "method": f"{table.method} (percentile {table.percentile})",
        "weights": f"scaled by {table.weight_method}",
        "preprocessing": _contract(table.contract),
        "recovery": "none" if table.recovery is None else describe_recovery(table.recovery),
    }
    # The methods in their own order, not in that in which a tensor happens to have them.
    known = {method for ranges in table.tensors.values() for method in ranges.thresholds}
    methods = [method for method in Method if method in known]
    rows = plain_table("tensor", "sign", numbers=[method.value for method in methods])
    for name, ranges in table.tensors.items():
        thresholds = (ranges.thresholds.get(method) for method in methods)
        amax = ("-" if threshold is None else f"{threshold.s8:.4g}" for threshold in thresholds)
        rows.add_row(Text(name), "+-" if ranges.signed else "+", *amax)
    parts: list[RenderableType] = [Text(describe_choice(choice)) for choice in table.choices]
    if table.sensitivity is not None:
        parts += ["", sensitivity_tables(table.sensitivity)]
    return Group(fact_grid(facts.items(), name_style="bold"), *parts, "", rows)


@render_artifact.register
def _(engine: EngineArtifact) -> RenderableType:
    manifest = engine.manifest
    precisions = Counter(layer.precision.value for layer in manifest.layers)
    facts = {
        "kind": f"{manifest.precision} engine for {manifest.target}",
        "built with": ", ".join(f"{k} {v}" for k, v in manifest.versions.items()),
        "for": _machine_of(manifest),
        "engine": manifest.engine_sha256,
        "model": manifest.model_sha256,
        "table": manifest.table_sha256 or "none",
        "layers": ", ".join(f"{n} {precision}" for precision, n in precisions.items()),
        "requested": _requested(manifest),
        "preprocessing": _contract(manifest.contract),
        "classes": _classes(manifest.classes),
    }
    rows = plain_table("layer", "operator", "precision")
    for layer in manifest.layers:
        where = f" (in {layer.joined})" if layer.joined else ""
        rows.add_row(*map(Text, (layer.name, layer.op_type, layer.precision + where)))
    parts: list[RenderableType] = [fact_grid(facts.items(), name_style="bold"), "", rows]
    if reasons := [(layer.name, layer.reason) for layer in manifest.layers if layer.reason]:
        title = Text("why these are not in the requested precision", "bold")
        parts += ["", title, fact_grid(reasons, name_style="bold")]
    # A plan that edgeres did not build has no precision that was requested.
    if manifest.audit is not None and manifest.precision is not None:
        parts += render_audit(manifest.audit, manifest.precision)
    return Group(*parts)


def _machine_of(manifest: Manifest) -> str:
    """Returns where an engine runs."""
    if manifest.options is None:
        return "any machine with ONNX Runtime"
    # TensorRT's plans belong to the GPU model that they were built on.
    if manifest.compute_capability is None:
        return "the GPU that it was built on"
    gpu = f", built on {manifest.gpu}" if manifest.gpu else ""
    return f"compute capability {manifest.compute_capability}{gpu}"


def _requested(manifest: Manifest) -> str:
    """Returns the builder's batch sizes, flags, and the options that differ from their defaults."""
    batch = "any batch" if manifest.batch is None else "batch " + ":".join(map(str, manifest.batch))
    options = {} if manifest.options is None else to_json(manifest.options)
    default = to_json(TensorRTOptions())
    changed = [f"{k} {v}" for k, v in options.items() if v != default[k]]
    return ", ".join([batch, *manifest.flags, *changed])


def _classes(names: Sequence[str]) -> str:
    """Returns the first names of classes in their order; a file of another tool has none."""
    if not names:
        return "without names"
    more = f", and {len(names) - _CLASSES} more" if len(names) > _CLASSES else ""
    return f"{', '.join(names[:_CLASSES])}{more}"


def _contract(contract: Contract | None) -> str:
    return "none: exported elsewhere" if contract is None else str(contract)


def _shape(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("N" if size is None else str(size) for size in shape) + ")"
