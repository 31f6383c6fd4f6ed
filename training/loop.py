"""Training of small images, as `train` and `degradation` share it: recipes, steps, state.

The optimiser, schedules and mixed precision are torch's. What a run depends on is in `Settings`
and the data; what a later process needs to go on is in `Training.state`.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgeres.core.contract import Contract
from edgeres.errors import CheckpointError, ConfigError
from edgeres.files import atomic_write
from edgeres.images import Dataset, normalise, prepare
from edgeres.networks.resnet import build_model
from edgeres.networks.specification import ModelSpec

_EVALUATED_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained: SGD with momentum on randomly shifted and mirrored images."""

    preset: str
    """Name of the preprocessing that it is meant for."""
    epochs: int
    batch_size: int = 128
    peak_rate: float = 0.1
    weight_decay: float
    momentum: float = 0.9
    nesterov: bool
    milestones: tuple[float, ...] = ()
    """Shares of all steps after which the rate falls; none: one cycle, up to the peak and down."""
    factor: float = 0.1
    """What the rate is multiplied by at each milestone."""
    shift: int = 4
    """Pixels by which an image is moved at most, both ways."""
    padding: str = "constant"
    """What fills the margin, as numpy.pad calls it; `constant` is black."""
    mirrored: bool = True
    """Whether half of the images are mirrored left to right."""


RECIPES = {
    "he": Recipe(
        preset="cifar", epochs=164, weight_decay=1e-4, nesterov=False, milestones=(0.5, 0.75)
    ),
    "wrn": Recipe(
        preset="cifar",
        epochs=200,
        weight_decay=5e-4,
        nesterov=True,
        milestones=(0.3, 0.6, 0.8),
        factor=0.2,
        padding="reflect",
    ),
    "digits": Recipe(
        preset="digits",
        epochs=20,
        batch_size=50,
        weight_decay=5e-4,
        nesterov=True,
        mirrored=False,
    ),
}
"""Source: He et al. 2016a, section 4.2 (64,000 steps of 128 images, a tenth of the rate after
32,000 and 48,000: 164 epochs of CIFAR-10's 50,000); Zagoruyko and Komodakis 2016, section 3 (200
epochs, a fifth of the rate after 60, 120 and 160). `digits` is of this project."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the trained bits depend on, beside the data."""

    recipe: Recipe
    contract: Contract
    """Preprocessing of the images."""
    epochs: int
    seed: int = 0
    warmup_steps: int = 0
    """First steps at a tenth of the rate. Source: He et al. 2016a, section 4.2, 400 for ResNet-110."""
    device: str = "cpu"
    amp: bool = False
    """Mixed precision: FP16 where torch's autocast has it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """Prepared images, (N, H, W, 3) uint8 RGB, and their labels, (N,) int64."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int
    origin: str


def labelled(dataset: Dataset, contract: Contract, origin: str) -> Labelled:
    """Returns a data set as the contract resizes and crops it."""
    labels = np.asarray(dataset.labels, np.int64)
    return Labelled(
        pixels=np.stack([prepare(dataset.image(i), contract) for i in range(len(dataset))]),
        labels=labels,
        classes=max(len(dataset.classes), int(labels.max()) + 1),
        origin=origin,
    )


