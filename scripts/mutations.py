"""Mutations of files that know the form: JSON, lines, archives, ONNX, safetensors, and bytes.

Each takes a random generator and a file's content and returns another content. What is changed
stays readable to the outermost layer most of the time, so that the layers below are reached.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from contextlib import suppress
from random import Random
from typing import Any

import onnx

NUMBERS = (0, 1, -1, 2, -5, 127, 255, 65_536, 2**31 - 1, -(2**31), 2**32, 2**62, 2**63 - 1)
FLOATS = (0.0, -0.0, -1.0, 1e-45, 1e38, 1e308, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", " ", "\x1b[31m", "../..", "a\x00b", "[/red]", "½", "é" * 300, "-1", "nan", "=1+1")
RAW = ("1e400", "9" * 5000, "[" * 5000, "-0", "NaN", "{}", "null", '"\\ud800"', "1e-999999999")
"""JSON that stands in the place of a value and that no value of Python is written as."""


def mutate_bytes(random: Random, content: bytes) -> bytes:
    """Flips, takes out, repeats, puts in or cuts off a few bytes."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        at, length = random.randrange(len(changed) + 1), random.randint(1, 16)
        kind = random.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            del changed[at : at + length]
        elif kind == 2:
            changed[at:at] = changed[at : at + length] * random.choice((1, 2, 50))
        elif kind == 3:
            changed[at : at + length] = random.randbytes(length)
        elif kind == 4:
            number = random.choice(NUMBERS) % 2**64
            changed[at : at + 8] = number.to_bytes(8, random.choice(("little", "big")))
        elif random.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def mutate_json(random: Random, content: bytes) -> bytes:
    """Changes values, keys and the order of a document."""
    if random.random() < 0.1:
        return mutate_bytes(random, content)
    document = json.loads(content)
    marker = "a value that is replaced"
    for _ in range(random.randint(1, 3)):
        document = _mutate_node(random, document, marker)
    return json.dumps(document).replace(f'"{marker}"', random.choice(RAW)).encode()


def mutate_lines(random: Random, content: bytes) -> bytes:
    """Takes lines out, repeats, exchanges and garbles them."""
    if random.random() < 0.3:
        return mutate_bytes(random, content)
    lines = content.split(b"\n")
    for _ in range(random.randint(1, 3)):
        at, other = random.randrange(len(lines)), random.randrange(len(lines))
        kind, text = random.randrange(4), random.choice((*TEXTS, *RAW)).encode()
        if kind == 0 and len(lines) > 1:
            del lines[at]
        elif kind == 1:
            lines[at:at] = [lines[other]] * random.choice((1, 100))
        elif kind == 2:
            lines[at], lines[other] = lines[other], lines[at]
        else:
            words = lines[at].split(b" ")
            words[random.randrange(len(words))] = text
            lines[at] = b" ".join(words)
    return b"\n".join(lines)


