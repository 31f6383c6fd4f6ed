"""The requested options, set on NVIDIA's IBuilderConfig, or refused by name.

NVIDIA's setters ignore what they do not take and only log it, so every setting is read back. What
a version has is detected on its module, never derived from its number; the numbers in the messages
are for the reader, who has to choose a version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeres.core.builder_options import HardwareCompatibility, TensorRTOptions
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import BuildError, ConfigError
from edgeres.machine.boards import boards
from edgeres.plurals import counted
from edgeres.targets.tensorrt.module import is_strongly_typed

_RTX = "tensorrt_rtx"
_MIB = 1 << 20
_LISTED_LAYERS = 3


@dataclass(frozen=True, slots=True)
class Feature:
    """An option of the command line that not every version has."""

    option: str
    is_requested: Callable[[TensorRTOptions], bool]
    name: str
    """What of NVIDIA's module it needs: a class or enumeration, and a member."""
    available_in: str
    """The versions that have it, for the message."""
    is_in_rtx: bool = True
    """False where TensorRT for RTX has the name, and an option without effect."""

    def is_available(self, trt: Any) -> bool:
        """Returns whether NVIDIA's module has it."""
        if trt.__name__ == _RTX and not self.is_in_rtx:
            return False
        owner, name = self.name.split(".")
        return hasattr(getattr(trt, owner, None), name)


FEATURES = (
    Feature(
        "--optimization-level",
        lambda options: options.optimization_level is not None,
        "IBuilderConfig.builder_optimization_level",
        "TensorRT 8.6 and later",
    ),
    Feature(
        "--timing-cache",
        lambda options: options.timing_cache is not None,
        "IBuilderConfig.create_timing_cache",
        "TensorRT 8.6 and later; TensorRT for RTX times its kernels where the plan is loaded",
        is_in_rtx=False,
    ),
    Feature(
        "--hardware-compatibility ampere-plus",
        lambda options: options.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS,
        "HardwareCompatibilityLevel.AMPERE_PLUS",
        "TensorRT 8.6 and later on desktop and data-centre GPUs; a TensorRT for RTX plan takes "
        "--compute-capability",
        is_in_rtx=False,
    ),
    Feature(
        "--hardware-compatibility same-compute-capability",
        lambda options: (
            options.hardware_compatibility is HardwareCompatibility.SAME_COMPUTE_CAPABILITY
        ),
        "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",
        "TensorRT 10.16 and 11.4, not 10.3; a TensorRT for RTX plan takes --compute-capability",
        is_in_rtx=False,
    ),
    Feature(
        "--version-compatible",
        lambda options: options.version_compatible,
        "BuilderFlag.VERSION_COMPATIBLE",
        "TensorRT 8.6 and later; TensorRT for RTX comes without the lean runtime that it needs",
        is_in_rtx=False,
    ),
    Feature(
        "--refit", lambda options: options.refit, "BuilderFlag.REFIT", "TensorRT 8.6 and later"
    ),
    Feature(
        "--strip-weights",
        lambda options: options.strip_weights,
        "BuilderFlag.STRIP_PLAN",
        "TensorRT 10.0 and later, and TensorRT for RTX",
    ),
    Feature(
        "--sparsity",
        lambda options: options.sparsity,
        "BuilderFlag.SPARSE_WEIGHTS",
        "TensorRT 8.6 and later, and TensorRT for RTX",
    ),
    Feature(
        "--dla",
        lambda options: options.dla_core is not None,
        "DeviceType.DLA",
        "TensorRT on a Jetson with a deep-learning accelerator",
        is_in_rtx=False,
    ),
)
"""The options that a module may lack."""


def check_features(trt: Any, config: BuildRequest) -> None:
    """Checks that the module has every requested option.

    Raises:
        ConfigError: it lacks an option; the message names the versions that have it.
    """
    for feature in FEATURES:
        if feature.is_requested(config.options) and not feature.is_available(trt):
            raise ConfigError(
                f"{feature.option} is not in {trt.__name__} {trt.__version__}; it is in "
                f"{feature.available_in}. Leave it out, or build with one of these."
            )
    if config.options.dla_core is None:
        return
    if config.float_precision is Precision.FP32:
        raise ConfigError(
            "The DLA computes in FP16 and INT8 alone. Pass --precision fp16, or int8 with "
            "--float-layers fp16."
        )
    # The flag came with the parser that rewrites Q/DQ for the DLA.
    if config.is_quantized and not hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
        raise ConfigError(
            f"The DLA takes no Q/DQ network in {trt.__name__} {trt.__version__}: until TensorRT "
            "10.7 its INT8 comes from a calibration cache alone. Write one with `edgeres "
            "calibrate --emit-trt-cache FILE` and build with trtexec --int8 --fp16 "
            "--calib=FILE --useDLACore=0, or pass --precision fp16."
        )


