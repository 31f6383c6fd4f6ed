#!/usr/bin/env python3
"""Carries one network, written by several exporters in several forms, to INT8, beside our own export.

The network has seeded weights and plausible statistics of batch normalisation. Every other file of
it must become the same Q/DQ graph, with as many layers in INT8 and the same logits within rounding.

Example:
  python -m benchmarks.exporters --architecture resnet18 --size 64
  python -m benchmarks.exporters --architecture resnet50
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from scipy.special import softmax
from torch import nn

from benchmarks.exporter_forms import MEAN, STD, Form, forms
from edgeres.batch_independence import QUANTIZED_TOLERANCE
from edgeres.calibration.observe import calibrated_tensors, observe, open_observation
from edgeres.core.artifacts import PROBABILITIES, contract_of
from edgeres.core.batches import HashedBatch
from edgeres.core.contract import Contract
from edgeres.core.contract_options import NO_OPTIONS, ContractOptions
from edgeres.core.methods import Method
from edgeres.core.requests import BuildRequest, OnnxExportRequest
from edgeres.core.table import CalibrationTable, DataLineage, TensorRange, Threshold
from edgeres.errors import EdgeresError
from edgeres.images import batches, load_dataset
from edgeres.networks.onnx_export import TOLERANCE, export_onnx
from edgeres.networks.registry import find_spec
from edgeres.networks.resnet import ResNet
from edgeres.networks.specification import ModelSpec
from edgeres.normalization import normalize, relative_difference
from edgeres.onnx_file import LoadedModel, load_fp32
from edgeres.quantization.graph import view
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.targets.session_runner import model_runner, network_runner
from edgeres.version import __version__
from edgeres.workflows import BuildInputs, build_from_model

IMAGES = 16
"""Random images that are calibrated on, and compared on."""

_DEFAULTS: Mapping[str, tuple[tuple[str, Any], ...]] = {
    "Conv": (
        ("dilations", [1, 1]),
        ("group", 1),
        ("auto_pad", b"NOTSET"),
        ("pads", [0, 0, 0, 0]),
        ("strides", [1, 1]),
    ),
    "MaxPool": (
        ("dilations", [1, 1]),
        ("ceil_mode", 0),
        ("storage_order", 0),
        ("auto_pad", b"NOTSET"),
    ),
    "Gemm": (("alpha", 1.0), ("beta", 1.0), ("transA", 0)),
}
"""Attributes with the value that they have where they are left out. Source: ONNX operators."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A file as every stage sees it, quantized."""

    logits: Array
    """FP32, (N, classes)."""
    int8_logits: Array
    """Of TensorRT's placement, computed on the CPU."""
    gives_probabilities: bool
    structure: str
    """Hash of its Q/DQ graph without names: operators, attributes, shapes and how they are wired."""
    coverage: tuple[int, int]
    """Layers in INT8 on ONNX Runtime, and all that are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A form beside our own export."""

    name: str
    same_graph: bool = False
    coverage: tuple[int, int] = (0, 0)
    own_coverage: tuple[int, int] = (0, 0)
    difference: float = float("inf")
    """Largest of a logit, as a fraction of the image's largest."""
    int8_difference: float = float("inf")
    """The same of the INT8 logits."""
    refusal: str = ""
    """Why it was not taken; empty where it was."""

    @property
    def is_equal(self) -> bool:
        """Whether it is our own export, with its values within a rounding step."""
        return (
            self.same_graph
            and self.coverage == self.own_coverage
            and self.difference < TOLERANCE
            and self.int8_difference < QUANTIZED_TOLERANCE
        )

    def __str__(self) -> str:
        if self.refusal:
            return f"{self.name}: refused: {self.refusal}"
        return (
            f"{self.name}: {'equal' if self.is_equal else 'NOT EQUAL'}, graph "
            f"{'the same' if self.same_graph else 'another'}, INT8 {self.coverage[0]} of "
            f"{self.coverage[1]} ({self.own_coverage[0]} of {self.own_coverage[1]}), logits "
            f"{self.difference:.1e}, INT8 logits {self.int8_difference:.1e}"
        )


def seeded_network(spec: ModelSpec) -> nn.Module:
    """Returns an architecture with seeded weights, in inference mode."""
    torch.manual_seed(0)
    network = ResNet(spec).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return network


def compare(spec: ModelSpec, chosen: Iterable[Form], folder: Path) -> Iterator[Compared]:
    """Yields each form of a network beside our own export of it: by graph, coverage and logits."""
    network, size = seeded_network(spec), spec.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 3), np.uint8)
    np.savez(folder / "images.npz", images=pixels)
    contract = Contract(height=size, width=size, mean=MEAN, std=STD)
    export_onnx(network, OnnxExportRequest(contract=contract), output=folder / "own.onnx")
    own = quantized(folder / "own.onnx", NO_OPTIONS, folder)
    path = folder / "foreign.onnx"
    for form in chosen:
        mean, std = ((0.0,) * 3, (1.0,) * 3) if form.prepares else (MEAN, STD)
        options = ContractOptions(mean=mean, std=std, input_size=size, resize="none")
        try:
            onnx.save(form.make(network, size), path)
            foreign = quantized(path, options, folder)
        except EdgeresError as error:
            yield Compared(name=form.name, refusal=str(error))
            continue
        # What is taken of a softmax is what is taken of ours.
        expected, expected_int8 = own.logits, own.int8_logits
        if foreign.gives_probabilities:
            expected, expected_int8 = softmax(expected, axis=1), softmax(expected_int8, axis=1)
        yield Compared(
            name=form.name,
            same_graph=foreign.structure == own.structure,
            coverage=foreign.coverage,
            own_coverage=own.coverage,
            difference=relative_difference(foreign.logits, expected),
            int8_difference=relative_difference(foreign.int8_logits, expected_int8),
        )


