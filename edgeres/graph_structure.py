"""What every walk of an ONNX graph rests on, checked once when the file is parsed.

A file may hold anything that protobuf can: names that are no text, operators without inputs,
cycles, sizes that claim terabytes, weights in another file. ONNX's own checker and the C++ that
runs the graph answer to some of it with an error, to some with an end of the process, and to some
not at all. Knows the ONNX format and no stage.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from onnx.external_data_helper import uses_external_data

from edgeres.errors import ArtifactError
from edgeres.graph_names import bodies, subgraphs
from edgeres.graph_values import walked
from edgeres.input_files import foreign_parser, reason_of
from edgeres.plurals import counted

MAX_ELEMENTS = 1 << 31
"""Values of an activation for one image; as FP32 they have 8 GiB."""

_LARGEST_CONSTANT = 1 << 26
"""Values of a tensor that operators make of the file alone; as int64 they have 512 MiB."""

_LARGEST_RANGE = 1 << 20
"""Values of a Range, which ONNX's inference writes out, at 100 bytes each."""

_UNKNOWN = "NotYet"
"""Type of an operator that ONNX's inference passes over."""

_POSITIVE = frozenset({"group", "strides", "dilations", "kernel_shape", "blocksize", "num_outputs"})
"""Integers that runtimes divide by, or that are sizes. Source: ONNX operators."""

_LARGEST_INTEGER = 1 << 31
"""Of such an attribute, and of a padding; more overflows where runtimes multiply them."""

_BITS = {
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(("INT2", "UINT2"), 2),
}
_LOOPS = frozenset(["Loop", "Scan"])

_SIZES = frozenset(
    {"Cast", "Constant", "Gather", "Identity", "Shape", "Size", "Slice", "Squeeze", "Unsqueeze"}
)
"""Operators that hand on constants and the sizes of tensors; others may make any number of them."""

_LARGEST_FUNCTION = 100_000
"""Operators of a function with all that it calls; the deepest ResNets have a thousand."""

_MOST_FUNCTIONS = 1000

_SMALL = 64
"""Elements up to which a constant may describe the structure: shapes, axes, paddings."""

DAMAGED = "It is damaged, or its exporter is at fault: export the model again."

_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def check_structure(path: Path, model: onnx.ModelProto) -> None:
    """Checks names, operators, order, attributes and tensors of a model and its subgraphs.

    Raises:
        ArtifactError: something cannot be; the message names the place.
    """
    versions = {entry.domain: int(entry.version) for entry in model.opset_import}
    # Text first: what is no UTF-8 arrives as bytes, and every other check expects text.
    _check_text(path, model)
    _check_order(path, model.graph, frozenset())
    _check_functions(path, model)
    for graph in subgraphs(model.graph):
        for node in graph.node:
            _check_operator(path, node, versions.get(node.domain, 0))
    for body in (model.graph, *model.functions):
        if loop := _loop(body):
            raise ArtifactError(
                f"{path} has the operator {loop.op_type} '{loop.name}', whose number of steps is "
                "known only when it runs; classifiers of images have none. Export the model "
                "without loops, such as with fixed sizes."
            )
    for tensor in _tensors(model):
        _check_tensor(path, tensor)
    for value in model.graph.input:
        sizes = [d.dim_value for d in value.type.tensor_type.shape.dim if d.HasField("dim_value")]
        if any(size < 1 for size in sizes) or math.prod(sizes) > MAX_ELEMENTS:
            raise ArtifactError(
                f"{path} has the input '{value.name}' with the sizes {sizes}; expected sizes of at "
                f"least 1 and at most {MAX_ELEMENTS} values. {DAMAGED}"
            )
    _check_sizes(path, model)


