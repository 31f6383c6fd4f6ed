"""ONNX files in and out: the contract, the classes and the lineage live in the file's metadata.

Knows the ONNX format and nothing of torch, runtimes or calibration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from edgeres.byte_input import Reads, takes_bytes, with_byte_input, without_byte_input
from edgeres.core.artifacts import Fp16Layer, LayerPrecision, OnnxArtifact, TensorSpec
from edgeres.core.contract import Contract, InputType
from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.core.tuning import MixedSearch
from edgeres.errors import ArtifactError
from edgeres.files import atomic_write
from edgeres.graph_checks import check_one_image, check_operators, final_activation, low_precision
from edgeres.graph_names import free_added_names
from edgeres.graph_structure import check_structure
from edgeres.input_files import MODEL, foreign_parser, read_bytes, reason_of
from edgeres.plurals import counted
from edgeres.serialization import from_json, parse_json, to_json
from edgeres.version import __version__

IR_VERSION = 8
"""ONNX IR that TensorRT 8.6's parser reads (opset 17 came with it). Source: ONNX versioning
table; NVIDIA/TensorRT issue 4091 shows what a newer IR version does."""

_PREFIX = "edgeres."
_STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What edgeres keeps in an ONNX file's metadata: one entry of JSON for each field."""

    contract: Contract | None = None
    classes: tuple[str, ...] = ()
    architecture: str | None = None
    checkpoint_sha256: str | None = None
    version: str | None = None
    """Of the edgeres that wrote it; None in a file exported elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoweredNetwork:
    """A model in memory, lowered and ready for a target's builder."""

    model: onnx.ModelProto
    source: OnnxArtifact
    """The FP32 file that it was lowered from."""
    layers: tuple[LayerPrecision, ...] = ()
    table: CalibrationTable | None = None
    """Where its scales come from; None without INT8."""
    method: Method | None = None
    """The table's method that was used."""
    search: MixedSearch | None = None
    """What mixed precision chose among; None for the others."""
    fp16: tuple[Fp16Layer, ...] = ()
    """Layers whose exponent was moved for FP16, or that lose levels in it."""
    reads: Reads = Reads.NORMALIZED
    """What `model` takes, while it is not yet put behind a byte input."""
    channels_last: bool = False
    """Whether a plan takes its bytes (H, W, C), as its file does, and the network (C, H, W)."""

    def fed_as(self, *, planar: bool) -> LoweredNetwork:
        """Returns the network on what its file takes; itself where that is floats.

        Args:
            planar: take bytes (C, H, W) where the file takes them (H, W, C), for a builder that
                has a format of its own for these.
        """
        contract = self.source.contract
        if contract is None or contract.input is InputType.FLOAT32 or takes_bytes(self.model):
            return self
        last = self.source.input.shape[1:] == contract.fed_shape
        model = with_byte_input(self.model, contract, self.reads, channels_last=last and not planar)
        shape = contract.shape if planar else self.source.input.shape[1:]
        image = replace(self.source.input, shape=(self.source.input.shape[0], *shape))
        source = replace(self.source, input=image)
        return replace(self, model=model, source=source, channels_last=last and planar)

    @property
    def ranges(self) -> dict[str, float]:
        """Threshold of each activation by mse on the signed grid, whatever method was used.

        It depends least on which images were sampled, so it distinguishes kinds of images. Empty
        without a table; an activation that recovery rescaled is left out, since the FP32 model
        has it otherwise.
        """
        if self.table is None:
            return {}
        recovery = self.table.recovery
        rescaled = {} if recovery is None else recovery.equalization
        return {
            name: observed.thresholds[Method.MSE].s8
            for name, observed in self.table.tensors.items()
            if name not in rescaled and Method.MSE in observed.thresholds
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """An ONNX file, read once: its description and its contents.

    Stages take it instead of a path, so that all of them see the bytes that were hashed.
    """

    artifact: OnnxArtifact
    content: bytes = field(repr=False)
    """The bytes that are run: the file's, or those of the form that it was brought to."""
    proto: onnx.ModelProto
    """The network of normalised values in them, which is all but the arithmetic of a byte input,
    with the names that quantization adds free; no stage changes it."""
    is_normalized: bool = False
    """Whether it is known to have the form that `export` writes."""

    @property
    def prepared(self) -> LoadedModel:
        """The network that takes normalised values, where the file takes bytes; else itself."""
        contract = self.artifact.contract
        if contract is None or contract.input is InputType.FLOAT32:
            return self
        image = replace(
            self.artifact.input,
            shape=(self.artifact.input.shape[0], *contract.shape),
            dtype=InputType.FLOAT32.value,
        )
        artifact = replace(self.artifact, input=image, contract=contract.prepared)
        return replace(self, artifact=artifact, content=self.proto.SerializeToString())


def save_model(path: Path, model: onnx.ModelProto, described: OnnxArtifact) -> OnnxArtifact:
    """Writes the model with `described`'s contract, classes and lineage, and returns it as saved."""
    with atomic_write(path) as temporary:
        return replace(described, path=path, sha256=write_model(temporary, model, described))


def write_model(path: Path, model: onnx.ModelProto, described: OnnxArtifact) -> str:
    """Fills a file with the model and `described`'s metadata, and returns its SHA-256."""
    metadata = Metadata(
        contract=described.contract,
        classes=described.classes,
        architecture=described.architecture,
        checkpoint_sha256=described.checkpoint_sha256,
        version=__version__,
    )
    # What an earlier export wrote would contradict the new description.
    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model, {_PREFIX + key: json.dumps(value) for key, value in to_json(metadata).items()}
    )
    sha256 = hashlib.sha256()
    with path.open("wb") as file:
        for part in _serialized(model):
            sha256.update(part)
            file.write(part)
    return sha256.hexdigest()


