"""TensorRT and TensorRT for RTX as targets: one code on two modules of NVIDIA's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.core.bench_requests import Timing
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import ConfigError
from edgeres.installation import is_installed
from edgeres.progress import Progress, silent
from edgeres.targets.base import Target
from edgeres.targets.tensorrt.module import MODULES, TENSORRT, TENSORRT_RTX

if TYPE_CHECKING:
    from edgeres.core.artifacts import EngineArtifact
    from edgeres.core.audit import Audit
    from edgeres.core.contract import Contract
    from edgeres.core.methods import Method
    from edgeres.core.table import CalibrationTable
    from edgeres.onnx_file import LoadedModel, LoweredNetwork
    from edgeres.quantization.lowering import Lowering, Mix
    from edgeres.targets.runner import Runner

_RTX_MAGIC = b"vtrt"
"""First bytes of a TensorRT for RTX plan. Source: plans that 1.7.1 wrote."""


@dataclass(frozen=True, kw_only=True)
class TensorRTTarget(Target):
    """Engines are plans, built by NVIDIA's builder from Q/DQ networks."""

    module: str
    """Name of NVIDIA's Python module."""

    def is_installed(self) -> bool:
        return is_installed(self.module)

    def check_request(self, request: BuildRequest) -> None:
        from edgeres.targets.tensorrt.fp8 import check_fp8_capability

        if request.compute_capability is not None and self.name != TENSORRT_RTX:
            raise ConfigError(
                f"--compute-capability {request.compute_capability} needs --target {TENSORRT_RTX}; "
                f"{self.name} builds for the machine that it runs on."
            )
        if re.fullmatch(r"\d+\.\d+", request.compute_capability or ""):
            check_fp8_capability(request, request.compute_capability)

    def check_builder(self) -> None:
        from edgeres.targets.tensorrt.module import load_backend

        load_backend(self.name)

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
        from edgeres.targets.tensorrt.fp8 import check_fp8
        from edgeres.targets.tensorrt.module import is_strongly_typed, load_backend

        # Before TensorRT 10.0 types stay FP32, and the builder chooses FP16 where it is allowed to.
        trt = load_backend(self.name)
        check_fp8(trt, request)
        typed = is_strongly_typed(trt)
        return requested_network(model, request, table, method, mix, typed=typed)

    def build(
        self,
        network: LoweredNetwork,
        request: BuildRequest,
        contract: Contract,
        *,
        output: Path,
        progress: Progress = silent,
    ) -> EngineArtifact:
        from edgeres.targets.tensorrt.builder import build

        return build(network, request, contract, output=output, progress=progress)

    def audit(self, engine: EngineArtifact) -> Audit | None:
        return engine.manifest.audit

    def open(self, engine: EngineArtifact) -> Runner:
        from edgeres.targets.tensorrt.preflight import check_plan
        from edgeres.targets.tensorrt.runner import TensorRTRunner

        check_plan(engine)
        return TensorRTRunner(engine)

    def timed_reference(
        self,
        model: LoadedModel,
        contract: Contract,
        *,
        batch: int,
        progress: Progress = silent,
    ) -> Runner | None:
        from edgeres.targets.tensorrt.reference import reference_engine

        return self.open(reference_engine(model, contract, self, batch=batch, progress=progress))

    def recognizes(self, engine: bytes) -> bool:
        return engine.startswith(_RTX_MAGIC) is (self.name == TENSORRT_RTX)

    def portable_request(self) -> BuildRequest | None:
        if self.name != TENSORRT_RTX or not self.is_installed():
            return None
        return BuildRequest(target=self.name, precision=Precision.INT8, compute_capability="8.6")


TARGETS = tuple(
    TensorRTTarget(
        name=name,
        module=module.name,
        suffix=".plan",
        precisions=tuple(Precision),
        timings=tuple(Timing),
        uses_gpu=True,
        takes_profile=True,
        # Neither Triton nor DeepStream loads plans of TensorRT for RTX.
        triton_platform="tensorrt_plan" if name == TENSORRT else None,
        program_imports=(
            "import pycuda.driver as cuda",
            "import tensorrt" if name == TENSORRT else f"import {module.name} as tensorrt",
        ),
        program_requirements=(
            "tensorrt" if name == TENSORRT else "tensorrt-rtx-cu13",
            "pycuda",
        ),
        is_simulated=name == TENSORRT,
    )
    for name, module in MODULES.items()
)
