"""Every name and argument that a build uses of NVIDIA's modules is one that they have.

The doubles have the names of the real bindings of each version and no others, so running the
builder on them is the check. That it finds a misspelt name is shown by leaving out each in turn:
the name in the builder is then one that NVIDIA's class does not have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from fake_tensorrt import VERSIONS, FakeTensorRT, Name, put_in_place
from networks import SIZE, network
from qdq import unit_table

from edgeres.core.builder_options import HardwareCompatibility, TensorRTOptions
from edgeres.core.contract import Contract
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.machine.cuda import CudaDevice
from edgeres.onnx_file import LoweredNetwork, load_onnx
from edgeres.quantization.lowering import float_network
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.targets.base import build_engine

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

Networks = dict[Precision, LoweredNetwork]


@dataclass(frozen=True)
class Case:
    """A build on one version; together the cases use whatever a build may use there."""

    version: str
    precision: Precision
    options: TensorRTOptions
    capability: str | None = None

    def build(self, networks: Networks, folder: Path, lacking: Name | None = None) -> FakeTensorRT:
        """Returns the module that it was built with, of which one name may be left out."""
        trt = FakeTensorRT(self.version, lacking=lacking)
        trt.answers.image_shape = (-1, 3, SIZE, SIZE)
        trt.answers.dla_cores = 1
        ends = ([trt.tensor("in", "HALF")], [trt.tensor("out", "HALF")])
        trt.answers.layers = [trt.layer("CONVOLUTION", "Conv_0", *ends)]
        trt.answers.phases = [("Building", None, 2), ("Tactics", "Building", 2)]
        # With precisions missing, the builder creates an execution context for the inspector.
        trt.answers.inspected = '{"Layers": []}'
        is_rtx = self.version == "rtx"
        cache = None if is_rtx else str(folder / "timings")
        config = BuildRequest(
            target="tensorrt-rtx" if is_rtx else "tensorrt",
            precision=self.precision,
            compute_capability=self.capability,
            options=replace(self.options, timing_cache=cache),
        )
        with pytest.MonkeyPatch.context() as patch:
            put_in_place(patch, trt, DEVICE)
            lowered = networks[self.precision]
            build_engine(
                lowered, config, Contract(height=SIZE, width=SIZE), output=folder / "a.plan"
            )
        return trt


CASES = {
    "8.6 fp16": Case("8.6", Precision.FP16, ALL),
    "8.6 int8": Case("8.6", Precision.INT8, TensorRTOptions()),
    "10.3 fp16": Case("10.3", Precision.FP16, replace(ALL, strip_weights=True)),
    "10.16 int8": Case("10.16", Precision.INT8, replace(ALL, strip_weights=True)),
    "11.4 int8": Case("11.4", Precision.INT8, replace(ALL, strip_weights=True)),
    "rtx int8": Case("rtx", Precision.INT8, FOR_RTX, "8.6"),
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    """A network of one residual block in FP32 types and with Q/DQ."""
    path = tmp_path_factory.mktemp("network") / "m.onnx"
    onnx.save(network("bottleneck"), path)
    model = load_onnx(path)
    return {
        Precision.FP16: float_network(model, Precision.FP32),
        Precision.INT8: quantize_for_tensorrt(model, unit_table(model.proto)),
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_build_uses_only_what_the_version_has(
    case: Case, networks: Networks, tmp_path: Path
) -> None:
    """Anything else is an AttributeError or TypeError of the double, and no plan."""
    trt = case.build(networks, tmp_path)
    assert (tmp_path / "a.plan").read_bytes() == b"plan"
    assert ("Builder", "build_serialized_network") in trt.record.touched
    assert hasattr(trt, "IProgressMonitor") == (
        ("IProgressMonitor", "step_complete") in trt.record.touched
    )


def fails(case: Case, networks: Networks, folder: Path, lacking: Name) -> bool:
    """Returns whether a build fails where NVIDIA's class lacks the name."""
    folder.mkdir()
    try:
        case.build(networks, folder, lacking)
    except Exception:  # whatever a missing name leads to
        return True
    return False


def test_a_build_fails_without_any_name_that_it_uses(networks: Networks, tmp_path: Path) -> None:
    """So a name misspelt in the builder is found, also one that NVIDIA calls and we override."""
    used: dict[Name, Case] = {}
    for number, case in enumerate(CASES.values()):
        folder = tmp_path / f"build {number}"
        folder.mkdir()
        for name in case.build(networks, folder).record.touched:
            used.setdefault(name, case)
    overridden = {("ILogger", "log"), ("IProgressMonitor", "phase_start")}
    assert len(used) > 40
    assert overridden <= used.keys()
    passed = [
        name
        for number, (name, case) in enumerate(used.items())
        if not fails(case, networks, tmp_path / f"without {number}", name)
    ]
    assert passed == []


def test_a_wrong_argument_is_refused_by_the_double() -> None:
    """Too many, too few and misnamed ones, as the real bindings do."""
    trt: Any = FakeTensorRT("10.3")
    settings = trt.Builder(trt.ILogger()).create_builder_config()
    pool = trt.MemoryPoolType.WORKSPACE
    with pytest.raises(TypeError, match="missing a required argument: 'pool_size'"):
        settings.set_memory_pool_limit(pool)
    with pytest.raises(TypeError, match="missing a required argument: 'pool_size'"):
        settings.set_memory_pool_limit(pool, limit=1)
    with pytest.raises(TypeError, match="too many positional arguments"):
        settings.set_memory_pool_limit(pool, 1, 2)


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


def test_an_override_that_nvidia_does_not_call_is_refused_by_the_double() -> None:
    """It would never run, and no progress be reported."""
    trt: Any = FakeTensorRT("10.3")
    with pytest.raises(TypeError, match=r"IProgressMonitor does not call \['phase_started'\]"):
        type("Monitor", (trt.IProgressMonitor,), {"phase_started": None, "_own": None})


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
        assert set(re.findall(r"'(\w+)'", listed[kind])) == getattr(trt, kind)._real