def augmented(pixels: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.uint8]:
    """Returns the images, (N, H, W, 3), each moved and perhaps mirrored by torch's generator."""
    count, size, reach = len(pixels), pixels.shape[1], recipe.shift
    margins = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = np.pad(pixels, margins, mode=recipe.padding)  # type: ignore[call-overload]
    corners = torch.randint(0, 2 * reach + 1, (count, 2)).numpy()
    rows, columns = (corners[:, axis, None] + np.arange(size) for axis in (0, 1))
    if recipe.mirrored:
        turned = torch.rand(count).numpy() < 0.5
        columns[turned] = columns[turned, ::-1]
    moved: NDArray[np.uint8] = padded[
        np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    return moved


class Training:
    """A network on its way: what a step changes, and what a later process needs to go on."""

    def __init__(self, spec: ModelSpec, data: Labelled, settings: Settings) -> None:
        """Seeds torch and makes a new network; no step is taken.

        Raises:
            ConfigError: there are fewer images than one batch takes.
        """
        recipe = settings.recipe
        if len(data.labels) < recipe.batch_size:
            raise ConfigError(
                f"{data.origin} has {len(data.labels)} images, fewer than a batch of "
                f"{recipe.batch_size}. Pass a smaller --batch-size, or more images."
            )
        torch.manual_seed(settings.seed)
        self.data, self.settings = data, settings
        self.model = build_model(spec).to(settings.device)
        self.steps = len(data.labels) // recipe.batch_size
        self.optimiser = torch.optim.SGD(
            self.model.parameters(),
            recipe.peak_rate,
            recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )
        self.schedule = _schedule(self.optimiser, settings, self.steps * settings.epochs)
        self.scaler = torch.amp.GradScaler(settings.device, enabled=settings.amp)
        self.losses: list[float] = []
        """Mean training loss of each epoch so far."""

    def run_epoch(self) -> Iterator[int]:
        """Takes every image once, but for those that fill no batch, and yields after each step."""
        recipe = self.settings.recipe
        taken = self.steps * recipe.batch_size
        batches = torch.randperm(len(self.data.labels))[:taken].reshape(-1, recipe.batch_size)
        losses = []
        self.model.train()
        for number, rows in enumerate(batches.numpy(), start=1):
            losses.append(self._step(rows))
            yield number
        self.losses.append(sum(losses) / len(losses))

    def _step(self, rows: NDArray[np.int64]) -> float:
        """Takes one step on the images at these rows and returns their mean loss."""
        device, amp = self.settings.device, self.settings.amp
        pixels = augmented(self.data.pixels[rows], self.settings.recipe)
        images = torch.from_numpy(normalise(pixels, self.settings.contract)).to(device)
        labels = torch.from_numpy(self.data.labels[rows]).to(device)
        with torch.autocast(device, enabled=amp):
            loss = functional.cross_entropy(self.model(images), labels)
        self.optimiser.zero_grad()
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        return loss.item()

    def state(self) -> dict[str, Any]:
        """Returns all that later steps depend on."""
        gpu = self.settings.device == "cuda"
        return {
            "losses": self.losses,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state() if gpu else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to where `state` was taken."""
        self.losses = list(state["losses"])
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if state["random_gpu"] is not None:
            torch.cuda.set_rng_state(state["random_gpu"])


def _schedule(
    optimiser: torch.optim.Optimizer, settings: Settings, total: int
) -> torch.optim.lr_scheduler.LRScheduler:
    recipe = settings.recipe
    if not recipe.milestones:
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.peak_rate, total_steps=total)

    def share_of_peak(step: int) -> float:
        passed = sum(step >= round(share * total) for share in recipe.milestones)
        warming = 0.1 if step < settings.warmup_steps else 1.0
        return float(warming * recipe.factor**passed)

    return torch.optim.lr_scheduler.LambdaLR(optimiser, share_of_peak)


def train(
    training: Training, state_file: Path | None, report: Callable[[Training, int], None]
) -> nn.Module:
    """Returns the network after all epochs that are left, in evaluation mode.

    Args:
        training: begun or restored.
        state_file: where the state is written after each epoch; None: nowhere.
        report: called after each step with its number in the epoch; with 0 once an epoch is complete.
    """
    for _ in range(len(training.losses), training.settings.epochs):
        for step in training.run_epoch():
            report(training, step)
        if state_file is not None:
            with atomic_write(state_file) as temporary:
                torch.save({"of": identity(training), **training.state()}, temporary)
        report(training, 0)
    return training.model.eval()


def identity(training: Training) -> str:
    """Returns a text that is the same for two runs that end in the same bits."""
    data = training.data
    facts = {
        "settings": asdict(training.settings),
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "images": len(data.labels),
        "pixel_sum": int(data.pixels.sum(dtype=np.int64)),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    return json.dumps(facts, sort_keys=True)


def resume(training: Training, state_file: Path) -> None:
    """Restores what an earlier process of the same command left, where it left something.

    Raises:
        CheckpointError: the file is of another training or cannot be read.
    """
    if not state_file.exists():
        return
    try:
        state = torch.load(state_file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{state_file} is damaged, or no state that a training left. Delete it, or pass "
            "another -o."
        ) from error
    if state.pop("of") != identity(training):
        raise CheckpointError(
            f"{state_file} was left by a training with other options, images, threads or torch. "
            "Repeat that command to finish it, delete the file, or pass another -o."
        )
    training.restore(state)


def correct(model: nn.Module, data: Labelled, contract: Contract) -> int:
    """Returns how many images get their label, in FP32 wherever the network is."""
    device = next(model.parameters()).device
    count = 0
    with torch.inference_mode():
        for start in range(0, len(data.labels), _EVALUATED_AT_ONCE):
            part = slice(start, start + _EVALUATED_AT_ONCE)
            logits: Tensor = model(
                torch.from_numpy(normalise(data.pixels[part], contract)).to(device)
            )
            count += int((logits.argmax(1).cpu().numpy() == data.labels[part]).sum())
    return count


def make_deterministic(threads: int) -> None:
    """Makes torch choose kernels that give the same bits every time."""
    # Sums over threads are rounded in an order that depends on how many there are.
    torch.set_num_threads(threads)
    # cuBLAS reads this when it starts; without it torch refuses to be deterministic on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
