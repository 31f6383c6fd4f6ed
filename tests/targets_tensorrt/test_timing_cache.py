"""Kernel timings are kept whole between builds, and refused where they were taken elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from fake_tensorrt import FakeTensorRT, put_in_place
from networks import SIZE, network

from edgeres.core.builder_options import TensorRTOptions
from edgeres.core.contract import Contract
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import ArtifactError, MismatchError
from edgeres.machine.cuda import CudaDevice
from edgeres.onnx_file import LoweredNetwork, load_onnx
from edgeres.quantization.lowering import float_network
from edgeres.targets.base import build_engine

DEVICE = CudaDevice(
    name="RTX A2000", compute_capability="8.6", memory_mib=8192, integrated=False, cuda="12.6"
)

Build = Callable[..., FakeTensorRT]


@pytest.fixture
def lowered(tmp_path: Path) -> LoweredNetwork:
    """Any network."""
    onnx.save(network("identity"), tmp_path / "m.onnx")
    return float_network(load_onnx(tmp_path / "m.onnx"), Precision.FP32)


@pytest.fixture
def build(lowered: LoweredNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Builds with `timings` as the cache, on a version and a device; the double is returned."""

    def run(version: str = "10.3", device: CudaDevice = DEVICE, **answers: object) -> FakeTensorRT:
        trt = put_in_place(monkeypatch, FakeTensorRT(version), device)
        trt.answers.image_shape = (-1, 3, SIZE, SIZE)
        for name, value in answers.items():
            setattr(trt.answers, name, value)
        options = TensorRTOptions(timing_cache=str(tmp_path / "timings"))
        config = BuildRequest(target="tensorrt", precision=Precision.FP16, options=options)
        output = tmp_path / "a.plan"
        build_engine(lowered, config, Contract(height=SIZE, width=SIZE), output=output)
        return trt

    return run


def test_timings_are_saved_and_loaded(build: Build, tmp_path: Path) -> None:
    """NVIDIA's own bytes, so that trtexec reads them; the second build begins where the first ended."""
    assert build().record.caches == [b""]
    assert (tmp_path / "timings").read_bytes() == b"+kernel"
    assert build().record.caches == [b"+kernel"]
    assert (tmp_path / "timings").read_bytes() == b"+kernel+kernel"
    beside = json.loads((tmp_path / "timings.json").read_text())
    assert (beside["module"], beside["version"]) == ("tensorrt", "10.3.0")
    assert (beside["gpu"], beside["compute_capability"]) == ("RTX A2000", "8.6")
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("version", ["8.6", "10.16", "11.4"])
def test_each_version_keeps_them(version: str, build: Build, tmp_path: Path) -> None:
    """By one code path."""
    build(version)
    assert build(version).record.caches == [b"+kernel"]


def test_timings_of_another_version_are_refused(build: Build, tmp_path: Path) -> None:
    """With both versions, and untouched."""
    build()
    with pytest.raises(MismatchError) as refused:
        build("10.16")
    assert str(refused.value) == (
        f"The timing cache {tmp_path / 'timings'} was taken by tensorrt 10.3.0 on RTX A2000 (8.6), "
        "and this build is of tensorrt 10.16.1.11 on RTX A2000 (8.6), for which its timings do not "
        "hold. Pass another --timing-cache."
    )
    assert (tmp_path / "timings").read_bytes() == b"+kernel"


@pytest.mark.parametrize("change", [{"name": "RTX 4090"}, {"compute_capability": "8.9"}])
def test_timings_of_another_gpu_are_refused(change: dict[str, str], build: Build) -> None:
    """By its name, since boards of one compute capability differ in speed, and by that."""
    build()
    with pytest.raises(MismatchError, match=r"was taken by .* RTX A2000 \(8\.6\), and this build"):
        build(device=replace(DEVICE, **change))  # type: ignore[arg-type]  # both are strings


def test_a_foreign_file_that_tensorrt_refuses_is_refused(build: Build, tmp_path: Path) -> None:
    """One that trtexec wrote on another GPU has no word beside it: TensorRT's own header decides."""
    (tmp_path / "timings").write_bytes(b"trtexec's")
    with pytest.raises(MismatchError, match=r"is none that tensorrt 10\.3\.0 on RTX A2000"):
        build(takes_cache=False)
    assert (tmp_path / "timings").read_bytes() == b"trtexec's"
    assert build().record.caches == [b"trtexec's"]


def test_a_file_that_tensorrt_cannot_read_is_refused(build: Build, tmp_path: Path) -> None:
    """TensorRT only warns and would overwrite it with an empty one."""
    (tmp_path / "timings").write_bytes(b"junk")
    warned = [("WARNING", "Failed to deserialize timing cache. Returning an empty timing cache.")]
    with pytest.raises(MismatchError, match=r"can use: Failed to deserialize timing cache\."):
        build(cache_messages=warned)
    assert (tmp_path / "timings").read_bytes() == b"junk"


def test_a_truncated_file_is_refused(build: Build, tmp_path: Path) -> None:
    """By the hash beside it."""
    build()
    (tmp_path / "timings").write_bytes(b"+ker")
    with pytest.raises(ArtifactError, match="was changed or truncated after it was written"):
        build()


def test_a_damaged_description_is_refused(build: Build, tmp_path: Path) -> None:
    """It does not count as absent."""
    build()
    beside = json.loads((tmp_path / "timings.json").read_text())
    del beside["gpu"]
    (tmp_path / "timings.json").write_text(json.dumps(beside))
    with pytest.raises(
        ArtifactError,
        match=r"is a damaged edgeres-timing-cache file \(gpu: missing, as in files of an earlier edgeres\)",
    ):
        build()


def test_a_build_that_fails_keeps_no_timings(build: Build, tmp_path: Path) -> None:
    """Neither new ones nor a changed file."""
    build()
    before = (tmp_path / "timings").read_bytes()
    with pytest.raises(Exception, match="could not build the engine"):
        build(plan=None)
    assert (tmp_path / "timings").read_bytes() == before
