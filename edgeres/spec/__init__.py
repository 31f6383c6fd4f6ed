"""What is asked of each stage: frozen values, checked when they are made.

Nothing here knows a file, a device or a heavy library; every stage and the command line
share these names. Units are in the field names, accuracy limits are in percentage points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeres.contract import Contract
from edgeres.errors import ConfigError
from edgeres.names import Name
from edgeres.spec.bench import BenchConfig as BenchConfig
from edgeres.spec.bench import Decision as Decision
from edgeres.spec.bench import LoadGenConfig as LoadGenConfig
from edgeres.spec.bench import Scenario as Scenario
from edgeres.spec.bench import Timing as Timing


class Precision(Name):
    """Precision that an engine is built in."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    MIXED = "mixed"
    """INT8, with what a budget of accuracy needs kept from it. A layer is never `mixed`."""

    @property
    def quantizes(self) -> bool:
        """Whether an engine of it has INT8 layers, and needs a calibration table."""
        return self in (Precision.INT8, Precision.MIXED)


class Target(Name):
    """Where an engine runs."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class Method(Name):
    """How the threshold (amax) of an activation is chosen from its observed distribution."""

    MAX = "max"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"
    MSE = "mse"
    AUTO = "auto"
    """By the logits of held-out calibration images, rather than by each tensor's distribution."""


class WeightMethod(Name):
    """How the scale of a weight's channel is chosen; every weight has one for each output channel."""

    MAX = "max"
    """The largest magnitude: nothing is clipped."""
    MSE = "mse"
    """The least mean squared error of rounding and clipping."""


class Recover(Name):
    """How accuracy is won back after calibration, without training."""

    NONE = "none"
    BIAS = "bias"
    ADAROUND = "adaround"


class Block(Name):
    """Kind of residual block.

    Source: He et al. 2016a (basic, bottleneck, figure 5), He et al. 2016b and Zagoruyko and
    Komodakis 2016 (pre-activation).
    """

    BASIC = "basic"
    BOTTLENECK = "bottleneck"
    PREACTIVATION = "preactivation"


class Stem(Name):
    """First layers: 7x7 stride 2 and max pooling, or a single 3x3."""

    IMAGENET = "imagenet"
    CIFAR = "cifar"


