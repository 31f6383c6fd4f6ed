"""Artifacts of the stages: files on disk and the frozen values that describe them.

Hashes tie an engine to its table and its model, so that
a stale or foreign file is refused with a sentence. Nothing here imports a heavy library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar

from edgeres.core.audit import Audit
from edgeres.core.builder_options import TensorRTOptions
from edgeres.core.contract import Contract, InputType, OutputType
from edgeres.core.contract_options import ContractOptions
from edgeres.core.described import load_described
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.table import CalibrationTable
from edgeres.core.tuning import MixedSearch, Sensitivity
from edgeres.errors import ArtifactError, ConfigError
from edgeres.input_files import ENGINE, JSON, exists, read_bytes
from edgeres.serialization import SCHEMA_VERSION, json_line, load_json

TRUSTED = "TRUSTED"
"""Flag of a plan that has no manifest and is run on the user's word."""

INPUT_HWC = "INPUT_HWC"
"""Flag of a plan whose input is (N, C, H, W), and in memory (N, H, W, C): TensorRT's format HWC."""

FOREIGN = "FOREIGN"
"""Flag of an ONNX file that has no manifest: what quantized it, if anything, is not known."""


_LARGEST_BATCH = 1 << 16
"""Images; no accelerator's memory takes as many activations at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, shape and type of a network's input or output."""

    name: str
    shape: tuple[int | None, ...]
    """None stands for a dynamic dimension."""
    dtype: str = "float32"


PROBABILITIES = frozenset({"Softmax", "Sigmoid"})
"""Operators at the end of a network whose outputs are probabilities and no logits. LogSoftmax is
none: the softmax of log-probabilities gives the probabilities, as that of logits does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPrecision:
    """Precision that one operator of the network was lowered to, and why."""

    name: str
    op_type: str
    precision: Precision
    reason: str = ""
    """Why the operator is not in the requested precision; empty where it is."""
    joined: str = ""
    """The layer whose convolution computes this one with others; empty where it has its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp16Layer:
    """What FP16 changes of a layer: its exponent, and what its scales and results lose."""

    name: str
    exponent: int = 0
    """Its result is 2^exponent times the model's in the engine; the layers that read it undo that."""
    subnormal: int = 0
    """Output channels whose scale, or largest weight, is a subnormal number of FP16."""
    levels: int = 127
    """Levels of 127 that its channels and its result keep at least."""
    clipped: int = 0
    """Weights beyond the last level, where a scale was rounded down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxArtifact:
    """An ONNX file with its input, output and metadata."""

    kind: ClassVar[str] = "edgeres-model"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys = ("schema_version", "kind", "*")

    path: Path
    sha256: str
    input: TensorSpec
    output: TensorSpec
    contract: Contract | None = None
    """None where the file was exported elsewhere."""
    classes: tuple[str, ...] = ()
    architecture: str | None = None
    checkpoint_sha256: str | None = None
    batch: int | None = None
    """The one batch that the file was exported for; None where it takes any."""
    activation: str = ""
    """Operator that it ends in, such as Softmax; empty for logits."""
    precision: Precision | None = None
    """Of a file that is quantized or of less than FP32, where it was inspected; else None."""
    layers: tuple[LayerPrecision, ...] = ()
    """Its layers, as the file has them; empty where it was not inspected."""
    audit: Audit | None = None
    """Layers that ONNX Runtime really runs; None where it was not inspected."""
    equal_shapes: tuple[str, ...] = ()
    """Other architectures that its checkpoint fills as well, where it was just exported."""

    @property
    def num_classes(self) -> int:
        """Length of the logits."""
        return self.output.shape[-1] or 0


def contract_of(
    artifact: OnnxArtifact, options: ContractOptions, known: Contract | None = None
) -> Contract:
    """Returns a model's preprocessing, from its metadata or, where it has none, from `options`.

    Args:
        artifact: the model.
        options: what the user passed.
        known: that of a table or an engine made from this very model; used where the model has
            none and the user passed none.

    Raises:
        ConfigError: it is unknown, or the user passed one although the model has its own.
    """
    if artifact.contract is not None:
        # Even equal options are refused: a contract is never typed twice, so it cannot diverge.
        if options.empty:
            return artifact.contract
        raise ConfigError(
            f"{artifact.path} carries its own preprocessing contract ({artifact.contract}). Leave "
            "the preprocessing options out, or export the model again with them."
        )
    if options.empty and known is not None:
        return known
    if options.missing:
        raise ConfigError(
            f"{artifact.path} carries no preprocessing contract: it was not exported by edgeres. "
            f"{options.how_to_describe()}"
        )
    ends_in = (
        OutputType.PROBABILITIES if artifact.activation in PROBABILITIES else OutputType.LOGITS
    )
    return replace(options.resolve(), output=ends_in)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The manifest beside an engine: where it runs and what it was built from."""

    kind: ClassVar[str] = "edgeres-engine"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys = ("schema_version", "kind", "*", "manifest_sha256")

    target: str
    """Name of what runs it."""
    precision: Precision | None
    """None where a plan without a manifest is run on the user's word."""
    engine_sha256: str
    model_sha256: str
    table_sha256: str | None
    method: Method | None
    edgeres_version: str
    versions: Mapping[str, str]
    """Versions of the libraries that built the engine."""
    gpu: str | None
    compute_capability: str | None
    """None for engines that run on the CPU."""
    flags: tuple[str, ...]
    contract: Contract
    classes: tuple[str, ...]
    input: TensorSpec
    output: TensorSpec
    activation: str = ""
    """Operator that the network ends in, such as Softmax; empty for logits."""
    calibration_images: tuple[str, ...] = ()
    """Hashes of the images that the engine was calibrated on."""
    layers: tuple[LayerPrecision, ...] = field(default=())
    batch: tuple[int, int, int] | None = None
    """Smallest, optimal and largest batch; None where any is taken."""
    input_size: tuple[int, int, int] | None = None
    """Smallest, optimal and largest side of the image; None: the contract's alone."""
    options: TensorRTOptions | None = None
    """Options of NVIDIA's builder; None on the CPU."""
    required_coverage: float | None = None
    """Percentage of the convolutions and additions that had to run in the requested precision."""
    audit: Audit | None = None
    """Layers that the engine really runs; None where they were not inspected."""
    search: MixedSearch | None = None
    """What mixed precision chose among; None for the others."""
    sensitivity: Sensitivity | None = None
    """The table's; None without it."""
    ranges: Mapping[str, float] = field(default_factory=dict)
    """Calibrated range of each activation, `LoweredNetwork.ranges`; empty without INT8."""
    fp16: tuple[Fp16Layer, ...] = ()
    """Layers whose exponent was moved for FP16, or that lose levels in it."""
    commands: tuple[str, ...] = ()
    """Command lines that build on from the engine, each with the version that it is for."""

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 of all other values: contract, classes and audit are the engine's, as its bytes are.

        A plan carries none of them itself, and with an edited contract it would be evaluated on
        images that nobody built it for. It guards against edits, not against forgery.
        """
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return hashlib.sha256(json_line(values).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def batch_limits(self) -> tuple[int, int] | None:
        """Smallest and largest batch that is taken; None where any is."""
        if self.batch is not None:
            return self.batch[0], self.batch[-1]
        fixed = self.input.shape[0]
        return None if fixed is None else (fixed, fixed)

    def __post_init__(self) -> None:
        taken, given = self.input.shape, self.output.shape
        known = [size for size in (*taken, *given) if size is not None]
        if (len(taken), len(given)) != (4, 2) or min(known, default=1) < 1:
            raise ValueError(
                f"an engine from {taken} to {given}, expected (N, 3, H, W) to (N, classes)"
            )
        types = [str(each) for each in InputType]
        if self.input.dtype not in types or self.output.dtype != InputType.FLOAT32.value:
            raise ValueError(
                f"an engine from {self.input.dtype} to {self.output.dtype}, expected "
                f"{' or '.join(types)} to {InputType.FLOAT32}"
            )
        sizes = (1, *(self.batch or ()), _LARGEST_BATCH)
        if sorted(sizes) != list(sizes):
            raise ValueError(f"batches of {self.batch}, expected 1 to {_LARGEST_BATCH}, ascending")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArtifact:
    """An engine file, read once, and its manifest: what was hashed is what is run."""

    path: Path
    manifest: Manifest
    content: bytes = field(repr=False)
    """The file's bytes."""


