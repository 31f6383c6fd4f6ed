"""What an engine's manifest and audit show before it is run: batch profile and INT8 coverage."""

from __future__ import annotations

from pathlib import Path

from edgeres.core.artifacts import FOREIGN, TRUSTED, EngineArtifact, Manifest
from edgeres.core.audit import Audit, describe_missed, first_few
from edgeres.core.bench_requests import BenchRequest
from edgeres.core.precision import Precision
from edgeres.core.verdict import EXIT_COVERAGE, Check, Outcome
from edgeres.errors import MismatchError
from edgeres.plurals import counted
from edgeres.targets.base import target_of

_PRODUCTS = frozenset({"Gemm", "MatMul"})
"""Operators that a classifier is."""


def check_profile(engine: Path, manifest: Manifest, config: BenchRequest) -> None:
    """Checks that the engine takes the batches that bench is to feed it.

    Raises:
        MismatchError: one is outside its profile.
    """
    if manifest.batch_limits is None:
        return
    low, high = manifest.batch_limits
    requested = {"--batch-size": config.batch_size, "--latency-batch": config.latency_batch}
    for option, batch in requested.items():
        if batch is not None and not low <= batch <= high:
            raise MismatchError(
                f"{option} is {batch}, but {engine} was built for batches of {low} to {high}. Pass "
                f"one of these, or build the engine with --batch {min(low, batch)}:{batch}:"
                f"{max(high, batch)}."
            )


def coverage_checks(engine: EngineArtifact) -> tuple[Check, ...]:
    """Returns a failed check where layers that INT8 was requested of run in float, else nothing.

    Of an INT8 engine that is every convolution, also one that the lowering left in float. What
    another tool left in float is its choice; a convolution or a classifier that it quantized and
    that ONNX Runtime computes in float is none. An engine of the CPU is audited now, by the ONNX Runtime that is
    installed; a plan's manifest has what NVIDIA's builder reported.

    Raises:
        RunnerError: ONNX Runtime refused the engine.
        ArtifactError: the engine is no ONNX file although its manifest calls it one.
    """
    manifest = engine.manifest
    if manifest.precision is None or not manifest.precision.quantizes:
        return ()
    target = target_of(manifest)
    audit = target.audit(engine)
    if audit is None:
        return ()
    if FOREIGN in manifest.flags:
        return _foreign_checks(manifest, audit)
    missed = [node for node in audit.missed if node.asked is Precision.INT8]
    floats = target.float_branches(engine) if missed else {}
    listed = [
        f"{describe_missed(node)}, whose branch {', '.join(branch)} has no Q/DQ"
        if (branch := floats.get(node.name, ()))
        else describe_missed(node)
        for node in missed
    ]
    return _failed(
        len(missed),
        f"{len(missed)} of {len(audit.nodes)} convolutions and additions that INT8 was "
        f"requested of do not run in it ({audit.source}): {first_few(listed)}. Build the engine "
        "again for this machine and version",
    )


def _failed(missed: int, reason: str) -> tuple[Check, ...]:
    """Returns the failed check of so many layers that run in float; nothing without one."""
    check = Check(
        name="int8_coverage",
        limit=0,
        value=missed,
        outcome=Outcome.FAIL,
        exit_code=EXIT_COVERAGE,
        reason=reason,
    )
    return (check,) if missed else ()


def _foreign_checks(manifest: Manifest, audit: Audit) -> tuple[Check, ...]:
    """Returns the failed check of an engine whose quantized layers run in float, else nothing."""
    convolutions = [node for node in audit.nodes if node.op_type == "Conv"]
    missed = [
        node.name for node in convolutions if node.asked is Precision.INT8 and not node.is_covered
    ]
    subjects = [f"{len(missed)} of {counted(len(convolutions), 'convolution')}"] if missed else []
    products = [layer for layer in manifest.layers if layer.op_type in _PRODUCTS]
    quantized = [layer.name for layer in products if layer.precision is Precision.INT8]
    # By number: ONNX Runtime makes a Gemm of another name out of MatMul and Add.
    ran = sum(
        layer.precision is Precision.FP32 and layer.kind.removeprefix("Fused") in _PRODUCTS
        for layer in audit.layers
    )
    if (fallen := ran - (len(products) - len(quantized))) > 0:
        subjects.append(f"{fallen} of {counted(len(products), 'product')} of matrices")
        missed += quantized[:fallen]
    return _failed(
        len(missed),
        f"ONNX Runtime computes in float what the file quantizes: {' and '.join(subjects)} "
        f"({audit.source}): {first_few(missed)}. Quantize their inputs, weights and outputs in 8 "
        "bits for this runtime, or bench the file as what it was made for, such as a TensorRT plan "
        "with --trust",
    )


def foreign_notes(engine: EngineArtifact) -> tuple[str, ...]:
    """Returns what is known of an engine of another tool, in a sentence; nothing for others.

    Another tool's placement is a choice and no request to edgeres, so nothing of it fails a check.

    Raises:
        RunnerError: the runtime refused the engine.
    """
    manifest = engine.manifest
    if not {FOREIGN, TRUSTED}.intersection(manifest.flags):
        return ()
    unknown = f"{engine.path.name} has no manifest of edgeres: "
    if manifest.precision is None:
        return (
            f"{unknown}which of its layers run in float is not known, nor which model it was built "
            "from. Set --min-speedup, or build it with build-engine.",
        )
    audit = target_of(manifest).audit(engine) if manifest.precision.quantizes else None
    if audit is None:
        return (
            f"{unknown}it is in {manifest.precision}, and whether it was made from the reference "
            "is not known.",
        )
    quantized = [node for node in audit.nodes if node.ran is Precision.INT8]
    floats = [node.name for node in audit.nodes if node.ran is not Precision.INT8]
    reasons = {layer.name: layer.reason for layer in manifest.layers}
    listed = [
        f"{name} ({reasons.get(name) or 'quantized, but without an integer kernel in this place'})"
        for name in floats
    ]
    return (
        f"{unknown}another tool quantized it. "
        f"{len(quantized)} of {len(audit.nodes)} convolutions and additions run in INT8 "
        f"({audit.source})" + (f"; in float: {first_few(listed)}." if floats else "."),
    )
