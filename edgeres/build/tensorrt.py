"""The `tensorrt` and `tensorrt-rtx` targets: NVIDIA's parser and builder behind one seam.

Both modules have the same API: TensorRT for RTX builds without a GPU for a named compute
capability, TensorRT builds for the GPU that it runs on. Where networks are not strongly typed
(`backend`), INT8 and FP16 are builder flags.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeres.artifacts import EngineArtifact
from edgeres.build.backend import is_strongly_typed, load_backend
from edgeres.build.manifest import Built, save_engine
from edgeres.contract import Contract
from edgeres.environment import has_nvidia_gpu
from edgeres.environment.cuda import NoCudaDevice, find_cuda_device, system_versions
from edgeres.errors import BuildError, ConfigError
from edgeres.model_file import Network
from edgeres.spec import BuildConfig, Precision, Target

_LISTED_ERRORS = 3
_PYTHON_LOG = logging.getLogger("edgeres.build")


def build(
    network: Network, config: BuildConfig, contract: Contract, *, output: Path
) -> EngineArtifact:
    """Parses the network, builds a plan and writes it, pure, with its manifest.

    Raises:
        DependencyError: the module is not installed.
        ConfigError: the compute capability is none that it builds for.
        BuildError: no GPU where one is needed, or NVIDIA's parser or builder refused.
        ArtifactError: the files cannot be written.
    """
    trt = load_backend(config.target)
    _check_device(config)
    log = _Log()
    builder = _builder(trt, _logger(trt, log), log)
    parsed, flags = _parsed(trt, builder, network, log)
    settings = _settings(trt, builder, parsed, config)
    plan = builder.build_serialized_network(parsed, settings)
    if plan is None:
        raise BuildError(
            f"{trt.__name__} {trt.__version__} could not build the engine: {log.worst()} "
            "Run with -v for its whole log."
        )
    log.report_repeats()
    built = _at_home(config, Built(engine=bytes(plan), versions=_versions(trt), flags=flags))
    return save_engine(built, network, config, contract, output)


def _versions(trt: Any) -> dict[str, str]:
    return {trt.__name__: str(trt.__version__)}


def _at_home(config: BuildConfig, built: Built) -> Built:
    """Returns the plan with the GPU that it is for: the one named, or this machine's."""
    device = find_cuda_device()
    if config.compute_capability is not None or isinstance(device, NoCudaDevice):
        return replace(built, compute_capability=config.compute_capability)
    return replace(
        built,
        gpu=device.name,
        compute_capability=device.compute_capability,
        versions={**built.versions, **system_versions(device)},
    )


def _builder(trt: Any, logger: Any, log: _Log) -> Any:
    try:
        return trt.Builder(logger)
    except TypeError as error:
        # What the bindings make of a null pointer: no usable driver, or libraries of another build.
        raise BuildError(
            f"{trt.__name__} {trt.__version__} could not start its builder: {log.worst()} "
            "Check the driver with nvidia-smi (on a Jetson: tegrastats) and run `edgeres doctor`."
        ) from error


class _Log:
    """NVIDIA's messages of one build: errors are kept, the rest goes to `logging`, once each."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._counts: Counter[tuple[int, str]] = Counter()

    def add(self, level: int, message: str) -> None:
        """Takes one message."""
        self._counts[level, message] += 1
        if level >= logging.ERROR:
            self.errors.append(message)
        elif self._counts[level, message] == 1:
            _PYTHON_LOG.log(level, "%s", message)

    def worst(self) -> str:
        """Returns the first errors in one line."""
        return " ".join(self.errors[:_LISTED_ERRORS]) or "it gave no reason."

    def report_repeats(self) -> None:
        """Says how often each message came that came more than once."""
        for (level, message), count in self._counts.items():
            if count > 1 and level < logging.ERROR:
                _PYTHON_LOG.log(level, "%d times: %s", count, message)


def _logger(trt: Any, log: _Log) -> Any:
    """Returns an ILogger that hands NVIDIA's messages to `log`."""
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.INFO,
        severity.VERBOSE: logging.DEBUG,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.add(levels[severity], message)

    return Logger()


def _check_device(config: BuildConfig) -> None:
    if config.target is Target.TENSORRT_RTX and config.compute_capability is not None:
        return
    if has_nvidia_gpu():
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


def _parsed(trt: Any, builder: Any, network: Network, log: _Log) -> tuple[Any, tuple[str, ...]]:
    """Returns NVIDIA's network and the creation flags it has."""
    flags = _creation_flags(trt)
    mask = sum(1 << int(getattr(trt.NetworkDefinitionCreationFlag, name)) for name in flags)
    definition = builder.create_network(mask)
    parser = trt.OnnxParser(definition, builder.logger)
    if not parser.parse(network.model.SerializeToString()):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise BuildError(
            f"NVIDIA's ONNX parser {trt.__version__} refused {network.source.path}: "
            f"{' '.join(reasons[:_LISTED_ERRORS]) or log.worst()} "
            "If the file was exported elsewhere, export it with edgeres."
        )
    return definition, flags


def _creation_flags(trt: Any) -> tuple[str, ...]:
    """Returns STRONGLY_TYPED where it exists; EXPLICIT_BATCH where nothing else is possible."""
    known = trt.NetworkDefinitionCreationFlag
    wanted = "STRONGLY_TYPED" if hasattr(known, "STRONGLY_TYPED") else "EXPLICIT_BATCH"
    return (wanted,) if hasattr(known, wanted) else ()


def _settings(trt: Any, builder: Any, definition: Any, config: BuildConfig) -> Any:
    settings = builder.create_builder_config()
    settings.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not is_strongly_typed(trt):
        _set_precision_flags(trt, settings, config)
    profile = builder.create_optimization_profile()
    image = definition.get_input(0)
    shapes = [(batch, *tuple(image.shape)[1:]) for batch in config.batch]
    profile.set_shape(image.name, *shapes)
    settings.add_optimization_profile(profile)
    if config.compute_capability is not None:
        settings.num_compute_capabilities = 1
        settings.set_compute_capability(_capability(trt, config.compute_capability), 0)
    return settings


def _set_precision_flags(trt: Any, settings: Any, config: BuildConfig) -> None:
    """Allows the precisions that a weakly typed network (8.6) may use."""
    if config.precision is Precision.INT8:
        settings.set_flag(trt.BuilderFlag.INT8)
    if Precision.FP16 in (config.precision, config.float_precision):
        settings.set_flag(trt.BuilderFlag.FP16)


def _capability(trt: Any, wanted: str) -> Any:
    """Returns NVIDIA's name for a compute capability such as `8.6`."""
    members = trt.ComputeCapability.__members__
    known = {_dotted(name): value for name, value in members.items() if name.startswith("SM")}
    if wanted not in known:
        raise ConfigError(
            f"TensorRT for RTX {trt.__version__} does not build for compute capability {wanted}. "
            f"Available: {', '.join(known)}."
        )
    return known[wanted]


def _dotted(name: str) -> str:
    digits = name.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"
