"""What the wheel carries: the package, the embedded data, the licence and the command."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from edgeres import __version__

ROOT = Path(__file__).resolve().parents[1]
METADATA = f"edgeres-{__version__}.dist-info"
NEEDED = frozenset(
    {
        "edgeres/version.py",
        "edgeres/py.typed",
        "edgeres/report/html/report.html.j2",
        "edgeres/report/html/report.css",
        "edgeres/calibration/digits.npz",
        "edgeres/calibration/digits_resnet20.safetensors",
        f"{METADATA}/licenses/LICENSE",
        f"{METADATA}/entry_points.txt",
    }
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout without any index."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, ROOT], check=True
    )
    (built,) = folder.iterdir()
    return built


def wrong_contents(names: frozenset[str]) -> list[str]:
    """Returns a sentence for each file that a wheel lacks, and each that does not belong there."""
    strangers = {n for n in names if n.split("/")[0] not in {"edgeres", METADATA}}
    strangers |= {n for n in names if n.endswith(".pyc")}
    return [f"{name} is missing" for name in sorted(NEEDED - names)] + [
        f"{name} does not belong in a wheel" for name in sorted(strangers)
    ]


def contents(wheel: Path) -> frozenset[str]:
    """Returns the names of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return frozenset(archive.namelist())


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Types, embedded data and licence are in; tests and scripts are not."""
    assert wrong_contents(contents(wheel)) == []


def test_every_module_is_in_the_wheel(wheel: Path) -> None:
    """No package of the checkout is left out."""
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "edgeres").rglob("*.py")}
    assert modules - contents(wheel) == set()


def test_wrong_contents_are_found() -> None:
    """A file left out and one too many are both said."""
    names = (NEEDED - {"edgeres/py.typed"}) | {"tests/test_spec.py", "edgeres/a.pyc"}
    assert wrong_contents(names) == [
        "edgeres/py.typed is missing",
        "edgeres/a.pyc does not belong in a wheel",
        "tests/test_spec.py does not belong in a wheel",
    ]


def test_the_metadata_names_version_licence_and_command(wheel: Path) -> None:
    """The version is the package's own, the licence Apache-2.0, the command `edgeres`."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(f"{METADATA}/METADATA").decode())
        commands = archive.read(f"{METADATA}/entry_points.txt").decode().split("\n")
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert commands[:2] == ["[console_scripts]", "edgeres = edgeres.__main__:run"]


def test_the_embedded_data_is_found_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """An installed package reads its own copy, the very bytes of the checkout."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = "from edgeres.images import embedded_path; print(embedded_path('digits.npz'))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = Path(done.stdout.strip())
    assert found == tmp_path / "edgeres" / "calibration" / "digits.npz"
    assert found.read_bytes() == (ROOT / "calibration" / "digits.npz").read_bytes()