def _loop(body: onnx.GraphProto | onnx.FunctionProto) -> onnx.NodeProto | None:
    """Returns the first operator whose number of steps is computed; None where there is none.

    A Range up to a size of the image, or to a constant, has no more steps than the image values.
    """
    images: dict[str, bool] = {}
    if isinstance(body, onnx.GraphProto):
        stored = {tensor.name for tensor in body.initializer}
        images = {value.name: True for value in body.input if value.name not in stored}
    return next(
        (
            node
            for node, computed in walked(body, images, False, _is_computed)
            if node.op_type in _LOOPS or (node.op_type == "Range" and any(computed))
        ),
        None,
    )


def _is_computed(node: onnx.NodeProto, computed: list[bool]) -> bool:
    """Whether what an operator makes is neither a constant nor a size."""
    return node.op_type not in _SIZES or (any(computed) and node.op_type not in {"Shape", "Size"})


def _check_functions(path: Path, model: onnx.ModelProto) -> None:
    """Checks that the model's functions end, and come to a number of operators that can be run.

    A function of two calls of another one, and so on, has as many as 2 to the number of functions.
    """
    called = {
        (f.domain, f.name): Counter((node.domain, node.op_type) for node in f.node)
        for f in model.functions
    }
    if len(called) > _MOST_FUNCTIONS:
        raise ArtifactError(
            f"{path} has {counted(len(called), 'function')}; expected at most {_MOST_FUNCTIONS}. {DAMAGED}"
        )
    sizes: dict[tuple[str, str], int] = {}
    while ready := [
        key
        for key, calls in called.items()
        if key not in sizes and all(c in sizes for c in calls if c in called)
    ]:
        for key in ready:
            sizes[key] = sum(times * sizes.get(call, 1) for call, times in called[key].items())
    endless = next((name for domain, name in called if (domain, name) not in sizes), None)
    largest = max(sizes.values(), default=0)
    if endless is not None or largest > _LARGEST_FUNCTION:
        fact = (
            f"calls itself: '{endless}'"
            if endless is not None
            else f"has {counted(largest, 'operator')}"
        )
        raise ArtifactError(
            f"{path} has a function that {fact}; expected none that does, and at most "
            f"{_LARGEST_FUNCTION} operators. {DAMAGED}"
        )


def _check_sizes(path: Path, model: onnx.ModelProto) -> None:
    """Checks that every tensor whose size is known before the graph runs fits into memory."""
    checked, limits = skeleton(model), _limits(model.graph)
    # ONNX's inference of a Slice ends the process where it reads a size below 0: each has its turn
    # when what it reads is known to have none.
    waiting = [node for node in checked.graph.node if node.op_type == "Slice"]
    for node in waiting:
        node.op_type = _UNKNOWN
    while True:
        try:
            # Without the propagation of values, which writes a Range of integers out.
            inferred = onnx.shape_inference.infer_shapes(checked).graph
        # A network that ONNX cannot follow may still be one that a runtime takes.
        except Exception:  # what C++ raises has no end
            return
        known = {value.name for value in (*inferred.input, *inferred.value_info)}
        known.update(tensor.name for tensor in inferred.initializer)
        for value in inferred.value_info:
            dims = value.type.tensor_type.shape.dim
            sizes = [d.dim_value for d in dims if d.HasField("dim_value")]
            most = limits.get(value.name, MAX_ELEMENTS)
            if math.prod(sizes) > most or any(size < 0 for size in sizes):
                raise ArtifactError(
                    f"{path} fits into no memory: its tensor '{value.name}' has the sizes {sizes}; "
                    f"expected sizes of at least 0 and at most {counted(most, 'value')}. {DAMAGED}"
                )
        ready = [node for node in waiting if not node.input or node.input[0] in known]
        if not ready:
            return
        for node in ready:
            node.op_type = "Slice"
        waiting = [node for node in waiting if node.op_type == _UNKNOWN]


