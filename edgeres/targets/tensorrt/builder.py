"""The `tensorrt` and `tensorrt-rtx` targets: NVIDIA's parser and builder behind one seam.

Both modules have the same API: TensorRT for RTX builds without a GPU for a named compute
capability, TensorRT builds for the GPU that it runs on. Where networks are not strongly typed
(`backend`), INT8 and FP16 are builder flags.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeres.core.artifacts import EngineArtifact
from edgeres.core.audit import Audit
from edgeres.core.builder_options import HardwareCompatibility
from edgeres.core.contract import Contract
from edgeres.core.requests import BuildConfig
from edgeres.core.target import Target
from edgeres.errors import BuildError, ConfigError
from edgeres.machine import describe_machine, has_nvidia_gpu
from edgeres.machine.cuda import CudaDevice, NoCudaDevice, find_cuda_device, system_versions
from edgeres.onnx_file import LoweredNetwork
from edgeres.progress import Progress, silent
from edgeres.targets.coverage import check_coverage
from edgeres.targets.engine_files import Built, save_engine
from edgeres.targets.tensorrt import timing_cache
from edgeres.targets.tensorrt.inspector import audit_of_inspector
from edgeres.targets.tensorrt.log import TrtLog, listening
from edgeres.targets.tensorrt.memory import estimate, workspace_mib
from edgeres.targets.tensorrt.module import load_backend
from edgeres.targets.tensorrt.parsed_audit import audit_of_network
from edgeres.targets.tensorrt.profile import Shape, input_shapes
from edgeres.targets.tensorrt.progress import monitor
from edgeres.targets.tensorrt.settings import apply, builder_flags, check_features
from edgeres.targets.tensorrt.sparsity import sparse_layers

_LISTED_ERRORS = 3
_LOG = logging.getLogger("edgeres.targets")


@dataclass(frozen=True, slots=True)
class _Job:
    """One build: what is asked, of which module, for which GPU, and who hears of it."""

    trt: Any
    network: LoweredNetwork
    config: BuildConfig
    contract: Contract
    device: CudaDevice | None
    """None where the plan is for a GPU that is not here."""
    logger: Any
    log: TrtLog
    progress: Progress


@dataclass(frozen=True, slots=True)
class _Made:
    """What NVIDIA's builder returned."""

    plan: bytes
    batch: tuple[int, int, int]
    audit: Audit


def build(
    network: LoweredNetwork,
    config: BuildConfig,
    contract: Contract,
    *,
    output: Path,
    progress: Progress = silent,
) -> EngineArtifact:
    """Parses the network, builds a plan and writes it, pure, with its manifest.

    Raises:
        DependencyError: the module is not installed.
        ConfigError: the module lacks what was asked for, or the model takes no such size.
        BuildError: no GPU where one is needed, too little memory, or NVIDIA's parser or builder
            refused.
        CoverageError: fewer layers than required run in the precision asked for.
        MismatchError: the timing cache belongs to another GPU or version.
        ArtifactError: the files cannot be written.
    """
    trt = load_backend(config.target)
    check_features(trt, config)
    _check_device(config)
    _check_sparsity(network, config)
    device = _device() if _is_for_this_machine(config) else None
    _check_board(config, device)
    with listening(trt) as (logger, log):
        made = _made(_Job(trt, network, config, contract, device, logger, log, progress))
        log.report_repeats()
    check_coverage(made.audit, config.required_coverage)
    built = Built(
        engine=made.plan,
        versions={
            trt.__name__: str(trt.__version__),
            **({} if device is None else system_versions(device)),
        },
        gpu=None if device is None else device.name,
        compute_capability=config.compute_capability
        or (None if device is None else device.compute_capability),
        flags=(*_creation_flags(trt), *builder_flags(trt, config)),
        batch=made.batch,
        audit=made.audit,
    )
    return save_engine(built, network, config, contract, output)


def _device() -> CudaDevice:
    found = find_cuda_device()
    if isinstance(found, NoCudaDevice):
        raise BuildError(
            f"This machine has an NVIDIA GPU and TensorRT cannot use it: {found.reason}. Check "
            "CUDA_VISIBLE_DEVICES and nvidia-smi (on a Jetson: tegrastats), and run `edgeres "
            "doctor`."
        )
    return found


def _is_for_this_machine(config: BuildConfig) -> bool:
    return config.target is Target.TENSORRT or config.compute_capability is None


