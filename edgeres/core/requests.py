"""Requests to export, calibration and engine building: frozen values that refuse contradictions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeres.core.builder_options import NO_BUILDER_OPTIONS, TensorRTOptions
from edgeres.core.contract import Contract
from edgeres.core.methods import Method, Recover, WeightMethod
from edgeres.core.precision import Precision
from edgeres.errors import ConfigError
from edgeres.names import Name

OPSETS = range(13, 21)
"""ONNX opsets that export writes: per-channel Q/DQ came with 13, torch's exporter by tracing
ends at 20. TensorRT 8.6 reads up to 17, 10.3 up to 20."""


class Head(Name):
    """What an exported network ends in."""

    LOGITS = "logits"
    SOFTMAX = "softmax"


class Layout(Name):
    """How the bytes of an image come."""

    HWC = "hwc"
    """Pixel by pixel, as a camera has them."""
    CHW = "chw"
    """Plane by plane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxExportRequest:
    """What an exported model carries, and in which ONNX opset it is written."""

    contract: Contract
    classes: tuple[str, ...] = ()
    """Class names in the order of the logits; empty where they are not known."""
    architecture: str | None = None
    checkpoint_sha256: str | None = None
    opset: int = 17
    head: Head | None = None
    """None: what the network itself ends in."""
    layout: Layout = Layout.HWC
    """Of the bytes that a file of `--input uint8` takes."""

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise ConfigError(
                f"Opset {self.opset} is not supported; expected {OPSETS[0]} to {OPSETS[-1]}. "
                "Use 17, the newest that TensorRT 8.6 reads, unless a consumer needs another."
            )


RECOVERED = (Precision.INT8, Precision.FP8)
"""Precisions that a recovery can be for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRequest:
    """How ranges are observed and thresholds chosen."""

    method: Method = Method.MSE
    """Method that engines built from the table use by default."""
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
    recover: Recover | None = None
    """What is done against the error of quantization once the ranges are known; None: none, or for FP8,
    and with method auto and few classes, the correction of biases, if the logits gain by it."""
    precision: Precision = Precision.INT8
    """Of the engines that a recovery is for, INT8 or FP8: each rounds otherwise."""
    recover_iterations: int = 150
    """Steps that AdaRound takes on each layer."""
    keeps_channels: bool = False
    """Whether recovery leaves every channel on its own scale, as TensorRT's cache needs it: that goes
    with the FP32 file as it is."""

    @classmethod
    def for_engine(cls, precision: Precision) -> CalibrationRequest:
        """Returns the request for a table that serves an engine of this precision alone."""
        return cls(precision=Precision.FP8 if precision is Precision.FP8 else Precision.INT8)

    @property
    def searches(self) -> bool:
        """Whether images are held out of the ranges to evaluate logits on."""
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
        if self.precision not in RECOVERED:
            raise ConfigError(
                f"A recovery is for {' or '.join(RECOVERED)}, and --precision is {self.precision}. "
                "Leave it out; mixed precision takes that of int8."
            )
        if self.precision is Precision.FP8 and self.recover is Recover.ADAROUND:
            raise ConfigError(
                "--recover adaround fits the rounding of INT8's weights, and --precision is fp8. "
                "Pass --recover bias, or --precision int8."
            )
        if self.recover_iterations < 1:
            raise ConfigError(
                f"--recover-iterations is {self.recover_iterations}; AdaRound needs at least 1."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What engine to build."""

    target: str = "onnxruntime"
    """Name of what runs the engine; the target itself checks what else is requested of it."""
    precision: Precision = Precision.INT8
    compute_capability: str | None = None
    """Such as `8.6`: the GPU that a tensorrt-rtx plan is built for; None means this machine's."""
    batch: tuple[int, int, int] = (1, 1, 16)
    """Smallest, optimal and largest batch of the optimization profile."""
    float_layers: Precision = Precision.FP16
    """Precision of what is not INT8 in an INT8 engine for TensorRT; the CPU's is always FP32."""
    max_drop_pp: float | None = None
    """Budget of mixed precision, in percentage points of top-1 accuracy; None for the others."""
    float_stream: bool = False
    """Whether FP8 leaves the residual stream in FP16 between its blocks, or mixed precision may keep
    single tensors of it from INT8 too."""
    input_size: tuple[int, int, int] | None = None
    """Smallest, optimal and largest side of the square image in pixels, for a model whose height
    and width are dynamic; None: the contract's size alone."""
    options: TensorRTOptions = NO_BUILDER_OPTIONS
    required_coverage: float | None = None
    """Share of the convolutions and additions, in percent, that must run in the requested
    precision; None: any on TensorRT, all that were lowered to INT8 on the CPU."""

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
        # Either both or neither: only a mixed engine has a budget, and it cannot do without one.
        if (self.precision is Precision.MIXED) is (self.max_drop_pp is None):
            raise ConfigError(
                f"--precision {self.precision} "
                + (
                    "needs a budget: pass --max-drop PP, in percentage points of top-1 accuracy."
                    if self.max_drop_pp is None
                    else "has no budget to keep: leave --max-drop out, or pass --precision mixed."
                )
            )
        if self.float_stream and self.precision not in {Precision.MIXED, Precision.FP8}:
            raise ConfigError(
                f"--float-stream is a choice of mixed precision and FP8, and --precision is "
                f"{self.precision}. Leave it out, or pass --precision mixed --max-drop PP."
            )
        # Beside FP8, FP16 alone is checked with NVIDIA's parser and builder.
        if self.precision is Precision.FP8 and self.float_layers is not Precision.FP16:
            raise ConfigError(
                f"--precision fp8 keeps its other layers in FP16, and --float-layers is "
                f"{self.float_layers}. Leave --float-layers out, or pass --precision int8."
            )
        if self.max_drop_pp is not None and not math.isfinite(self.max_drop_pp):
            raise ConfigError(f"--max-drop {self.max_drop_pp} is no limit; expected a number.")
        if self.input_size is not None:
            low, best, high = self.input_size
            if not 1 <= low <= best <= high:
                raise ConfigError(
                    f"Input size {low}:{best}:{high} is no profile; expected "
                    "1 <= min <= opt <= max."
                )
        coverage = self.required_coverage
        # Written so that NaN, which compares as false with everything, is refused too.
        if coverage is not None and not 0 <= coverage <= 100:
            raise ConfigError(f"--require-coverage is {coverage}; expected 0 to 100 percent.")
