"""Calibration tables and the text cache that JetPack 5 and 6 and the DLA read, both ways."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgeres.calibration.logits import ending_in_logits
from edgeres.calibration.observe import calibrated_tensors
from edgeres.core.artifacts import contract_of
from edgeres.core.contract_options import NO_OPTIONS, ContractOptions
from edgeres.core.methods import WeightMethod
from edgeres.core.requests import CalibrationRequest
from edgeres.core.table import CalibrationTable, DataLineage, TensorRange, Threshold, save_table
from edgeres.errors import CalibrationError, ConfigError
from edgeres.files import atomic_write, check_outputs
from edgeres.normalization import normalize
from edgeres.onnx_file import LoadedModel, load_fp32
from edgeres.plurals import counted
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.qdq.placement import place_for_tensorrt
from edgeres.targets.tensorrt.calibration_cache import (
    CalibrationCache,
    read_cache,
    trt_cache,
    version_digits,
)
from edgeres.version import __version__

_LOG = logging.getLogger("edgeres.workflows")

_FOREIGN_FRACTION = 0.25
"""Fraction of a cache's lines that name nothing in a model, or of a model's tensors that a cache
lacks, from which on the two do not belong together: a ResNet-18's cache lacks half of a
ResNet-34's tensors, and half of a ResNet-34's lines name nothing in a ResNet-18."""

_LISTED = 8
"""Names that a message lists."""


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


def import_trt_cache(
    model: Path,
    cache: Path,
    config: CalibrationRequest,
    options: ContractOptions = NO_OPTIONS,
    *,
    output: Path,
) -> tuple[LoadedModel, CalibrationTable]:
    """Writes the table of a calibration cache that TensorRT's calibrator wrote for a model.

    Args:
        model: the FP32 file that the cache was calibrated on.
        cache: text, of TensorRT 7 to 10.
        config: may choose how weights are scaled; all else is the cache's.
        options: preprocessing of a model that carries none.
        output: file that the table is written to.

    Returns:
        The model in the form that quantization takes, and its table.

    Raises:
        ConfigError: `config` requests what only images can give, or the preprocessing is unknown.
        CalibrationError: the cache is another network's.
        ArtifactError: the model or the cache is none, or the table cannot be written.
    """
    check_outputs([output], [model, cache])
    if config != CalibrationRequest(weight_method=config.weight_method):
        raise ConfigError(
            "--import-trt-cache takes the thresholds of the cache, and --samples, --seed, --method, "
            "--percentile, --batch-size, --recover, --precision and --sensitivity are for images. Leave "
            "them out, or calibrate with --data."
        )
    read = read_cache(cache)
    loaded = load_fp32(model)
    contract = contract_of(loaded.artifact, options)
    file = loaded.proto.graph
    names = {out for node in file.node for out in (*node.input, *node.output)}
    loaded = normalize(loaded, contract)
    graph = view(ending_in_logits(loaded).proto)
    tensors = _tensors(graph, read)
    unknown = [name for name in read.amax if name not in names and not _is_internal(name)]
    needed = dict.fromkeys(graph.root(edge.tensor) for edge in place_for_tensorrt(graph).edges)
    missing = [name for name in needed if name not in tensors]
    _check_same_network(cache, model, missing, needed, unknown, read)
    if missing:
        _LOG.warning(
            "%s has no scale of %d of the %s that INT8 rounds, and what reads them stays float: %s",
            cache, len(missing), counted(len(needed), "activation"), ", ".join(_listed(missing)),
        )  # fmt: skip
    if unknown:
        _LOG.warning(
            "%s names %s that %s does not have; left out: %s",
            cache, counted(len(unknown), "tensor"), model, ", ".join(_listed(unknown)),
        )  # fmt: skip
    table = CalibrationTable(
        model_sha256=loaded.artifact.sha256,
        data=DataLineage.of(f"{cache} ({read.header})", ()),
        contract=contract,
        method=read.method,
        percentile=config.percentile,
        samples=0,
        seed=config.seed,
        edgeres_version=__version__,
        weight_method=config.weight_method or WeightMethod.MAX,
        tensors=tensors,
    )
    save_table(output, table)
    return loaded, table


def _tensors(graph: Graph, cache: CalibrationCache) -> Mapping[str, TensorRange]:
    """Returns the ranges of the activations that a cache names, themselves or by a copy."""
    produced = [name for node in graph.nodes for name in node.output]
    amax: dict[str, float] = {}
    for name in (graph.input, *produced):
        # In topological order the first is the root itself, where the cache has it.
        if name in cache.amax:
            amax.setdefault(graph.root(name), cache.amax[name])
    return {
        name: TensorRange(
            amax=amax[name],
            signed=not graph.is_non_negative(name),
            thresholds={cache.method: Threshold(s8=amax[name])},
        )
        for name in calibrated_tensors(graph)
        if name in amax
    }


def _check_same_network(
    cache: Path,
    model: Path,
    missing: Sequence[str],
    needed: Mapping[str, None],
    unknown: Sequence[str],
    read: CalibrationCache,
) -> None:
    lacks = len(missing) > _FOREIGN_FRACTION * len(needed)
    if lacks or len(unknown) > _FOREIGN_FRACTION * len(read.amax):
        raise CalibrationError(
            f"{cache} is the cache of another network than {model}: it lacks {len(missing)} of the "
            f"{counted(len(needed), 'activation')} that INT8 rounds "
            f"({', '.join(_listed(missing)) or 'none'}), and of its "
            f"{counted(len(read.amax), 'tensor')} the model does not have {len(unknown)} "
            f"({', '.join(_listed(unknown)) or 'none'}). Pass the ONNX file that the calibrator "
            "read, with its names, or calibrate with --data."
        )


def _is_internal(name: str) -> bool:
    """Whether a tensor is one of TensorRT's parser, which no ONNX file names."""
    return name.startswith("(Unnamed Layer*")


def _listed(names: Sequence[str]) -> Iterator[str]:
    yield from names[:_LISTED]
    if len(names) > _LISTED:
        yield f"{len(names) - _LISTED} more"
