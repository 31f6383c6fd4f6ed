"""The program of `deploy --to python`: what it computes is what edgeres computes, without edgeres."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import passed
from digits import Digits
from numpy.typing import NDArray
from PIL import Image, ImageOps

import edgeres
from edgeres.core.contract import Color, Contract, Crop, InputType
from edgeres.core.deployment import DeployRequest, Destination
from edgeres.core.resize import NO_RESIZE, Interpolation, ResizeLibrary, letterbox, shortest, squash
from edgeres.deploy import deploy
from edgeres.deploy.python_program import prepare_code, python_files
from edgeres.errors import ConfigError
from edgeres.images import normalise, prepare
from edgeres.targets.loading import load_any_engine

SIZES = ((40, 31), (31, 40), (64, 20), (24, 24))
RESIZES = [
    NO_RESIZE,
    *(
        make(interpolation=interpolation, library=library)
        for make, interpolation, library in product(
            (
                lambda **how: shortest(20, **how),
                lambda **how: squash(16, 18, **how),
                lambda **how: letterbox(16, 18, pad=114, **how),
            ),
            (Interpolation.BILINEAR, Interpolation.BICUBIC),
            ResizeLibrary,
        )
    ),
]


def contracts() -> list[Contract]:
    """Returns a contract for every resize, each with other colours."""
    colors = [(Color.RGB, 3), (Color.BGR, 3), (Color.GRAY, 1), (Color.GRAY, 3)]
    made = []
    for index, resize in enumerate(RESIZES):
        color, channels = colors[index % len(colors)]
        whole = resize.height is not None
        made.append(
            Contract(
                height=16,
                width=18,
                channels=channels,
                color=color,
                resize=resize,
                crop=Crop.NONE if whole else Crop.CENTER,
                scale=1 / 255 if index % 2 else 1.0,
                mean=(0.485, 0.456, 0.406)[:channels],
                std=(0.229, 0.224, 0.225)[:channels],
            )
        )
    return made


def written_out(contract: Contract, pixels: NDArray[np.uint8]) -> Any:
    """Returns what the program's own lines make of an image."""
    names: dict[str, Any] = {
        "np": np,
        "Image": Image,
        "ImageOps": ImageOps,
        "sys": sys,
        "HEIGHT": contract.height,
        "WIDTH": contract.width,
        "SCALE": contract.scale,
        "MEAN": contract.mean,
        "STD": contract.std,
    }
    if contract.resize.library is ResizeLibrary.OPENCV:
        names["cv2"] = pytest.importorskip("cv2", reason="OpenCV is not installed")
    lines = prepare_code(contract).replace("\n", "\n    ")
    exec(f"def prepare(pixels):\n    {lines}", names)
    return names["prepare"](pixels)


@pytest.mark.parametrize("contract", contracts(), ids=str)
def test_the_contract_written_out_is_the_contract(contract: Contract) -> None:
    """Bit for bit, for every resize, filter, library and order of channels."""
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        expected = normalise(prepare(pixels, contract)[None], contract)
        assert np.array_equal(written_out(contract, pixels), expected)


