"""scripts/pycuda.sh where pycuda cannot be built: it says why, and the run goes on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
set -euo pipefail
say() { echo "$*"; }
wait_for_other_runs() { :; }
pip_install() { echo "pip install $*"; return 1; }
root=$1 venv=$2
source "$root/scripts/pycuda.sh"
prepare_pycuda
echo done
"""

TOOLS = ("cat", "cksum", "mktemp", "rm", "tail", "find", "head", "dirname", "mkdir")


def prepare(folder: Path, *tools: str) -> list[str]:
    """Returns what is said on a machine that has these tools alone."""
    path, venv = folder / "bin", folder / "venv"
    path.mkdir()
    venv.mkdir()
    (venv / "pyvenv.cfg").write_text("version = 3.11\n")
    for tool in (*TOOLS, *tools):
        found = shutil.which(tool)
        if found is None:
            pytest.skip(f"{tool} is not installed")
        (path / tool).symlink_to(found)
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "-c", SCRIPT, "bash", ROOT, venv],
        env={"PATH": str(path), "HOME": str(folder), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert not list(folder.glob("tmp.*"))
    assert not (venv / ".edgeres-pycuda").exists()
    return done.stdout.splitlines()


@pytest.fixture(autouse=True)
def _without_gpu() -> None:
    if Path("/dev/nvidiactl").exists() or Path("/dev/nvhost-gpu").exists():
        pytest.skip("there is a GPU: the script leaves pycuda alone")


def test_without_a_compiler(tmp_path: Path) -> None:
    """It names the package that has one."""
    said = "No C++ compiler: pycuda is left out (Debian, Ubuntu: apt install g++)."
    assert prepare(tmp_path) == [said, "done"]


def test_without_the_packages(tmp_path: Path) -> None:
    """The pretend driver is built first; then pip fails, nothing is left and nothing is stamped."""
    said = prepare(tmp_path, "cc", "c++", "ld", "as")
    assert said[0] == "Building pycuda==2026.1 for the pretend driver (one to three minutes)"
    assert said[1].startswith("pip install --no-deps --target ")
    assert said[1].endswith("nvidia-cuda-runtime==13.0.96 nvidia-cuda-profiler-api==13.0.85")
    assert said[2:] == ["pycuda could not be built: the tests that need it are skipped.", "done"]