def _serialized(model: onnx.ModelProto) -> Iterator[bytes]:
    """Yields what SerializeToString returns, tensor by tensor: that one takes the file's size twice.

    Messages that follow each other are one. Source: protobuf, Encoding, "Field Order" and
    "Length-Delimited Records".
    """
    for each, value in model.ListFields():
        if each.name != "graph":
            yield onnx.ModelProto(**{each.name: value}).SerializeToString()
            continue
        # ByteSize would serialize the whole graph to count.
        size, length = sum(map(len, _graph_fields(value))), []
        while size >> 7:
            length.append(size & 0x7F | 0x80)
            size >>= 7
        # A record's wire type is 2.
        yield bytes([each.number << 3 | 2, *length, size])
        yield from _graph_fields(value)


def _graph_fields(graph: onnx.GraphProto) -> Iterator[bytes]:
    for each, value in graph.ListFields():
        parts: Any = ([one] for one in value) if each.name == "initializer" else (value,)
        for part in parts:
            yield onnx.GraphProto(**{each.name: part}).SerializeToString()


def load_model(path: Path) -> onnx.ModelProto:
    """Returns the contents of an ONNX file, whatever network it is.

    Raises:
        ArtifactError: the file is unreadable or no ONNX model.
    """
    return parse_model(path, read_bytes(path, MODEL))


def load_onnx(path: Path) -> LoadedModel:
    """Reads an ONNX file once: contents, input, output, contract, classes and lineage.

    Raises:
        ArtifactError: unreadable, not a network from one image tensor to one row of logits, or
            one whose logits are not a function of one image.
    """
    serialized = read_bytes(path, MODEL)
    proto = parse_model(path, serialized)
    sha256 = hashlib.sha256(serialized).hexdigest()
    artifact = _described(path, proto, sha256)
    on_bytes = artifact.input.dtype == InputType.UINT8.value
    if on_bytes and artifact.contract is not None:
        try:
            proto = without_byte_input(proto, artifact.contract)
        except ValueError as error:
            raise ArtifactError(f"{path}: {error}") from error
    check_one_image(path, proto)
    free_added_names(path, proto)
    # Nobody else's file takes bytes here, and ours has the form that quantization takes.
    return LoadedModel(artifact=artifact, content=serialized, proto=proto, is_normalized=on_bytes)


def load_fp32(path: Path) -> LoadedModel:
    """Reads an ONNX file as `load_onnx` does, and refuses one that was quantized or lowered.

    Raises:
        ArtifactError: the file is none, or holds less than FP32.
    """
    model = load_onnx(path)
    check_operators(path, model.proto)
    if lowered := low_precision(model.proto):
        raise ArtifactError(
            f"{path} is no FP32 model: it has {lowered}. Scales of rounded weights, and a "
            "comparison with them, would show nothing of what quantization costs. Pass the FP32 "
            "ONNX file that it was made from; bench takes this one as the baseline with "
            "--quantized-reference."
        )
    return model


def parse_model(path: Path, serialized: bytes) -> onnx.ModelProto:
    """Returns the contents of an ONNX file that was read already.

    Raises:
        ArtifactError: no ONNX model, or one whose weights are in another file.
    """
    with foreign_parser(
        lambda error: ArtifactError(
            f"{path} is no ONNX file ({reason_of(error)}). Make one with export."
        )
    ):
        model = onnx.load_model_from_string(serialized)
    if not model.graph.node:
        raise ArtifactError(f"{path} is no ONNX model: its graph is empty. Make one with export.")
    if not any(entry.domain in _STANDARD_DOMAINS for entry in model.opset_import):
        raise ArtifactError(
            f"{path} names no version of ONNX's operators: it is cut off, or was written by a "
            "tool that left it out. Copy it again, or make one with export."
        )
    _open_unknown_sizes(model)
    check_structure(path, model)
    return model


def _open_unknown_sizes(model: onnx.ModelProto) -> None:
    """Takes -1 out of the sizes of inputs and outputs, as runtimes do.

    Paddle's exporter writes it for a dynamic batch, where ONNX has no value at all.
    """
    values = (*model.graph.input, *model.graph.output)
    for size in (d for value in values for d in value.type.tensor_type.shape.dim):
        if size.dim_value == -1:
            size.Clear()


def is_own_export(model: onnx.ModelProto) -> bool:
    """Whether edgeres wrote the file."""
    return any(prop.key == f"{_PREFIX}version" for prop in model.metadata_props)


