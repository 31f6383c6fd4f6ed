"""What a plan is told before TensorRT's runtime sees it: every mismatch has its sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny_plans import MANIFEST, write_plan

from edgeres.core.artifacts import TRUSTED, load_engine, manifest_path
from edgeres.core.builder_options import HardwareCompatibility, TensorRTOptions
from edgeres.core.precision import Precision
from edgeres.errors import ArtifactError, MismatchError
from edgeres.machine.cuda import CudaDevice, NoCudaDevice
from edgeres.serialization import save_json
from edgeres.targets.base import engine_runner
from edgeres.targets.tensorrt import preflight
from edgeres.targets.tensorrt.preflight import Host, check_plan, differences

ORIN = CudaDevice(
    name="Orin", compute_capability="8.7", memory_mib=7620, integrated=True, cuda="12.6"
)
XAVIER = replace(ORIN, name="Xavier", compute_capability="7.2", cuda="12.2")
BUILT = replace(
    MANIFEST,
    gpu="Orin",
    versions={"tensorrt": "10.3.0", "cuda": "12.6", "l4t": "36.4.3"},
)
AMPERE_PLUS = TensorRTOptions(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS)
SAME_CAPABILITY = TensorRTOptions(
    hardware_compatibility=HardwareCompatibility.SAME_COMPUTE_CAPABILITY
)
HOME = Host(version="10.3.0", device=ORIN, l4t="36.4.3")


@dataclass(frozen=True)
class Case:
    """A machine that differs from the plan's home, and what is said of it."""

    changes: dict[str, Any]
    host: Host
    clauses: tuple[str, ...]


