"""The set-up script of a board, run with pretend commands that keep a board's state in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from boards import AGX_ORIN, NANO, ORIN_NANO
from machine_files import lay_out

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "jetson_setup.sh"

PYTHON = r"""#!/usr/bin/env bash
echo "python $*" >>"$STATE/log"
case "$*" in
  *ensurepip*) [[ -e $STATE/python ]] ;;
  *find_spec*)
    echo "$PWD" >>"$STATE/looked-from"
    name=${2#*find_spec(\'} && [[ -e $STATE/${name%%\'*} ]] ;;
  *'m.version("numpy")'*) [[ $(<"$STATE/numpy") == 1.* ]] ;;
  "-m pip --version") ;;
  "-m venv "*) mkdir -p "$5/bin" && cp "$0" "$5/bin/python" && touch "$5/pyvenv.cfg" ;;
  *"pip install"*" pycuda") echo "$CUDA_ROOT ${PATH%%:*}" >"$STATE/pycuda" ;;
  *"pip install"*" numpy<2") echo 1.26.4 >"$STATE/numpy" ;;
  *"pip install"*)
    touch "$STATE/edgeres"
    grep -q '<2' "$7" && echo 1.26.4 >"$STATE/numpy" || echo 2.2.6 >"$STATE/numpy" ;;
  *) exit 99 ;;
esac
"""

APT = """#!/usr/bin/env bash
echo "apt-get $*" >>"$STATE/log"
case "$3" in
  python3-venv) touch "$STATE/python" ;;
  python3-libnvinfer) [[ ! -e $STATE/no-network ]] && touch "$STATE/tensorrt" ;;
  nvidia-jetpack) mkdir -p "$CUDA_HOME/bin" && cp "$0" "$CUDA_HOME/bin/nvcc" ;;
  build-essential) cp "$0" "${0%/*}/g++" ;;
