"""What is requested of NVIDIA's builder beyond precision, target and batch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from edgeres.errors import ConfigError
from edgeres.names import Name


class HardwareCompatibility(Name):
    """GPUs that a TensorRT plan runs on besides the one that it was built on."""

    NONE = "none"
    AMPERE_PLUS = "ampere-plus"
    SAME_COMPUTE_CAPABILITY = "same-compute-capability"


OPTIMIZATION_LEVELS = range(6)
"""Effort of TensorRT's builder. Source: NVIDIA TensorRT API, IBuilderConfig,
builder_optimization_level: 3 is the default, 5 the highest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRTOptions:
    """What is requested of NVIDIA's builder beyond precision, target and batch."""

    workspace_mib: int | None = None
    """Memory that one layer's kernel may use; None: TensorRT's default, or what a board has free."""
    optimization_level: int | None = None
    """One of `OPTIMIZATION_LEVELS`; None: TensorRT's own default."""
    timing_cache: str | None = None
    """File that kernel timings are read from and kept in."""
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    version_compatible: bool = False
    """Whether later versions of TensorRT may load the plan."""
    refit: bool = False
    """Whether the weights can be replaced afterwards."""
    strip_weights: bool = False
    """Whether the plan leaves the weights out, to be refitted where it runs."""
    sparsity: bool = False
    """Whether kernels for 2:4 sparse weights may be used."""
    dla_core: int | None = None
    """Deep-learning accelerator to build for; None: the GPU."""
    gpu_fallback: bool = False
    """Whether layers that the accelerator cannot run may go to the GPU."""

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise ConfigError(f"--workspace is {self.workspace_mib} MiB; expected at least 1.")
        level = self.optimization_level
        if level is not None and level not in OPTIMIZATION_LEVELS:
            raise ConfigError(
                f"--optimization-level is {level}; expected {OPTIMIZATION_LEVELS[0]} to "
                f"{OPTIMIZATION_LEVELS[-1]}, where higher builds longer and may run faster."
            )
        if self.dla_core is not None and self.dla_core < 0:
            raise ConfigError(f"--dla is {self.dla_core}; expected a core's number, from 0 on.")
        # Options are never dropped in silence: on a GPU this one would do nothing.
        if self.gpu_fallback and self.dla_core is None:
            raise ConfigError("--gpu-fallback is for an engine on the DLA. Pass --dla CORE too.")


NO_BUILDER_OPTIONS = TensorRTOptions()
"""Nothing requested: the builder's own defaults."""


def changed_options(options: TensorRTOptions) -> list[str]:
    """Returns the command line's names of the options that differ from their defaults."""
    spelled = {
        "workspace_mib": "--workspace",
        "dla_core": "--dla",
        "version_compatible": "--version-compatible",
    }
    return [
        spelled.get(name, "--" + name.replace("_", "-"))
        for name in (field.name for field in fields(options))
        if getattr(options, name) != getattr(NO_BUILDER_OPTIONS, name)
    ]
