"""What is known of an engine before it is run: the batches that it takes, what runs in INT8."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeres.core.artifacts import EngineArtifact, Manifest
from edgeres.core.audit import Audit, AuditedNode, describe_missed
from edgeres.core.bench_requests import BenchConfig
from edgeres.core.precision import Precision
from edgeres.core.verdict import EXIT_COVERAGE, Check
from edgeres.errors import MismatchError
from edgeres.onnx_file import parse_model
from edgeres.quantization.shortcuts import float_branches
from edgeres.targets.base import target_of

_LISTED = 5


def check_profile(engine: Path, manifest: Manifest, config: BenchConfig) -> None:
    """Checks that the engine takes the batches that bench is to feed it.

    Raises:
        MismatchError: one is outside its profile.
    """
    if manifest.batch is None:
        return
    low, _, high = manifest.batch
    asked = {"--batch-size": config.batch_size, "--latency-batch": config.latency_batch}
    for option, batch in asked.items():
        if not low <= batch <= high:
            raise MismatchError(
                f"{option} is {batch}, but {engine} was built for batches of {low} to {high}. Pass "
                f"one of these, or build the engine with --batch {min(low, batch)}:{batch}:"
                f"{max(high, batch)}."
            )


def coverage_checks(engine: EngineArtifact) -> tuple[Check, ...]:
    """Returns a failed check where layers that were lowered to INT8 run in float, else nothing.

    The CPU's engine is audited now, by the ONNX Runtime that is installed; of a plan its manifest
    says what NVIDIA's builder told.

    Raises:
        RunnerError: ONNX Runtime refused the engine.
        ArtifactError: the engine is no ONNX file although its manifest says so.
    """
    manifest = engine.manifest
    if manifest.precision is None or not manifest.precision.quantizes:
        return ()
    target = target_of(manifest)
    audit = target.audit(engine)
    if audit is None:
        return ()
    meant = {layer.name for layer in manifest.layers if layer.precision is Precision.INT8}
    fallen = tuple(node for node in audit.missed if node.name in meant)
    floats = (
        float_branches(parse_model(engine.path, engine.content))
        if fallen and not target.uses_gpu
        else {}
    )
    return (_check(audit, fallen, floats),) if fallen else ()


def _check(
    audit: Audit, fallen: tuple[AuditedNode, ...], floats: Mapping[str, tuple[str, ...]]
) -> Check:
    told = [_told(node, floats.get(node.name, ())) for node in fallen[:_LISTED]]
    more = f"; and {len(fallen) - _LISTED} more" if len(fallen) > _LISTED else ""
    return Check(
        name="int8_coverage",
        limit=0,
        value=len(fallen),
        passed=False,
        exit_code=EXIT_COVERAGE,
        reason=f"{len(fallen)} of {len(audit.nodes)} convolutions and additions that were lowered "
        f"to INT8 do not run in it ({audit.source}): {'; '.join(told)}{more}. Build the engine "
        "again for this machine and version",
    )


def _told(node: AuditedNode, floats: tuple[str, ...]) -> str:
    """Returns what a layer ran in and, of an addition, which branch lacks its Q/DQ."""
    if not floats:
        return describe_missed(node)
    return f"{describe_missed(node)}, whose branch {', '.join(floats)} has no Q/DQ"
