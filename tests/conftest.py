"""Fixtures that every test may use, and a header that says what this run can check."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path

import pytest
from digits import Digits, make_digits

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy", "scipy", "tensorrt-rtx-cu13", "tensorrt")


def pytest_configure() -> None:
    """Lets torch work on tiny networks alone: its threads wait for each other by spinning.

    With the cores shared, a convolution of microseconds takes milliseconds that way.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_report_header() -> list[str]:
    """Names the versions that matter and whether the real networks and images are here."""
    found = [f"{name} {_version(name)}" for name in _PACKAGES]
    return ["edgeres with " + ", ".join(found), f"shared data: {_shared_root() or 'absent'}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, with the reason, what this machine lacks."""
    absent = {
        "shared": (_shared_root() is None, "the shared data folder is absent"),
        "rtx": (importlib.util.find_spec("tensorrt_rtx") is None, "tensorrt-rtx is not installed"),
    }
    for item in items:
        for marker, (missing, reason) in absent.items():
            if missing and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


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


def _shared_root() -> Path | None:
    root = _ROOT.parent / "shared"
    return root if (root / "data").is_dir() else None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