def opset_of(model: onnx.ModelProto) -> int:
    """Returns the version of the standard operator set that a model uses."""
    return next(int(o.version) for o in model.opset_import if o.domain in _STANDARD_DOMAINS)


def _described(path: Path, model: onnx.ModelProto, sha256: str) -> OnnxArtifact:
    """Returns the description of a classifier, and refuses what is none."""
    # IR versions before 4 list every initializer among the inputs. Source: ONNX, docs/IR.md.
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [_tensor_spec(v) for v in model.graph.input if v.name not in initializers]
    outputs = [_tensor_spec(v) for v in model.graph.output]
    if len(inputs) != 1 or len(outputs) != 1:
        raise ArtifactError(
            f"{path} has the inputs {[t.name for t in inputs]} and outputs "
            f"{[t.name for t in outputs]}; edgeres takes classifiers with one of each. "
            "Keep the part from the images to the logits, in Python: "
            f"onnx.utils.extract_model('{path.name}', 'part.onnx', ['IMAGES'], ['LOGITS'])"
        )
    if len(inputs[0].shape) != 4 or len(outputs[0].shape) != 2:
        raise ArtifactError(
            f"{path} maps {inputs[0].shape} to {outputs[0].shape}; edgeres takes classifiers "
            "from (N, 3, H, W) to (N, classes). Bring the output to two dimensions before the "
            "export, such as with torch.flatten(logits, 1)."
        )
    if outputs[0].dtype != "float32" or inputs[0].dtype not in {"float32", "uint8"}:
        raise ArtifactError(
            f"{path} maps {inputs[0].dtype} to {outputs[0].dtype}; edgeres takes float32 on both "
            "sides and lowers the precision itself. Export the model in FP32."
        )
    raw, damage = to_json(Metadata()), "has damaged edgeres metadata"
    for prop in model.metadata_props:
        # An entry of another name is a later edgeres' or another tool's.
        if prop.key.startswith(_PREFIX) and (key := prop.key.removeprefix(_PREFIX)) in raw:
            try:
                raw[key] = parse_json(prop.value)
            except ValueError as error:
                raise ArtifactError(
                    f"{path} {damage} ({key}: {error}). Export the model again."
                ) from error
    remedy = "Export the model again."
    metadata = from_json(raw, Metadata, source=str(path), remedy=remedy, damage=damage)
    _check_input(path, inputs[0], metadata.contract)
    described = OnnxArtifact(
        path=path,
        sha256=sha256,
        input=inputs[0],
        output=outputs[0],
        activation=final_activation(model),
        contract=metadata.contract,
        classes=metadata.classes,
        architecture=metadata.architecture,
        checkpoint_sha256=metadata.checkpoint_sha256,
    )
    check_classes(described)
    return described


def check_classes(described: OnnxArtifact) -> None:
    """Checks the number of a model's logits, where it is known.

    Raises:
        ArtifactError: there are fewer than two, or another number than of class names.
    """
    path, names, logits = described.path, described.classes, described.output.shape[-1]
    if logits is not None and logits < 2:
        raise ArtifactError(
            f"{path} gives {logits} value an image; edgeres evaluates classifiers by their highest "
            "logit, so 2 classes are needed at least. Give a network with one output a second "
            "logit, such as with torch.cat((torch.zeros_like(logit), logit), 1)."
        )
    if names and logits is not None and len(names) != logits:
        raise ArtifactError(
            f"{path} has damaged edgeres metadata ({counted(len(names), 'class')} for "
            f"{counted(logits, 'logit')}). Export the model again."
        )


def _check_input(path: Path, image: TensorSpec, contract: Contract | None) -> None:
    """Refuses a file whose images would be normalized twice, or not at all."""
    stated = None if contract is None else contract.input.value
    if image.dtype == "uint8" and stated is None:
        raise ArtifactError(
            f"{path} takes uint8 and carries no preprocessing contract, so what it does to pixels "
            "itself is not known, and they could be normalized twice. Export the network with "
            "edgeres export --input uint8, or pass the file that takes prepared floats."
        )
    if stated not in {None, image.dtype}:
        raise ArtifactError(
            f"{path} takes {image.dtype}, and its contract has {stated}: images would be "
            "normalized twice, or not at all. Export the model again."
        )
    if contract is not None and image.dtype == "uint8":
        shapes = {contract.shape, contract.fed_shape}
        if image.shape[1:] not in shapes:
            raise ArtifactError(
                f"{path} takes bytes of {image.shape[1:]}, and its contract makes "
                f"{contract.fed_shape} (HWC) or {contract.shape} (CHW). Export the model again."
            )


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    # 0 is TensorProto.UNDEFINED, for which onnx has no NumPy type.
    kind = tensor.elem_type
    # A damaged file, or a newer onnx, has kinds of numbers that this one does not know.
    known = kind and kind in onnx.TensorProto.DataType.values()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind) if known else "undefined"
    # A dynamic dimension has a name, dim_param, or nothing at all.
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return TensorSpec(name=value.name, shape=shape, dtype=str(dtype))