def _check_device(config: BuildConfig) -> None:
    if has_nvidia_gpu():
        return
    if not _is_for_this_machine(config):
        _check_no_refit(config)
        return
    if config.target is Target.TENSORRT_RTX:
        raise BuildError(
            "This machine has no NVIDIA GPU to build for. Name one: --compute-capability 8.6 "
            "(also 7.5, 8.0, 8.9, 12.0 and 12.1)."
        )
    raise BuildError(
        "TensorRT builds on the GPU that the engine is for, and this machine has none. Run "
        "build-engine on the board; here, --target tensorrt-rtx --compute-capability 8.6 checks "
        "the network, and --target onnxruntime runs on this CPU."
    )


def _check_no_refit(config: BuildConfig) -> None:
    if config.options.refit or config.options.strip_weights:
        option = "--refit" if config.options.refit else "--strip-weights"
        raise BuildError(
            f"{option} needs a GPU while TensorRT for RTX builds, and this machine has none. Leave "
            "it out, or build where the plan is to run."
        )


def _check_board(config: BuildConfig, device: CudaDevice | None) -> None:
    compatibility = config.options.hardware_compatibility
    if device is None or not device.integrated:
        return
    if compatibility is not HardwareCompatibility.NONE:
        raise ConfigError(
            f"--hardware-compatibility {compatibility} is for desktop and data-centre GPUs; "
            f"JetPack's TensorRT has none, and this is {device.name}. Build on each board."
        )


def _check_sparsity(network: LoweredNetwork, config: BuildConfig) -> None:
    """Refuses sparse kernels that nothing could use, and says which layers can."""
    if not config.options.sparsity:
        return
    layers = sparse_layers(network.model)
    sparse = [name for name, is_sparse in layers.items() if is_sparse]
    if not sparse:
        raise ConfigError(
            f"--sparsity is for 2:4 sparse weights, and none of the {len(layers)} convolutions has "
            "them: at most two of every four input channels may be non-zero. Prune and retrain "
            "the network, or leave --sparsity out."
        )
    dense = [name for name in layers if name not in sparse]
    _LOG.info("2:4 sparse weights: %d of %d convolutions", len(sparse), len(layers))
    if dense:
        _LOG.warning("no 2:4 sparse weights in %s", ", ".join(dense))


def _made(job: _Job) -> _Made:
    """Returns the serialised engine and what is known of its layers."""
    builder = _builder(job)
    definition = _parsed(job, builder)
    shapes = _shapes(job, definition)
    settings = _settings(job, builder, definition, shapes)
    _check_dla(job, builder, definition, settings)
    cache = job.config.options.timing_cache
    origin = _origin(job)
    if cache is not None:
        timing_cache.attach(settings, Path(cache), origin, job.log)
    plan = _serialized(job, builder, definition, settings)
    if cache is not None:
        timing_cache.keep(settings, Path(cache), origin)
    low, best, high = (shape[0] for shape in shapes)
    return _Made(plan, (low, best, high), _audit(job, plan, definition, shapes[1]))


def _builder(job: _Job) -> Any:
    trt = job.trt
    try:
        return trt.Builder(job.logger)
    except TypeError as error:
        # What the bindings make of a null pointer: no usable driver, or libraries of another build.
        raise BuildError(
            f"{trt.__name__} {trt.__version__} could not start its builder: {job.log.worst()} "
            "Check the driver with nvidia-smi (on a Jetson: tegrastats) and run `edgeres doctor`."
        ) from error


def _parsed(job: _Job, builder: Any) -> Any:
    """Returns NVIDIA's network."""
    trt = job.trt
    known = trt.NetworkDefinitionCreationFlag
    mask = sum(1 << int(getattr(known, name)) for name in _creation_flags(trt))
    definition = builder.create_network(mask)
    parser = trt.OnnxParser(definition, job.logger)
    if job.config.options.dla_core is not None and hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
        parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    if not parser.parse(job.network.model.SerializeToString()):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise BuildError(
            f"NVIDIA's ONNX parser {trt.__version__} refused {job.network.source.path}: "
            f"{' '.join(reasons[:_LISTED_ERRORS]) or job.log.worst()} "
            "If the file was exported elsewhere, export it with edgeres."
        )
    return definition


def _creation_flags(trt: Any) -> tuple[str, ...]:
    """Returns STRONGLY_TYPED where it exists; EXPLICIT_BATCH where nothing else is possible."""
    known = trt.NetworkDefinitionCreationFlag
    wanted = "STRONGLY_TYPED" if hasattr(known, "STRONGLY_TYPED") else "EXPLICIT_BATCH"
    return (wanted,) if hasattr(known, wanted) else ()


