#!/usr/bin/env python3
"""Builds every architecture at full depth with NVIDIA's own parser and builder, without a GPU.

TensorRT for RTX reads the networks that edgeres writes and builds them for a named compute
capability on the CPU: that proves the graphs and their types, not speed. ONNX's full check and
ONNX Runtime read each of them too. Weights are random and
every activation's range is taken as 1, since neither is looked at. Prints a row for each network
and precision, and ends with status 1 if a build that NVIDIA does not rule out failed. FP32 for
7.5 is NVIDIA's own to refuse, and is then printed as such.

Example:
  python scripts/check_rtx.py resnet50 resnet1202 --compute-capability 8.6
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgeres.calibration.observe import calibrated_tensors
from edgeres.core.contract import Contract, InputType
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest, OnnxExportRequest
from edgeres.core.table import CalibrationTable, DataLineage, TensorRange, Threshold
from edgeres.errors import BuildError, ConfigError, EdgeresError, QuantizationError
from edgeres.networks import ARCHITECTURES
from edgeres.networks.specification import ModelSpec
from edgeres.onnx_file import LoadedModel, LoweredNetwork, load_onnx
from edgeres.quantization.graph import view
from edgeres.quantization.grids import E4M3
from edgeres.quantization.lowering import Mix, float_network
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.quantization.units import blocks
from edgeres.session import open_session
from edgeres.targets.base import build_engine

CAPABILITIES = ("7.5", "8.6", "8.9", "12.0")
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8, Precision.MIXED, Precision.FP8)

_MAY_REFUSE = {(Precision.FP32, "7.5"), (Precision.FP8, "7.5"), (Precision.FP8, "8.6")}
"""What cannot be built: NVIDIA's builder has no FP32 kernels for Turing
(`check_turing_op_compatibility` in TensorRT for RTX 1.7.1), and GPUs before Ada have no FP8."""

_BATCH_NORM_GAIN = 0.1
"""Keeps the activations of 600 random residual blocks finite: each adds a hundredth in variance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One build."""

    built: bool
    may_refuse: bool
    detail: str
    """Size of the plan, or the builder's message."""

    def __str__(self) -> str:
        if self.built:
            return self.detail
        return f"refused: {self.detail}" if self.may_refuse else f"FAILED: {self.detail}"


def random_model(spec: ModelSpec, folder: Path, kind: InputType) -> LoadedModel:
    """Returns the exported network of a specification with random weights, on floats or HWC bytes."""
    import torch
    from torch import nn

    from edgeres.networks.onnx_export import export_onnx
    from edgeres.networks.resnet import build_model

    torch.manual_seed(0)
    network = build_model(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, _BATCH_NORM_GAIN)
    contract = Contract(
        height=spec.input_size, width=spec.input_size, input=kind, mean=(0.48, 0.46, 0.41)
    )
    config = OnnxExportRequest(contract=contract)
    path = folder / f"{spec.name}.onnx"
    export_onnx(network, config, output=path)
    return load_onnx(path)


def unit_table(model: LoadedModel) -> CalibrationTable:
    """Returns a table in which every activation reaches 1."""
    graph = view(model.proto)
    one = {Method.MAX: Threshold(s8=1.0, u8=1.0, e4m3=1.0)}
    return CalibrationTable(
        model_sha256=model.artifact.sha256,
        data=DataLineage.of("none", ()),
        contract=model.artifact.contract or Contract(height=1, width=1),
        method=Method.MAX,
        percentile=100.0,
        samples=0,
        seed=0,
        edgeres_version="0",
        tensors={
            name: TensorRange(amax=1.0, signed=False, thresholds=one)
            for name in calibrated_tensors(graph)
        },
    )


def lowered(model: LoadedModel, table: CalibrationTable, precision: Precision) -> LoweredNetwork:
    """Returns the network as it is built in a precision, with FP16 where it is not INT8.

    Mixed keeps every second residual block from INT8, the hardest for a typed builder.
    """
    if not precision.quantizes:
        return float_network(model, precision).fed_as(planar=True)
    if precision is Precision.FP8:
        network = quantize_for_tensorrt(model, table, grid=E4M3, floats=Precision.FP16)
        return network.fed_as(planar=True)
    kept = {}
    if precision is Precision.MIXED:
        units = blocks(view(model.proto))[::2]
        kept = {name: "every second block" for unit in units for name in unit.nodes}
    network = quantize_for_tensorrt(model, table, floats=Precision.FP16, mix=Mix(kept))
    return network.fed_as(planar=True)


def build(network: LoweredNetwork, precision: Precision, capability: str, folder: Path) -> Outcome:
    """Builds one plan for one compute capability and returns the outcome."""
    config = BuildRequest(
        target="tensorrt-rtx",
        precision=precision,
        compute_capability=capability,
        required_coverage=100.0,
        max_drop_pp=0.0 if precision is Precision.MIXED else None,
    )
    may_refuse = (precision, capability) in _MAY_REFUSE
    plan = folder / "a.plan"
    try:
        build_engine(network, config, Contract(height=1, width=1), output=plan)
    except (BuildError, ConfigError) as error:
        return Outcome(built=False, may_refuse=may_refuse, detail=str(error)[:160])
    size = plan.stat().st_size / 1e6
    return Outcome(built=True, may_refuse=may_refuse, detail=f"{size:.1f} MB")


def check(
    name: str, precisions: list[Precision], capabilities: list[str], folder: Path, kind: InputType
) -> Iterator[tuple[str, bool]]:
    """Yields a line for each precision of an architecture, and whether all builds passed."""
    model = random_model(ARCHITECTURES[name], folder, kind)
    table = unit_table(model)
    for precision in precisions:
        try:
            network = lowered(model, table, precision)
        except QuantizationError as error:
            # FP8 has no fast kernel for grouped convolutions, and edgeres builds none.
            yield f"| {name} | {precision} | refused: {error} |", ARCHITECTURES[name].groups > 1
            continue
        onnx.checker.check_model(network.model, full_check=True)
        open_session(network.model.SerializeToString())
        outcomes = [build(network, precision, capability, folder) for capability in capabilities]
        passed = all(outcome.built or outcome.may_refuse for outcome in outcomes)
        yield f"| {name} | {precision} | {' | '.join(map(str, outcomes))} |", passed
    model.artifact.path.unlink()


def main() -> int:
    """Prints the table; returns 1 if a build failed that should not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("architectures", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--compute-capability", action="append", choices=CAPABILITIES)
    names = [precision.value for precision in PRECISIONS]
    parser.add_argument("--precision", action="append", choices=names, help="default: all")
    parser.add_argument(
        "--bytes", action="store_true", help="networks that take a camera's bytes, HWC"
    )
    options = parser.parse_args()
    kind = InputType.UINT8 if options.bytes else InputType.FLOAT32
    capabilities = options.compute_capability or list(CAPABILITIES)
    precisions = [p for p in PRECISIONS if p.value in (options.precision or names)]
    logging.getLogger("edgeres").setLevel(logging.ERROR)
    print(f"| network | precision | {' | '.join(capabilities)} | seconds |")
    print("| --- " * (len(capabilities) + 3) + "|")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="edgeres-") as folder:
        for name in options.architectures:
            start = time.perf_counter()
            try:
                for line, passed in check(name, precisions, capabilities, Path(folder), kind):
                    print(f"{line} {time.perf_counter() - start:.1f} |", flush=True)
                    failed += not passed
            except EdgeresError as error:
                print(f"| {name} | FAILED: {error} |", flush=True)
                failed += 1
    print(f"\n{failed} rows failed" if failed else "\nall built")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
