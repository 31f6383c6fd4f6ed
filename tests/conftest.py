"""Fixtures that every test may use, and a header that says what this run can check."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import remembered
from digits import Digits, make_digits
from pretend_cuda import LIVING, PretendCuda, load_pretend_cuda

from edgeres.machine import has_nvidia_gpu

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy", "scipy", "tensorrt-rtx-cu13", "tensorrt")
_DEAREST = (
    "test_shared_results.py",
    "test_walkthroughs.py",
    "test_matrix.py",
    "test_fault_model.py",
    "test_every_architecture.py",
    "test_readme.py",
    "test_fault_preprocessing.py",
    "test_fault_image_kinds.py",
    "test_bench_path.py",
    "test_softmax_head.py",
    "test_fault_twice.py",
    "test_ssh.py",
    "test_installed_demo.py",
    "test_shared_timing.py",
    "test_fault_calibration.py",
    "test_json_output.py",
    "test_stdout.py",
    "test_demo_path.py",
    "test_cluster.py",
    "test_interrupt.py",
)
"""Test files that take the longest, most processor time first."""

_WITHOUT_NVIDIA = {"images", "networks", "normalization", "statistics"}
"""Folders whose tests load none of NVIDIA's libraries."""


def pytest_configure() -> None:
    """Gives torch and ONNX Runtime one thread: their threads wait for each other by spinning.

    With the cores shared, a convolution of microseconds takes milliseconds that way. Commands that
    tests start as processes of their own keep ONNX Runtime's own choice, unless `one_core` holds.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    remembered.install()


def pytest_report_header() -> list[str]:
    """Names the versions that matter and whether the real networks and images are here."""
    found = [f"{name} {_version(name)}" for name in _PACKAGES]
    return ["edgeres with " + ", ".join(found), f"shared data: {_shared_root() or 'absent'}"]


# Before pytest-xdist's own, which puts an item's group into its name.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips, with the reason, what this machine lacks."""
    absent = {
        "shared": "the shared data folder is absent" if _shared_root() is None else None,
        "rtx": None if _installed("tensorrt_rtx") else "tensorrt-rtx is not installed",
        "cuda": _no_pretend_cuda(),
        "gpu": _no_gpu(),
    }
    for item in items:
        for marker, reason in absent.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    # The dearest files start first, so that no worker is left with one when the others have ended.
    order = {name: place for place, name in enumerate(_DEAREST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    # The pretend driver stays loaded, and NVIDIA's libraries must not meet it.
    items.sort(key=_place_by_driver)
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        # A worker takes a file whole, so that what its tests share is made once.
        group = (
            "cuda"
            if item.get_closest_marker("cuda")
            else str(item.path.relative_to(config.rootpath))
        )
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Ends a run whose tests were put into no groups: each worker would make all that files share.

    Raises:
        UsageError: pytest-xdist took no notice of the groups.
    """
    if getattr(session.config.option, "loadgroup", False):
        alone = next((item.nodeid for item in session.items if "@" not in item.nodeid), None)
        if alone is not None:
            raise pytest.UsageError(f"pytest-xdist puts {alone} into no group with its file.")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names what this machine could not show, so that a green run does not hide it."""
    lacks = [lack for lack in (_no_gpu(), _no_pretend_cuda()) if lack]
    if not lacks:
        return
    terminalreporter.section("not shown by this run")
    for lack in lacks:
        terminalreporter.line(lack)
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report, pytest.TestReport) and {"gpu", "cuda"} & set(report.keywords):
            terminalreporter.line(f"  {report.nodeid.partition('@')[0]}")
    terminalreporter.line("On a machine with a GPU and TensorRT: scripts/verify_on_device.py")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder that holds `data/` with real trained ResNets and labelled images."""
    root = _shared_root()
    if root is None:
        pytest.skip("the shared data folder is absent")
    return root


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """The embedded digits' model, table and CPU engine, to be read only."""
    pytest.importorskip("torch", reason="torch, which exports the network, is not installed")
    return make_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def _loaded_cuda(tmp_path_factory: pytest.TempPathFactory) -> PretendCuda:
    return load_pretend_cuda(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module")
def one_core() -> Iterator[None]:
    """Processes that a file's tests start have one core, the same for all of a worker's.

    ONNX Runtime then starts one thread: two that wait for each other take twice the time of one.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    usable = os.sched_getaffinity(0)
    number = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    os.sched_setaffinity(0, {sorted(usable)[int(number) % len(usable)]})
    yield
    os.sched_setaffinity(0, usable)


@pytest.fixture
def cuda(_loaded_cuda: PretendCuda) -> Iterator[PretendCuda]:
    """A pretend GPU; whatever a test takes of it has to be given back, in order."""
    _loaded_cuda.set_device()
    _loaded_cuda.excused.clear()
    before = _loaded_cuda.counts
    yield _loaded_cuda
    _loaded_cuda.forgive()
    after = _loaded_cuda.counts
    kept = {name: after[name] - before[name] for name in LIVING if after[name] != before[name]}
    assert (kept, _loaded_cuda.depth) == ({}, 0)
    wrong = ("abandoned", "bad_frees")
    assert [after[kind] - before[kind] - _loaded_cuda.excused[kind] for kind in wrong] == [0, 0]


def _place_by_driver(item: pytest.Item) -> int:
    """Returns 1 for what loads the pretend driver, 2 for what may meet it, 0 for all before."""
    if item.get_closest_marker("cuda"):
        return 1
    # They run beside the driver's tests, which would else have one worker while the others idle.
    meets = item.path.parent.name in _WITHOUT_NVIDIA and not item.get_closest_marker("rtx")
    return 2 if meets else 0


def _no_pretend_cuda() -> str | None:
    """Returns why the pretend driver cannot be used here."""
    if has_nvidia_gpu():
        return "the pretend CUDA driver cannot stand beside the real one of this machine"
    if not _installed("pycuda"):
        return "pycuda is not installed: nothing of CUDA was run (scripts/test installs it)"
    return None if shutil.which("cc") else "there is no C compiler to build the pretend driver with"


def _no_gpu() -> str | None:
    if not has_nvidia_gpu():
        return "no NVIDIA GPU: no real driver was used, no plan was run"
    return None if _installed("pycuda") else "pycuda is not installed: the GPU here was not used"


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _shared_root() -> Path | None:
    root = _ROOT.parent / "shared"
    return root if (root / "data").is_dir() else None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
