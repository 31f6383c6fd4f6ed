"""FP8 plans: for GPUs and versions that have E4M3, and read by NVIDIA's parser as FP8."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import passed, refusal
from digits import Digits

from edgeres.core.artifacts import load_engine
from edgeres.core.builder_options import TensorRTOptions
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import ConfigError
from edgeres.targets.tensorrt.fp8 import check_fp8, check_fp8_capability

FP8 = BuildRequest(target="tensorrt-rtx", precision=Precision.FP8)
BUILD = "build-engine {model} --calibration {table} --precision fp8 -o {out} --target "


@pytest.mark.parametrize("capability", ["8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1"])
def test_gpus_with_e4m3_are_taken(capability: str) -> None:
    """Ada, Hopper, Blackwell and Thor."""
    check_fp8_capability(FP8, capability)


@pytest.mark.parametrize("capability", ["7.5", "8.0", "8.6", "8.7"])
def test_others_are_refused(capability: str) -> None:
    """With what serves them; INT8 is not asked."""
    with pytest.raises(ConfigError, match=f"the GPU has {capability}. Build with --precision int8"):
        check_fp8_capability(FP8, capability)
    check_fp8_capability(BuildRequest(target="tensorrt-rtx"), capability)


@pytest.mark.parametrize(
    ("module", "version", "taken"),
    [
        ("tensorrt", "8.6.2", False),
        ("tensorrt", "10.2.0", False),
        ("tensorrt", "10.3.0", True),
        ("tensorrt", "11.4.0.9", True),
        ("tensorrt_rtx", "1.7.1.116", True),
    ],
)
def test_versions_are_compared(module: str, version: str, taken: bool) -> None:
    """Q/DQ of FP16 and FP8 came with 10.3; TensorRT for RTX has a count of its own."""
    trt = SimpleNamespace(__name__=module, __version__=version)
    if taken:
        check_fp8(trt, FP8)
    else:
        with pytest.raises(ConfigError, match=f"10.3 or later, and this is {version}"):
            check_fp8(trt, FP8)
    with pytest.raises(ConfigError, match="The DLA has no FP8"):
        check_fp8(trt, BuildRequest(precision=Precision.FP8, options=TensorRTOptions(dla_core=0)))


@pytest.mark.rtx
@pytest.mark.parametrize("capability", ["8.9", "12.0"])
def test_nvidia_reads_fp8(capability: str, digits: Digits, tmp_path: Path) -> None:
    """The parsed network has FP8 where it was lowered to, and nothing less is accepted."""
    out = tmp_path / "digits.plan"
    line = BUILD + f"tensorrt-rtx --compute-capability {capability} --require-coverage 100"
    passed(*digits.words(line, out=out))
    manifest = load_engine(out).manifest
    assert manifest.audit is not None
    ran = [node.ran for node in manifest.audit.nodes]
    assert ran.count(Precision.FP8) == len(ran) - 1
    assert manifest.precision is Precision.FP8


def test_what_has_no_fp8_says_so(digits: Digits, tmp_path: Path) -> None:
    """The CPU's target, and a GPU of compute capability 8.6."""
    out = tmp_path / "never"
    said = refusal(*digits.words(BUILD + "onnxruntime", out=out), code=2)
    assert said.startswith("ONNX Runtime's CPU has no FP8 convolutions")
    words = digits.words(BUILD + "tensorrt-rtx --compute-capability 8.6", out=out)
    assert refusal(*words, code=2).startswith("--precision fp8 needs compute capability 8.9")
    assert not out.exists()
