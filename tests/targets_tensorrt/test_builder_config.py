"""What was asked of NVIDIA's builder is set, recorded and read back, or refused by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_tensorrt import FakeTensorRT, put_in_place
from networks import SIZE, network, with_weight
from numpy.typing import NDArray

from edgeres.core.artifacts import EngineArtifact, load_engine
from edgeres.core.builder_options import HardwareCompatibility, TensorRTOptions
from edgeres.core.contract import Contract
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import BuildError, ConfigError, EdgeresError
from edgeres.machine.cuda import CudaDevice
from edgeres.onnx_file import LoweredNetwork, load_onnx
from edgeres.quantization.lowering import float_network
from edgeres.targets.base import build_engine, find_target
from edgeres.targets.tensorrt import builder as tensorrt

DESKTOP = CudaDevice(
    name="RTX", compute_capability="8.6", memory_mib=8192, integrated=False, cuda="12.6"
)
ORIN = CudaDevice(
    name="Orin", compute_capability="8.7", memory_mib=7620, integrated=True, cuda="12.6"
)
CONTRACT = Contract(height=SIZE, width=SIZE)

Use = Callable[..., FakeTensorRT]


@pytest.fixture
def plain(tmp_path: Path) -> LoweredNetwork:
    """A network of one residual block, FP16 where it is typed."""
    return saved(network("bottleneck"), tmp_path)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Puts the double of a version where `import` finds it, on a machine with this device."""

    def install(version: str, device: CudaDevice | None = DESKTOP) -> FakeTensorRT:
        trt = put_in_place(monkeypatch, FakeTensorRT(version), device)
        trt.answers.image_shape = (-1, 3, SIZE, SIZE)
        return trt

    return install


def saved(model: onnx.ModelProto, folder: Path) -> LoweredNetwork:
    """Writes a model and reads it as a float network."""
    onnx.save(model, folder / "m.onnx")
    return float_network(load_onnx(folder / "m.onnx"), Precision.FP32)


def config(target: str = "tensorrt", **options: Any) -> BuildRequest:
    """Returns a request in FP16."""
    return BuildRequest(target=target, precision=Precision.FP16, options=TensorRTOptions(**options))


def build(request: BuildRequest, lowered: LoweredNetwork, folder: Path) -> EngineArtifact:
    """Builds into a folder."""
    return build_engine(lowered, request, CONTRACT, output=folder / "a.plan")


def refusal(request: BuildRequest, lowered: LoweredNetwork, folder: Path) -> str:
    """Returns the sentence of a refusal that leaves no plan."""
    with pytest.raises(EdgeresError) as refused:
        build(request, lowered, folder)
    assert not (folder / "a.plan").exists()
    return str(refused.value)


