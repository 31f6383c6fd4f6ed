"""Forms in which exporters and tools write one network: torch's two, and what others do to a file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Make = Callable[[nn.Module, int], onnx.ModelProto]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to write the network."""

    name: str
    make: Make
    """Writes the network for images of that size."""
    prepares: bool = False
    """Whether it takes values of 0 to 1 and normalises them itself."""


class Prepared(nn.Module):
    """Normalises values of 0 to 1 before the network, as many deployments do in their file."""

    def __init__(self, network: nn.Module) -> None:
        """Keeps the network."""
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits, (N, classes), of (N, 3, H, W)."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


class ChannelsLast(nn.Module):
    """Takes (N, H, W, C)."""

    def __init__(self, network: nn.Module) -> None:
        """Keeps the network."""
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits, (N, classes), of (N, H, W, 3)."""
        logits: Tensor = self.network(images.permute(0, 3, 1, 2))
        return logits


def script(
    network: nn.Module, size: int, *, opset: int = 17, fold: bool = True, batch: int | None = None
) -> onnx.ModelProto:
    """Returns what torch's older exporter writes: a trace in TorchScript."""
    buffer = io.BytesIO()
    mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
    names = {"input_names": ["images"], "output_names": ["scores"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (_example(network, size, batch or 2),),
            buffer,  # type: ignore[arg-type]  # tracing writes to a stream too
            **names,  # type: ignore[arg-type]
            dynamic_axes=None if batch else {"images": {0: "batch"}, "scores": {0: "batch"}},
            opset_version=opset,
            dynamo=False,
            training=mode,
            do_constant_folding=fold,
        )
    return onnx.load_model_from_string(buffer.getvalue())


def dynamo(
    network: nn.Module, size: int, *, opset: int = 18, fold: bool = True, batch: int | None = None
) -> onnx.ModelProto:
    """Returns what torch's exporter of today writes: torch.export. Needs onnxscript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (_example(network, size, batch or 2),),
            input_names=["images"],
            output_names=["scores"],
            dynamic_shapes=None if batch else ({0: torch.export.Dim("batch")},),
            opset_version=opset,
            dynamo=True,
            optimize=fold,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model: onnx.ModelProto = program.model_proto
    return model


def _example(network: nn.Module, size: int, batch: int) -> Tensor:
    last = isinstance(network, ChannelsLast)
    return torch.zeros((batch, size, size, 3) if last else (batch, 3, size, size))


def edited(change: Callable[[onnx.ModelProto], None]) -> Make:
    """Returns an exporter whose file another tool changes."""

    def make(network: nn.Module, size: int) -> onnx.ModelProto:
        model = script(network, size)
        change(model)
        return model

    return make


def weights_behind(
    op_type: str, keep: Callable[[Any], Any], model: onnx.ModelProto, **attributes: Any
) -> None:
    """Reads every weight of a convolution through an operator; `keep` is what the file has."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for index, node in enumerate([n for n in model.graph.node if n.op_type == "Conv"]):
        value = numpy_helper.to_array(stored[node.input[1]])
        name = f"kept{index}"
        model.graph.initializer.append(numpy_helper.from_array(keep(value), name))
        read = helper.make_node(op_type, [name], [f"{name}_read"], **attributes)
        model.graph.node.insert(0, read)
        node.input[1] = read.output[0]


def as_tensorflow(model: onnx.ModelProto) -> None:
    """Takes (N, H, W, C), keeps weights as (H, W, I, O), and classifies by MatMul and Add."""
    weights_behind(
        "Transpose",
        lambda w: np.ascontiguousarray(w.transpose(2, 3, 1, 0)),
        model,
        perm=[3, 2, 0, 1],
    )
    graph = model.graph
    image = graph.input[0]
    for node in graph.node:
        node.input[:] = ["turned" if name == image.name else name for name in node.input]
    turn = helper.make_node("Transpose", [image.name], ["turned"], perm=[0, 3, 1, 2])
    graph.node.insert(0, turn)
    dims = image.type.tensor_type.shape.dim
    sides = dims[2].dim_value
    for axis, value in zip((1, 2, 3), (sides, sides, 3), strict=True):
        dims[axis].dim_value = value
    gemm = graph.node.pop()
    stored = {tensor.name: tensor for tensor in graph.initializer}
    kernel = np.ascontiguousarray(numpy_helper.to_array(stored[gemm.input[1]]).T)
    graph.initializer.append(numpy_helper.from_array(kernel, "kernel"))
    graph.node.append(helper.make_node("MatMul", [gemm.input[0], "kernel"], ["product"]))
    graph.node.append(helper.make_node("Add", ["product", gemm.input[2]], list(gemm.output)))


def with_softmax(model: onnx.ModelProto) -> None:
    """Ends in Softmax."""
    (scores,) = model.graph.output
    model.graph.node.append(helper.make_node("Softmax", [scores.name], ["probabilities"], axis=1))
    scores.name = "probabilities"


def with_open_sides(model: onnx.ModelProto) -> None:
    """Leaves height and width open."""
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"


def wrapped(wrapper: Callable[[nn.Module], nn.Module], make: Make) -> Make:
    """Returns an exporter of the network inside of another module."""
    return lambda network, size: make(wrapper(network).eval(), size)


def forms() -> Iterator[Form]:
    """Yields every form, our own export's first."""
    exporters: Mapping[str, tuple[Callable[..., onnx.ModelProto], tuple[int, ...]]] = {
        "TorchScript": (script, (13, 17, 18, 20)),
        "torch.export": (dynamo, (13, 17, 18, 20)),
    }
    for exporter, (make, opsets) in exporters.items():
        for opset in opsets:
            for fold in (True, False):
                for batch in (None, 1, 4):
                    name = (
                        f"{exporter}, opset {opset}, {'folded' if fold else 'as traced'}, "
                        f"{f'batch of {batch}' if batch else 'any batch'}"
                    )
                    yield Form(name=name, make=partial(make, opset=opset, fold=fold, batch=batch))
        yield Form(name=f"{exporter}, channels last", make=wrapped(ChannelsLast, make))
        yield Form(
            name=f"{exporter}, preprocessing inside", make=wrapped(Prepared, make), prepares=True
        )
    changes: Mapping[str, Callable[[onnx.ModelProto], None]] = {
        "weights behind Identity": partial(weights_behind, "Identity", lambda w: w),
        "weights behind Transpose": partial(
            weights_behind,
            "Transpose",
            lambda w: np.ascontiguousarray(w.transpose(2, 3, 1, 0)),
            perm=[3, 2, 0, 1],
        ),
        "weights behind Cast": partial(
            weights_behind, "Cast", lambda w: w.astype(np.float64), to=onnx.TensorProto.FLOAT
        ),
        "as TensorFlow's converter": as_tensorflow,
        "softmax": with_softmax,
        "open sides": with_open_sides,
    }
    for name, change in changes.items():
        yield Form(name=name, make=edited(change))
    yield Form(name="opset 11", make=partial(script, opset=11))
    yield Form(
        name="opset 11, as traced, batch of 1", make=partial(script, opset=11, fold=False, batch=1)
    )
