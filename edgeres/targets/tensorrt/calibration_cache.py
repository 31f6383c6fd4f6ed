"""A calibration table as TensorRT's own text cache, which JetPack 5 and 6 and the DLA read.

Implicit quantization takes one scale a tensor, symmetric: the big-endian float32 of amax / 127 as
eight hexadecimal digits. Source: the format that TensorRT's IInt8EntropyCalibrator2 writes,
`TRT-<version>-EntropyCalibration2`.
"""

from __future__ import annotations

import re
import struct

from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.errors import ConfigError
from edgeres.onnx_file import LoadedModel
from edgeres.quantization.graph import view
from edgeres.quantization.grids import INT8

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


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
            f"The table's recovery equalized {len(table.recovery.equalization)} activations, so its "
            "thresholds are those of a rescaled model, and TensorRT's cache goes with the FP32 file "
            "as it is. Calibrate with --recover none for the cache, or build an engine with Q/DQ: "
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
