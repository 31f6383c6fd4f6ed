#!/usr/bin/env python3
"""Measures the peak memory of `export`, in times of the weights and beyond what torch itself takes.

Each network has random weights: what a checkpoint holds costs no memory of its own. The base is a
process that imports torch and nothing else; edgeres' own libraries count as the export's.

Example:
  python -m benchmarks.export_memory
  python -m benchmarks.export_memory --arch resnet50 --arch wide_resnet50_2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.quantization import peak_mib
from edgeres.networks.registry import find_spec
from edgeres.networks.resnet import build_model

ARCHITECTURES = ("resnet50", "wide_resnet50_2", "wide_resnet101_2")

_MIB = 1 << 20


def main() -> int:
    """Exports each network in a process of its own and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.export_memory", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--arch", action="append", help=f"default: {', '.join(ARCHITECTURES)}")
    parser.add_argument(
        "--option", action="append", help="of export, such as --option=--head=softmax"
    )
    options = parser.parse_args()
    torch_mib = peak_mib(["-c", "import torch"])
    print(f"import torch: {torch_mib} MiB\n")
    print("| network | weights MiB | export MiB | beyond torch, in weights |")
    print("| --- | --- | --- | --- |")
    for name in options.arch or ARCHITECTURES:
        weights, peak = measured(name, options.option or [])
        beyond = (peak - torch_mib) / weights
        print(f"| {name} | {weights:.0f} | {peak} | {beyond:.2f} |", flush=True)
    return 0


def measured(name: str, options: list[str]) -> tuple[float, int]:
    """Returns the size of a network's weights and the peak of its export, both in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "weights.pth"
        state = build_model(find_spec(name)).state_dict()
        torch.save(state, checkpoint)
        command = ["-m", "edgeres", "export", name, "--weights", str(checkpoint)]
        command += ["--preset", "imagenet", *options, "-o", str(Path(folder) / "network.onnx")]
        return sum(value.nbytes for value in state.values()) / _MIB, peak_mib(command)


if __name__ == "__main__":
    sys.exit(main())
