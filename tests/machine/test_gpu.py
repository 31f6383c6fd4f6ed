"""What a GPU reports: through NVML, through a Jetson's files, and the reason where it is silent."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_nvml import FakeNvml, install
from machine_files import lay_out

from edgeres.installation import install_hint
from edgeres.machine import NoMeter, open_meter
from edgeres.machine.gpu import REASONS, THROTTLING, GpuState, JetsonGpu, open_gpu


def test_a_gpu_through_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clock, highest clock, temperature and reasons by their bits; NVML is shut down at the end."""
    nvml = FakeNvml(mhz=1410, reasons=0x44)
    install(monkeypatch, nvml)
    gpu = open_gpu(tmp_path)
    assert (gpu.name, gpu.unavailable, nvml.asked) == ("NVIDIA Test GPU through NVML", None, [0])
    assert gpu.read() == GpuState(
        mhz=1410,
        max_mhz=1980,
        temperature_c=55,
        reasons=("power limit", "temperature, by hardware"),
    )
    gpu.close()
    assert nvml.is_open == 0


def test_the_gpu_that_runs_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its bus id, which CUDA and NVML agree on; older modules give names as bytes."""
    nvml = FakeNvml(name=b"Tesla T4", count=4)
    install(monkeypatch, nvml, "0000:41:00.0")
    assert open_gpu(tmp_path).name == "Tesla T4 through NVML"
    assert nvml.asked == ["0000:41:00.0"]


@pytest.mark.parametrize("visible", ["1", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", None])
def test_which_of_several_gpus_runs_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    """Where CUDA cannot be asked the first one may be another's; the reason is given, not figures."""
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = FakeNvml(count=2)
    install(monkeypatch, nvml)
    sentence = (
        "NVML reports on 2 GPUs, and which of them runs is not known: CUDA cannot be asked on this "
        "machine, it has no NVIDIA driver (no libcuda.so.1). Check CUDA_VISIBLE_DEVICES "
        f"({visible or 'not set'}) and the driver."
    )
    assert open_gpu(tmp_path).unavailable == sentence
    assert open_meter(tmp_path, gpu=True) == NoMeter(reason=sentence)
    assert (nvml.asked, nvml.is_open) == ([], 0)


def test_a_gpu_that_nvml_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one at the first index is no substitute for it."""
    nvml = FakeNvml(unsupported=frozenset({"nvmlDeviceGetHandleByPciBusId"}))
    install(monkeypatch, nvml, "0000:41:00.0")
    assert open_gpu(tmp_path).unavailable is not None
    assert (nvml.asked, nvml.is_open) == ([], 0)


@pytest.mark.parametrize(
    ("celsius", "read"), [(-256, None), (-273, None), (151, None), (255, None), (-40, -40)]
)
def test_no_temperature_that_silicon_cannot_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, celsius: int, read: float | None
) -> None:
    """A sensor without a reading answers with one all the same."""
    install(monkeypatch, FakeNvml(celsius=celsius))
    assert open_gpu(tmp_path).read().temperature_c == read


def test_what_a_device_does_not_support_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is still reported."""
    install(monkeypatch, FakeNvml(unsupported=frozenset({"nvmlDeviceGetTemperature"})))
    assert open_gpu(tmp_path).read() == GpuState(mhz=1980, max_mhz=1980)


def test_the_older_name_of_the_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before driver 535 they were called throttle reasons; the bits are the same."""

    class Older(FakeNvml):
        nvmlDeviceGetCurrentClocksEventReasons = None  # type: ignore[assignment]  # noqa: N815

        def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:  # noqa: N802
            assert handle == "handle"
            return 0x08

    install(monkeypatch, Older())
    assert open_gpu(tmp_path).read().reasons == ("hardware slowdown",)


def test_without_the_module_the_reason_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the line that installs it."""
    install(monkeypatch, None)
    gpu = open_gpu(tmp_path)
    assert gpu.unavailable is not None
    assert gpu.unavailable.endswith(f"not installed. {install_hint('pynvml')}")
    assert gpu.read() == GpuState()
    gpu.close()


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetHandleByIndex"])
def test_nvml_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """NVML's own words are passed on, and nothing stays open."""
    nvml = FakeNvml(unsupported=frozenset({call}))
    install(monkeypatch, nvml)
    assert open_gpu(tmp_path).unavailable == (
        "NVML does not report on the GPU: Not Supported. Check it with nvidia-smi."
    )
    assert nvml.is_open == 0


@pytest.mark.parametrize(
    "folder",
    ["57000000.gpu", "17000000.gp10b", "17000000.gv11b", "17000000.ga10b", "gpu-gpc-0"],
)
def test_the_gpu_of_each_jetson(tmp_path: Path, folder: str) -> None:
    """Nano, TX2, Xavier, Orin and Thor, among other devices with a clock."""
    files = {
        "proc/device-tree/model": "NVIDIA Jetson\0",
        "sys/class/devfreq/15340000.vic/cur_freq": "1",
        f"sys/class/devfreq/{folder}/cur_freq": "921600000\n",
        f"sys/class/devfreq/{folder}/max_freq": "1377000000\n",
        "sys/class/devfreq/gpu-nvd-0/cur_freq": "2",
    }
    gpu = open_gpu(lay_out(tmp_path, files))
    assert isinstance(gpu, JetsonGpu)
    assert gpu.read() == GpuState(mhz=921.6, max_mhz=1377.0)


def test_every_reason_that_throttles_is_one_of_nvmls() -> None:
    """No name is misspelt, and the user's own settings are not throttling."""
    assert set(REASONS.values()) > THROTTLING
    assert THROTTLING & {"idle", "clocks set by the user", "sync boost", "display clocks"} == set()


def test_the_bits_are_nvidias() -> None:
    """Against the constants of the real module, where it is installed."""
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    assert pynvml.nvmlClocksEventReasonGpuIdle == 0x01
    assert pynvml.nvmlClocksEventReasonSwPowerCap == 0x04
    assert pynvml.nvmlClocksThrottleReasonHwSlowdown == 0x08
    assert pynvml.nvmlClocksEventReasonSwThermalSlowdown == 0x20
    assert pynvml.nvmlClocksThrottleReasonHwThermalSlowdown == 0x40
    assert pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown == 0x80
    missing = [name for name in vars(FakeNvml) if name[:4] == "nvml" and not hasattr(pynvml, name)]
    assert missing == []
