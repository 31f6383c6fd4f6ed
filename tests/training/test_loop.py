"""The training core: recipes of the papers, random shifts, and a state that leaves nothing out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeres.core.contract import preset
from edgeres.errors import CheckpointError, ConfigError
from edgeres.networks import find_spec
from training.loop import (
    RECIPES,
    Labelled,
    Recipe,
    Settings,
    Training,
    augmented,
    correct,
    identity,
    make_deterministic,
    resume,
    train,
)

SMALL = replace(find_spec("resnet20"), layers=(1, 1, 1), base_width=4, name="small", num_classes=3)
RECIPE = replace(RECIPES["digits"], batch_size=4)
SETTINGS = Settings(recipe=RECIPE, contract=preset("cifar"), epochs=3)


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """Leaves threads and determinism to the other tests as they were."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def images(count: int = 14, size: int = 32) -> Labelled:
    """Returns random images of three classes."""
    generator = np.random.default_rng(0)
    return Labelled(
        pixels=generator.integers(0, 256, (count, size, size, 3), np.uint8),
        labels=np.arange(count, dtype=np.int64) % 3,
        classes=3,
        origin="noise",
    )


def silent(training: Training, step: int) -> None:
    """Reports nothing."""


def weights(training: Training) -> list[Tensor]:
    """Returns copies of all tensors of the network."""
    return [value.clone() for value in training.model.state_dict().values()]


def rates(settings: Settings, images_per_epoch: int) -> list[float]:
    """Returns the learning rate of every step, without any training."""
    training = Training(SMALL, images(images_per_epoch), settings)
    found = []
    for _ in range(training.steps * settings.epochs):
        found.append(training.optimiser.param_groups[0]["lr"])
        training.optimiser.step()
        training.schedule.step()
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("he", [0.1] * 10 + [0.01] * 5 + [0.001] * 5),
        ("wrn", [0.1] * 6 + [0.02] * 6 + [0.004] * 4 + [0.0008] * 4),
    ],
)
def test_the_rate_falls_where_the_papers_say(name: str, expected: list[float]) -> None:
    """He et al.: a tenth after a half and three quarters; WRN: a fifth after 30, 60 and 80 %."""
    settings = replace(SETTINGS, recipe=replace(RECIPES[name], batch_size=4), epochs=20)
    assert rates(settings, 4) == pytest.approx(expected)


def test_warm_up_takes_a_tenth_of_the_rate() -> None:
    """As He et al. did for ResNet-110, by steps."""
    settings = replace(SETTINGS, recipe=replace(RECIPES["he"], batch_size=4), warmup_steps=3)
    assert rates(replace(settings, epochs=8), 4) == pytest.approx(
        [0.01] * 3 + [0.1] + [0.01] * 2 + [0.001] * 2
    )