def mutate_zip(random: Random, content: bytes) -> bytes:
    """Changes a member's content, name, compression or number, or the archive's own bytes."""
    if random.random() < 0.25:
        # The directory stands at the end.
        at = random.choice((0, max(0, len(content) - 400)))
        return content[:at] + mutate_bytes(random, content[at:])
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = random.randrange(len(members))
    name, data = members[at]
    kind = random.randrange(6)
    if kind == 0:
        del members[at]
    elif kind == 1:
        members[at] = (random.choice((*TEXTS[3:], name + "x", name.upper())), data)
    elif kind == 2:
        members[at] = (name, members[random.randrange(len(members))][1])
    else:
        # Headers of arrays, and of pickles, stand at the start.
        head = random.choice((128, 2048, len(data)))
        members[at] = (name, mutate_bytes(random, data[:head]) + data[head:])
    written = io.BytesIO()
    compression = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(written, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return written.getvalue()


def mutate_safetensors(random: Random, content: bytes) -> bytes:
    """Changes the JSON of the header under a length that fits it, or the file's bytes."""
    if random.random() < 0.2:
        return mutate_bytes(random, content[:4096]) + content[4096:]
    (length,) = struct.unpack_from("<Q", content)
    header = mutate_json(random, content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def mutate_onnx(random: Random, content: bytes) -> bytes:
    """Changes fields of the messages that a model consists of."""
    if random.random() < 0.2:
        at = random.choice((0, len(content) // 2, max(0, len(content) - 4096)))
        return content[:at] + mutate_bytes(random, content[at : at + 4096]) + content[at + 4096 :]
    model = onnx.ModelProto.FromString(content)
    for _ in range(random.randint(1, 3)):
        if random.random() < 0.4:
            _mutate_graph(random, model.graph)
        else:
            _mutate_message(random, model)
    changed: bytes = model.SerializeToString()
    return changed


def _operators() -> dict[str, tuple[tuple[str, int], ...]]:
    """Returns ONNX's operators with the names and types of their attributes."""
    return {
        # onnx has no types of its C++ enumerations.
        schema.name: tuple((n, int(a.type.value)) for n, a in schema.attributes.items())  # type: ignore[attr-defined]
        for schema in onnx.defs.get_all_schemas()
    }


_OPERATORS = _operators()


def _mutate_graph(random: Random, graph: onnx.GraphProto) -> None:
    """Makes a valid graph another: operators, what they read, their attributes, sizes, types."""
    if not (graph.node and graph.initializer and graph.input):
        return
    node, kind = random.choice(graph.node), random.randrange(6)
    tensor, value = random.choice(graph.initializer), random.choice((*graph.input, *graph.output))
    if kind == 0:
        node.op_type = random.choice(list(_OPERATORS))
    elif kind == 1:
        made = [name for each in graph.node for name in each.output]
        names = (*made, *(each.name for each in graph.initializer), graph.input[0].name, "")
        if node.input:
            node.input[random.randrange(len(node.input))] = random.choice(names)
    elif kind == 2:
        known = _OPERATORS.get(node.op_type) or (("axis", onnx.AttributeProto.INT),)
        name, type_ = random.choice(known)
        integers = [random.choice(NUMBERS) for _ in range(random.randint(0, 5))]
        values: dict[int, Any] = {
            onnx.AttributeProto.INT: random.choice(NUMBERS),
            onnx.AttributeProto.FLOAT: random.choice(FLOATS[:5]),
            onnx.AttributeProto.STRING: random.choice(("", "x", "SAME_UPPER", "VALID", "linear")),
            onnx.AttributeProto.INTS: integers,
        }
        for old in [each for each in node.attribute if each.name == name]:
            node.attribute.remove(old)
        # Without a value it is absent.
        if type_ in values:
            made_of = onnx.helper.make_attribute(name, values[type_], attr_type=type_)
            node.attribute.append(made_of)
    elif kind == 3:
        # As many values in another form, or a tensor without values.
        dims = list(tensor.dims)
        random.shuffle(dims)
        if random.random() < 0.3:
            dims.append(0)
            tensor.raw_data = b""
        del tensor.dims[:]
        tensor.dims.extend(random.choice((dims, [*dims, 1], [1, *dims], [math.prod(dims)])))
    elif kind == 4:
        tensor.data_type = random.choice(list(onnx.TensorProto.DataType.values()))
    elif value.type.tensor_type.shape.dim:
        random.choice(value.type.tensor_type.shape.dim).dim_value = random.choice(NUMBERS)


def _mutate_node(random: Random, node: Any, marker: str) -> Any:
    """Returns a JSON value with a change somewhere below it."""
    if isinstance(node, dict | list) and node and random.random() < 0.8:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = random.choice(keys)
        if random.random() < 0.7:
            node[key] = _mutate_node(random, node[key], marker)
        elif random.random() < 0.5:
            del node[key]
        elif isinstance(node, dict):
            node[random.choice(TEXTS)] = node.pop(key)
        else:
            node += node * random.choice((1, 20))
        return node
    values: tuple[Any, ...] = (
        *NUMBERS,
        *FLOATS,
        *TEXTS,
        None,
        True,
        [],
        {},
        [node],
        {"x": node},
        marker,
        marker,
    )
    return random.choice(values)


def _mutate_message(random: Random, message: Any) -> None:
    fields = message.ListFields()
    if not fields:
        return
    field, value = random.choice(fields)
    nested = field.type == field.TYPE_MESSAGE
    if not hasattr(value, "append") and not hasattr(value, "add"):
        if nested and random.random() < 0.95:
            _mutate_message(random, value)
        elif nested or random.random() < 0.1:
            message.ClearField(field.name)
        else:
            # An enumeration has none of these numbers.
            with suppress(ValueError):
                setattr(message, field.name, _other_value(random, value))
        return
    at, kind = random.randrange(len(value)), random.random()
    if nested and kind < 0.8:
        _mutate_message(random, value[at])
    elif kind < 0.87:
        del value[at]
    elif kind < 0.94:
        value.extend([value[at]])
    elif not nested:
        value[at] = _other_value(random, value[at])


def _other_value(random: Random, value: Any) -> Any:
    if isinstance(value, bytes):
        return mutate_bytes(random, value[:4096]) + value[4096:]
    if isinstance(value, str):
        return random.choice((*TEXTS, value + "x", value[1:]))
    if isinstance(value, float):
        # A float of 32 bits has no 1e308.
        return random.choice([each for each in FLOATS if each != 1e308])
    # Numbers that a field cannot hold, such as 2^62 in 32 bits, are refused by protobuf itself.
    return random.choice([each for each in NUMBERS if -(2**31) <= each < 2**31])
