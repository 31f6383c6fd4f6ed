"""The `tensorrt` and `tensorrt-rtx` targets: a network through NVIDIA's parser and builder to a plan.

Both modules have the same API: TensorRT for RTX builds without a GPU for a named compute
capability, TensorRT builds for the GPU that it runs on. Where networks are not strongly typed
(`is_strongly_typed`), INT8 and FP16 are builder flags.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeres.core.artifacts import INPUT_HWC, EngineArtifact
from edgeres.core.audit import Audit
from edgeres.core.builder_options import HardwareCompatibility
from edgeres.core.contract import Contract
from edgeres.core.requests import BuildRequest
from edgeres.errors import BuildError, ConfigError
from edgeres.machine import describe_machine, has_nvidia_gpu
from edgeres.machine.cuda import CudaDevice, NoCudaDevice, find_cuda_device, system_versions
from edgeres.onnx_file import LoweredNetwork
from edgeres.progress import Progress, silent
from edgeres.quantization.graph import view
from edgeres.targets.coverage import check_coverage
from edgeres.targets.engine_files import Built, save_engine
from edgeres.targets.tensorrt import timing_cache
from edgeres.targets.tensorrt.build_memory import estimate_build_memory, workspace_limit_mib
from edgeres.targets.tensorrt.builder_config import (
    builder_flags,
    check_dla,
    check_features,
    set_options,
)
from edgeres.targets.tensorrt.fp8 import check_fp8_capability
from edgeres.targets.tensorrt.inspector import audit_of_inspector
from edgeres.targets.tensorrt.logger import TensorRTLog, captured_log
from edgeres.targets.tensorrt.module import TENSORRT, TENSORRT_RTX, load_backend
from edgeres.targets.tensorrt.optimization_profile import Shape, profile_shapes
from edgeres.targets.tensorrt.parsed_audit import audit_of_network
from edgeres.targets.tensorrt.progress_monitor import progress_monitor
from edgeres.targets.tensorrt.sparsity import check_sparsity

_LISTED_ERRORS = 3
_LOG = logging.getLogger("edgeres.targets")


def build(
    network: LoweredNetwork,
    config: BuildRequest,
    contract: Contract,
    *,
    output: Path,
    progress: Progress = silent,
) -> EngineArtifact:
    """Parses the network, builds a plan and writes it, pure, with its manifest.

    Raises:
        DependencyError: the module is not installed.
        ConfigError: the module lacks a requested option, or the model takes no such size.
        BuildError: no GPU where one is needed, too little memory, or NVIDIA's parser or builder
            refused.
        CoverageError: fewer layers than required run in the requested precision.
        MismatchError: the timing cache belongs to another GPU or version.
        ArtifactError: the files cannot be written.
    """
    trt = load_backend(config.target)
    check_features(trt, config)
    device = _device(config)
    check_fp8_capability(config, None if device is None else device.compute_capability)
    if config.options.sparsity:
        check_sparsity(network.model)
    with captured_log(trt) as log:
        steps = _BuildSteps(trt=trt, network=network, config=config, device=device, log=log)
        builder = steps.create_builder()
        definition = steps.parse(builder)
        image = definition.get_input(0)
        if network.channels_last:
            # A camera's bytes go in as they are: without a Transpose, which uint8 does not have.
            image.allowed_formats = 1 << int(trt.TensorFormat.HWC)
        shapes = profile_shapes(tuple(image.shape), config, contract, network.source)
        builder_config = steps.configure(builder, image.name, shapes)
        check_dla(builder, definition, builder_config, config.options)
        plan = steps.serialize(builder, definition, builder_config, progress)
        audit = steps.audit(plan, definition, shapes[1])
        log.report_repeats()
    check_coverage(audit, config.required_coverage)
    built = Built(
        engine=plan,
        versions={
            trt.__name__: str(trt.__version__),
            **({} if device is None else system_versions(device)),
        },
        gpu=None if device is None else device.name,
        compute_capability=config.compute_capability
        or (None if device is None else device.compute_capability),
        flags=(
            *_creation_flags(trt),
            *builder_flags(trt, config),
            *((INPUT_HWC,) if network.channels_last else ()),
        ),
        batch=(shapes[0][0], shapes[1][0], shapes[2][0]),
        audit=audit,
        options=config.options,
    )
    return save_engine(built, network, config, contract, output)


def _device(config: BuildRequest) -> CudaDevice | None:
    """Returns the GPU to build on and for; None where the plan is for a named compute capability."""
    options = config.options
    if not has_nvidia_gpu():
        # Without a GPU, NVIDIA's builder can end the process: none of it is called before this.
        if config.target == TENSORRT:
            raise BuildError(
                "TensorRT builds on the GPU that the engine is for, and this machine has none. Run "
                "build-engine on the board; here, --target tensorrt-rtx --compute-capability 8.6 "
                "checks the network, and --target onnxruntime runs on this CPU."
            )
        if config.compute_capability is None:
            raise BuildError(
                "This machine has no NVIDIA GPU to build for. Name one: --compute-capability 8.6 "
                "(also 7.5, 8.0, 8.9, 12.0 and 12.1)."
            )
        if options.refit or options.strip_weights:
            option = "--refit" if options.refit else "--strip-weights"
            raise BuildError(
                f"{option} needs a GPU while TensorRT for RTX builds, and this machine has none. "
                "Leave it out, or build where the plan is to run."
            )
    if config.target == TENSORRT_RTX and config.compute_capability is not None:
        return None
    device = find_cuda_device()
    if isinstance(device, NoCudaDevice):
        raise BuildError(
            f"This machine has an NVIDIA GPU and TensorRT cannot use it: {device.reason}. Check "
            "CUDA_VISIBLE_DEVICES and nvidia-smi (on a Jetson: tegrastats), and run `edgeres "
            "doctor`."
        )
    compatibility = options.hardware_compatibility
    if device.integrated and compatibility is not HardwareCompatibility.NONE:
        raise ConfigError(
            f"--hardware-compatibility {compatibility} is for desktop and data-centre GPUs; "
            f"JetPack's TensorRT has none, and this is {device.name}. Build on each board."
        )
    return device


def _creation_flags(trt: Any) -> tuple[str, ...]:
    """Returns STRONGLY_TYPED where it exists; EXPLICIT_BATCH where nothing else is possible."""
    known = trt.NetworkDefinitionCreationFlag
    wanted = "STRONGLY_TYPED" if hasattr(known, "STRONGLY_TYPED") else "EXPLICIT_BATCH"
    return (wanted,) if hasattr(known, wanted) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _BuildSteps:
    """The steps of one build; each takes NVIDIA's objects that the steps before it returned."""

    trt: Any
    """`tensorrt` or `tensorrt_rtx`."""
    network: LoweredNetwork
    config: BuildRequest
    device: CudaDevice | None
    """None where the plan is for a GPU that is not in this machine."""
    log: TensorRTLog

    @property
    def version(self) -> str:
        """Module and version, for messages."""
        return f"{self.trt.__name__} {self.trt.__version__}"

    def create_builder(self) -> Any:
        """Returns an IBuilder."""
        try:
            return self.trt.Builder(self.log.logger)
        except TypeError as error:
            # What the bindings make of a null pointer: no usable driver, or libraries of another
            # build.
            raise BuildError(
                f"{self.version} could not start its builder: {self.log.worst()} Check the driver "
                "with nvidia-smi (on a Jetson: tegrastats) and run `edgeres doctor`."
            ) from error

    def parse(self, builder: Any) -> Any:
        """Returns the INetworkDefinition that NVIDIA's parser makes of the ONNX network."""
        trt, known = self.trt, self.trt.NetworkDefinitionCreationFlag
        # The API takes a bit mask: member n of the enumeration is bit n.
        mask = sum(1 << int(getattr(known, name)) for name in _creation_flags(trt))
        definition = builder.create_network(mask)
        parser = trt.OnnxParser(definition, self.log.logger)
        on_dla = self.config.options.dla_core is not None
        # Rewrites Q/DQ into what the DLA takes; parsers before 10.7 do not have it.
        if on_dla and hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
            parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
        if not parser.parse(self.network.model.SerializeToString()):
            reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
            raise BuildError(
                f"NVIDIA's ONNX parser {trt.__version__} refused {self.network.source.path}: "
                f"{' '.join(reasons[:_LISTED_ERRORS]) or self.log.worst()} "
                "If the file was exported elsewhere, export it with edgeres."
            )
        return definition

    def configure(self, builder: Any, image: str, shapes: tuple[Shape, Shape, Shape]) -> Any:
        """Returns the IBuilderConfig with the optimization profile and every requested option."""
        builder_config = builder.create_builder_config()
        profile = builder.create_optimization_profile()
        profile.set_shape(image, *shapes)
        builder_config.add_optimization_profile(profile)
        floats, images = self.config.float_precision, shapes[-1][0]
        needed = estimate_build_memory(view(self.network.model), images, floats)
        free_mib = describe_machine().memory_available_mib
        limit = workspace_limit_mib(needed, self.config, self.device, free_mib)
        workspace = "TensorRT's own" if limit is None else f"{limit} MiB"
        _LOG.info("the build needs at least %.0f MiB; workspace %s", needed.total_mib, workspace)
        set_options(self.trt, builder_config, self.config, limit)
        return builder_config

    def serialize(
        self, builder: Any, definition: Any, builder_config: Any, progress: Progress
    ) -> bytes:
        """Returns the plan, and keeps the kernel timings where a timing cache was requested."""
        device, cache = self.device, self.config.options.timing_cache
        origin = timing_cache.Origin(
            module=self.trt.__name__,
            version=str(self.trt.__version__),
            gpu="" if device is None else device.name,
            compute_capability="" if device is None else device.compute_capability,
        )
        if cache is not None:
            timing_cache.attach(builder_config, Path(cache), origin, self.log)
        monitor = None
        if hasattr(self.trt, "IProgressMonitor"):
            monitor = builder_config.progress_monitor = progress_monitor(self.trt, progress)
        plan = builder.build_serialized_network(definition, builder_config)
        # What a callback raised was kept from NVIDIA's frames; it comes before what NVIDIA says
        # of a build that was stopped.
        error = self.log.callback_error or (monitor and monitor.callback_error)
        if error is not None:
            raise error
        if plan is None:
            raise BuildError(
                f"{self.version} could not build the engine: {self.log.worst()} Run with -v for "
                "its whole log."
            )
        if cache is not None:
            timing_cache.save(builder_config, Path(cache), origin)
        return bytes(plan)

    def audit(self, plan: bytes, definition: Any, shape: Shape) -> Audit:
        """Returns the inspector's view of the engine, or the parsed network where there is none."""
        trt, options, layers = self.trt, self.config.options, self.network.layers
        precision = self.config.precision
        if self.config.target == TENSORRT_RTX:
            return audit_of_network(trt, definition, layers, precision)
        runtime = trt.Runtime(self.log.logger)
        if options.version_compatible:
            # Such a plan brings the runtime of its own version along, as code.
            runtime.engine_host_code_allowed = True
        if options.dla_core is not None:
            runtime.DLA_core = options.dla_core
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BuildError(
                f"{self.version} cannot load the engine that it built: {self.log.worst()} Free "
                "some memory and build again."
            )
        inspector = engine.create_engine_inspector()
        as_json = trt.LayerInformationFormat.JSON
        audit = audit_of_inspector(inspector.get_engine_information(as_json), layers, precision)
        if all(node.ran for node in audit.nodes):
            return audit
        # Some precisions are reported only for a context whose shapes are known. It takes the
        # memory of an inference, so it is created only where a precision is missing.
        context = engine.create_execution_context()
        image = definition.get_input(0).name
        if context is None or not context.set_input_shape(image, shape):
            return audit
        inspector.execution_context = context
        return audit_of_inspector(inspector.get_engine_information(as_json), layers, precision)
