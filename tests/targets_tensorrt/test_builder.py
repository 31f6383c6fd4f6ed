"""What a build asks of NVIDIA's modules, version by version, and what it says when they refuse."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from digits import Digits
from fake_tensorrt import (
    FakeTensorRT,
    Message,
    put_in_place,
    tensorrt_8_6,
    tensorrt_10_3,
    tensorrt_11,
    tensorrt_rtx,
)
from onnx import TensorProto
from pretend_cuda import PretendCuda

from edgeres.core.artifacts import EngineArtifact, load_engine
from edgeres.core.contract import preset
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.core.table import load_table
from edgeres.errors import BuildError, ConfigError, DependencyError
from edgeres.machine.cuda import CudaDevice, NoCudaDevice, system_versions
from edgeres.onnx_file import LoweredNetwork, load_onnx
from edgeres.quantization.lowering import float_network
from edgeres.targets.base import build_engine
from edgeres.targets.tensorrt import builder as tensorrt
from edgeres.workflows import BuildInputs, build_from_model

VERSIONS = {"8.6": tensorrt_8_6, "10.3": tensorrt_10_3, "11.4": tensorrt_11, "RTX": tensorrt_rtx}

FP32 = BuildRequest(target="tensorrt", precision=Precision.FP32)

ORIN = CudaDevice(
    name="Orin", compute_capability="8.7", memory_mib=7620, integrated=False, cuda="12.6"
)


@dataclass(frozen=True)
class Request:
    """What is asked for, whichever version it is asked of."""

    precision: Precision
    floats: Precision

    def build(self, digits: Digits, target: str, folder: Path) -> EngineArtifact:
        """Builds the digits' engine as the command line does."""
        config = BuildRequest(target=target, precision=self.precision, float_layers=self.floats)
        table = load_table(digits.table) if self.precision is Precision.INT8 else None
        return build_from_model(
            BuildInputs(model=digits.model, table=table, output=folder / "a.plan"), config
        )

    @property
    def has_fp16(self) -> bool:
        """Whether a layer is to be FP16."""
        floats = self.floats if self.precision is Precision.INT8 else self.precision
        return floats is Precision.FP16


REQUESTS = {
    "fp32": Request(Precision.FP32, Precision.FP16),
    "fp16": Request(Precision.FP16, Precision.FP16),
    "int8 with fp16": Request(Precision.INT8, Precision.FP16),
    "int8 with fp32": Request(Precision.INT8, Precision.FP32),
}


@pytest.fixture(scope="module")
def network(digits: Digits) -> LoweredNetwork:
    """The digits' network in FP32."""
    return float_network(load_onnx(digits.model), Precision.FP32)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeTensorRT], FakeTensorRT]:
    """Puts a module where `import` finds it, on a machine with a GPU."""

    def install(module: FakeTensorRT) -> FakeTensorRT:
        return put_in_place(monkeypatch, module, ORIN)

    return install


Use = Callable[[FakeTensorRT], FakeTensorRT]


def build(network: LoweredNetwork, config: BuildRequest, folder: Path) -> EngineArtifact:
    """Builds into a folder."""
    return build_engine(network, config, preset("digits"), output=folder / "a.plan")


def refusal(network: LoweredNetwork, config: BuildRequest, folder: Path) -> str:
    """Returns the sentence that a build is refused with; no file may be left."""
    with pytest.raises(BuildError) as refused:
        build(network, config, folder)
    assert list(folder.iterdir()) == []
    return str(refused.value)


@pytest.mark.parametrize("requested", REQUESTS.values(), ids=REQUESTS)
def test_8_6_has_a_flag_for_each_precision_that_it_may_use(
    requested: Request, digits: Digits, use: Use, tmp_path: Path
) -> None:
    """A network with an explicit batch; INT8 and FP16 are builder flags."""
    trt = use(tensorrt_8_6())
    engine = requested.build(digits, "tensorrt", tmp_path)
    assert trt.record.creation_flags == {"EXPLICIT_BATCH"}
    assert ("INT8" in trt.record.flags) == (requested.precision is Precision.INT8)
    assert ("FP16" in trt.record.flags) == requested.has_fp16
    assert engine.manifest.flags[0] == "EXPLICIT_BATCH"
    assert set(engine.manifest.flags[1:]) == trt.record.flags


