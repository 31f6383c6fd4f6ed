"""Trains the demo's network, a ResNet-20, on the embedded handwritten digits.

    python -m pip install -e '.[export]'
    python scripts/train_digits.py

Trains on the first 1,000 images of calibration/digits.npz, tests on the last 797, prints its
table and writes calibration/digits_resnet20.safetensors in FP16. The same seed, torch and
processor give the same weights bit for bit.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeres.contract import preset
from edgeres.data import Dataset, embedded_digits, normalise, prepare
from edgeres.files import whole_file
from edgeres.models import find_spec
from edgeres.models.checkpoint import load_checkpoint, model_from_checkpoint
from edgeres.models.resnet import build_model

ARCHITECTURE = "resnet20"
PRESET = "digits"
BATCH_SIZE = 50
PEAK_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
LARGEST_SHIFT = 4
"""Pixels of the 32-pixel input, which are one pixel of the 8-pixel original."""

_BACKGROUND = -1.0
"""Value of black in the preset's range [-1, 1]."""
_OUTPUT = Path(__file__).resolve().parents[1] / "calibration" / "digits_resnet20.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Prepared images, (N, 3, 32, 32) float32, and their labels, (N,) int64."""

    images: Tensor
    labels: Tensor


def digits_from_dataset(dataset: Dataset) -> Digits:
    """Returns the images as the preset prepares them."""
    contract = preset(PRESET)
    pixels = [prepare(dataset.image(i), contract) for i in range(len(dataset))]
    return Digits(
        images=torch.from_numpy(normalise(np.stack(pixels), contract)),
        labels=torch.from_numpy(np.asarray(dataset.labels, np.int64)),
    )


def shifted(images: Tensor) -> Tensor:
    """Returns the images, each moved by up to `LARGEST_SHIFT` pixels both ways."""
    size, reach = images.shape[-1], LARGEST_SHIFT
    padded = functional.pad(images, (reach,) * 4, value=_BACKGROUND)
    corners = torch.randint(0, 2 * reach + 1, (len(images), 2)).tolist()
    moved = [x[:, t : t + size, s : s + size] for x, (t, s) in zip(padded, corners, strict=True)]
    return torch.stack(moved)


def train(digits: Digits, epochs: int) -> nn.Module:
    """Returns the network after SGD with momentum on a one-cycle schedule."""
    model = build_model(find_spec(ARCHITECTURE))
    optimiser = torch.optim.SGD(
        model.parameters(), PEAK_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    steps = epochs * (len(digits.labels) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps)
    for epoch in range(epochs):
        started = time.perf_counter()
        loss = train_epoch(model, digits, optimiser, schedule)
        print(f"{epoch + 1:>5}  {loss:>8.4f}  {time.perf_counter() - started:>6.1f}", flush=True)
    return model.eval()


def train_epoch(
    model: nn.Module,
    digits: Digits,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """Takes every image once and returns the mean loss."""
    losses = []
    for rows in torch.randperm(len(digits.labels)).reshape(-1, BATCH_SIZE):
        loss = functional.cross_entropy(model(shifted(digits.images[rows])), digits.labels[rows])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def correct(model: nn.Module, digits: Digits) -> int:
    """Returns how many images get their label."""
    with torch.inference_mode():
        guesses: Tensor = model(digits.images).argmax(1)
    return int((guesses == digits.labels).sum())


def save_weights(path: Path, model: nn.Module, facts: dict[str, object]) -> None:
    """Writes the weights in FP16, with `facts` on their origin in the file's metadata."""
    weights = {k: v.half() for k, v in model.state_dict().items() if v.is_floating_point()}
    # One key: safetensors writes several in an order that changes from run to run.
    metadata = {"edgeres": json.dumps(facts)}
    with whole_file(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(weights, metadata))


def main() -> None:
    """Trains, writes the file and tests what the file holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, default=_OUTPUT, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=20, help="default: %(default)s")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    # Sums over threads are rounded in an order that depends on how many there are.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    training, testing = (digits_from_dataset(part) for part in embedded_digits())
    print("epoch      loss  seconds")
    model = train(training, options.epochs)
    facts = {
        "architecture": ARCHITECTURE,
        "preset": PRESET,
        "trained_on": "the first 1000 images of calibration/digits.npz (UCI handwritten digits, CC BY 4.0)",
        "seed": options.seed,
        "epochs": options.epochs,
        "torch": torch.__version__,
    }
    save_weights(options.output, model, facts)
    stored = model_from_checkpoint(find_spec(ARCHITECTURE), load_checkpoint(options.output))
    print("\nimages      FP32  as stored (FP16)")
    for name, part in (("training", training), ("test", testing)):
        counts = [f"{correct(m, part)}/{len(part.labels)}" for m in (model, stored)]
        print(f"{name:<9} {counts[0]:>9}  {counts[1]:>9}")
    print(f"\n{options.output}: {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
