"""Every name and argument that a build touches on NVIDIA's modules is one that they have.

The doubles know what the real bindings of each version have and nothing else, so running the
builder on them is the check; that it would find a slip is shown by making each possible one.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from fake_tensorrt import VERSIONS, FakeTensorRT
from networks import SIZE, network

from edgeres.core.builder_options import HardwareCompatibility, TensorRTOptions
from edgeres.core.contract import Contract, ContractOptions
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildConfig, CalibrationConfig
from edgeres.machine.cuda import CudaDevice
from edgeres.onnx_file import LoweredNetwork, load_onnx
from edgeres.quantization.lowering import float_network
from edgeres.targets.base import build_engine
from edgeres.targets.tensorrt import builder as tensorrt
from edgeres.targets.tensorrt.quantize import quantize_for_tensorrt
from edgeres.workflows import calibrate_model

DEVICE = CudaDevice(
    name="GPU", compute_capability="8.6", memory_mib=8192, integrated=False, cuda="12.6"
)

ALL = TensorRTOptions(
    workspace_mib=64,
    optimization_level=4,
    hardware_compatibility=HardwareCompatibility.AMPERE_PLUS,
    version_compatible=True,
    refit=True,
    dla_core=0,
    gpu_fallback=True,
)
"""Every option that each version of TensorRT has, but for the timing cache."""

FOR_RTX = TensorRTOptions(workspace_mib=64, optimization_level=4, refit=True, strip_weights=True)


@dataclass(frozen=True)
class Ask:
    """A build on one version, that touches what any build there may."""

    version: str
    precision: Precision
    options: TensorRTOptions
    capability: str | None = None

    @property
    def config(self) -> BuildConfig:
        """What is asked."""
        target = "tensorrt-rtx" if self.version == "rtx" else "tensorrt"
        return BuildConfig(
            target=target,
            precision=self.precision,
            compute_capability=self.capability,
            options=self.options,
        )


ASKS = {
    "8.6 fp16": Ask("8.6", Precision.FP16, ALL),
    "8.6 int8": Ask("8.6", Precision.INT8, TensorRTOptions()),
    "10.3 fp16": Ask("10.3", Precision.FP16, replace(ALL, strip_weights=True)),
    "10.16 int8": Ask("10.16", Precision.INT8, replace(ALL, strip_weights=True)),
    "11.4 int8": Ask("11.4", Precision.INT8, replace(ALL, strip_weights=True)),
    "rtx int8": Ask("rtx", Precision.INT8, FOR_RTX, "8.6"),
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, LoweredNetwork]:
    """A network of one residual block in FP32 types and with Q/DQ."""
    folder = tmp_path_factory.mktemp("network")
    onnx.save(network("bottleneck"), folder / "m.onnx")
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images)
    size = ContractOptions(preset="digits", input_size=SIZE, resize="none")
    calibration = CalibrationConfig(method=Method.MAX, samples=2)
    table = calibrate_model(folder / "m.onnx", folder / "images.npz", calibration, size)
    model = load_onnx(folder / "m.onnx")
    return {
        Precision.FP16: float_network(model, Precision.FP32),
        Precision.INT8: quantize_for_tensorrt(model, table),
    }


def run(build: Any, trt: FakeTensorRT, ask: Ask, lowered: LoweredNetwork, folder: Path) -> None:
    """Builds twice with a timing cache where there is one, by a package's `build_engine`."""
    config = ask.config
    if ask.version != "rtx":
        cache = str(folder / "timings")
        config = replace(config, options=replace(config.options, timing_cache=cache))
    trt.record.dla_cores = 1
    trt.record.phases = [("Building", None, 2), ("Tactics", "Building", 2)] * hasattr(
        trt, "IProgressMonitor"
    )
    trt.record.image_shape = (-1, 3, SIZE, SIZE)
    ends = ([trt.tensor("in", "HALF")], [trt.tensor("out", "HALF")])
    trt.record.layers = [trt.layer("CONVOLUTION", "Conv_0", *ends)]
    trt.record.inspected = '{"Layers": []}'  # so that a context is asked for as well
    for name in ("a.plan", "b.plan"):
        build(lowered, config, Contract(size=SIZE), output=folder / name)