def manifest_path(engine: Path) -> Path:
    """Returns where an engine's manifest stands: `ENGINE.json` beside `ENGINE`."""
    return engine.parent / f"{engine.name}.json"


def is_engine(path: Path) -> bool:
    """Returns whether an engine's manifest stands beside `path`, and not a table of that name."""
    beside = manifest_path(path)
    if not exists(beside, JSON):
        return False
    # Any file may be called `net.json`, a calibration table beside its model `net` too.
    try:
        load_json(beside, CalibrationTable.kind)
    except ArtifactError:
        return True
    return False


def load_engine(path: Path) -> EngineArtifact:
    """Reads an engine's manifest and checks the engine file against it.

    Raises:
        ArtifactError: no manifest, a damaged one, or an engine changed or truncated since.
    """
    beside = manifest_path(path)
    if not exists(path, ENGINE):
        raise ArtifactError(
            f"{path} does not exist. Check the path, or build the engine with build-engine."
        )
    if not exists(beside, JSON):
        raise ArtifactError(
            f"{path} has no manifest: {beside.name} is not beside it. An engine is code, so one "
            "of unknown origin is not run. Copy both files, or build it with build-engine; bench "
            "runs a plan of your own with --trust."
        )
    # Hash and engine are of one reading: a file replaced in between cannot be run unchecked.
    content = read_bytes(path, ENGINE)
    actual = hashlib.sha256(content).hexdigest()
    manifest = load_described(
        beside,
        Manifest,
        hash_key="engine_sha256",
        sha256=actual,
        remedy="Undo an edit of it, or run build-engine again.",
    )
    if actual != manifest.engine_sha256:
        raise ArtifactError(
            f"{path} was changed or truncated after it was built: sha256 {actual[:12]}, its "
            f"manifest has {manifest.engine_sha256[:12]}. Run build-engine again."
        )
    return EngineArtifact(path=path, manifest=manifest, content=content)
