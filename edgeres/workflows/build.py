"""An ONNX model and its table to an engine."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edgeres.calibration.mixed import MixRequest, choose_mix
from edgeres.core.artifacts import EngineArtifact, manifest_path
from edgeres.core.contract import NO_OPTIONS, Contract, ContractOptions
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildConfig
from edgeres.core.table import CalibrationTable
from edgeres.errors import ConfigError
from edgeres.files import check_writable
from edgeres.images import batches, check_labels, load_dataset, select
from edgeres.onnx_file import LoadedModel, load_onnx
from edgeres.progress import Progress, silent, tracked_batches
from edgeres.quantization.lowering import ALL_INTEGER, Mix, check_table
from edgeres.targets.base import build_engine, find_target
from edgeres.workflows.calibrate import contract_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """Images that mixed precision is chosen by."""

    data: Path
    labelled: bool
    """False: every image whose label changes counts as lost."""
    samples: int | None = 1024
    """Images to use, drawn with `seed` when there are more; None: all. They are held in memory."""
    seed: int = 0


def build_from_model(
    model: Path,
    config: BuildConfig,
    table: CalibrationTable | None = None,
    *,
    method: Method | None = None,
    options: ContractOptions = NO_OPTIONS,
    output: Path,
    progress: Progress = silent,
    judges: Judges | None = None,
) -> EngineArtifact:
    """Builds an engine from an ONNX model and, for INT8, its calibration table.

    Args:
        model: the FP32 file.
        config: what is to be built.
        table: ranges, for INT8; for FP16 they only show what would overflow.
        method: which thresholds of the table; None takes its own.
        options: preprocessing of a model that carries none.
        output: the engine.
        progress: receives how far a search or NVIDIA's builder is.
        judges: the images that mixed precision is chosen by; None for the others.

    Raises:
        ConfigError: INT8 without a table, or a table that the precision has no use for; or
            `output` is what is read.
        CalibrationError: the table is another model's.
        QuantizationError: the network cannot be lowered.
        BuildError: the target refused it.
        CoverageError: fewer layers than required run in the precision asked for.
        MismatchError: the timing cache is another GPU's or version's.
        DependencyError: the target's package is missing.
        ArtifactError: files cannot be read or written.
    """
    check_build(config, has_ranges=table is not None, method=method, output=output, inputs=(model,))
    loaded = load_onnx(model)
    contract = contract_of(loaded.artifact, options, None if table is None else table.contract)
    if table is not None:
        check_table(table, loaded.artifact, contract)
    mix = ALL_INTEGER
    if judges is not None and table is not None:
        mix = _mix(loaded, contract, config, (table, method), judges, progress)
    network = find_target(config.target).lower(loaded, config, table, method, mix)
    return build_engine(network, config, contract, output=output, progress=progress)


_JUDGED_AT_ONCE = 8


def check_build(
    config: BuildConfig,
    *,
    has_ranges: bool,
    method: Method | None,
    output: Path,
    inputs: tuple[Path, ...],
) -> None:
    """Checks what can be said of a build before any image is read for it.

    Args:
        config: what is to be built.
        has_ranges: whether there is a table, or images to make one from.
        method: that was asked for.
        output: the engine.
        inputs: the files that it is made from.

    Raises:
        ConfigError: INT8 without ranges, ranges or a method that the precision has no use for,
            or an engine, manifest or timing cache in the place of an input.
        ArtifactError: the engine, its manifest or the timing cache cannot be written.
    """
    find_target(config.target).check_request(config)
    if config.precision.quantizes and not has_ranges:
        raise ConfigError(
            f"--precision {config.precision} needs ranges. Pass --calibration TABLE.json from edgeres calibrate, "
            "or --calib-data PATH to calibrate now."
        )
    if config.precision is Precision.FP32 and (has_ranges or method is not None):
        raise ConfigError(
            f"--precision {config.precision} has no use for calibration. Leave --calibration, "
            "--calib-data and --method out, or pass --precision int8."
        )
    if config.precision is Precision.FP16 and method is not None:
        raise ConfigError(
            "--precision fp16 has no use for --method: its ranges only show what would overflow. "
            "Leave --method out, or pass --precision int8."
        )
    check_writable(output, *inputs)
    check_writable(manifest_path(output), *inputs)
    if config.options.timing_cache is not None:
        _check_timing_cache(Path(config.options.timing_cache), output, inputs)


def _check_timing_cache(cache: Path, output: Path, inputs: tuple[Path, ...]) -> None:
    """Refuses a cache, or what is written beside it, in the place of another file of the build."""
    made = {path.resolve() for path in (output, manifest_path(output))}
    for path in (cache, manifest_path(cache)):
        if path.resolve() in made:
            raise ConfigError(
                f"--timing-cache {cache} and the engine {output} would write the same file {path}. "
                "Pass another --timing-cache."
            )
        check_writable(path, *inputs)


def _mix(
    model: LoadedModel,
    contract: Contract,
    config: BuildConfig,
    ranges: tuple[CalibrationTable, Method | None],
    judges: Judges,
    progress: Progress,
) -> Mix:
    """Returns what to keep from INT8 within the budget of `config`."""
    table, method = ranges
    budget = config.max_drop_pp
    assert budget is not None  # mixed precision without one is refused by `config`
    request = MixRequest(
        lowering=find_target(config.target).lowering(), max_drop_pp=budget, method=method
    )
    dataset = select(
        load_dataset(judges.data, labelled=judges.labelled), judges.samples, judges.seed
    )
    if judges.labelled:
        check_labels(dataset, model.artifact.num_classes)
    with closing(batches(dataset, contract, batch_size=_JUDGED_AT_ONCE)) as stream:
        seen = tracked_batches(stream, len(dataset), "Reading", progress)
        return choose_mix(model, table, request, seen, progress)