def quantized(path: Path, options: ContractOptions, folder: Path) -> Quantized:
    """Returns what every stage makes of a file: normalized, calibrated, lowered and built."""
    loaded = load_fp32(path)
    contract = contract_of(loaded.artifact, options)
    model = normalize(loaded, contract)
    dataset = load_dataset(folder / "images.npz", labelled=False)
    with closing(batches(dataset, contract, batch_size=IMAGES)) as stream:
        (batch,) = stream
    table = maximum_table(model, contract, batch)
    engine = build_from_model(
        BuildInputs(model=path, table=table, output=folder / "engine.onnx", contract=options),
        BuildRequest(),
    )
    audit = engine.manifest.audit
    lowered = quantize_for_tensorrt(model, table)
    with model_runner(model) as runner:
        logits = runner.infer(batch.images)
    with network_runner(lowered, "simulated") as runner:
        int8_logits = runner.infer(batch.images)
    return Quantized(
        logits=logits,
        int8_logits=int8_logits,
        gives_probabilities=model.artifact.activation in PROBABILITIES,
        structure=structure_of(lowered.model),
        coverage=(0, 0)
        if audit is None
        else (len(audit.nodes) - len(audit.missed), len(audit.nodes)),
    )


def maximum_table(model: LoadedModel, contract: Contract, batch: HashedBatch) -> CalibrationTable:
    """Returns a table of largest magnitudes alone, which takes a tenth of all methods' time."""
    graph, own = view(model.proto), onnx.ModelProto()
    # What is observed gives its weights up.
    own.CopyFrom(model.proto)
    observed = observe(open_observation(own, graph, calibrated_tensors(graph)), [batch])
    ranges = {}
    for name, distribution in observed.items():
        signed = not graph.is_non_negative(name)
        maximum = Threshold(s8=distribution.amax, u8=None if signed else distribution.amax)
        ranges[name] = TensorRange(
            amax=distribution.amax, signed=signed, thresholds={Method.MAX: maximum}
        )
    return CalibrationTable(
        model_sha256=model.artifact.sha256,
        data=DataLineage.of("random images", batch.hashes),
        contract=contract,
        method=Method.MAX,
        percentile=100.0,
        samples=IMAGES,
        seed=0,
        edgeres_version=__version__,
        tensors=ranges,
    )


def structure_of(model: onnx.ModelProto) -> str:
    """Returns a hash of a Q/DQ graph, from the image to the logits, that no name or order changes."""
    graph = model.graph
    known = {tensor.name: f"{tensor.data_type} {list(tensor.dims)}" for tensor in graph.initializer}
    known.update((value.name, "image") for value in graph.input if value.name not in known)
    known[""] = "none"
    for node in graph.node:
        # Preparation stands before the first QuantizeLinear, a final activation after the logits.
        if node.op_type in {"Sub", "Div", "Softmax"}:
            known[node.output[0]] = known[node.input[0]]
            continue
        attributes = sorted(
            f"{a.name}={helper.get_attribute_value(a)}"
            for a in node.attribute
            if (a.name, helper.get_attribute_value(a)) not in _DEFAULTS.get(node.op_type, ())
        )
        inputs = [known[name] for name in node.input]
        kind = node.op_type
        if kind == "Gemm":
            # The classifier's weight may be stored either way.
            attributes = [a for a in attributes if not a.startswith("transB=")]
            inputs[1] = "weight"
        if kind in {"Flatten", "Reshape"}:
            # Both move (N, C, 1, 1) to (N, C).
            kind, attributes, inputs = "Flatten", [], inputs[:1]
        text = "\n".join([kind, *attributes, *inputs])
        digest = hashlib.sha256(text.encode()).hexdigest()
        known.update((name, digest) for name in node.output)
    return known[graph.output[0].name]


def main() -> int:
    """Prints a row for each form; 1 where one is neither equal nor refused."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exporters", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--architecture", default="resnet18", help="name in the registry")
    parser.add_argument("--size", type=int, help="side of the image; the architecture's own")
    parser.add_argument("--form", action="append", default=[], help="part of a form's name")
    parser.add_argument("--json", type=Path, help="file for the rows")
    options = parser.parse_args()
    logging.getLogger("edgeres").setLevel(logging.ERROR)
    spec = find_spec(options.architecture, factories=False)
    spec = replace(spec, input_size=options.size or spec.input_size)
    chosen = [f for f in forms() if not options.form or any(p in f.name for p in options.form)]
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgeres-") as folder:
        for row in compare(spec, chosen, Path(folder)):
            rows.append(row)
            print(row, flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return int(not all(row.is_equal or row.refusal for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