def _limits(graph: onnx.GraphProto) -> dict[str, int]:
    """Returns the most values of each tensor that operators compute without an image."""
    given = {value.name for value in graph.input}
    limits = {t.name: _LARGEST_CONSTANT for t in graph.initializer if t.name not in given}
    for node in graph.node:
        if all(name in limits for name in node.input if name):
            most = _LARGEST_RANGE if node.op_type == "Range" else _LARGEST_CONSTANT
            limits.update(dict.fromkeys(node.output, most))
    return limits


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy whose weights have a type and a shape but no values.

    Small constants, such as axes, paddings and limits, keep theirs: all of a network's
    structure in a thousandth of the memory.
    """
    copied = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    source, target = model.graph, copied.graph
    target.name = source.name
    target.node.extend(source.node)
    target.input.extend(source.input)
    target.output.extend(source.output)
    target.value_info.extend(source.value_info)
    target.initializer.extend(
        tensor
        if math.prod(tensor.dims) <= _SMALL
        else onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        for tensor in source.initializer
    )
    for value in (*target.value_info, *target.output):
        for dim in value.type.tensor_type.shape.dim:
            # What some exporters write where they do not know it.
            if dim.dim_value < 0:
                dim.Clear()
    return copied


def with_weights_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy for ONNX's checker, which would take two more of all weights.

    A tensor without its values breaks the rules; an input of that name has none either.
    """
    checked = skeleton(model)
    checked.functions.extend(model.functions)
    checked.metadata_props.extend(model.metadata_props)
    checked.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    given = {value.name for value in checked.graph.input}
    for tensor in list(checked.graph.initializer):
        if math.prod(tensor.dims) > _SMALL:
            checked.graph.initializer.remove(tensor)
            if tensor.name not in given:
                value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                checked.graph.input.append(value)
    return checked


def infer_shapes(model: onnx.ModelProto, *, images: int = 1) -> onnx.ModelProto:
    """Returns a model with the shapes of its activations, of which each fits into memory.

    Args:
        model: whose shapes; its weights need no values.
        images: in a batch.

    Raises:
        ArtifactError: they cannot be inferred, or one is too large or below 0.
    """
    with foreign_parser(
        lambda error: ArtifactError(
            f"The shapes of the model's activations cannot be inferred: {reason_of(error)}. {DAMAGED}"
        )
    ):
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        sizes = [d.dim_value for d in value.type.tensor_type.shape.dim if d.HasField("dim_value")]
        if math.prod(sizes) > images * MAX_ELEMENTS or any(size < 0 for size in sizes):
            raise ArtifactError(
                f"The model's activation '{value.name}' has the sizes {sizes}; expected sizes of "
                f"at least 0 and at most {MAX_ELEMENTS} values. {DAMAGED}"
            )
    return inferred


def _check_text(path: Path, model: onnx.ModelProto) -> None:
    texts = [prop for entry in model.metadata_props for prop in (entry.key, entry.value)]
    texts += [entry.domain for entry in model.opset_import]
    for graph in subgraphs(model.graph):
        values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
        texts += [value.name for value in values]
        for node in graph.node:
            texts += [node.op_type, node.domain, node.name, *node.input, *node.output]
            texts += [attribute.name for attribute in node.attribute]
    odd = next((text for text in texts if not isinstance(text, str)), None)
    if odd is not None:
        raise ArtifactError(f"{path} has the name {odd!r:.200}, which is no UTF-8 text. {DAMAGED}")


