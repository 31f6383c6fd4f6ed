"""TensorRT's own text cache of calibration, which JetPack 5 and 6 and the DLA read, both ways.

Implicit quantization takes one scale a tensor, symmetric: the big-endian float32 of amax / 127 as
eight hexadecimal digits. Source: the format that TensorRT's IInt8EntropyCalibrator2 and
IInt8MinMaxCalibrator write, `TRT-<version>-EntropyCalibration2` or `-MinMaxCalibration`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeres.core.methods import Method
from edgeres.core.table import LARGEST_FLOAT32, CalibrationTable
from edgeres.errors import ArtifactError, ConfigError
from edgeres.input_files import CALIBRATION_CACHE, read_text
from edgeres.onnx_file import LoadedModel
from edgeres.plurals import counted
from edgeres.quantization.graph import view
from edgeres.quantization.grids import INT8

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")

# 7000 to 8999 until TensorRT 9, 100000 to 109999 for 10: see `version_digits`.
_HEADER = re.compile(r"TRT-([78]\d{3}|10\d{4})-(\w+)")

_LINE = re.compile(r"(.+): ([0-9a-fA-F]{8})")

_METHODS = {"EntropyCalibration2": Method.ENTROPY, "MinMaxCalibration": Method.MAX}
"""What the calibrators choose thresholds by, by the name in the header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationCache:
    """Thresholds of the tensors that a calibration cache names."""

    header: str
    """Its first line."""
    method: Method
    amax: Mapping[str, float]
    """127 scales, by the name of the tensor in the ONNX file."""


def read_cache(path: Path) -> CalibrationCache:
    """Reads a calibration cache of TensorRT 7 to 10.

    Raises:
        ArtifactError: it cannot be read, is no such cache, or has a scale that is none.
    """
    header, *lines = read_text(path, CALIBRATION_CACHE).replace("\r\n", "\n").split("\n")
    match = _HEADER.fullmatch(header)
    if match is None or match[2] not in _METHODS:
        raise ArtifactError(
            f"{path} is no calibration cache: its first line is {header!r:.60}, expected "
            f"TRT-<version>- of TensorRT 7 to 10 with {' or '.join(_METHODS)}, such as "
            "TRT-8602-EntropyCalibration2. Pass the file that the calibrator wrote, or calibrate "
            "with --data."
        )
    amax: dict[str, float] = {}
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        words = _LINE.fullmatch(line)
        if words is None:
            raise ArtifactError(
                f"{path} is a damaged calibration cache: line {number} is {line!r:.80}, expected a "
                "tensor, a colon and 8 hexadecimal digits. Copy the file again."
            )
        name = words[1]
        if name in amax:
            raise ArtifactError(
                f"{path} is a damaged calibration cache: line {number} has a second scale of "
                f"{name!r:.80}. Take one of the two out."
            )
        amax[name] = _amax(words[2], f"{path}: line {number}, tensor {name!r:.80},")
    return CalibrationCache(header=header, method=_METHODS[match[2]], amax=amax)


def _amax(digits: str, place: str) -> float:
    """Returns the threshold of a scale, so that `trt_cache` writes the same digits of it."""
    (scale,) = struct.unpack(">f", bytes.fromhex(digits))
    amax = float(scale) * INT8.qmax
    # Beyond is NaN, infinity, what is not positive, and what a grid takes for a dead tensor.
    if not 0 < amax <= LARGEST_FLOAT32 or INT8.scale_from_amax(amax) != scale:
        raise ArtifactError(
            f"{place} has the scale {scale:g} ({digits}); expected a positive one that float32 "
            "holds 127 of. The calibrator saw broken data, or the file is damaged: calibrate with "
            "--data."
        )
    return amax


def trt_cache(
    model: LoadedModel, table: CalibrationTable, version: str, method: Method | None = None
) -> str:
    """Returns the text of a calibration cache.

    Every tensor gets a line whose scale the table decides, under the name that TensorRT's ONNX
    parser gives it, the ONNX file's own: what was observed, what only moves its values, and what a
    ReLU reads.

    Args:
        model: the FP32 file that the table was made from.
        table: its thresholds.
        version: of the TensorRT that reads it, such as `10.3.0`; another one refuses the cache.
        method: which thresholds; None takes the table's own.

    Raises:
        ConfigError: `version` is no version, or the table's thresholds belong to an equalized model.
        ArtifactError: the table lacks thresholds by that method.
    """
    # The file that TensorRT reads does not have the activations of an equalized model.
    if table.recovery is not None and table.recovery.equalization:
        raise ConfigError(
            "The table's recovery equalized "
            f"{counted(len(table.recovery.equalization), 'activation')}, so its thresholds are "
            "those of a rescaled model, and TensorRT's cache goes with the FP32 file as it is. "
            "Calibrate with --emit-trt-cache, which equalizes none, or build an engine with Q/DQ: "
            "edgeres build-engine --target tensorrt."
        )
    graph = view(model.proto)
    lines = [f"TRT-{version_digits(version)}-EntropyCalibration2"]
    produced = [name for node in graph.nodes for name in node.output]
    for tensor in (graph.input, *produced):
        # Convolution and ReLU are one kernel, so what a ReLU reads has the scale of what it writes.
        reader = graph.only_consumer(tensor)
        if reader is not None and reader.op_type == "Relu":
            root = graph.root(reader.output[0])
        else:
            root = graph.root(tensor)
        # What only has a range stays float: with a scale of its own it would not.
        if root in table.tensors and table.tensors[root].thresholds:
            scale = INT8.scale_from_amax(table.threshold(root, method).s8)
            lines.append(f"{tensor}: {struct.pack('>f', scale).hex()}")
    return "\n".join(lines) + "\n"


def version_digits(version: str) -> str:
    """Returns a version as TensorRT numbers it: 8.6.2 is 8602, 10.3.0 is 100300.

    Source: NV_TENSORRT_VERSION in NvInferVersion.h, major * 1000 + minor * 100 + patch until 9,
    major * 10000 + minor * 100 + patch from 10 on.

    Raises:
        ConfigError: it is no version of three numbers.
    """
    match = _VERSION.match(version)
    if match is None:
        raise ConfigError(
            f"--trt-version {version!r} is no version; expected three numbers such as 8.6.2 "
            "(JetPack 6.0) or 10.3.0 (JetPack 6.2)."
        )
    major, minor, patch = (int(part) for part in match.groups())
    thousands = 1_000 if major < 10 else 10_000
    return str(major * thousands + minor * 100 + patch)