def prepare(module: ModuleType, trt: FakeTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the double where `import` finds it, on a machine with a GPU."""
    monkeypatch.setitem(sys.modules, trt.__name__, trt)
    monkeypatch.setattr(module, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(module, "find_cuda_device", lambda: DEVICE)


@pytest.mark.parametrize("name", ASKS)
def test_a_build_touches_only_what_the_version_has(
    name: str,
    networks: dict[Precision, LoweredNetwork],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Anything else is an AttributeError or TypeError of the double, and no plan."""
    ask = ASKS[name]
    trt = FakeTensorRT(ask.version)
    prepare(tensorrt, trt, monkeypatch)
    run(build_engine, trt, ask, networks[ask.precision], tmp_path)
    assert (tmp_path / "b.plan").read_bytes() == b"plan"
    assert ("Builder", "build_serialized_network") in trt.record.touched


def touched_names(networks: dict[Precision, LoweredNetwork], folder: Path) -> set[str]:
    """Returns every name of NVIDIA's that the builds above touch, on whichever version."""
    found: set[str] = set()
    for index, ask in enumerate(ASKS.values()):
        trt = FakeTensorRT(ask.version)
        with pytest.MonkeyPatch.context() as patch:
            prepare(tensorrt, trt, patch)
            (folder / str(index)).mkdir()
            run(build_engine, trt, ask, networks[ask.precision], folder / str(index))
        found |= {name for kind, name in trt.record.touched if kind in trt._classes}
    return found


NOT_NEEDED = {
    "log",
    "phase_finish",
    "phase_start",
    "step_complete",
    "name",
    "shape",
    "type",
    "metadata",
}
"""What NVIDIA calls, and words that Python's and our own objects have too."""


def fails(networks: dict[Precision, LoweredNetwork], folder: Path, lacking: str) -> bool:
    """Returns whether some build fails where NVIDIA's classes lack a name."""
    for index, ask in enumerate(ASKS.values()):
        trt = FakeTensorRT(ask.version)
        trt.record.lacking = lacking
        target = folder / f"run{index}"
        target.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            prepare(tensorrt, trt, patch)
            try:
                run(build_engine, trt, ask, networks[ask.precision], target)
            except Exception:  # whatever a missing name leads to
                return True
    return False


NAMES = (
    "add_optimization_profile",
    "build_serialized_network",
    "builder_optimization_level",
    "can_run_on_DLA",
    "create_builder_config",
    "create_engine_inspector",
    "create_execution_context",
    "create_network",
    "create_optimization_profile",
    "create_timing_cache",
    "default_device_type",
    "deserialize_cuda_engine",
    "DLA_core",
    "dtype",
    "engine_host_code_allowed",
    "execution_context",
    "get_engine_information",
    "get_flag",
    "get_input",
    "get_layer",
    "get_memory_pool_limit",
    "get_output",
    "get_timing_cache",
    "hardware_compatibility_level",
    "num_compute_capabilities",
    "num_DLA_cores",
    "num_inputs",
    "num_layers",
    "num_outputs",
    "parse",
    "profiling_verbosity",
    "progress_monitor",
    "serialize",
    "set_compute_capability",
    "set_flag",
    "set_input_shape",
    "set_memory_pool_limit",
    "set_shape",
    "set_timing_cache",
)
"""What the builds above touch; `test_the_list_is_all_of_it` holds it to that."""


def test_the_list_is_all_of_it(networks: dict[Precision, LoweredNetwork], tmp_path: Path) -> None:
    """No name that is touched is left out of the slips below."""
    assert touched_names(networks, tmp_path) - NOT_NEEDED == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_build_fails_without_a_name_that_it_touches(
    name: str, networks: dict[Precision, LoweredNetwork], tmp_path: Path
) -> None:
    """So a name misspelt in the builder, which NVIDIA's classes lack as well, is found here."""
    assert fails(networks, tmp_path, name)


def test_with_every_name_it_does_not(
    networks: dict[Precision, LoweredNetwork], tmp_path: Path
) -> None:
    """It was the missing name that made the others fail."""
    assert not fails(networks, tmp_path, "")


def test_a_wrong_argument_is_refused_by_the_double() -> None:
    """Too many, too few and misnamed ones, as the real bindings do."""
    trt: Any = FakeTensorRT("10.3")
    settings = trt.Builder(trt.ILogger()).create_builder_config()
    pool = trt.MemoryPoolType.WORKSPACE
    with pytest.raises(TypeError, match="takes \\['pool', 'pool_size'\\]"):
        settings.set_memory_pool_limit(pool)
    with pytest.raises(TypeError, match="takes"):
        settings.set_memory_pool_limit(pool, limit=1)


def test_a_name_of_another_version_is_refused_by_the_double() -> None:
    """8.6 has no progress monitor, 11 no precision flags, RTX alone compute capabilities."""
    old: Any = FakeTensorRT("8.6")
    settings = old.Builder(old.ILogger()).create_builder_config()
    with pytest.raises(AttributeError, match="has no attribute 'progress_monitor'"):
        settings.progress_monitor = None
    assert not hasattr(old, "IProgressMonitor")
    assert not hasattr(FakeTensorRT("11.4").BuilderFlag, "INT8")
    for version in VERSIONS:
        known: Any = FakeTensorRT(version)
        has = hasattr(known.IBuilderConfig, "set_compute_capability")
        assert has == (version == "rtx")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("version", "file"),
    [
        ("10.3", "api-10.3.0.txt"),
        ("10.16", "api-10.16.1.txt"),
        ("11.4", "api-11.4.0.txt"),
        ("rtx", "api-rtx-1.7.1.txt"),
    ],
)
def test_the_names_are_those_of_a_second_list(version: str, file: str, shared: Path) -> None:
    """Taken from the same bindings by other means."""
    lines = (shared / "tensorrt" / file).read_text().splitlines()
    listed = dict(line.split(" ", 1) for line in lines if " " in line)
    trt = FakeTensorRT(version)
    for kind in ("BuilderFlag", "NetworkDefinitionCreationFlag", "MemoryPoolType", "DataType"):
        assert set(re.findall(r"'(\w+)'", listed[kind])) == set(getattr(trt, kind).__members__)
    for kind in ("Builder", "IBuilderConfig", "Runtime", "EngineInspector"):
        assert set(re.findall(r"'(\w+)'", listed[kind])) == trt._classes[kind]._real