def _check_order(path: Path, graph: onnx.GraphProto, outside: frozenset[str]) -> None:
    """Checks that each tensor is made once, and before it is read: so there is no cycle."""
    produced = {*outside, ""}
    produced.update(value.name for value in (*graph.input, *graph.initializer))
    produced.update(sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        if missing := [name for name in node.input if name not in produced]:
            raise ArtifactError(
                f"{path} has the operator {node.op_type} '{node.name}', whose input '{missing[0]}' "
                "nothing before it makes: the graph has a cycle, a gap, or operators out of "
                f"order. {DAMAGED}"
            )
        for body in bodies(node):
            _check_order(path, body, frozenset(produced))
        twice = next((name for name in node.output if name and name in produced), None)
        if twice is not None or not any(node.output):
            fact = "no output" if twice is None else f"the output '{twice}', which is there already"
            raise ArtifactError(
                f"{path} has the operator {node.op_type} '{node.name}' with {fact}. {DAMAGED}"
            )
        produced.update(node.output)
    absent = next((value.name for value in graph.output if value.name not in produced), None)
    if absent is not None:
        raise ArtifactError(f"{path} has the output '{absent}', which nothing makes. {DAMAGED}")


def _check_operator(path: Path, node: onnx.NodeProto, version: int) -> None:
    where = f"{path} has the operator {node.op_type} '{node.name}'"
    # Operators of other domains, and of versions that this onnx does not know, are the runtime's.
    known = {}
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except (onnx.defs.SchemaError, TypeError):
        pass
    else:
        known = {name: int(each.type.value) for name, each in schema.attributes.items()}  # type: ignore[attr-defined]  # onnx has no types of its C++ enumerations
        counts = (len(node.input), schema.min_input, schema.max_input)
        if not counts[1] <= counts[0] <= counts[2]:
            raise ArtifactError(
                f"{where} with {counts[0]} inputs, expected {counts[1]} to {counts[2]}. {DAMAGED}"
            )
    for attribute in node.attribute:
        if known.get(attribute.name, attribute.type) != attribute.type:
            raise ArtifactError(
                f"{where} with the attribute {attribute.name} of type {attribute.type}, expected "
                f"{known[attribute.name]}. {DAMAGED}"
            )
        integers = [*attribute.ints] if attribute.ints else [attribute.i]
        least = 1 if attribute.name in _POSITIVE else -_LARGEST_INTEGER
        bounded = attribute.name in known and attribute.name in {*_POSITIVE, "pads"}
        if bounded and not all(least <= value <= _LARGEST_INTEGER for value in integers):
            raise ArtifactError(
                f"{where} with {attribute.name} {integers}, expected {least} to "
                f"{_LARGEST_INTEGER}. {DAMAGED}"
            )


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yields every tensor that a model stores, in initializers, attributes, subgraphs and functions."""
    nodes = [node for function in model.functions for node in function.node]
    for graph in subgraphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        nodes += graph.node
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _check_tensor(path: Path, tensor: TensorProto) -> None:
    """Checks that a tensor's values are in the file, as many as its sizes claim."""
    # Weights in a second file are not covered by the model's sha256.
    if uses_external_data(tensor) or tensor.external_data:
        raise ArtifactError(
            f"{path} keeps '{tensor.name}' and other weights in a file beside it; edgeres takes "
            "one file that holds all of the model. Write it as one, in Python: "
            f"onnx.save(onnx.load('{path.name}'), 'whole.onnx')"
        )
    if tensor == TensorProto():
        return
    sizes, names = list(tensor.dims), {kind: name for name, kind in TensorProto.DataType.items()}
    name = names.get(tensor.data_type, "UNDEFINED")
    if any(size < 0 for size in sizes) or name == "UNDEFINED":
        raise ArtifactError(
            f"{path} has the tensor '{tensor.name}' of type {tensor.data_type} with the sizes "
            f"{sizes}; expected a type of ONNX and sizes of at least 0. {DAMAGED}"
        )
    # In Python's integers, which do not wrap.
    count = math.prod(sizes)
    if tensor.HasField("raw_data"):
        bits = _BITS.get(name) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        has, expected = len(tensor.raw_data), {(count * bits + 7) // 8}
    else:
        has = sum(len(getattr(tensor, field)) for field in _FIELDS)
        # Complex numbers are two values; of the smallest types, two or four are packed into one.
        expected = {count, 2 * count, (count + 1) // 2, (count + 3) // 4}
    if has not in expected:
        raise ArtifactError(
            f"{path} has the tensor '{tensor.name}' with the sizes {sizes}, "
            f"{counted(count, 'value')}, and stores {has} bytes or values of {name}. {DAMAGED}"
        )
