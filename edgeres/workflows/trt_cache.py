"""A calibration table as the text cache that JetPack 5 and 6 and the DLA read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from edgeres.core.table import CalibrationTable
from edgeres.files import atomic_write, check_outputs
from edgeres.onnx_file import LoadedModel
from edgeres.targets.tensorrt.calibration_cache import trt_cache, version_digits

_LOG = logging.getLogger("edgeres.workflows")


def check_trt_cache(output: Path, version: str, *, table: Path, inputs: Sequence[Path]) -> None:
    """Checks version and path of a cache, before any image is read for it.

    Args:
        output: the cache.
        version: of the TensorRT that reads it.
        table: file that the table is written to.
        inputs: files and folders that are read.

    Raises:
        ConfigError: `version` is no version, or `output` is one of `inputs` or `table`.
        ArtifactError: one of the two cannot be written.
    """
    # Called for its refusal; the digits are needed when the cache is written.
    version_digits(version)
    check_outputs([table, output], inputs)


def emit_trt_cache(
    model: LoadedModel, table: CalibrationTable, version: str, *, output: Path
) -> int:
    """Writes the cache for a version of TensorRT and returns its number of tensors.

    What a recovery changed besides the thresholds does not travel in that file, and is warned of.

    Raises:
        ConfigError: `version` is no version, or the table's recovery equalized activations.
        ArtifactError: the table lacks thresholds, or the file cannot be written.
    """
    text = trt_cache(model, table, version)
    with atomic_write(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if table.recovery is not None:
        _LOG.warning(
            "the cache holds thresholds only: the recovered weights and biases (--recover %s) stay "
            "in the table, and an engine from the cache has the trained ones",
            table.recovery.kind,
        )
    # The first line is the head, with the version; each of the others is a tensor.
    return text.count("\n") - 1
