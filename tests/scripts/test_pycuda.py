"""scripts/pycuda.sh: the wheel is built beside an installation; where it cannot be, the run goes on."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
set -euo pipefail
say() { echo "$*"; }
wait_for_other_runs() { :; }
find_python() { echo "$root/python"; }
pip_install() {
  echo "pip install $*"
  [[ $1 != --no-deps ]] || { mkdir "$3" && touch "$3/cuda.h"; }
}
root=$1 venv=$2
source "$root/scripts/pycuda.sh"
trap discard_pycuda EXIT
start_pycuda
echo installing
{}
finish_pycuda
echo done
"""

# Stands for the Python that makes an environment, and in it for pip.
PYTHON = """#!/bin/bash
if [[ $2 == venv ]]; then
  mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
elif [[ $3 == wheel ]]; then
  echo "compiling"
  {}
  touch "$(dirname "$0")/../../pycuda-1.whl"
fi
"""

TOOLS = (
    *("bash", "cat", "chmod", "cksum", "cp", "dirname", "find", "head", "mkdir", "mktemp", "rm"),
    *("sleep", "tail", "touch"),
)
COMPILERS = ("cc", "c++", "ld", "as")
BUILDING = "Building pycuda==2026.1 for the pretend driver (one to three minutes)"
FAILED = "pycuda could not be built: the tests that need it are skipped."


@dataclass(frozen=True)
class Machine:
    """A machine that has some tools alone, and a copy of what the script reads."""

    folder: Path

    @property
    def stamp(self) -> Path:
        """States what was installed."""
        return self.folder / "venv" / ".edgeres-pycuda"

    def prepare(self, *, compiling: str = ":", installing: str = ":") -> list[str]:
        """Returns what is said; a build and an installation run these commands."""
        python = self.folder / "python"
        python.write_text(PYTHON.replace("{}", compiling))
        python.chmod(0o755)
        script = SCRIPT.replace("{}", installing)
        path = {"PATH": str(self.folder / "bin")}
        homes = dict.fromkeys(("HOME", "TMPDIR"), str(self.folder))
        done = subprocess.run(
            ["bash", "-c", script, "bash", self.folder, self.folder / "venv"],
            env=path | homes,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # Nothing is left of a build, however the run ended.
        assert not list(self.folder.glob("tmp.*"))
        return [*(done.stdout + done.stderr).splitlines(), str(done.returncode)]


def machine(folder: Path, *tools: str) -> Machine:
    """Returns a machine with these tools beside the usual ones."""
    for name in ("bin", "venv", "scripts"):
        (folder / name).mkdir()
    (folder / "venv" / "pyvenv.cfg").write_text("version = 3.11\n")
    (folder / "tests").symlink_to(ROOT / "tests")
    (folder / "pyproject.toml").touch()
    shutil.copy(ROOT / "scripts" / "pycuda.sh", folder / "scripts")
    for tool in (*TOOLS, *tools):
        found = shutil.which(tool)
        if found is None:
            pytest.skip(f"{tool} is not installed")
        (folder / "bin" / tool).symlink_to(found)
    return Machine(folder)


@pytest.fixture(autouse=True)
def _without_gpu() -> None:
    if Path("/dev/nvidiactl").exists() or Path("/dev/nvhost-gpu").exists():
        pytest.skip("there is a GPU: the script leaves pycuda alone")


def test_without_a_compiler(tmp_path: Path) -> None:
    """It names the package that has one."""
    said = "No C++ compiler: pycuda is left out (Debian, Ubuntu: apt install g++)."
    here = machine(tmp_path)
    assert here.prepare() == [said, "installing", "done", "0"]
    assert not here.stamp.exists()


def test_a_wheel_is_built_beside_an_installation_and_installed_once(tmp_path: Path) -> None:
    """The compiler waits here for what the installation does; a second run builds nothing."""
    here = machine(tmp_path, *COMPILERS)
    waiting = f"until [[ -e {tmp_path}/begun ]]; do sleep 0.05; done"
    said = here.prepare(compiling=waiting, installing=f"touch {tmp_path}/begun")
    assert said == [BUILDING, "installing", "done", "0"]
    assert here.stamp.exists()
    assert here.prepare(compiling="exit 1") == ["installing", "done", "0"]
    with (tmp_path / "scripts" / "pycuda.sh").open("a") as script:
        script.write("# another version\n")
    assert here.prepare()[0] == BUILDING


def test_a_failing_compiler_is_shown_and_nothing_is_stamped(tmp_path: Path) -> None:
    """The headers were installed and the pretend driver was built before."""
    here = machine(tmp_path, *COMPILERS)
    said = here.prepare(compiling="echo 'error: cuda.h' >&2; exit 1")
    # The log goes to stderr, which stands last here.
    said, log = said[:4], said[4:]
    assert said == [BUILDING, "installing", FAILED, "done"]
    assert log[0].startswith("pip install --no-deps --target ")
    assert log[0].endswith(" nvidia-cuda-runtime==13.0.96 nvidia-cuda-profiler-api==13.0.85")
    assert log[1:] == ["compiling", "error: cuda.h", "0"]
    assert not here.stamp.exists()


def test_a_failing_installation_ends_the_build(tmp_path: Path) -> None:
    """It is the installation's error that ends the run; no compiler goes on without it."""
    here = machine(tmp_path, *COMPILERS)
    compiling = f"echo $$ >{tmp_path}/pid; sleep 60"
    installing = f"until [[ -s {tmp_path}/pid ]]; do sleep 0.05; done; echo no space; exit 3"
    assert here.prepare(compiling=compiling, installing=installing)[1:] == [
        "installing",
        "no space",
        "3",
    ]
    compiler = Path("/proc", (tmp_path / "pid").read_text().strip())
    # Whoever inherits it removes it a moment after its end.
    patience = time.monotonic() + 30
    while compiler.exists() and time.monotonic() < patience:
        time.sleep(0.05)
    assert not compiler.exists()
