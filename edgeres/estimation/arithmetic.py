"""What a multiprocessor does in a clock, by compute capability and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeres.core.cost import VALUE_BYTES
from edgeres.core.precision import Precision
from edgeres.names import Name


class Arithmetic(Name):
    """What a kernel multiplies in."""

    FP32 = "fp32"
    TF32 = "tf32"
    """FP32 values on tensor cores, as Ampere and later run an FP32 network by default."""
    FP16 = "fp16"
    INT8 = "int8"
    FP8 = "fp8"

    @property
    def value_bytes(self) -> int:
        """Bytes of a value in memory."""
        return VALUE_BYTES[Precision.FP32 if self is Arithmetic.TF32 else Precision(self)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A generation of GPUs."""

    fp32: int
    """Dense operations of a multiprocessor in a clock, a multiply and an add being two."""
    fp16: int
    int8: int = 0
    """0: it has no units for it, and TensorRT builds no INT8 engine."""
    tf32: int = 0
    fp8: int = 0
    l2_partitions: int = 1
    """Parts of the L2 cache that each keep what their own multiprocessors read, so that what all
    of them read stands in each. Source: NVIDIA A100 white paper, "A100 L2 Cache"; H100 has the
    same two."""
    energy: float
    """Energy of an operation as a fraction of that at 12 nm.

    It falls with the process: about 0.4 from TSMC's 16/12 nm to 7 nm and another 0.6 to 5/4 nm,
    Samsung's 8 nm between the first two. Source: TSMC, N7 and N5 technology pages.
    """

    def rate(self, arithmetic: Arithmetic) -> int:
        """Returns the operations of a multiprocessor in a clock; 0 where it has no unit."""
        rates: dict[Arithmetic, int] = {
            Arithmetic.FP32: self.fp32,
            Arithmetic.TF32: self.tf32,
            Arithmetic.FP16: self.fp16,
            Arithmetic.INT8: self.int8,
            Arithmetic.FP8: self.fp8,
        }
        return rates[arithmetic]


GENERATIONS: Mapping[str, Generation] = {
    "5.3": Generation(fp32=256, fp16=512, energy=1.6),
    "6.2": Generation(fp32=256, fp16=512, energy=1.25),
    "7.0": Generation(fp32=128, fp16=1024, int8=512, energy=1.0),
    "7.2": Generation(fp32=128, fp16=1024, int8=2048, energy=1.0),
    "7.5": Generation(fp32=128, fp16=1024, int8=2048, energy=1.0),
    "8.0": Generation(fp32=128, fp16=2048, int8=4096, tf32=1024, l2_partitions=2, energy=0.5),
    "8.6": Generation(fp32=256, fp16=1024, int8=2048, tf32=512, energy=0.65),
    "8.7": Generation(fp32=256, fp16=2048, int8=4096, tf32=1024, energy=0.65),
    "8.9": Generation(fp32=256, fp16=1024, int8=2048, tf32=512, fp8=2048, energy=0.33),
    "9.0": Generation(
        fp32=256, fp16=4096, int8=8192, tf32=2048, fp8=8192, l2_partitions=2, energy=0.33
    ),
    "11.0": Generation(fp32=256, fp16=8192, int8=16384, tf32=2048, fp8=16384, energy=0.33),
    "12.0": Generation(fp32=256, fp16=1024, int8=2048, tf32=512, fp8=2048, energy=0.33),
}
"""By compute capability. Source: NVIDIA's white papers on Volta to Blackwell; CUDA C++ Programming
Guide, "Arithmetic Instructions"; for Orin, NVIDIA Jetson AGX Orin technical brief. Thor's INT8 rate
is taken to be its FP8 rate."""

ASYNCHRONOUS_COPIES = 8.0
"""First compute capability whose kernels load the next tile while they multiply the present one.
Source: NVIDIA Ampere tuning guide, "Asynchronous Data Copy from Global to Shared Memory"."""


def is_ampere_or_later(compute_capability: str) -> bool:
    """Returns whether loads run beside arithmetic, and FP32 networks run in TF32."""
    return float(compute_capability) >= ASYNCHRONOUS_COPIES


def default_fp32(compute_capability: str) -> Arithmetic:
    """Returns what an FP32 network runs in unless TF32 is switched off."""
    return Arithmetic.TF32 if GENERATIONS[compute_capability].tf32 else Arithmetic.FP32