class Shortcut(Name):
    """What joins a block's input to its output where the shape changes.

    Source: He et al. 2016a, section 3.3. `A` subsamples and pads channels with zeros, `B`
    projects with a 1x1 convolution, `NONE` has no skip connection at all (a plain net).
    """

    A = "A"
    B = "B"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Architecture of a ResNet, independent of any framework."""

    name: str
    """Registry name, such as `resnet50`."""
    block: Block
    layers: tuple[int, ...]
    """Number of blocks in each stage."""
    stem: Stem = Stem.IMAGENET
    base_width: int = 64
    """Channels of the stem; each later stage doubles them."""
    groups: int = 1
    """Groups of the 3x3 convolution in a bottleneck (ResNeXt's cardinality)."""
    width_per_group: int = 64
    """Channels per group of that convolution in the first stage (128 in wide_resnet50_2)."""
    widen_factor: int = 1
    """Width k of WRN-d-k: a stage has k times the stem's channels."""
    stride_in_1x1: bool = False
    """True for v1 (He et al., Keras): a bottleneck's stride stands in its first 1x1, not in the 3x3."""
    shortcut: Shortcut = Shortcut.B
    num_classes: int = 1000
    bn_eps: float = 1e-5
    conv_bias: bool = False
    """Whether convolutions followed by batch normalisation carry a bias (Keras' do)."""
    input_size: int = 224
    """Height and width of the square input in pixels."""

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ConfigError(
                f"num_classes is {self.num_classes}; a classifier needs at least 1 class."
            )
        if not 0 < self.bn_eps < 1:
            raise ConfigError(
                f"bn_eps is {self.bn_eps}; expected a small positive number such as 1e-5."
            )
        if self.input_size < 1:
            raise ConfigError(f"input_size is {self.input_size}; expected at least 1 pixel.")


OPSETS = range(13, 21)
"""ONNX opsets that export writes: per-channel Q/DQ came with 13, torch's exporter by tracing
ends at 20. TensorRT 8.6 reads up to 17, 10.3 up to 20."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """What an exported model carries, and in which ONNX opset it is written."""

    contract: Contract
    classes: tuple[str, ...] = ()
    """Class names in the order of the logits; empty where they are not known."""
    architecture: str | None = None
    checkpoint_sha256: str | None = None
    opset: int = 17

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise ConfigError(
                f"Opset {self.opset} is not supported; expected {OPSETS[0]} to {OPSETS[-1]}. "
                "Use 17, the newest that TensorRT 8.6 reads, unless a consumer needs another."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """How ranges are observed and thresholds chosen."""

    method: Method = Method.MSE
    """Method that engines built from the table use unless told otherwise."""
    percentile: float = 99.99
    """Share of the values, in percent, that the percentile method keeps unclipped."""
    samples: int = 512
    """Images to use, drawn with `seed` when the data has more."""
    seed: int = 0
    weight_method: WeightMethod | None = None
    """None: max, unless method auto finds that mse brings the logits closer."""
    batch_size: int = 2
    """Images per inference; on ResNet-50 nearly as fast as 4, in 120 MiB less."""
    sensitivity: bool = False
    """Measure what each block and layer does to the logits."""
    recover: Recover = Recover.NONE
    """What is done against INT8's error once the ranges are known."""
    recover_iterations: int = 150
    """Steps that AdaRound takes on each layer."""

    @property
    def searches(self) -> bool:
        """Whether images are held out of the ranges to judge logits on."""
        return self.sensitivity or self.method is Method.AUTO

    def __post_init__(self) -> None:
        if not 50 <= self.percentile <= 100:
            raise ConfigError(
                f"Percentile is {self.percentile}; expected 50 to 100 (99.99 is the default)."
            )
        if self.samples < 1 or self.batch_size < 1:
            raise ConfigError(
                f"samples {self.samples} and batch size {self.batch_size} must be at least 1."
            )
        if self.recover_iterations < 1:
            raise ConfigError(
                f"--recover-iterations is {self.recover_iterations}; AdaRound needs at least 1."
            )


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
    """What is asked of NVIDIA's builder beyond precision, target and batch."""

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
        if self.gpu_fallback and self.dla_core is None:
            raise ConfigError("--gpu-fallback is for an engine on the DLA. Pass --dla CORE too.")

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> TensorRTOptions:
        """Reads `to_dict`'s form."""
        level = HardwareCompatibility(raw["hardware_compatibility"])
        return cls(**{**raw, "hardware_compatibility": level})


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildConfig:
    """What engine to build."""

    target: Target = Target.ONNXRUNTIME
    precision: Precision = Precision.INT8
    compute_capability: str | None = None
    """Such as `8.6`: the GPU that a tensorrt-rtx plan is built for; None means this machine's."""
    batch: tuple[int, int, int] = (1, 1, 16)
    """Smallest, optimal and largest batch of the optimization profile."""
    float_layers: Precision = Precision.FP16
    """Precision of what is not INT8 in an INT8 engine for TensorRT; the CPU's is always FP32."""
    max_drop_pp: float | None = None
    """Budget of mixed precision, in percentage points of top-1 accuracy; None for the others."""
    input_size: tuple[int, int, int] | None = None
    """Smallest, optimal and largest side of the square image in pixels, for a model whose height
    and width are dynamic; None: the contract's size alone."""
    options: TensorRTOptions = TensorRTOptions()
    required_coverage: float | None = None
    """Share of the convolutions and additions, in percent, that must run in the precision asked
    for; None: any on TensorRT, all that were lowered to INT8 on the CPU."""

    @property
    def is_quantized(self) -> bool:
        """Whether layers of the engine are to be INT8, some or all."""
        return self.precision.quantizes

    @property
    def float_precision(self) -> Precision:
        """Precision of the layers of the engine that are not INT8."""
        return self.float_layers if self.is_quantized else self.precision

    def __post_init__(self) -> None:
        low, best, high = self.batch
        if not 1 <= low <= best <= high:
            raise ConfigError(
                f"Batch {low}:{best}:{high} is no profile; expected 1 <= min <= opt <= max."
            )
        self._check_sizes()
        if (self.precision is Precision.MIXED) is (self.max_drop_pp is None):
            raise ConfigError(
                f"--precision {self.precision} "
                + (
                    "needs a budget: pass --max-drop PP, in percentage points of top-1 accuracy."
                    if self.max_drop_pp is None
                    else "has no budget to keep: leave --max-drop out, or pass --precision mixed."
                )
            )
        if self.max_drop_pp is not None and not math.isfinite(self.max_drop_pp):
            raise ConfigError(f"--max-drop {self.max_drop_pp} is no limit; expected a number.")
        if self.target is Target.ONNXRUNTIME and self.options != TensorRTOptions():
            named = ", ".join(_changed(self.options))
            raise ConfigError(
                f"{named}: for TensorRT plans alone, and the target is onnxruntime. Leave it out, "
                "or pass --target tensorrt."
            )
        if self.compute_capability is not None and self.target is not Target.TENSORRT_RTX:
            raise ConfigError(
                f"--compute-capability {self.compute_capability} needs --target tensorrt-rtx; "
                f"{self.target} builds for the machine that it runs on."
            )
        if self.target is Target.ONNXRUNTIME and self.precision is Precision.FP16:
            raise ConfigError(
                "ONNX Runtime's CPU has no FP16 convolutions: an fp16 engine would run in FP32. "
                "Use --precision fp32 or int8, or --target tensorrt."
            )

    def _check_sizes(self) -> None:
        """Refuses a profile of image sizes, or a coverage, that cannot be."""
        if self.input_size is not None:
            low, best, high = self.input_size
            if not 1 <= low <= best <= high:
                raise ConfigError(
                    f"Input size {low}:{best}:{high} is no profile; expected "
                    "1 <= min <= opt <= max."
                )
            if self.target is Target.ONNXRUNTIME:
                raise ConfigError(
                    f"--input-size {low}:{best}:{high} is a profile of a TensorRT plan; an "
                    "onnxruntime engine takes what its model takes. Pass one size, or leave it out."
                )
        coverage = self.required_coverage
        if coverage is not None and not 0 <= coverage <= 100:
            raise ConfigError(f"--require-coverage is {coverage}; expected 0 to 100 percent.")


def _changed(options: TensorRTOptions) -> list[str]:
    """Returns the command line's names of the options that differ from their defaults."""
    spelled = {
        "workspace_mib": "--workspace",
        "dla_core": "--dla",
        "version_compatible": "--version-compatible",
    }
    default = TensorRTOptions().to_dict()
    return [
        spelled.get(name, "--" + name.replace("_", "-"))
        for name, value in options.to_dict().items()
        if value != default[name]
    ]