def check_dla(builder: Any, definition: Any, builder_config: Any, options: TensorRTOptions) -> None:
    """Checks that the requested DLA core exists and runs what may not go to the GPU.

    Args:
        builder: IBuilder.
        definition: the parsed INetworkDefinition.
        builder_config: IBuilderConfig on which `set_options` was called.
        options: without a DLA core there is nothing to check.

    Raises:
        ConfigError: the machine has no such core.
        BuildError: a layer can run on the GPU alone, and --gpu-fallback was not requested.
    """
    core = options.dla_core
    if core is None:
        return
    if core >= builder.num_DLA_cores:
        raise ConfigError(
            f"--dla {core}: this machine has {builder.num_DLA_cores} DLA cores, counted from 0. "
            "Leave --dla out to build for the GPU."
        )
    layers = [definition.get_layer(index) for index in range(definition.num_layers)]
    unsupported = [layer.name for layer in layers if not builder_config.can_run_on_DLA(layer)]
    if unsupported and not options.gpu_fallback:
        listed = ", ".join(unsupported[:_LISTED_LAYERS])
        more = " ..." * (len(unsupported) > _LISTED_LAYERS)
        raise BuildError(
            f"{len(unsupported)} of {counted(len(layers), 'layer')} cannot run on the DLA: "
            f"{listed}{more}. Pass --gpu-fallback to leave them to the GPU."
        )


def builder_flags(trt: Any, config: BuildRequest) -> tuple[str, ...]:
    """Returns the names of the BuilderFlags that a build sets."""
    options = config.options
    # A strongly typed network carries its types itself, and TensorRT refuses the flags beside it.
    weakly_typed = not is_strongly_typed(trt)
    wanted = {
        "INT8": weakly_typed and config.is_quantized,
        "FP16": weakly_typed and config.float_precision is Precision.FP16,
        "REFIT": options.refit,
        "STRIP_PLAN": options.strip_weights,
        "SPARSE_WEIGHTS": options.sparsity,
        "VERSION_COMPATIBLE": options.version_compatible,
        "GPU_FALLBACK": options.gpu_fallback,
    }
    return tuple(name for name, is_set in wanted.items() if is_set)


def set_options(
    trt: Any, builder_config: Any, config: BuildRequest, workspace_mib: int | None
) -> None:
    """Sets every requested option on an IBuilderConfig, and reads each back.

    Args:
        trt: NVIDIA's module.
        builder_config: IBuilderConfig.
        config: the request; `check_features` has passed.
        workspace_mib: limit of one kernel's scratch memory; None leaves NVIDIA's.

    Raises:
        BuildError: NVIDIA's module ignored a setting.
    """

    def assign(name: str, value: Any) -> None:
        setattr(builder_config, name, value)
        _check_set(name, getattr(builder_config, name), value)

    options = config.options
    # The inspector gives a layer's precision only in a plan of this verbosity.
    assign("profiling_verbosity", trt.ProfilingVerbosity.DETAILED)
    for name in builder_flags(trt, config):
        flag = getattr(trt.BuilderFlag, name)
        builder_config.set_flag(flag)
        _check_set(name, builder_config.get_flag(flag), True)
    if options.optimization_level is not None:
        assign("builder_optimization_level", options.optimization_level)
    if options.hardware_compatibility is not HardwareCompatibility.NONE:
        level = getattr(trt.HardwareCompatibilityLevel, options.hardware_compatibility.name)
        assign("hardware_compatibility_level", level)
    if options.dla_core is not None:
        assign("default_device_type", trt.DeviceType.DLA)
        assign("DLA_core", options.dla_core)
    if workspace_mib is not None:
        pool, limit = trt.MemoryPoolType.WORKSPACE, workspace_mib * _MIB
        builder_config.set_memory_pool_limit(pool, limit)
        _check_set("workspace", builder_config.get_memory_pool_limit(pool), limit)
    if config.compute_capability is not None:
        # The slots come first: set_compute_capability fills one of them by its index.
        builder_config.num_compute_capabilities = 1
        capability = compute_capability(trt, config.compute_capability)
        is_set = builder_config.set_compute_capability(capability, 0)
        _check_set("compute capability", is_set, True)


def _check_set(name: str, actual: Any, requested: Any) -> None:
    if actual != requested:
        raise BuildError(
            f"NVIDIA's builder ignored the setting {name}: requested {requested}, it has {actual}. "
            "Run with -v for its log, and leave the option out."
        )


def compute_capability(trt: Any, requested: str) -> Any:
    """Returns NVIDIA's ComputeCapability for a dotted one such as `8.6`.

    Raises:
        ConfigError: the module does not build for it; the message lists those that it does.
    """
    # SM86 is 8.6 and SM120 is 12.0: the last digit is the minor version.
    known = {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in trt.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    if requested not in known:
        jetsons = [
            name
            for name, (mode, *_) in boards().items()
            if mode.is_jetson and mode.compute_capability == requested
        ]
        own = (
            f" A Jetson such as {jetsons[0]} builds its own: --target tensorrt there, or from here "
            "with --on HOST."
            if jetsons
            else ""
        )
        raise ConfigError(
            f"TensorRT for RTX {trt.__version__} does not build for compute capability "
            f"{requested}. Available: {', '.join(known)}.{own}"
        )
    return known[requested]
