"""Draws five kinds of shapes and trains a ResNet-18 on them: a network of one's own to try.

    python -m training.shapes shapes

The folder gets `train/` and `val/`, with a folder of PNG files for each class, and `model.pth`: a
state dict with torchvision's key names, as `torch.save(model.state_dict(), "model.pth")` leaves it.
The images are prepared as usual: short side to 40 pixels, centre crop of 32, ImageNet's mean and
deviation.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn import functional

from edgeres.core.contract import preset
from edgeres.files import atomic_write, make_folder
from edgeres.images import load_dataset, normalise
from edgeres.networks import find_spec
from edgeres.networks.resnet import build_model
from training.loop import correct, labelled

CLASSES = ("circle", "cross", "ring", "square", "triangle")
CONTRACT = replace(
    preset("imagenet"),
    height=32,
    width=32,
    resize=replace(preset("imagenet").resize, short=40),
)
_IMAGES = {"train": 80, "val": 40}
_EPOCHS = 8
_BATCH = 32


def draw(kind: str, rng: np.random.Generator) -> Image.Image:
    """Returns a picture of 60 x 48 pixels: one light shape on a dark ground, with noise."""
    width, height = 60, 48
    ground, ink = rng.integers(0, 96, 3), rng.integers(160, 256, 3)
    noise = rng.normal(0, 12, (height, width, 3))
    picture = Image.fromarray(np.clip(ground + noise, 0, 255).astype(np.uint8))
    pen, colour = ImageDraw.Draw(picture), tuple(int(value) for value in ink)
    r = int(rng.integers(10, 16))
    x, y = int(rng.integers(r + 6, width - r - 6)), int(rng.integers(r, height - r))
    box = (x - r, y - r, x + r, y + r)
    if kind == "circle":
        pen.ellipse(box, fill=colour)
    elif kind == "ring":
        pen.ellipse(box, outline=colour, width=max(r // 3, 4))
    elif kind == "square":
        pen.rectangle(box, fill=colour)
    elif kind == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
    else:
        arm = max(r // 3, 4)
        pen.rectangle((x - r, y - arm, x + r, y + arm), fill=colour)
        pen.rectangle((x - arm, y - r, x + arm, y + r), fill=colour)
    return picture


def draw_all(folder: Path, rng: np.random.Generator) -> None:
    """Writes `FOLDER/train/CLASS/NNN.png` and the same for `val`."""
    for part, count in _IMAGES.items():
        for kind in CLASSES:
            into = folder / part / kind
            make_folder(into)
            for number in range(count):
                with atomic_write(into / f"{number:03}.png") as temporary:
                    draw(kind, rng).save(temporary, format="PNG")


def fit(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> torch.nn.Module:
    """Returns a ResNet-18 after a few epochs of Adam, in evaluation mode."""
    torch.manual_seed(0)
    model = build_model(replace(find_spec("resnet18", factories=False), num_classes=len(CLASSES)))
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    steps = -(-len(labels) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1e-3, epochs=_EPOCHS, steps_per_epoch=steps
    )
    for epoch in range(_EPOCHS):
        for part in torch.split(torch.randperm(len(labels)), _BATCH):
            images = torch.from_numpy(normalise(pixels[part.numpy()], CONTRACT))
            images = torch.rot90(images, int(torch.randint(4, ())), (2, 3))
            loss = functional.cross_entropy(model(images), torch.from_numpy(labels)[part])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{_EPOCHS}  loss {loss.item():.3f}", file=sys.stderr, flush=True)
    return model.eval()


def main() -> None:
    """Draws, trains and prints how many validation images are correct."""
    parser = argparse.ArgumentParser(
        prog="python -m training.shapes", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="new folder for the images and the checkpoint")
    folder = parser.parse_args().folder
    if folder.exists():
        parser.error(f"{folder} exists already: name a new folder")
    # Threads that wait for each other are slower than one on a busy machine.
    torch.set_num_threads(1)
    draw_all(folder, np.random.default_rng(0))
    train, val = (labelled(load_dataset(folder / part), CONTRACT, part) for part in _IMAGES)
    model = fit(train.pixels, train.labels)
    with atomic_write(folder / "model.pth") as temporary:
        torch.save(model.state_dict(), temporary)
    print(
        f"{correct(model, val, CONTRACT)} of {len(val.labels)} images correct, {folder}/model.pth"
    )


if __name__ == "__main__":
    main()