def test_what_is_requested_is_set_and_recorded(
    plain: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """On the builder, and in a manifest that loads as it was written."""
    trt: Any = use("10.16")
    request = config(
        workspace_mib=64,
        optimization_level=5,
        hardware_compatibility=HardwareCompatibility.SAME_COMPUTE_CAPABILITY,
        version_compatible=True,
        refit=True,
        strip_weights=True,
    )
    engine = build(request, plain, tmp_path)
    assert trt.record.flags == {"REFIT", "STRIP_PLAN", "VERSION_COMPATIBLE"}
    assert trt.record.pools == {"WORKSPACE": 64 << 20}
    settings = trt.record.settings
    assert settings["builder_optimization_level"] == 5
    level = settings["hardware_compatibility_level"]
    assert level == trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    assert trt.record.runtime == {"engine_host_code_allowed": True}
    manifest = load_engine(engine.path).manifest
    assert manifest == engine.manifest
    assert manifest.options == request.options
    assert manifest.flags == ("STRONGLY_TYPED", "REFIT", "STRIP_PLAN", "VERSION_COMPATIBLE")
    assert (manifest.gpu, manifest.compute_capability) == ("RTX", "8.6")
    assert (manifest.batch, manifest.input_size) == ((1, 1, 16), None)


def test_what_is_not_requested_is_left_alone(
    plain: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """No flag, no limit, no level: NVIDIA's defaults."""
    trt = use("11.4")
    build(config(), plain, tmp_path)
    assert (trt.record.flags, trt.record.pools, trt.record.parser_flags) == (set(), {}, set())
    assert trt.record.settings.keys() == {"profiling_verbosity", "progress_monitor"}
    assert trt.record.runtime == {}


LACKING = {
    ("8.6", "strip_weights"): (
        True,
        "--strip-weights is not in tensorrt 8.6.1; it is in TensorRT 10.0 and later, and TensorRT "
        "for RTX. Leave it out, or build with one of these.",
    ),
    ("10.3", "hardware_compatibility"): (
        HardwareCompatibility.SAME_COMPUTE_CAPABILITY,
        "--hardware-compatibility same-compute-capability is not in tensorrt 10.3.0; it is in "
        "TensorRT 10.16 and 11.4, not 10.3",
    ),
    ("rtx", "hardware_compatibility"): (
        HardwareCompatibility.AMPERE_PLUS,
        "--hardware-compatibility ampere-plus is not in tensorrt_rtx 1.7.1.116; it is in TensorRT "
        "8.6 and later on desktop and data-centre GPUs; a TensorRT for RTX plan takes "
        "--compute-capability.",
    ),
    ("rtx", "timing_cache"): (
        "timings",
        "--timing-cache is not in tensorrt_rtx 1.7.1.116; it is in TensorRT 8.6 and later; "
        "TensorRT for RTX times its kernels where the plan is loaded.",
    ),
    ("rtx", "version_compatible"): (
        True,
        "--version-compatible is not in tensorrt_rtx 1.7.1.116; it is in TensorRT 8.6 and later; "
        "TensorRT for RTX comes without the lean runtime that it needs.",
    ),
    ("rtx", "dla_core"): (0, "--dla is not in tensorrt_rtx 1.7.1.116; it is in TensorRT on a"),
}
"""Option and version, what is asked, and a part of the sentence."""


@pytest.mark.parametrize(("version", "option"), LACKING)
def test_an_option_that_a_version_lacks_is_refused(
    version: str, option: str, plain: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """With the versions that have it, before anything is built."""
    trt = use(version)
    value, message = LACKING[version, option]
    target = "tensorrt-rtx" if version == "rtx" else "tensorrt"
    assert message in refusal(config(target, **{option: value}), plain, tmp_path)
    assert trt.record.creation_flags is None


@pytest.mark.parametrize(
    ("ignored", "options", "message"),
    [
        ("REFIT", {"refit": True}, "setting REFIT: requested True, it has False."),
        (
            "WORKSPACE",
            {"workspace_mib": 1},
            f"setting workspace: requested {1 << 20}, it has {1 << 33}.",
        ),
    ],
)
def test_a_setting_that_nvidia_ignores_is_an_error(
    ignored: str,
    options: dict[str, Any],
    message: str,
    plain: LoweredNetwork,
    use: Use,
    tmp_path: Path,
) -> None:
    """Its setters only log what they do not take."""
    use("10.3").answers.ignored = frozenset({ignored})
    assert message in refusal(config(**options), plain, tmp_path)


def test_refit_for_a_named_gpu_needs_one(plain: LoweredNetwork, use: Use, tmp_path: Path) -> None:
    """NVIDIA's builder would end with an internal error of its compiler."""
    use("rtx", device=None)
    for option in ("refit", "strip_weights"):
        request = replace(config("tensorrt-rtx", **{option: True}), compute_capability="8.6")
        message = refusal(request, plain, tmp_path)
        spelled = "--" + option.replace("_", "-")
        assert message.startswith(f"{spelled} needs a GPU while TensorRT for RTX builds")


def test_a_board_has_no_hardware_compatibility(
    plain: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """NVIDIA leaves it out of JetPack."""
    use("10.3", ORIN)
    request = config(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS)
    assert "JetPack's TensorRT has none, and this is Orin." in refusal(request, plain, tmp_path)


def pruned(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns a weight with two zeros in every four input channels."""
    kept = np.arange(weight.shape[1]) % 4 < 2
    return weight * kept.reshape(1, -1, 1, 1)


def test_sparsity_needs_sparse_weights(plain: LoweredNetwork, use: Use, tmp_path: Path) -> None:
    """None of the five convolutions has them."""
    use("10.3")
    message = refusal(config(sparsity=True), plain, tmp_path)
    assert message.startswith(
        "--sparsity is for 2:4 sparse weights, and none of the 5 convolutions"
    )


def test_sparse_layers_are_logged(
    use: Use, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With one layer pruned the flag is set, and the others are named."""
    model = with_weight(network("bottleneck"), "expand_w", pruned)
    trt = use("10.3")
    with caplog.at_level(logging.INFO, logger="edgeres"):
        build(config(sparsity=True), saved(model, tmp_path), tmp_path)
    assert trt.record.flags == {"SPARSE_WEIGHTS"}
    assert "2:4 sparse weights: 1 of 5 convolutions" in caplog.messages
    dense = next(
        message for message in caplog.messages if message.startswith("no 2:4 sparse weights in")
    )
    assert dense.count(",") == 3


def dla(use: Use, version: str = "10.16", cores: int = 2) -> FakeTensorRT:
    """Returns a board's module with accelerators and two parsed layers."""
    trt = use(version, ORIN)
    trt.answers.dla_cores = cores
    ends = ([trt.tensor("in", "HALF")], [trt.tensor("out", "HALF")])
    trt.answers.layers = [
        trt.layer("CONVOLUTION", "Conv_0", *ends),
        trt.layer("SHUFFLE", "Flatten", *ends),
    ]
    return trt


@pytest.fixture
def ample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a board memory to build in."""
    memory(monkeypatch, 4096)


def memory(monkeypatch: pytest.MonkeyPatch, free_mib: int) -> None:
    """Makes a machine say that it has this much memory free."""
    from edgeres.machine import describe_machine

    known = replace(describe_machine(), memory_available_mib=free_mib)
    monkeypatch.setattr(tensorrt, "describe_machine", lambda: known)


@pytest.mark.usefixtures("ample")
def test_the_dla_is_set_on_builder_parser_and_runtime(
    plain: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """Without leave for the GPU."""
    trt: Any = dla(use)
    build(config(dla_core=1), plain, tmp_path)
    settings = trt.record.settings
    assert (settings["default_device_type"].name, settings["DLA_core"]) == ("DLA", 1)
    assert trt.record.flags == set()
    assert trt.record.parser_flags == {"ADJUST_FOR_DLA"}
    assert trt.record.runtime == {"DLA_core": 1}


@pytest.mark.usefixtures("ample")
def test_layers_that_the_dla_cannot_run_are_named(
    plain: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """And go to the GPU only where that was allowed."""
    trt = dla(use)
    trt.answers.dla_foreign = frozenset({"Flatten"})
    message = refusal(config(dla_core=0), plain, tmp_path)
    assert message == (
        "1 of 2 layers cannot run on the DLA: Flatten. Pass --gpu-fallback to leave them to the GPU."
    )
    build(config(dla_core=0, gpu_fallback=True), plain, tmp_path)
    assert trt.record.flags == {"GPU_FALLBACK"}


@pytest.mark.usefixtures("ample")
def test_a_core_that_is_not_there_is_refused(
    plain: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """With the number that are."""
    dla(use, cores=0)
    message = refusal(config(dla_core=0), plain, tmp_path)
    assert message.startswith("--dla 0: this machine has 0 DLA cores, counted from 0.")


@pytest.mark.parametrize(
    ("version", "precision", "floats", "message"),
    [
        ("10.16", Precision.FP32, Precision.FP16, "The DLA computes in FP16 and INT8 alone."),
        ("10.16", Precision.INT8, Precision.FP32, "The DLA computes in FP16 and INT8 alone."),
        ("10.3", Precision.INT8, Precision.FP16, "The DLA takes no Q/DQ network in tensorrt 10.3"),
    ],
)
def test_what_the_dla_cannot_compute_is_refused(
    version: str,
    precision: Precision,
    floats: Precision,
    message: str,
    plain: LoweredNetwork,
    use: Use,
    tmp_path: Path,
) -> None:
    """FP32 at all, and Q/DQ before TensorRT's parser learned to adjust them."""
    dla(use, version)
    request = replace(config(dla_core=0), precision=precision, float_layers=floats)
    assert message in refusal(request, plain, tmp_path)


@pytest.mark.parametrize(("free", "limit"), [(512, 512), (40, 40)])
def test_a_board_gets_the_workspace_that_fits(
    free: int,
    limit: int,
    plain: LoweredNetwork,
    use: Use,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that is free beyond what the build holds; this network holds less than a MiB."""
    memory(monkeypatch, free)
    trt = use("10.3", ORIN)
    build(config(), plain, tmp_path)
    assert limit - 1 <= trt.record.pools["WORKSPACE"] >> 20 <= limit


def test_a_board_without_the_memory_is_refused(
    plain: LoweredNetwork, use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sentence before the builder starts, where the kernel would end the process."""
    memory(monkeypatch, 16)
    trt = use("10.3", ORIN)
    message = refusal(config(), plain, tmp_path)
    assert message.startswith(
        "The build needs at least 0 MiB and a workspace of 32 MiB, and 16 MiB"
    )
    request = config(workspace_mib=100)
    assert "a workspace of 100 MiB, and 16 MiB are free" in refusal(request, plain, tmp_path)
    assert trt.record.pools == {}


def test_an_error_is_reported_although_an_earlier_build_is_referenced(
    plain: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """NVIDIA keeps to the first logger of a process; a second build's errors must not get lost."""
    trt = use("10.3")
    trt.answers.plan, trt.answers.messages = None, [("ERROR", "first.")]
    with pytest.raises(BuildError, match=r"could not build the engine: first\.") as first:
        build(config(), plain, tmp_path)
    trt.answers.messages = [("ERROR", "second.")]
    with pytest.raises(BuildError, match=r"could not build the engine: second\."):
        build(config(), plain, tmp_path)
    assert first.value.__traceback__ is not None


def test_an_engine_that_does_not_load_is_refused(
    plain: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """The runtime returns None; nobody could inspect or run it."""
    use("11.4").answers.loads = False
    message = refusal(config(), plain, tmp_path)
    assert "cannot load the engine that it built: it gave no reason." in message


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the bar broke")])
def test_what_progress_raises_stops_the_build_and_is_raised(
    error: BaseException, plain: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """Once NVIDIA has returned: an exception must not cross its frames."""
    trt = use("10.3")
    trt.answers.phases = [("Building", None, 1000)]
    reported = []

    def show(stage: str, done: float, total: float, note: str = "") -> None:
        reported.append(done / total)
        if len(reported) == 3:
            raise error

    with pytest.raises(type(error)):
        build_engine(plain, config(), CONTRACT, output=tmp_path / "a.plan", progress=show)
    assert len(reported) == 3
    assert not (tmp_path / "a.plan").exists()


def test_ctrl_c_in_the_log_is_raised_too(
    plain: LoweredNetwork, use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's signal handler runs in whichever callback comes first."""
    trt = use("10.3")
    trt.answers.messages = [("INFO", "now")]

    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(logging.getLogger("edgeres.tensorrt"), "log", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(config(), plain, tmp_path)
    assert not (tmp_path / "a.plan").exists()


def test_a_fixed_batch_is_the_profile(plain: LoweredNetwork, use: Use, tmp_path: Path) -> None:
    """The default gives way to the model's own; one that was asked for is refused."""
    trt = use("10.3")
    trt.answers.image_shape = (4, 3, SIZE, SIZE)
    engine = build(config(), plain, tmp_path)
    assert engine.manifest.batch == (4, 4, 4)
    (profile,) = trt.record.profiles
    assert profile == {"input": ((4, 3, SIZE, SIZE),) * 3}
    (tmp_path / "a.plan").unlink()
    message = refusal(replace(config(), batch=(1, 2, 8)), plain, tmp_path)
    assert "takes batches of 4 alone, and --batch is 1:2:8." in message


def test_dynamic_sizes_make_a_profile(plain: LoweredNetwork, use: Use, tmp_path: Path) -> None:
    """Of the contract's size alone, or of the range that was asked for around it."""
    trt = use("10.3")
    trt.answers.image_shape = (-1, 3, -1, -1)
    build(config(), plain, tmp_path)
    build(replace(config(), input_size=(8, SIZE, 32)), plain, tmp_path)
    sides = [[shape[2:] for shape in profile["input"]] for profile in trt.record.profiles]
    assert sides == [[(16, 16)] * 3, [(8, 8), (16, 16), (32, 32)]]
    assert load_engine(tmp_path / "a.plan").manifest.input_size == (8, 16, 32)


def test_sizes_that_the_model_or_the_contract_forbids_are_refused(
    plain: LoweredNetwork, use: Use, tmp_path: Path
) -> None:
    """A fixed model has one size, and images come in the contract's."""
    trt = use("10.3")
    request = replace(config(), input_size=(8, 16, 32))
    assert f"takes images of {SIZE}x{SIZE} alone, and --input-size is 8:16:32." in refusal(
        request, plain, tmp_path
    )
    trt.answers.image_shape = (-1, 3, -1, -1)
    message = refusal(replace(config(), input_size=(8, 24, 32)), plain, tmp_path)
    assert "is fastest at 24 pixels, and the preprocessing contract makes images of 16." in message


def test_a_request_that_no_builder_takes_is_no_request() -> None:
    """Checked where it is made."""
    with pytest.raises(ConfigError, match="--optimization-level is -1; expected 0 to 5"):
        TensorRTOptions(optimization_level=-1)
    request = BuildRequest(options=TensorRTOptions(refit=True))
    with pytest.raises(ConfigError, match="--refit: for TensorRT plans alone"):
        find_target(request.target).check_request(request)
