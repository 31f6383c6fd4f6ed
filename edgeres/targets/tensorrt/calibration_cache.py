"""A calibration table as TensorRT's own text cache, which JetPack 5 and 6 and the DLA read.

Implicit quantization takes one scale a tensor, symmetric: the big-endian float32 of amax / 127 as
eight hexadecimal digits. Source: the format that TensorRT's IInt8EntropyCalibrator2 writes,
`TRT-<version>-EntropyCalibration2`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.errors import ConfigError
from edgeres.onnx_file import LoadedModel
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.grids import INT8

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def trt_cache(
    model: LoadedModel, table: CalibrationTable, version: str, method: Method | None = None
) -> str:
    """Returns the text of a calibration cache.

    Every tensor gets a line whose scale the table decides, under the name that TensorRT's ONNX
    parser gives it, the ONNX file's own: what is observed, what only moves its values, and what a
    ReLU is about to make of it, since convolution and ReLU become one kernel.

    Args:
        model: the FP32 file that the table was made from.
        table: its thresholds.
        version: of the TensorRT that reads it, such as `10.3.0`; another one refuses the cache.
        method: which thresholds; None takes the table's own.

    Raises:
        ConfigError: `version` is no version, or the table's thresholds belong to an equalized model.
        ArtifactError: the table lacks thresholds by that method.
    """
    _check_model(table)
    graph = view(model.proto)
    lines = [f"TRT-{version_digits(version)}-EntropyCalibration2"]
    for tensor, root in _scaled(graph, table):
        scale = INT8.scale_from_amax(table.threshold(root, method).s8)
        lines.append(f"{tensor}: {struct.pack('>f', scale).hex()}")
    return "\n".join(lines) + "\n"


def _check_model(table: CalibrationTable) -> None:
    """Refuses thresholds of activations that are not in the FP32 file which TensorRT reads."""
    if table.recovery is not None and table.recovery.equalization:
        raise ConfigError(
            f"The table's recovery equalized {len(table.recovery.equalization)} activations, so its "
            "thresholds are those of a rescaled model, and TensorRT's cache goes with the FP32 file "
            "as it is. Calibrate with --recover none for the cache, or build an engine with Q/DQ: "
            "edgeres build-engine --target tensorrt."
        )


def version_digits(version: str) -> str:
    """Returns a version as TensorRT numbers it: 8.6.2 is 8602, 10.3.0 is 100300.

    Source: NV_TENSORRT_VERSION in NvInferVersion.h, major * 1000 + minor * 100 + patch until 9,
    major * 10000 + minor * 100 + patch from 10 on.

    Raises:
        ConfigError: it is no version of three numbers.
    """
    found = _VERSION.match(version)
    if found is None:
        raise ConfigError(
            f"--trt-version {version!r} is no version; expected three numbers such as 8.6.2 "
            "(JetPack 6.0) or 10.3.0 (JetPack 6.2)."
        )
    major, minor, patch = (int(part) for part in found.groups())
    thousands = 1_000 if major < 10 else 10_000
    return str(major * thousands + minor * 100 + patch)


def _scaled(graph: Graph, table: CalibrationTable) -> Iterator[tuple[str, str]]:
    """Yields each tensor that gets a scale, with the observed tensor whose scale it is."""
    produced = [name for node in graph.nodes for name in node.output]
    for tensor in (graph.input, *produced):
        root = graph.root(_behind_relu(graph, tensor))
        if root in table.tensors:
            yield tensor, root


def _behind_relu(graph: Graph, tensor: str) -> str:
    after = graph.only_consumer(tensor)
    is_relu = after is not None and after.op_type == "Relu"
    return str(after.output[0]) if after is not None and is_relu else tensor
