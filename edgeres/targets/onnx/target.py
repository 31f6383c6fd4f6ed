"""The typed ONNX file as a target: what a plan is built from, byte for byte.

trtexec, DeepStream, Triton and ONNX Runtime's own TensorRT providers build a plan from it where it
runs. On this machine it is evaluated for accuracy, with the roundings of its types.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.core.bench_requests import Timing
from edgeres.core.builder_options import changed_options
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import ConfigError
from edgeres.progress import Progress, silent
from edgeres.targets.base import Target

if TYPE_CHECKING:
    from edgeres.core.artifacts import EngineArtifact
    from edgeres.core.audit import Audit
    from edgeres.core.contract import Contract
    from edgeres.core.methods import Method
    from edgeres.core.table import CalibrationTable
    from edgeres.onnx_file import LoadedModel, LoweredNetwork
    from edgeres.quantization.lowering import Lowering, Mix
    from edgeres.targets.runner import Runner


class OnnxTarget(Target):
    """Engines are ONNX files whose types and Q/DQ pairs state the precision of every layer."""

    def is_installed(self) -> bool:
        return True

    def check_request(self, request: BuildRequest) -> None:
        for_builder = list(changed_options(request.options))
        if request.compute_capability is not None:
            for_builder.append(f"--compute-capability {request.compute_capability}")
        if request.required_coverage is not None:
            for_builder.append(f"--require-coverage {request.required_coverage:g}")
        if request.input_size is not None:
            for_builder.append("--input-size {}:{}:{}".format(*request.input_size))
        if for_builder:
            raise ConfigError(
                f"{', '.join(for_builder)}: for a builder, and --target {self.name} writes the file "
                "that one reads. Leave it out and pass it to trtexec, or build the plan here with "
                "--target tensorrt."
            )

    def lowering(self) -> Lowering:
        from edgeres.quantization.qdq.network import LOWERING

        return LOWERING

    def lower(
        self,
        model: LoadedModel,
        request: BuildRequest,
        table: CalibrationTable | None,
        method: Method | None,
        mix: Mix,
    ) -> LoweredNetwork:
        from edgeres.quantization.qdq.network import requested_network

        return requested_network(model, request, table, method, mix)

    def build(
        self,
        network: LoweredNetwork,
        request: BuildRequest,
        contract: Contract,
        *,
        output: Path,
        progress: Progress = silent,
    ) -> EngineArtifact:
        from edgeres.targets.onnx.build import build

        return build(network, request, contract, output=output)

    def audit(self, engine: EngineArtifact) -> Audit | None:
        # Which layers run in which precision is the builder's choice that is still to come.
        return None

    def open(self, engine: EngineArtifact) -> Runner:
        from edgeres.onnx_file import parse_model
        from edgeres.targets.session_runner import simulation_runner

        manifest = engine.manifest
        return simulation_runner(
            parse_model(engine.path, engine.content),
            input=manifest.input,
            output=manifest.output,
            name=f"{engine.path.name}, simulated",
        )


TARGET = OnnxTarget(
    name="onnx",
    suffix=".qdq.onnx",
    precisions=tuple(Precision),
    timings=(Timing.END_TO_END,),
    uses_gpu=False,
    takes_profile=True,
    is_timed=False,
    triton_platform="onnxruntime_onnx",
    program_imports=("import onnxruntime",),
    program_requirements=("onnxruntime>=1.20",),
)