def test_the_recipes_are_the_papers() -> None:
    """He et al. 2016a, section 4.2; Zagoruyko and Komodakis 2016, section 3."""
    he, wrn = RECIPES["he"], RECIPES["wrn"]
    assert (he.batch_size, he.peak_rate, he.weight_decay, he.momentum) == (128, 0.1, 1e-4, 0.9)
    assert (wrn.batch_size, wrn.peak_rate, wrn.weight_decay, wrn.momentum) == (128, 0.1, 5e-4, 0.9)
    assert (he.nesterov, wrn.nesterov, he.padding, wrn.padding) == (
        False,
        True,
        "constant",
        "reflect",
    )
    assert round(64_000 / (50_000 // he.batch_size)) == he.epochs == 164


def moved(image: NDArray[np.uint8], corner: list[int], recipe: Recipe) -> NDArray[np.uint8]:
    """Returns one image padded and cut out at a corner, one pixel at a time."""
    reach, size = recipe.shift, len(image)
    result = np.zeros_like(image)
    for row in range(size):
        for column in range(size):
            source = row + corner[0] - reach, column + corner[1] - reach
            if recipe.padding == "reflect":
                source = (_reflected(source[0], size), _reflected(source[1], size))
            if all(0 <= at < size for at in source):
                result[row, column] = image[source]
    return result


def _reflected(at: int, size: int) -> int:
    return size - 1 - abs(size - 1 - abs(at))


@pytest.mark.parametrize("name", RECIPES)
def test_images_are_moved_as_the_generator_says(name: str) -> None:
    """Pixel by pixel; the mirror image is that of what was cut out."""
    pixels, recipe = images(6, size=9).pixels, RECIPES[name]
    torch.manual_seed(5)
    found = augmented(pixels, recipe)
    torch.manual_seed(5)
    corners = torch.randint(0, 2 * recipe.shift + 1, (6, 2)).tolist()
    turned = (torch.rand(6) < 0.5).tolist() if recipe.mirrored else [False] * 6
    for image, corner, mirror, result in zip(pixels, corners, turned, found, strict=True):
        expected = moved(image, corner, recipe)
        np.testing.assert_array_equal(result, expected[:, ::-1] if mirror else expected)
    assert any(turned) == recipe.mirrored


def test_an_epoch_takes_every_image_once_but_for_an_incomplete_batch() -> None:
    """14 images in batches of 4: three steps, 12 different images."""
    seen: list[int] = []

    class Watched(Training):
        def _step(self, rows: NDArray[np.int64]) -> float:
            seen.extend(rows.tolist())
            return super()._step(rows)

    assert list(Watched(SMALL, images(14), SETTINGS).run_epoch()) == [1, 2, 3]
    assert len(seen) == len(set(seen)) == 12


def test_a_seed_gives_its_bits_and_another_others() -> None:
    """Weights, order and shifts all come from it."""
    make_deterministic(1)
    results = []
    for seed in (1, 1, 2):
        training = Training(SMALL, images(), replace(SETTINGS, seed=seed))
        train(training, None, silent)
        results.append(weights(training))
    assert all(map(torch.equal, results[0], results[1]))
    assert not all(map(torch.equal, results[0], results[2]))


def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    """After each possible number of epochs, with the generator elsewhere in between."""
    make_deterministic(1)
    state = tmp_path / "state"
    whole = Training(SMALL, images(), SETTINGS)
    kept: list[bytes] = []

    def keep(training: Training, step: int) -> None:
        if step == 0:
            kept.append(state.read_bytes())

    train(whole, state, keep)
    for done in (1, 2):
        state.write_bytes(kept[done - 1])
        torch.manual_seed(99)
        again = Training(SMALL, images(), SETTINGS)
        resume(again, state)
        assert len(again.losses) == done
        train(again, None, silent)
        assert again.losses == whole.losses
        assert all(map(torch.equal, weights(again), weights(whole)))


@pytest.mark.parametrize("part", ["optimiser", "schedule", "random"])
def test_a_state_without_a_part_ends_in_other_bits(part: str, tmp_path: Path) -> None:
    """The comparison above would see it: each part of the state is needed."""
    make_deterministic(1)
    state = tmp_path / "state"
    whole = Training(SMALL, images(), SETTINGS)
    fresh = Training(SMALL, images(), SETTINGS).state()[part]
    for _ in whole.run_epoch():
        pass
    torch.save({"of": identity(whole), **whole.state(), part: fresh}, state)
    train(whole, None, silent)
    again = Training(SMALL, images(), SETTINGS)
    resume(again, state)
    train(again, None, silent)
    assert not all(map(torch.equal, weights(again), weights(whole)))


@pytest.mark.parametrize(
    "other",
    [
        replace(SETTINGS, seed=1),
        replace(SETTINGS, epochs=4),
        replace(SETTINGS, recipe=replace(RECIPE, shift=3)),
        replace(SETTINGS, contract=preset("digits")),
    ],
    ids=["seed", "epochs", "recipe", "contract"],
)
def test_the_state_of_another_training_is_refused(other: Settings, tmp_path: Path) -> None:
    """It would end in bits that no uninterrupted command gives."""
    state = tmp_path / "state"
    training = Training(SMALL, images(), SETTINGS)
    torch.save({"of": identity(training), **training.state()}, state)
    with pytest.raises(CheckpointError, match=r"was left by a training with other options, images"):
        resume(Training(SMALL, images(), other), state)
    changed = images()
    changed.pixels[0, 0, 0, 0] ^= 1
    with pytest.raises(CheckpointError, match="other options, images"):
        resume(Training(SMALL, changed, SETTINGS), state)


def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    """Damaged or of another program; without a file nothing is restored."""
    (tmp_path / "state").write_bytes(b"not a state")
    training = Training(SMALL, images(), SETTINGS)
    resume(training, tmp_path / "absent")
    assert training.losses == []
    with pytest.raises(CheckpointError, match="state is damaged, or no state that a training left"):
        resume(training, tmp_path / "state")


def test_too_few_images_for_a_batch_are_refused() -> None:
    """With what to change."""
    with pytest.raises(ConfigError, match="noise has 3 images, fewer than a batch of 4"):
        Training(SMALL, images(3), SETTINGS)


def test_right_answers_are_counted_over_all_parts() -> None:
    """A network that always says class 0 is right for every third image."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3))
    linear = model[1]
    assert isinstance(linear, torch.nn.Linear)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    assert correct(model, images(1201), preset("cifar")) == 401


def test_mixed_precision_trains_and_its_scale_is_part_of_the_state() -> None:
    """The path of a GPU, on the CPU's autocast: FP32 weights that moved, and a scale to go on with."""
    training = Training(SMALL, images(), replace(SETTINGS, amp=True))
    before = weights(training)
    train(training, None, silent)
    after = weights(training)
    assert all(bool(torch.isfinite(value.float()).all()) for value in after)
    assert {value.dtype for value in training.model.parameters()} == {torch.float32}
    assert not all(map(torch.equal, before, after))
    assert training.state()["scaler"]["scale"] > 0