esac
"""

SUDO = '#!/usr/bin/env bash\nexec "$@"\n'


@dataclass(frozen=True, slots=True)
class Pretend:
    """A board's commands and state below one folder."""

    root: Path

    def run(self, *options: str, venv: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the script on it."""
        return subprocess.run(
            ["bash", str(SCRIPT), *options],
            env={
                "PATH": f"{self.root / 'bin'}:{self.root / 'tools'}",
                "STATE": str(self.root / "state"),
                "CUDA_HOME": str(self.root / "cuda"),
                "EDGERES_VENV": str(venv or self.venv),
                "EDGERES_BOARD_ROOT": str(self.root / "board"),
            },
            capture_output=True,
            text=True,
            timeout=60,
            cwd=SCRIPT.parents[1],
        )

    @property
    def venv(self) -> Path:
        """The environment that the script makes."""
        return self.root / "venv"

    def written(self, name: str) -> str:
        """Returns what is in a file of the state."""
        return (self.root / "state" / name).read_text().strip()

    def log(self) -> list[str]:
        """Returns every command that changes something, in order."""
        changes = ("apt-get", "python -m venv", "python -m pip install")
        return [line for line in self.written("log").splitlines() if line.startswith(changes)]


@pytest.fixture
def pretend(tmp_path: Path) -> Pretend:
    """A board as it comes with JetPack 6: a Python, and nothing else."""
    commands = {"bin/python3": PYTHON, "bin/apt-get": APT, "bin/sudo": SUDO}
    lay_out(
        tmp_path,
        {**commands, "state/log": "", "board/etc/nv_tegra_release": ORIN_NANO.release + "\n"},
    )
    for name in commands:
        (tmp_path / name).chmod(0o755)
    (tmp_path / "tools").mkdir()
    for tool in ("bash", "sed", "head", "dirname", "mkdir", "touch", "cp", "rmdir", "grep", "env"):
        (tmp_path / "tools" / tool).symlink_to(shutil.which(tool) or tool)
    return Pretend(tmp_path)


def test_a_board_from_nothing(pretend: Pretend) -> None:
    """Each step is done once, in order; numpy is kept below 2, and pycuda gets the toolkit."""
    done = pretend.run()
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f"Ready: {pretend.venv}/bin/edgeres doctor"
    constraint = f"--constraint {pretend.venv}/constraints.txt"
    pip = f"python -m pip install --quiet --disable-pip-version-check {constraint}"
    assert pretend.log() == [
        "apt-get install -y python3-venv python3-dev",
        "apt-get install -y python3-libnvinfer",
        "apt-get install -y nvidia-jetpack",
        "apt-get install -y build-essential",
        f"python -m venv --clear --system-site-packages {pretend.venv}",
        f"{pip} {SCRIPT.parents[1]}",
        f"{pip} pycuda",
    ]
    cuda = pretend.root / "cuda"
    assert pretend.written("pycuda") == f"{cuda} {cuda}/bin"
    assert pretend.written("numpy") == "1.26.4"
    assert set(pretend.written("looked-from").splitlines()) == {"/"}
    assert (pretend.venv / "constraints.txt").read_text() == "numpy<2\n"


def test_a_second_run_changes_nothing(pretend: Pretend) -> None:
    """Every step is done already."""
    pretend.run()
    before = pretend.log()
    second = pretend.run()
    assert second.returncode == 0
    assert pretend.log() == before
    assert second.stderr.count("\nok  ") + second.stderr.startswith("ok  ") == 8
    assert "doing" not in second.stderr


def test_a_check_changes_nothing(pretend: Pretend) -> None:
    """`--check` lists each missing step with its command, and exits with 1."""
    checked = pretend.run("--check")
    assert checked.returncode == 1
    assert checked.stdout == ""
    assert pretend.log() == []
    assert not pretend.venv.exists()
    assert "missing  TensorRT's Python module: sudo apt-get install -y python3-libnvinfer" in (
        checked.stderr.splitlines()
    )
    assert f"python3 -m venv --system-site-packages {pretend.venv}" in checked.stderr
    assert f"CUDA_ROOT={pretend.root / 'cuda'} pip install pycuda" in checked.stderr
    assert checked.stderr.splitlines()[-1].startswith("8 of the steps are missing.")


def test_a_check_of_a_ready_board(pretend: Pretend) -> None:
    """It exits with 0."""
    pretend.run()
    assert pretend.run("--check").returncode == 0


def test_numpy_is_free_on_jetpack_7(pretend: Pretend) -> None:
    """Its TensorRT was made for NumPy 2."""
    lay_out(pretend.root, {"board/etc/nv_tegra_release": AGX_ORIN.release})
    assert pretend.run().returncode == 0
    assert pretend.written("numpy") == "2.2.6"
    assert (pretend.venv / "constraints.txt").read_text() == "numpy\n"


def test_numpy_that_is_too_new_is_replaced(pretend: Pretend) -> None:
    """As where somebody upgraded it in the environment."""
    pretend.run()
    (pretend.root / "state/numpy").write_text("2.2.6")
    assert (
        "missing  numpy that TensorRT's module was made for (<2)" in pretend.run("--check").stderr
    )
    assert pretend.run().returncode == 0
    assert pretend.written("numpy") == "1.26.4"


def test_a_step_that_fails_ends_the_run(pretend: Pretend) -> None:
    """With what failed and the command; what was done stays."""
    (pretend.root / "state/no-network").touch()
    failed = pretend.run()
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        "Error: TensorRT's Python module: sudo apt-get install -y python3-libnvinfer failed. The "
        "reason is in its output above; run this script again afterwards."
    )
    (pretend.root / "state/no-network").unlink()
    assert pretend.run().returncode == 0


def test_a_step_without_effect_ends_the_run(pretend: Pretend) -> None:
    """A command that succeeds and leaves the thing missing is not believed."""
    (pretend.root / "bin/apt-get").write_text("#!/usr/bin/env bash\nexit 0\n")
    failed = pretend.run()
    assert failed.returncode == 1
    assert "is still missing after: sudo apt-get install -y python3-venv" in failed.stderr


@pytest.mark.parametrize(
    ("release", "message"),
    [
        (None, "this is no Jetson with Jetson Linux. On a desktop: pip install '.[tensorrt]' in "),
        (NANO.release, "Jetson Linux 32 has Python 3.8 or older, and edgeres needs 3.10."),
        ("Ubuntu", "names no release: Ubuntu"),
    ],
)
def test_a_machine_that_cannot_be_set_up(
    pretend: Pretend, release: str | None, message: str
) -> None:
    """A desktop, an old board, a file of another kind: each is refused before anything is done."""
    file = pretend.root / "board/etc/nv_tegra_release"
    file.unlink()
    if release is not None:
        file.write_text(release)
    refused = pretend.run()
    assert refused.returncode == 1
    assert message in refused.stderr
    assert pretend.log() == []


def test_a_folder_of_somebody_else_is_left_alone(pretend: Pretend) -> None:
    """An environment that this script did not make is neither used nor cleared."""
    other = pretend.root / "mine"
    lay_out(other, {"pyvenv.cfg": "", "lib/precious": ""})
    refused = pretend.run(venv=other)
    assert refused.returncode == 1
    assert f"{other} was not made by this script. Remove it, or set EDGERES_VENV" in refused.stderr
    assert (other / "lib/precious").exists()


def test_an_unknown_option(pretend: Pretend) -> None:
    """It is refused with those that there are."""
    refused = pretend.run("--force")
    assert refused.returncode == 1
    assert "unknown option --force: scripts/jetson_setup.sh [--check | --help]" in refused.stderr


def test_shellcheck_finds_nothing() -> None:
    """Where it is installed."""
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    result = subprocess.run(
        ["shellcheck", str(SCRIPT)], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert result.stdout == ""