def _shapes(job: _Job, definition: Any) -> tuple[Shape, Shape, Shape]:
    declared = tuple(definition.get_input(0).shape)
    return input_shapes(declared, job.config, job.contract, job.network.source.path)


def _settings(job: _Job, builder: Any, definition: Any, shapes: tuple[Shape, Shape, Shape]) -> Any:
    settings = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape(definition.get_input(0).name, *shapes)
    settings.add_optimization_profile(profile)
    needed = estimate(job.network.model, shapes[-1], job.config.float_precision)
    free = describe_machine().memory_available_mib
    limit = workspace_mib(needed, job.config, job.device, free)
    workspace = "TensorRT's own" if limit is None else f"{limit} MiB"
    _LOG.info("the build needs at least %.0f MiB; workspace %s", needed.total_mib, workspace)
    apply(job.trt, settings, job.config, limit)
    return settings


def _check_dla(job: _Job, builder: Any, definition: Any, settings: Any) -> None:
    """Refuses a core that is not there, and layers that it cannot run and may not leave to the GPU."""
    core = job.config.options.dla_core
    if core is None:
        return
    if core >= builder.num_DLA_cores:
        raise ConfigError(
            f"--dla {core}: this machine has {builder.num_DLA_cores} DLA cores, counted from 0. "
            "Leave --dla out to build for the GPU."
        )
    layers = [definition.get_layer(index) for index in range(definition.num_layers)]
    foreign = [layer.name for layer in layers if not settings.can_run_on_DLA(layer)]
    if foreign and not job.config.options.gpu_fallback:
        raise BuildError(
            f"{len(foreign)} of {len(layers)} layers cannot run on the DLA: "
            f"{', '.join(foreign[:_LISTED_ERRORS])}{' ...' * (len(foreign) > _LISTED_ERRORS)}. "
            "Pass --gpu-fallback to leave them to the GPU."
        )


def _origin(job: _Job) -> timing_cache.Origin:
    device = job.device
    return timing_cache.Origin(
        module=job.trt.__name__,
        version=str(job.trt.__version__),
        gpu="" if device is None else device.name,
        compute_capability="" if device is None else device.compute_capability,
    )


def _serialized(job: _Job, builder: Any, definition: Any, settings: Any) -> bytes:
    watched = None
    if hasattr(job.trt, "IProgressMonitor"):
        watched = settings.progress_monitor = monitor(job.trt, job.progress)
    plan = builder.build_serialized_network(definition, settings)
    stopped = job.log.stopped or (watched and watched.stopped)
    if stopped is not None:
        raise stopped
    if plan is None:
        raise BuildError(
            f"{job.trt.__name__} {job.trt.__version__} could not build the engine: "
            f"{job.log.worst()} Run with -v for its whole log."
        )
    return bytes(plan)


def _audit(job: _Job, plan: bytes, definition: Any, shape: Shape) -> Audit:
    """Returns the inspector's view of the engine, or the parsed network where there is none.

    The inspector tells some precisions only for a context whose shapes are known; one takes
    memory, so it is made where it is needed.
    """
    layers = job.network.layers
    if job.config.target is Target.TENSORRT_RTX:
        return audit_of_network(job.trt, definition, layers, job.config.precision)
    engine = _loaded(job, plan)
    inspector = engine.create_engine_inspector()
    as_json = job.trt.LayerInformationFormat.JSON
    audit = audit_of_inspector(
        inspector.get_engine_information(as_json), layers, job.config.precision
    )
    if all(node.ran for node in audit.nodes):
        return audit
    context = engine.create_execution_context()
    if context is None or not context.set_input_shape(definition.get_input(0).name, shape):
        return audit
    inspector.execution_context = context
    return audit_of_inspector(
        inspector.get_engine_information(as_json), layers, job.config.precision
    )


def _loaded(job: _Job, plan: bytes) -> Any:
    """Returns the engine on this machine's GPU; `build` has seen that there is one."""
    trt, asked = job.trt, job.config.options
    runtime = trt.Runtime(job.logger)
    if asked.version_compatible:
        runtime.engine_host_code_allowed = True
    if asked.dla_core is not None:
        runtime.DLA_core = asked.dla_core
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(
            f"{trt.__name__} {trt.__version__} cannot load the engine that it built: "
            f"{job.log.worst()} Free some memory and build again."
        )
    return engine
