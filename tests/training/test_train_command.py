"""`python -m training.train` as it is run: killed and repeated, on an `.npz` and on a folder, and refused."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from edgeres.core.contract import preset
from edgeres.errors import ConfigError
from edgeres.images import embedded_path
from edgeres.networks import find_spec
from training.loop import RECIPES, Labelled, Settings, Training, train
from training.train import facts_from, main, parsed, progress, settings_from

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 120


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """Leaves threads and determinism to the other tests as they were."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def pixels(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Returns random images of 8 x 8."""
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)


def write_images(path: Path, count: int) -> None:
    """Writes random images of three classes."""
    np.savez(path, images=pixels(count), labels=np.arange(count) % 3)


def command(folder: Path, output: str) -> list[str]:
    """Returns the words of a short training."""
    line = (
        f"training.train resnet20 --data {folder / 'a.npz'} --recipe digits --batch-size 10 "
        f"--epochs 3 -o {folder / output}"
    )
    return line.split()


def killed_after_an_epoch(words: list[str], state: Path) -> int:
    """Starts a command, kills it as soon as it has left a state, and returns its exit code."""
    line = [sys.executable, "-m", *words]
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + DEADLINE_S
        while not state.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        return process.wait()


def test_a_killed_training_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL leaves a whole state and no network; the same command ends as one never killed."""
    write_images(tmp_path / "a.npz", 20)
    words, whole = (command(tmp_path, f"{name}.safetensors") for name in ("killed", "whole"))
    killed, state = tmp_path / "killed.safetensors", tmp_path / "killed.safetensors.state"
    assert killed_after_an_epoch(words, state) == -signal.SIGKILL
    assert state.exists()
    assert not killed.exists()
    for line in (words, whole):
        monkeypatch.setattr(sys, "argv", line)
        main()
    epochs = re.findall(r"^epoch (\d)/3", capsys.readouterr().err, re.MULTILINE)
    assert epochs[-3:] == ["1", "2", "3"]
    assert 1 <= len(epochs[:-3]) <= 2
    assert killed.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not state.exists()


def test_a_folder_of_classes_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result on stdout, progress on stderr, the origin in the file."""
    for number, image in enumerate(pixels(12)):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    output = tmp_path / "w.safetensors"
    line = f"train plain20 --data {tmp_path / 'data'} --test {tmp_path / 'data'} --recipe he"
    line += f" --preset digits --batch-size 4 --epochs 1 --seed 3 -o {output}"
    monkeypatch.setattr(sys, "argv", line.split())
    main()
    told = capsys.readouterr()
    assert re.search(r"^training +\d+/12 +\d+/12$", told.out, re.MULTILINE)
    assert re.search(r"^test +\d+/12 +\d+/12$", told.out, re.MULTILINE)
    assert re.search(r"epoch 1/1  loss \d\.\d+  rate 0\.00100  left 0:00:00", told.err)
    with safe_open(output, "pt") as file:
        facts = json.loads(file.metadata()["edgeres"])
        assert file.get_tensor("fc.weight").shape == (2, 64)
    assert facts == {
        "architecture": "plain20",
        "preset": "digits",
        "trained_on": "data",
        "seed": 3,
        "epochs": 1,
        "torch": torch.__version__,
        "recipe": "he",
    }


def test_the_embedded_network_has_its_command() -> None:
    """That of calibration/README.md asks for what the checkpoint says of itself."""
    text = (ROOT / "calibration" / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"python -m training\.train ((?:.*\\\n)*.*)\n", text)
    options = parsed(line.replace("\\\n", " ").split())
    assert options.output == Path("calibration/digits_resnet20.safetensors")
    assert options.store == "fp16"
    with safe_open(embedded_path("digits_resnet20.safetensors"), "pt") as file:
        facts = json.loads(file.metadata()["edgeres"])
    origin = "the first 1000 images of calibration/digits.npz (UCI handwritten digits, CC BY 4.0)"
    data = Labelled(pixels=pixels(1), labels=np.zeros(1, np.int64), classes=10, origin=origin)
    asked = facts_from(options, settings_from(options), data)
    assert {**asked, "torch": facts["torch"]} == facts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--amp", "--amp needs --device cuda"),
        ("--epochs 0", "--epochs, --batch-size and --threads must be at least 1"),
        ("--preset cfar", "No preset 'cfar'. Did you mean 'cifar'?"),
    ],
)
def test_options_that_cannot_be_are_refused(words: str, said: str) -> None:
    """Before any work."""
    with pytest.raises(ConfigError) as refused:
        settings_from(parsed(f"resnet20 --data a.npz -o b {words}".split()))
    assert said in str(refused.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    """Nothing is trained elsewhere instead."""
    with pytest.raises(ConfigError, match="--device cuda: torch finds no GPU"):
        settings_from(
            parsed(["resnet20", "--data", "a.npz", "-o", "b", "--device", "cuda", "--amp"])
        )


def test_an_error_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit code 1 and no traceback."""
    monkeypatch.setattr(
        sys, "argv", ["train", "resnet21", "--data", "digits", "-o", f"{tmp_path}/a"]
    )
    with pytest.raises(SystemExit, match=r"Error: No architecture 'resnet21'\. Did you mean"):
        main()


def test_the_time_left_is_that_of_the_steps_left(capsys: pytest.CaptureFixture[str]) -> None:
    """A line an epoch, counted from the epoch that this process began with."""
    data = Labelled(
        pixels=np.zeros((4, 32, 32, 3), np.uint8), labels=np.arange(4), classes=4, origin=""
    )
    recipe = replace(RECIPES["he"], batch_size=2)
    settings = Settings(recipe=recipe, contract=preset("cifar"), epochs=3)
    train(Training(find_spec("resnet20"), data, settings), None, progress())
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == [
        "epoch 1/3",
        "epoch 2/3",
        "epoch 3/3",
    ]
    assert lines[-1].rstrip().endswith("left 0:00:00")
