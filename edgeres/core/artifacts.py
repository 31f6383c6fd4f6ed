"""What stages make: files on disk and the frozen values that describe them.

Hashes tie an engine to its table and its model, so that
a stale or foreign file is refused with a sentence. Nothing here imports a heavy library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeres.core.audit import Audit
from edgeres.core.builder_options import TensorRTOptions
from edgeres.core.contract import Contract
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.table import TABLE_KIND
from edgeres.core.target import Target
from edgeres.core.tuning import MixedSearch, Sensitivity
from edgeres.errors import ArtifactError
from edgeres.files import SCHEMA_VERSION, load_json, optional, sha256_of

TRUSTED = "TRUSTED"
"""Flag of a plan that has no manifest and is run on the user's word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, shape and type of a network's input or output."""

    name: str
    shape: tuple[int | None, ...]
    """None stands for a dynamic dimension."""
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxArtifact:
    """An ONNX file and what its metadata says of it."""

    path: Path
    sha256: str
    input: TensorSpec
    output: TensorSpec
    contract: Contract | None = None
    """None where the file was exported elsewhere."""
    classes: tuple[str, ...] = ()
    architecture: str | None = None
    checkpoint_sha256: str | None = None

    @property
    def num_classes(self) -> int:
        """Length of the logits."""
        return self.output.shape[-1] or 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "edgeres-model",
            **asdict(self),
            "path": str(self.path),
            "contract": self.contract and self.contract.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPrecision:
    """Precision that one operator of the network was lowered to, and why."""

    name: str
    op_type: str
    precision: Precision
    reason: str = ""
    """Why the operator is not in the precision asked for; empty where it is."""
    joined: str = ""
    """The layer whose convolution computes this one with others; empty where it has its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What stands beside an engine: where it belongs and what it was made from."""

    target: Target
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
    calibration_images: tuple[str, ...] = ()
    """Hashes of the images that the engine was calibrated on."""
    layers: tuple[LayerPrecision, ...] = field(default=())
    batch: tuple[int, int, int] | None = None
    """Smallest, optimal and largest batch; None where any is taken."""
    input_size: tuple[int, int, int] | None = None
    """Smallest, optimal and largest side of the image; None: the contract's alone."""
    options: TensorRTOptions | None = None
    """What was asked of NVIDIA's builder; None on the CPU."""
    required_coverage: float | None = None
    """Percentage of the convolutions and additions that had to run in the precision asked for."""
    audit: Audit | None = None
    """What the engine really runs; None where nobody looked."""
    search: MixedSearch | None = None
    """What mixed precision chose among; None for the others."""
    sensitivity: Sensitivity | None = None
    """The table's; None without it."""
    ranges: Mapping[str, float] = field(default_factory=dict)
    """Calibrated range of each activation, `LoweredNetwork.ranges`; empty without INT8."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "edgeres-engine",
            **asdict(self),
            "contract": self.contract.to_dict(),
            "audit": self.audit and self.audit.to_dict(),
            "search": self.search and self.search.to_dict(),
            "sensitivity": self.sensitivity and self.sensitivity.to_dict(),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Manifest:
        """Reads `to_dict`'s form; missing or malformed keys raise KeyError, TypeError, ValueError."""
        return cls(
            target=Target(raw["target"]),
            precision=Precision(raw["precision"]),
            engine_sha256=raw["engine_sha256"],
            model_sha256=raw["model_sha256"],
            table_sha256=raw["table_sha256"],
            method=None if raw["method"] is None else Method(raw["method"]),
            edgeres_version=raw["edgeres_version"],
            versions=dict(raw["versions"]),
            gpu=raw["gpu"],
            compute_capability=raw["compute_capability"],
            flags=tuple(raw["flags"]),
            contract=Contract.from_dict(raw["contract"]),
            classes=tuple(raw["classes"]),
            input=_tensor_spec(raw["input"]),
            output=_tensor_spec(raw["output"]),
            calibration_images=tuple(raw["calibration_images"]),
            layers=tuple(
                LayerPrecision(**{**layer, "precision": Precision(layer["precision"])})
                for layer in raw["layers"]
            ),
            batch=_profile(raw["batch"]),
            input_size=_profile(raw["input_size"]),
            options=optional(TensorRTOptions.from_dict, raw["options"]),
            required_coverage=optional(float, raw["required_coverage"]),
            audit=optional(Audit.from_dict, raw["audit"]),
            search=optional(MixedSearch.from_dict, raw["search"]),
            sensitivity=optional(Sensitivity.from_dict, raw["sensitivity"]),
            ranges={name: float(value) for name, value in raw["ranges"].items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArtifact:
    """An engine file and its manifest."""

    path: Path
    manifest: Manifest


def _profile(raw: Any) -> tuple[int, int, int] | None:
    if raw is None:
        return None
    low, best, high = (int(value) for value in raw)
    return low, best, high


def _tensor_spec(raw: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(name=raw["name"], shape=tuple(raw["shape"]), dtype=raw["dtype"])


def manifest_path(engine: Path) -> Path:
    """Returns where an engine's manifest stands: `ENGINE.json` beside `ENGINE`."""
    return engine.parent / f"{engine.name}.json"


def is_engine(path: Path) -> bool:
    """Returns whether an engine's manifest stands beside `path`, and not a table of that name."""
    beside = manifest_path(path)
    if not beside.exists():
        return False
    try:
        load_json(beside, TABLE_KIND)
    except ArtifactError:
        return True
    return False


def load_engine(path: Path) -> EngineArtifact:
    """Reads an engine's manifest and checks the engine file against it.

    Raises:
        ArtifactError: no manifest, a damaged one, or an engine changed or truncated since.
    """
    beside = manifest_path(path)
    if not path.exists():
        raise ArtifactError(
            f"{path} does not exist. Check the path, or make the engine with build-engine."
        )
    if not beside.exists():
        raise ArtifactError(
            f"{path} has no manifest: {beside.name} is not beside it. An engine is code, so one "
            "of unknown origin is not run. Copy both files, or build it with build-engine; bench "
            "runs a plan of your own with --trust."
        )
    raw = load_json(beside, "edgeres-engine")
    try:
        manifest = Manifest.from_dict(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{beside} is a damaged manifest ({error!r}). Run build-engine again."
        ) from error
    actual = sha256_of(path)
    if actual != manifest.engine_sha256:
        raise ArtifactError(
            f"{path} was changed or truncated after it was built: sha256 {actual[:12]}, its "
            f"manifest says {manifest.engine_sha256[:12]}. Run build-engine again."
        )
    return EngineArtifact(path=path, manifest=manifest)
