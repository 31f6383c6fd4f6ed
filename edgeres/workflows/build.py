"""An ONNX model and its calibration to an engine."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from edgeres.calibration.mixed import MixRequest, choose_mix
from edgeres.core.artifacts import EngineArtifact, contract_of, manifest_path
from edgeres.core.contract import Contract
from edgeres.core.contract_options import NO_OPTIONS, ContractOptions
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.core.table import CalibrationTable, load_table
from edgeres.errors import ConfigError
from edgeres.files import check_outputs
from edgeres.images import (
    batches,
    check_labels,
    load_dataset,
    order_classes,
    select,
    without_copies,
)
from edgeres.normalization import normalize
from edgeres.onnx_file import LoadedModel, load_fp32
from edgeres.progress import Progress, silent, tracked_batches
from edgeres.quantization.lowering import ALL_INTEGER, Mix, check_table
from edgeres.targets.base import build_engine, find_target
from edgeres.workflows.calibrate import calibrate_model

_SELECTION_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionData:
    """Images by which mixed precision selects what stays out of INT8."""

    data: Path
    labelled: bool = True
    """False: every image whose predicted class changes counts as newly wrong."""
    samples: int | None = 1024
    """Images to use, sampled with `seed` when there are more; None: all. They stay in memory."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInputs:
    """What an engine is built from, and the file that it becomes."""

    model: Path
    """The FP32 ONNX file."""
    output: Path
    """The engine; its manifest is written beside it."""
    table: CalibrationTable | Path | None = None
    """Ranges for INT8, or the file that holds them; for FP16 they only show what would overflow."""
    calibration_data: Path | None = None
    """Images to calibrate on now, instead of a table."""
    selection: SelectionData | None = None
    """Images for mixed precision; None for the others."""
    method: Method | None = None
    """Which thresholds of the table; None takes its own."""
    contract: ContractOptions = NO_OPTIONS
    """Only for a model without a contract of its own."""

    def __post_init__(self) -> None:
        if self.table is not None and self.calibration_data is not None:
            raise ConfigError("Pass --calibration or --calib-data, not both.")

    @property
    def read_paths(self) -> tuple[Path, ...]:
        """The files and folders that are read."""
        table = self.table if isinstance(self.table, Path) else None
        selection = None if self.selection is None else self.selection.data
        paths = (self.model, table, self.calibration_data, selection)
        return tuple(path for path in paths if path is not None)


def build_from_model(
    inputs: BuildInputs, config: BuildRequest, *, progress: Progress = silent
) -> EngineArtifact:
    """Builds an engine from an ONNX model and, for INT8, its calibration; reads each file once.

    Args:
        inputs: model, ranges, images, and the engine to write.
        config: precision, target and the options of its builder.
        progress: receives how far calibration, a search or NVIDIA's builder is.

    Raises:
        ConfigError: INT8 without ranges, ranges, a method or images that the precision has no use
            for, or an engine, manifest or timing cache in the place of a file that is read.
        DataError: the images cannot be used.
        CalibrationError: the table is another model's, or ranges cannot be collected.
        QuantizationError: the network cannot be lowered.
        BuildError: the target refused it.
        CoverageError: fewer layers than required run in the requested precision.
        MismatchError: the timing cache is another GPU's or version's.
        DependencyError: the target's package is missing.
        ArtifactError: files cannot be read or written.
    """
    # Calibration and the search take minutes: whatever can be refused without them comes first.
    _check_build(inputs, config)
    find_target(config.target).check_builder()
    model = load_fp32(inputs.model)
    table = load_table(inputs.table) if isinstance(inputs.table, Path) else inputs.table
    known = None if table is None else table.contract
    contract = contract_of(model.artifact, inputs.contract, known)
    # A plan of several image sizes takes them where the model leaves its size open.
    model = normalize(model, contract, fix_sizes=config.input_size is None)
    if inputs.calibration_data is not None:
        table = calibrate_model(
            model,
            inputs.calibration_data,
            CalibrationRequest.for_engine(config.precision),
            inputs.contract,
            progress=progress,
        )
    mix = ALL_INTEGER
    if table is not None:
        lowering = find_target(config.target).lowering()
        check_table(table, model.artifact, contract, lowering, config.precision)
        if inputs.selection is not None and config.max_drop_pp is not None:
            request = MixRequest(
                lowering=lowering,
                max_drop_pp=config.max_drop_pp,
                method=inputs.method,
                float_stream=config.float_stream,
            )
            mix = _mix(model, table, request, inputs.selection, contract, progress)
    network = find_target(config.target).lower(model, config, table, inputs.method, mix)
    return build_engine(network, config, contract, output=inputs.output, progress=progress)


def _mix(
    model: LoadedModel,
    table: CalibrationTable,
    request: MixRequest,
    selection: SelectionData,
    contract: Contract,
    progress: Progress,
) -> Mix:
    """Returns what stays out of INT8, selected on images within the budget of `request`."""
    dataset, names = (
        load_dataset(selection.data, labelled=selection.labelled),
        model.artifact.classes,
    )
    if selection.labelled:
        dataset = order_classes(dataset, names)
        check_labels(dataset, model.artifact.num_classes, names)
    # A copy would count twice in the drop, and be inferred twice by each candidate.
    dataset = without_copies(select(dataset, selection.samples, selection.seed))
    with closing(batches(dataset, contract.prepared, batch_size=_SELECTION_BATCH)) as stream:
        read = list(tracked_batches(stream, len(dataset), "Reading", progress))
    mix = choose_mix(model, table, request, read, progress)
    assert mix.search is not None
    hashes = tuple(text for batch in read for text in batch.hashes)
    return replace(mix, search=replace(mix.search, image_hashes=hashes))


def _check_build(inputs: BuildInputs, config: BuildRequest) -> None:
    """Refuses inputs that the precision lacks or has no use for, and outputs that replace inputs."""
    find_target(config.target).check_request(config)
    precision, method, output = config.precision, inputs.method, inputs.output
    has_ranges = inputs.table is not None or inputs.calibration_data is not None
    if (precision is Precision.MIXED) is (inputs.selection is None):
        raise ConfigError(
            "--precision mixed needs --judge-data, labelled images to count the drop on."
            if inputs.selection is None
            else "--judge-data is for --precision mixed. Leave it out."
        )
    if precision.quantizes and not has_ranges:
        raise ConfigError(
            f"--precision {precision} needs ranges. Pass --calibration TABLE.json from edgeres "
            "calibrate, or --calib-data PATH to calibrate now."
        )
    if precision is Precision.FP32 and (has_ranges or method is not None):
        raise ConfigError(
            f"--precision {precision} has no use for calibration. Leave --calibration, "
            "--calib-data and --method out, or pass --precision int8."
        )
    if precision is Precision.FP16 and method is not None:
        raise ConfigError(
            "--precision fp16 has no use for --method: its ranges only show what would overflow. "
            "Leave --method out, or pass --precision int8."
        )
    outputs = [output, manifest_path(output)]
    if config.options.timing_cache is not None:
        cache = Path(config.options.timing_cache)
        # The cache has a description beside it, named as an engine's manifest is.
        outputs += [cache, manifest_path(cache)]
    check_outputs(outputs, inputs.read_paths)