CASES = {
    "at home": Case({}, HOME, ()),
    "another version": Case(
        {},
        replace(HOME, version="8.6.2"),
        ("it was built with TensorRT 10.3.0, this machine has 8.6.2",),
    ),
    "a later patch": Case(
        {},
        replace(HOME, version="10.3.1"),
        ("it was built with TensorRT 10.3.0, this machine has 10.3.1",),
    ),
    "version-compatible, later": Case(
        {"flags": ("VERSION_COMPATIBLE",)}, replace(HOME, version="10.16.1"), ()
    ),
    "version-compatible, next major": Case(
        {"flags": ("VERSION_COMPATIBLE",)}, replace(HOME, version="11.4.0"), ()
    ),
    "version-compatible, two majors": Case(
        {"flags": ("VERSION_COMPATIBLE",), "versions": {"tensorrt": "8.6.2"}},
        replace(HOME, version="11.4.0"),
        ("it was built with TensorRT 8.6.2, this machine has 11.4.0",),
    ),
    "version-compatible, earlier": Case(
        {"flags": ("VERSION_COMPATIBLE",)},
        replace(HOME, version="10.0.1"),
        ("it was built with TensorRT 10.3.0, this machine has 10.0.1",),
    ),
    "no version": Case(
        {"versions": {}}, HOME, ("its manifest does not name the TensorRT that built it",)
    ),
    "another capability": Case(
        {},
        replace(HOME, device=XAVIER, version="10.3.0"),
        ("it is for compute capability 8.7, this machine has 7.2 (Xavier)",),
    ),
    "Ampere and later": Case(
        {"options": AMPERE_PLUS},
        replace(HOME, device=replace(ORIN, name="RTX 4090", compute_capability="8.9")),
        (),
    ),
    "Ampere and later, on an older one": Case(
        {"options": AMPERE_PLUS},
        replace(HOME, device=XAVIER),
        ("it is for compute capability 8.7, this machine has 7.2 (Xavier)",),
    ),
    "another model": Case(
        {},
        replace(HOME, device=replace(ORIN, name="Orin Nano")),
        ("it was built on a Orin, this machine has a Orin Nano",),
    ),
    "another model of a kind": Case(
        {"options": SAME_CAPABILITY},
        replace(HOME, device=replace(ORIN, name="Orin Nano")),
        (),
    ),
    "no capability": Case(
        {"compute_capability": None}, HOME, ("its manifest does not name the GPU that it is for",)
    ),
    "another JetPack": Case(
        {},
        replace(HOME, l4t="35.4.1"),
        ("it was built on Jetson Linux 36.4.3 (JetPack), this machine has 35.4.1",),
    ),
    "no Jetson": Case(
        {},
        replace(HOME, l4t=None),
        ("it was built on Jetson Linux 36.4.3 (JetPack), this machine has another system",),
    ),
    "a later minor JetPack": Case({}, replace(HOME, l4t="36.5.0"), ()),
    "an older driver": Case(
        {},
        replace(HOME, device=replace(ORIN, cuda="11.4")),
        ("it was built under CUDA 12.6, the driver here serves up to 11.4",),
    ),
    "RTX on another model": Case(
        {"target": "tensorrt-rtx", "versions": {"tensorrt_rtx": "1.7.1"}, "gpu": None},
        Host(version="1.7.1", device=ORIN),
        (),
    ),
    "RTX of another version": Case(
        {"target": "tensorrt-rtx", "versions": {"tensorrt_rtx": "1.7.1"}},
        Host(version="1.2.0", device=ORIN),
        ("it was built with TensorRT for RTX 1.7.1, this machine has 1.2.0",),
    ),
    "all at once": Case(
        {},
        Host(version="8.6.2", device=XAVIER, l4t="35.4.1"),
        (
            "it was built with TensorRT 10.3.0, this machine has 8.6.2",
            "it is for compute capability 8.7, this machine has 7.2 (Xavier)",
            "it was built on Jetson Linux 36.4.3 (JetPack), this machine has 35.4.1",
        ),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_difference_has_its_clause(case: Case) -> None:
    """And what NVIDIA's compatibility rules allow has none."""
    assert tuple(differences(replace(BUILT, **case.changes), case.host)) == case.clauses


Use = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Makes this machine one with a GPU, TensorRT and pycuda, or without one of them."""

    def make(
        device: CudaDevice | NoCudaDevice = ORIN,
        version: str | None = "10.3.0",
        pycuda: bool = True,
    ) -> None:
        trt = ModuleType("tensorrt")
        trt.__dict__["__version__"] = version
        monkeypatch.setattr(preflight, "find_cuda_device", lambda: device)
        monkeypatch.setitem(sys.modules, "tensorrt", trt if version else None)
        fake = ModuleType("pycuda.driver") if pycuda else None
        monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda") if pycuda else None)
        monkeypatch.setitem(sys.modules, "pycuda.driver", fake)

    return make


def refusal(folder: Path, **changes: Any) -> str:
    """Returns the sentence that a plan is refused with, below the folder's own /etc."""
    plan = write_plan(folder, b"plan", **{"gpu": "Orin", **changes})
    with pytest.raises(MismatchError) as refused:
        check_plan(plan, folder)
    assert refused.value.exit_code == 6
    return str(refused.value)


def test_a_plan_that_belongs_here_passes(machine: Use, tmp_path: Path) -> None:
    """With the module and the device that it is to be opened with."""
    machine()
    ready = check_plan(write_plan(tmp_path, b"plan", gpu="Orin"), tmp_path)
    assert (ready.module.__version__, ready.device) == ("10.3.0", ORIN)


def test_a_foreign_plan_is_refused_with_what_to_do(machine: Use, tmp_path: Path) -> None:
    """All that differs in one sentence, and the command that builds it here."""
    machine(XAVIER, "8.6.2")
    assert refusal(tmp_path) == (
        f"{tmp_path}/tiny.plan does not belong to this machine: it was built with TensorRT 10.3.0, "
        "this machine has 8.6.2; it is for compute capability 8.7, this machine has 7.2 (Xavier). "
        "Rebuild it here with `edgeres build-engine MODEL.onnx --target tensorrt --precision fp16 "
        "-o tiny.plan`."
    )


def test_the_jetson_s_release_is_read(machine: Use, tmp_path: Path) -> None:
    """From the file that Jetson Linux keeps."""
    machine()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(
        "# R35 (release), REVISION: 4.1, GCID: 33958178\n"
    )
    message = refusal(tmp_path, versions={"tensorrt": "10.3.0", "l4t": "36.4.3"})
    assert "it was built on Jetson Linux 36.4.3 (JetPack), this machine has 35.4.1" in message


@pytest.mark.parametrize(
    "reason",
    [
        "it has no NVIDIA driver (no libcuda.so.1)",
        "its NVIDIA driver answers CUDA_ERROR_NO_DEVICE",
        "its NVIDIA driver sees no GPU",
    ],
)
def test_without_a_device_nothing_of_tensorrt_is_loaded(
    reason: str, machine: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its libraries end a process that has none."""
    machine(NoCudaDevice(reason=reason))
    monkeypatch.setattr(preflight, "importlib", None)
    message = refusal(tmp_path, precision=Precision.INT8)
    assert message == (
        f"{tmp_path}/tiny.plan is a plan for tensorrt in int8, compute capability 8.7, and this "
        f"machine cannot run it: {reason}. Its accuracy can be evaluated on the CPU, from its "
        "calibration table: edgeres bench TABLE.json --simulate --reference MODEL.onnx --data PATH."
    )
    other = refusal(tmp_path, precision=Precision.FP16)
    assert other.endswith(f": {reason}. Copy plan and manifest to a machine with that GPU.")


def test_without_tensorrt(machine: Use, tmp_path: Path) -> None:
    """It says where a Jetson's comes from."""
    machine(version=None)
    message = refusal(tmp_path)
    assert "this machine cannot run it: its Python module tensorrt cannot be imported (" in message
    assert message.endswith(
        "On a Jetson: scripts/jetson_setup.sh (sudo apt install python3-libnvinfer, and an "
        "environment with --system-site-packages); elsewhere, in edgeres' source folder: pip "
        "install '.[tensorrt]'."
    )


def test_without_pycuda(machine: Use, tmp_path: Path) -> None:
    """It says what its build needs."""
    machine(pycuda=False)
    message = refusal(tmp_path)
    assert "this machine cannot run it: its Python module pycuda cannot be imported (" in message
    assert message.endswith(
        "On a Jetson: scripts/jetson_setup.sh; elsewhere, in edgeres' source folder: pip install "
        "'.[tensorrt]' (with CUDA's nvcc on the PATH)."
    )


def test_a_trusted_plan_is_not_compared(machine: Use, tmp_path: Path) -> None:
    """There is nothing to compare it with; a device and the libraries it needs all the same."""
    plan = write_plan(tmp_path, b"plan", flags=(TRUSTED,), versions={}, compute_capability=None)
    machine()
    check_plan(plan, tmp_path)
    machine(NoCudaDevice(reason="its NVIDIA driver sees no GPU"))
    with pytest.raises(MismatchError, match="its NVIDIA driver sees no GPU"):
        check_plan(plan, tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda plan: plan[:-1], lambda plan: b"", lambda plan: plan[:-1] + b"x"]
)
def test_a_changed_plan_is_refused_by_its_hash(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """Cut off, empty or altered: before anything else is looked at."""
    plan = write_plan(tmp_path)
    save_json(manifest_path(plan.path), plan.manifest)
    assert load_engine(plan.path) == plan
    plan.path.write_bytes(damage(plan.path.read_bytes()))
    with pytest.raises(ArtifactError, match="was changed or truncated after it was built: sha256"):
        load_engine(plan.path)


def test_the_runner_is_refused_before_any_image_is_read(machine: Use, tmp_path: Path) -> None:
    """A bench does not first load data for a plan that cannot run."""
    machine(XAVIER)
    with pytest.raises(MismatchError, match="does not belong to this machine"):
        engine_runner(write_plan(tmp_path))