@pytest.mark.parametrize("requested", REQUESTS.values(), ids=REQUESTS)
def test_8_6_is_given_an_onnx_that_it_reads(
    requested: Request, digits: Digits, use: Use, tmp_path: Path
) -> None:
    """Its parser ends at opset 17, where Q/DQ are of FP32: no tensor is typed FP16."""
    trt = use(tensorrt_8_6())
    requested.build(digits, "tensorrt", tmp_path)
    model = onnx.load_model_from_string(trt.record.parsed or b"")
    assert model.opset_import[0].version <= 17
    assert model.ir_version <= 8
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize("requested", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("version", ["10.3", "11.4", "RTX"])
def test_later_networks_are_strongly_typed(
    version: str, requested: Request, digits: Digits, use: Use, tmp_path: Path
) -> None:
    """The ONNX types decide, and no builder flag: FP16 is in the file where it is asked for."""
    trt = use(VERSIONS[version]())
    target = "tensorrt-rtx" if version == "RTX" else "tensorrt"
    engine = requested.build(digits, target, tmp_path)
    assert trt.record.creation_flags == {"STRONGLY_TYPED"}
    assert trt.record.flags == set()
    assert engine.manifest.flags == ("STRONGLY_TYPED",)
    model = onnx.load_model_from_string(trt.record.parsed or b"")
    typed = TensorProto.FLOAT16 in {tensor.data_type for tensor in model.graph.initializer}
    assert typed == requested.has_fp16


@pytest.mark.parametrize("version", ["8.6", "10.3", "11.4"])
def test_the_plan_is_what_the_builder_returned(
    version: str, network: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """Pure, with a manifest that loads; the parser was given the network's own bytes."""
    trt = use(VERSIONS[version]())
    engine = build(network, FP32, tmp_path)
    assert engine.path.read_bytes() == b"plan"
    assert load_engine(engine.path) == engine
    assert trt.record.parsed == network.model.SerializeToString()
    assert engine.manifest.versions == {"tensorrt": trt.__version__, **system_versions(ORIN)}
    assert trt.record.settings["profiling_verbosity"].name == "DETAILED"


@pytest.mark.cuda
def test_the_plan_is_for_the_gpu_that_it_was_built_on(
    network: LoweredNetwork, use: Use, tmp_path: Path, cuda: PretendCuda
) -> None:
    """Its name, its compute capability and the driver's CUDA are kept for loading."""
    cuda.set_device(name="Orin", capability=87, driver=12060)
    use(tensorrt_10_3())
    manifest = build(network, FP32, tmp_path).manifest
    assert (manifest.gpu, manifest.compute_capability) == ("Orin", "8.7")
    assert manifest.versions == {"tensorrt": "10.3.0", "cuda": "12.6"}


def test_the_profile_has_the_requested_batches(
    network: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """Smallest, optimal and largest, with the image's own shape."""
    trt = use(tensorrt_10_3())
    config = BuildRequest(target="tensorrt", precision=Precision.FP32, batch=(1, 8, 32))
    build(network, config, tmp_path)
    (profile,) = trt.record.profiles
    assert profile == {"input": ((1, 3, 32, 32), (8, 3, 32, 32), (32, 3, 32, 32))}


RTX = {
    capability: BuildRequest(
        target="tensorrt-rtx", precision=Precision.FP32, compute_capability=capability
    )
    for capability in ("8.6", "12.0", "9.0", "86", "1.20", "ENT")
}


@pytest.mark.parametrize(("capability", "name"), [("8.6", "SM86"), ("12.0", "SM120")])
def test_a_named_gpu_needs_none_here(
    capability: str,
    name: str,
    network: LoweredNetwork,
    use: Use,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The builder is told one compute capability, and the manifest keeps it."""
    trt = use(tensorrt_rtx())
    monkeypatch.setattr(tensorrt, "has_nvidia_gpu", lambda: False)
    engine = build(network, RTX[capability], tmp_path)
    assert trt.record.settings["num_compute_capabilities"] == 1
    assert trt.record.capabilities == {0: name}
    assert engine.manifest.compute_capability == capability


def test_without_a_name_the_gpu_of_this_machine_is_meant(
    network: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """Nothing is set, which is the builder's word for it; the manifest names the GPU."""
    trt = use(tensorrt_rtx())
    config = BuildRequest(target="tensorrt-rtx", precision=Precision.FP32)
    manifest = build(network, config, tmp_path).manifest
    assert trt.record.settings.keys() == {"profiling_verbosity", "progress_monitor"}
    assert trt.record.capabilities == {}
    assert (manifest.gpu, manifest.compute_capability) == ("Orin", "8.7")


@pytest.mark.parametrize("capability", ["9.0", "86", "1.20", "ENT"])
def test_a_gpu_that_is_not_built_for_is_named(
    capability: str, network: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """With those that are; nothing that merely looks like one is taken for it."""
    use(tensorrt_rtx())
    with pytest.raises(ConfigError) as refused:
        build(network, RTX[capability], tmp_path)
    assert str(refused.value) == (
        f"TensorRT for RTX 1.7.1.116 does not build for compute capability {capability}. "
        "Available: 7.5, 8.0, 8.6, 8.9, 12.0, 12.1."
    )
    assert list(tmp_path.iterdir()) == []


def test_what_the_parser_refuses_is_reported(
    network: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """The first three of its errors, with its version and the file."""
    use(tensorrt_11()).answers.refusals = ["In node 0: a.", "In node 1: b.", "In node 2: c.", "d."]
    message = refusal(network, FP32, tmp_path)
    assert message == (
        f"NVIDIA's ONNX parser 11.4.0.106 refused {network.source.path}: In node 0: a. In node 1: b. "
        "In node 2: c. If the file was exported elsewhere, export it with edgeres."
    )


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([("WARNING", "slow"), ("ERROR", "No tactic."), ("INTERNAL_ERROR", "Bug.")],
         "No tactic. Bug."),
        ([("WARNING", "slow")], "it gave no reason."),
    ],
)  # fmt: skip
def test_a_plan_that_was_not_built_is_reported(
    messages: list[Message], reason: str, network: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """NVIDIA's builder returns None; its errors are in its log."""
    trt = use(tensorrt_10_3())
    trt.answers.plan, trt.answers.messages = None, messages
    assert refusal(network, FP32, tmp_path) == (
        f"tensorrt 10.3.0 could not build the engine: {reason} Run with -v for its whole log."
    )


def test_a_message_that_repeats_is_logged_once_and_counted(
    network: LoweredNetwork, use: Use, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each at its own level; the network's layers would say the same dozens of times."""
    trt = use(tensorrt_10_3())
    trt.answers.messages = [("WARNING", "scales"), ("VERBOSE", "tactic"), ("WARNING", "scales")]
    with caplog.at_level(logging.DEBUG, logger="edgeres"):
        build(network, FP32, tmp_path)
    records = [record for record in caplog.records if record.name == "edgeres.tensorrt"]
    logged = [(record.levelname, record.getMessage()) for record in records]
    assert logged == [
        ("WARNING", "scales"),
        ("DEBUG", "tactic"),
        ("WARNING", "2 times: scales"),
    ]


@pytest.mark.parametrize(
    ("fake", "target", "message"),
    [
        (
            tensorrt_10_3,
            "tensorrt",
            "TensorRT builds on the GPU that the engine is for, and this machine has none. "
            "Run build-engine on the board; here, --target tensorrt-rtx --compute-capability 8.6 "
            "checks the network, and --target onnxruntime runs on this CPU.",
        ),
        (
            tensorrt_rtx,
            "tensorrt-rtx",
            "This machine has no NVIDIA GPU to build for. Name one: --compute-capability 8.6 "
            "(also 7.5, 8.0, 8.9, 12.0 and 12.1).",
        ),
    ],
)
def test_without_a_gpu_nvidia_is_not_called(
    fake: Callable[[], FakeTensorRT],
    target: str,
    message: str,
    network: LoweredNetwork,
    use: Use,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its builder would end the process on such a machine; the sentence says what works."""
    trt = use(fake())
    monkeypatch.setattr(tensorrt, "has_nvidia_gpu", lambda: False)
    config = BuildRequest(target=target, precision=Precision.FP32)
    assert refusal(network, config, tmp_path) == message
    assert trt.record.creation_flags is None


@pytest.mark.parametrize(
    ("module", "target", "advice"),
    [
        ("tensorrt", "tensorrt", "On a Jetson: scripts/jetson_setup.sh (sudo apt install "),
        (
            "tensorrt_rtx",
            "tensorrt-rtx",
            "pip install '.[rtx]' (Linux and Windows on x86-64).",
        ),
    ],
)
def test_a_missing_module_is_named_with_what_to_do(
    module: str,
    target: str,
    advice: str,
    network: LoweredNetwork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pip line, or where the board's own comes from."""
    monkeypatch.setitem(sys.modules, module, None)
    config = BuildRequest(target=target, precision=Precision.FP32)
    with pytest.raises(DependencyError) as refused:
        build(network, config, tmp_path)
    message = str(refused.value)
    assert message.startswith(
        f"--target {target} needs the Python module {module}, which cannot be"
    )
    assert advice in message


def test_a_builder_that_does_not_start_is_explained(
    network: LoweredNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bindings make a TypeError of the null pointer that a broken driver gives."""
    trt = tensorrt_10_3()

    def nothing(logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt, "Builder", nothing)
    put_in_place(monkeypatch, trt, ORIN)
    with pytest.raises(BuildError, match=r"could not start its builder: .* run `edgeres doctor`"):
        build_engine(network, FP32, preset("digits"), output=tmp_path / "a.plan")


def test_a_gpu_that_the_driver_refuses_is_reported(
    use: Use, network: LoweredNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's own word, and what to check; TensorRT is not started."""
    use(VERSIONS["10.3"]())
    lack = NoCudaDevice(reason="its NVIDIA driver sees no GPU")
    monkeypatch.setattr(tensorrt, "find_cuda_device", lambda: lack)
    with pytest.raises(BuildError, match=r"cannot use it: its NVIDIA driver sees no GPU\. Check C"):
        build(network, FP32, tmp_path)
