"""What was asked for, set on NVIDIA's IBuilderConfig, or refused by name.

NVIDIA's setters ignore what they do not take and only log it, so every setting is read back. What
a version has is detected on its module, never derived from its number; the numbers here only tell
the reader where to look for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeres.core.builder_options import HardwareCompatibility, TensorRTOptions
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildConfig
from edgeres.errors import BuildError, ConfigError
from edgeres.targets.tensorrt.module import is_strongly_typed

_RTX = "tensorrt_rtx"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Feature:
    """An option of the command line that not every version has."""

    option: str
    is_asked: Callable[[TensorRTOptions], bool]
    is_there: Callable[[Any], bool]
    """Whether NVIDIA's module has it."""
    had_by: str
    """The versions that do, for the reader."""


def _has_flag(name: str) -> Callable[[Any], bool]:
    return lambda trt: hasattr(trt.BuilderFlag, name)


def _has_level(name: str) -> Callable[[Any], bool]:
    return lambda trt: not _is_rtx(trt) and hasattr(trt.HardwareCompatibilityLevel, name)


def _is_rtx(trt: Any) -> bool:
    return bool(trt.__name__ == _RTX)


FEATURES = (
    Feature(
        "--optimization-level",
        lambda asked: asked.optimization_level is not None,
        lambda trt: hasattr(trt.IBuilderConfig, "builder_optimization_level"),
        "TensorRT 8.6 and later",
    ),
    Feature(
        "--timing-cache",
        lambda asked: asked.timing_cache is not None,
        lambda trt: not _is_rtx(trt),
        "TensorRT 8.6 and later; TensorRT for RTX times its kernels where the plan is loaded",
    ),
    Feature(
        "--hardware-compatibility ampere-plus",
        lambda asked: asked.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS,
        _has_level("AMPERE_PLUS"),
        "TensorRT 8.6 and later on desktop and data-centre GPUs; a TensorRT for RTX plan takes "
        "--compute-capability",
    ),
    Feature(
        "--hardware-compatibility same-compute-capability",
        lambda asked: asked.hardware_compatibility is HardwareCompatibility.SAME_COMPUTE_CAPABILITY,
        _has_level("SAME_COMPUTE_CAPABILITY"),
        "TensorRT 10.16 and 11.4, not 10.3; a TensorRT for RTX plan takes --compute-capability",
    ),
    Feature(
        "--version-compatible",
        lambda asked: asked.version_compatible,
        lambda trt: not _is_rtx(trt) and _has_flag("VERSION_COMPATIBLE")(trt),
        "TensorRT 8.6 and later; TensorRT for RTX comes without the lean runtime that it needs",
    ),
    Feature("--refit", lambda asked: asked.refit, _has_flag("REFIT"), "TensorRT 8.6 and later"),
    Feature(
        "--strip-weights",
        lambda asked: asked.strip_weights,
        _has_flag("STRIP_PLAN"),
        "TensorRT 10.0 and later, and TensorRT for RTX",
    ),
    Feature(
        "--sparsity",
        lambda asked: asked.sparsity,
        _has_flag("SPARSE_WEIGHTS"),
        "TensorRT 8.6 and later, and TensorRT for RTX",
    ),
    Feature(
        "--dla",
        lambda asked: asked.dla_core is not None,
        lambda trt: not _is_rtx(trt) and hasattr(trt.DeviceType, "DLA"),
        "TensorRT on a Jetson with a deep-learning accelerator",
    ),
)
"""Options by what NVIDIA's modules need for them."""


def check_features(trt: Any, config: BuildConfig) -> None:
    """Checks that the module has what was asked for.

    Raises:
        ConfigError: it lacks an option; the message names the versions that have it.
    """
    for feature in FEATURES:
        if feature.is_asked(config.options) and not feature.is_there(trt):
            raise ConfigError(
                f"{feature.option} is not in {trt.__name__} {trt.__version__}; it is in "
                f"{feature.had_by}. Leave it out, or build with one of these."
            )
    if config.options.dla_core is not None:
        _check_dla_precision(trt, config)


