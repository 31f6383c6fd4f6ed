"""Writes the keys and shapes of torchvision's and timm's ResNet checkpoints, for the tests to compare with.

    python -m pip install torchvision timm
    python scripts/make_published_keys.py

Each line of a section has a key and its shape. `bn1.*` stands for a batch normalisation:
`weight`, `bias`, `running_mean` and `running_var` of that shape, and `num_batches_tracked`
without one. The networks are versions without weights, on no device; both libraries must agree.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import timm
import torch
import torchvision

from edgeres.networks import PUBLISHED

Shapes = dict[str, tuple[int, ...]]

_NORM = ("weight", "bias", "running_mean", "running_var")
_COUNTER = "num_batches_tracked"
_OUTPUT = Path(__file__).resolve().parents[1] / "tests" / "networks" / "published_keys.txt"


def shapes_of(module: torch.nn.Module) -> Shapes:
    """Returns the shape of each entry of a state dict."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def lines_of(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Yields key and shape; the five entries of a batch normalisation as one line."""
    for key, shape in shapes.items():
        owner, _, last = key.rpartition(".")
        if f"{owner}.{_COUNTER}" not in shapes:
            yield " ".join(map(str, (key, *shape)))
        elif last == _COUNTER:
            channels = {shapes[f"{owner}.{part}"] for part in _NORM}
            ((count,),) = channels
            yield f"{owner}.* {count}"


def main() -> None:
    """Writes the file and prints the versions that it is from."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, default=_OUTPUT, help="default: %(default)s")
    output: Path = parser.parse_args().output
    versions = f"torchvision {torchvision.__version__.partition('+')[0]}, timm {timm.__version__}"
    lines = [f"# Made by scripts/make_published_keys.py from {versions}."]
    for name in PUBLISHED:
        with torch.device("meta"):
            shapes = shapes_of(torchvision.models.get_model(name, weights=None))
            others = shapes_of(timm.create_model(name))
        if shapes != others:
            raise SystemExit(f"{name}: torchvision and timm differ; the file holds one list only")
        lines += [f"[{name}]", *lines_of(shapes)]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{output}: {len(PUBLISHED)} networks, {len(lines)} lines, {versions}")


if __name__ == "__main__":
    main()
