"""What an artifact is, for people: facts first, then layers or tensors.

Of an engine also what it really runs, residual block by residual block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import singledispatch

from rich.console import Group, RenderableType
from rich.text import Text

from edgeres.core.artifacts import EngineArtifact, Manifest, OnnxArtifact
from edgeres.core.audit import Audit, AuditedNode, describe_coverage, describe_missed
from edgeres.core.blocks import locate
from edgeres.core.builder_options import TensorRTOptions
from edgeres.core.contract import Contract
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.table import CalibrationTable
from edgeres.plurals import counted
from edgeres.report.tables import fact_grid, plain_table
from edgeres.report.tuning import describe_choice, describe_recovery, sensitivity_tables
from edgeres.serialization import to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockAudit:
    """A residual block, or what stands before, between or behind them."""

    name: str
    nodes: tuple[AuditedNode, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The engine's layers that compute it, in order."""
        return tuple(dict.fromkeys(node.layer for node in self.nodes if node.layer))

    def ran(self, op_type: str) -> str:
        """Returns how many of its operators of a kind ran in what, such as `3 int8`."""
        precisions = (node.ran for node in self.nodes if node.op_type == op_type)
        counts = Counter("unknown" if ran is None else ran.value for ran in precisions)
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "-"


def blocks(nodes: Iterable[AuditedNode]) -> tuple[BlockAudit, ...]:
    """Returns the convolutions and additions by residual block, in the network's order.

    Outside of blocks they stand by their outermost module. Where names are no paths, a block
    ends with its addition.
    """
    by_block: dict[str, list[AuditedNode]] = {}
    number = 1
    for node in nodes:
        place = locate(node.name, node.op_type)
        name = place.block or place.module.partition(".")[0] or f"block {number}"
        by_block.setdefault(name, []).append(node)
        # Only additions mark where a block ends if names do not.
        number += node.op_type == "Add"
    return tuple(BlockAudit(name=name, nodes=tuple(inside)) for name, inside in by_block.items())


def render_audit(audit: Audit, precision: Precision) -> tuple[RenderableType, ...]:
    """Returns what a rich Console prints of an audit: its coverage, each block, what was missed."""
    head = f"{describe_coverage(audit, precision)}; {counted(len(audit.layers), 'layer')} in the engine"
    counts = f"{audit.fused} of them fused from several operators, {counted(audit.reformats, 'reformat')}"
    lines: list[RenderableType] = ["", Text(f"{head}, {counts}", "bold")]
    if audit.note:
        lines.append(Text(audit.note))
    rows = plain_table("block", "convolutions", "additions", "engine layers")
    for block in blocks(audit.nodes):
        cells = (block.name, block.ran("Conv"), block.ran("Add"), str(len(block.layers)))
        rows.add_row(*map(Text, cells))
    lines.append(rows)
    if audit.missed:
        lines += ["", Text("not in the requested precision", "bold")]
        lines += [Text(describe_missed(node)) for node in audit.missed]
    return tuple(lines)


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