def _check_dla_precision(trt: Any, config: BuildConfig) -> None:
    if config.float_precision is Precision.FP32:
        raise ConfigError(
            "The DLA computes in FP16 and INT8 alone. Pass --precision fp16, or int8 with "
            "--float-layers fp16."
        )
    if config.is_quantized and not hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
        raise ConfigError(
            f"The DLA takes no Q/DQ network in {trt.__name__} {trt.__version__}: until TensorRT "
            "10.7 its INT8 comes from a calibration cache alone. Write one with `edgeres "
            "calibrate --emit-trt-cache FILE` and build with trtexec --int8 --fp16 "
            "--calib=FILE --useDLACore=0, or pass --precision fp16."
        )


def builder_flags(trt: Any, config: BuildConfig) -> tuple[str, ...]:
    """Returns the names of the BuilderFlags that a build sets."""
    asked = config.options
    weak = not is_strongly_typed(trt)
    wanted = {
        "INT8": weak and config.is_quantized,
        "FP16": weak and config.float_precision is Precision.FP16,
        "REFIT": asked.refit,
        "STRIP_PLAN": asked.strip_weights,
        "SPARSE_WEIGHTS": asked.sparsity,
        "VERSION_COMPATIBLE": asked.version_compatible,
        "GPU_FALLBACK": asked.gpu_fallback,
    }
    return tuple(name for name, is_set in wanted.items() if is_set)


def apply(trt: Any, settings: Any, config: BuildConfig, workspace_mib: int | None) -> None:
    """Sets what was asked on an IBuilderConfig, and reads each setting back.

    Args:
        trt: NVIDIA's module.
        settings: IBuilderConfig.
        config: what was asked; `check_features` has passed.
        workspace_mib: limit of one kernel's scratch memory; None leaves NVIDIA's.

    Raises:
        BuildError: NVIDIA's module ignored a setting.
    """
    asked = config.options
    _assign(settings, "profiling_verbosity", trt.ProfilingVerbosity.DETAILED)
    for name in builder_flags(trt, config):
        flag = getattr(trt.BuilderFlag, name)
        settings.set_flag(flag)
        _confirm(name, settings.get_flag(flag), True)
    if asked.optimization_level is not None:
        _assign(settings, "builder_optimization_level", asked.optimization_level)
    if asked.hardware_compatibility is not HardwareCompatibility.NONE:
        level = asked.hardware_compatibility.name
        known = trt.HardwareCompatibilityLevel
        _assign(settings, "hardware_compatibility_level", getattr(known, level))
    if asked.dla_core is not None:
        _assign(settings, "default_device_type", trt.DeviceType.DLA)
        _assign(settings, "DLA_core", asked.dla_core)
    if workspace_mib is not None:
        pool, limit = trt.MemoryPoolType.WORKSPACE, workspace_mib * _MIB
        settings.set_memory_pool_limit(pool, limit)
        _confirm("workspace", settings.get_memory_pool_limit(pool), limit)
    if config.compute_capability is not None:
        settings.num_compute_capabilities = 1
        capability = known_capability(trt, config.compute_capability)
        _confirm("compute capability", settings.set_compute_capability(capability, 0), True)


def _assign(settings: Any, name: str, value: Any) -> None:
    setattr(settings, name, value)
    _confirm(name, getattr(settings, name), value)


def _confirm(name: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise BuildError(
            f"NVIDIA's builder ignored the setting {name}: asked for {wanted}, it has {found}. "
            "Run with -v for its log, and leave the option out."
        )


def known_capability(trt: Any, wanted: str) -> Any:
    """Returns NVIDIA's name for a compute capability such as `8.6`.

    Raises:
        ConfigError: the module does not build for it; the message lists those that it does.
    """
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