def run_program(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Returns what the program answers in a process of its own."""
    return subprocess.run(
        [sys.executable, "-I", str(folder / "classify.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=folder.parent,
    )


@pytest.fixture(scope="module")
def folder(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' INT8 engine as a program."""
    path = tmp_path_factory.mktemp("deployed") / "classify"
    passed("deploy", digits.engine, "--to", "python", "-o", path)
    return path


def test_it_runs_without_edgeres(folder: Path) -> None:
    """With its own requirements alone, and finds the golden image's five."""
    assert (folder / "requirements.txt").read_text().split() == [
        "numpy",
        "Pillow",
        "onnxruntime>=1.20",
    ]
    assert "edgeres" not in (folder / "classify.py").read_text().split('"""', 2)[2]
    checked = run_program(folder, "--check")
    assert (checked.returncode, checked.stdout.endswith("as expected\n")) == (0, True)


def test_another_result_than_the_golden_one_is_seen(folder: Path, tmp_path: Path) -> None:
    """The check fails where the golden pair is not met."""
    import shutil

    other = shutil.copytree(folder, tmp_path / "other")
    golden = json.loads((other / "golden.json").read_text())
    golden["top"].reverse()
    (other / "golden.json").write_text(json.dumps(golden))
    assert run_program(other, "--check").returncode == 1


def test_its_predictions_are_those_of_edgeres(folder: Path, digits: Digits, tmp_path: Path) -> None:
    """Indices and probabilities of images of several modes."""
    images = np.load(digits.test)["images"][:6]
    paths = []
    for index, mode in enumerate(["RGB", "L", "P", "RGBA", "CMYK", "RGB"]):
        suffix = "jpg" if mode == "CMYK" else "png"
        paths.append(tmp_path / f"{index}.{suffix}")
        Image.fromarray(images[index]).convert(mode).save(paths[-1])
    answer = run_program(folder, *map(str, paths))
    assert answer.returncode == 0, answer.stderr
    rows = [line.split() for line in answer.stdout.splitlines() if line.startswith(" ")]
    with edgeres.load(digits.engine) as model:
        expected = [one for top in model.predict(paths) for one in top]
    assert [int(row[0]) for row in rows] == [one.index for one in expected]
    assert [float(row[1]) for row in rows] == pytest.approx(
        [one.probability for one in expected], abs=6e-5
    )


def test_what_edgeres_refuses_it_refuses(folder: Path, tmp_path: Path) -> None:
    """Transparent pixels and more than 8 bits a channel."""
    Image.new("RGBA", (40, 40), (1, 2, 3, 4)).save(tmp_path / "a.png")
    Image.fromarray(np.full((40, 40), 40000, np.uint16)).save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert run_program(folder, str(tmp_path / name)).returncode == 1


def test_class_names_are_in_it(digits: Digits) -> None:
    """One a line; a name that would be two is refused."""
    engine = load_any_engine(digits.engine)
    names = tuple(f"class {index}" for index in range(10))
    named = replace(engine, manifest=replace(engine.manifest, classes=names))
    files = python_files(named, None, gives_probabilities=False)
    assert files["labels.txt"].decode().splitlines() == list(names)
    broken = replace(engine, manifest=replace(engine.manifest, classes=("a\nb", *names[1:])))
    with pytest.raises(ConfigError, match="The name of class 0 has a line break"):
        python_files(broken, None, gives_probabilities=False)


def test_bytes_are_fed_as_they_are_and_a_plan_of_them_is_refused(digits: Digits) -> None:
    """A network of bytes normalizes them itself; a plan's format is not the program's to know."""
    engine = load_any_engine(digits.engine)
    contract = replace(engine.manifest.contract, input=InputType.UINT8)
    image = replace(engine.manifest.input, shape=(None, *contract.fed_shape), dtype="uint8")
    manifest = replace(engine.manifest, contract=contract, input=image)
    files = python_files(replace(engine, manifest=manifest), None, gives_probabilities=False)
    program = files["classify.py"].decode()
    compile(program, "classify.py", "exec")
    assert "np.ascontiguousarray(pixels.reshape(32, 32, 3)[None])" in program
    assert "STD\n    return" not in program
    plan = replace(engine, manifest=replace(manifest, target="tensorrt"))
    with pytest.raises(ConfigError, match=r"Feed it with edgeres\.load, or export"):
        python_files(plan, None, gives_probabilities=False)


def test_a_plan_s_program_compiles(digits: Digits) -> None:
    """It names TensorRT and pycuda, in the version that built the plan; no GPU is here to run it."""
    engine = load_any_engine(digits.engine)
    manifest = replace(engine.manifest, target="tensorrt", versions={"tensorrt": "10.3.0"})
    plan = replace(engine, manifest=manifest, path=Path("net.plan"))
    files, golden = deploy(plan, DeployRequest(destination=Destination.PYTHON))
    compile(files["classify.py"], "classify.py", "exec")
    assert files["requirements.txt"].decode().split() == [
        "numpy",
        "Pillow",
        "tensorrt==10.3.0",
        "pycuda",
    ]
    assert isinstance(golden, str)
    assert golden.startswith("There is no golden pair: this machine cannot run the engine")
