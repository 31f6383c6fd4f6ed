"""The demo runs from an installed wheel, in a folder that has nothing to do with the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("one_core")

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel of this checkout was installed to, without its dependencies."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    wheels, target = (tmp_path_factory.mktemp(name) for name in ("wheels", "target"))
    pip("wheel", "--no-build-isolation", "--wheel-dir", wheels, ROOT)
    pip("install", "--target", target, *wheels.iterdir())
    return target


def pip(command: str, *arguments: object) -> None:
    """Runs pip without any index."""
    line = [sys.executable, "-m", "pip", command, "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*line, *map(str, arguments)], check=True, timeout=TIMEOUT_S)


def run(installed: Path | str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a folder, with the installed package before any other."""
    return subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def test_it_is_the_installed_package_that_runs(installed: Path, tmp_path: Path) -> None:
    """The package of the checkout stands behind it, and its data too."""
    script = "from edgeres.images import embedded_path; print(embedded_path('digits.npz'))"
    done = run(installed, tmp_path, sys.executable, "-c", script)
    assert Path(done.stdout.strip()) == installed / "edgeres" / "calibration" / "digits.npz"


def test_the_demo_passes(installed: Path, tmp_path: Path) -> None:
    """By the command that the wheel installs."""
    done = run(installed, tmp_path, str(installed / "bin" / "edgeres"), "demo", "--json")
    assert done.returncode == 0, done.stderr
    verdicts = json.loads(done.stdout)["verdicts"]
    assert "onnxruntime" in verdicts
    assert all(verdict["passed"] for verdict in verdicts.values())
    assert list(tmp_path.iterdir()) == []


def test_the_demo_passes_without_torch(installed: Path, tmp_path: Path) -> None:
    """As on a Jetson: with the model that was exported from the same weights."""
    # Found before the real one, and answers as a module that is not installed.
    missing = 'raise ModuleNotFoundError("No module named \'torch\'", name="torch")\n'
    (tmp_path / "torch.py").write_text(missing)
    done = run(
        f"{installed}{os.pathsep}{tmp_path}",
        tmp_path,
        str(installed / "bin" / "edgeres"),
        "demo",
        "--keep",
        "kept",
    )
    assert done.returncode == 0, done.stderr
    assert "its result is used: Reading a checkpoint needs torch" in done.stderr
    assert (tmp_path / "kept" / "digits.onnx").read_bytes() == (
        ROOT / "calibration" / "digits_resnet20.onnx"
    ).read_bytes()
