"""ONNX Runtime's CPU kernels as a target: the embedded default, on any machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.core.bench_requests import Timing
from edgeres.core.builder_options import NO_BUILDER_OPTIONS, changed_options
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import ConfigError
from edgeres.progress import Progress, silent
from edgeres.targets.base import Target

if TYPE_CHECKING:
    import onnx

    from edgeres.core.artifacts import EngineArtifact, LayerPrecision
    from edgeres.core.audit import Audit
    from edgeres.core.contract import Contract
    from edgeres.core.methods import Method
    from edgeres.core.table import CalibrationTable
    from edgeres.onnx_file import LoadedModel, LoweredNetwork
    from edgeres.quantization.lowering import Lowering, Mix
    from edgeres.targets.runner import Runner


class OnnxRuntimeTarget(Target):
    """Engines are ONNX files, lowered for ONNX Runtime's integer kernels."""

    def is_installed(self) -> bool:
        return importlib.util.find_spec("onnxruntime") is not None

    def check_request(self, request: BuildRequest) -> None:
        if request.options != NO_BUILDER_OPTIONS:
            raise ConfigError(
                f"{', '.join(changed_options(request.options))}: for TensorRT plans alone, and the "
                f"target is {self.name}. Leave it out, or pass --target tensorrt."
            )
        if request.compute_capability is not None:
            raise ConfigError(
                f"--compute-capability {request.compute_capability} needs --target tensorrt-rtx; "
                f"{self.name} builds for the machine that it runs on."
            )
        if request.precision not in self.precisions:
            raise ConfigError(
                f"ONNX Runtime's CPU has no {request.precision.upper()} convolutions: an "
                f"{request.precision} engine would run in FP32. "
                "Use --precision fp32 or int8, or --target tensorrt."
            )
        if request.float_stream:
            raise ConfigError(
                "--float-stream keeps what an addition reads in FP16; on the CPU every result of an "
                "integer convolution is an integer. Leave it out, or pass --target tensorrt."
            )
        if request.input_size is not None:
            low, best, high = request.input_size
            raise ConfigError(
                f"--input-size {low}:{best}:{high} is a profile of a TensorRT plan; an "
                f"{self.name} engine takes what its model takes. Pass one size, or leave it out."
            )

    def lowering(self) -> Lowering:
        from edgeres.targets.onnxruntime.quantize import LOWERING

        return LOWERING

    def lower(
        self,
        model: LoadedModel,
        request: BuildRequest,
        table: CalibrationTable | None,
        method: Method | None,
        mix: Mix,
    ) -> LoweredNetwork:
        from edgeres.quantization.lowering import float_network
        from edgeres.targets.onnxruntime.quantize import quantize_for_cpu

        if table is None or not request.is_quantized:
            return float_network(model, Precision.FP32).fed_as(planar=False)
        return quantize_for_cpu(model, table, method, mix=mix)

    def build(
        self,
        network: LoweredNetwork,
        request: BuildRequest,
        contract: Contract,
        *,
        output: Path,
        progress: Progress = silent,
    ) -> EngineArtifact:
        from edgeres.targets.onnxruntime.build import build

        return build(network, request, contract, output=output)

    def simulated(
        self, model: onnx.ModelProto, non_negative: Set[str] = frozenset()
    ) -> onnx.ModelProto:
        from edgeres.targets.onnxruntime.kernels import on_integer_kernels

        return on_integer_kernels(model, non_negative)

    def audit(self, engine: EngineArtifact) -> Audit | None:
        from edgeres.targets.onnxruntime.build import audit_engine

        return audit_engine(engine)

    def float_branches(self, engine: EngineArtifact) -> Mapping[str, tuple[str, ...]]:
        from edgeres.onnx_file import parse_model
        from edgeres.quantization.shortcuts import float_branches

        return float_branches(parse_model(engine.path, engine.content))

    def open(self, engine: EngineArtifact) -> Runner:
        from edgeres.onnx_file import parse_model
        from edgeres.targets.session_runner import OnnxRuntimeRunner

        # ONNX Runtime ends the process at some of what this refuses.
        parse_model(engine.path, engine.content)
        manifest = engine.manifest
        return OnnxRuntimeRunner(
            engine.content, input=manifest.input, output=manifest.output, name=engine.path.name
        )

    def precisions_of(self, model: LoadedModel) -> tuple[tuple[LayerPrecision, ...], Precision]:
        from edgeres.targets.onnxruntime.foreign import precisions_of

        return precisions_of(model)

    def audit_model(
        self, model: bytes, layers: tuple[LayerPrecision, ...], precision: Precision
    ) -> Audit:
        from edgeres.targets.onnxruntime.build import audit_model

        return audit_model(model, layers, precision)

    def portable_request(self) -> BuildRequest | None:
        return BuildRequest(target=self.name, precision=Precision.INT8)


TARGET = OnnxRuntimeTarget(
    name="onnxruntime",
    suffix=".onnx",
    precisions=(Precision.FP32, Precision.INT8, Precision.MIXED),
    timings=(Timing.END_TO_END,),
    uses_gpu=False,
    takes_profile=False,
    evaluates_references=True,
    triton_platform="onnxruntime_onnx",
    program_imports=("import onnxruntime",),
    program_requirements=("onnxruntime>=1.20",),
)
