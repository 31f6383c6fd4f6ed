"""What stages make: files on disk and the frozen values that describe them.

Hashes tie an engine to its table and its model, so that
a stale or foreign file is refused with a sentence. Nothing here imports a heavy library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edgeres.audit import Audit
from edgeres.contract import Contract
from edgeres.errors import ArtifactError
from edgeres.files import SCHEMA_VERSION, json_text, load_json, save_json, sha256_of
from edgeres.recovery import Recovery
from edgeres.spec import Method, Precision, Target, TensorRTOptions
from edgeres.tuning import Choice, MixedSearch, Sensitivity

T = TypeVar("T")

_LARGEST_FLOAT32 = 2.0**128 - 2.0**104
"""Source: IEEE 754, binary32."""


TABLE_KIND = "edgeres-calibration-table"
"""What the JSON of a calibration table says that it is."""


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
class Threshold:
    """Amax by number of levels, for one tensor and one method."""

    s8: float
    """For the signed grid of 127 steps on each side of zero; scale = s8 / 127."""
    u8: float | None = None
    """For the unsigned grid of 255 steps; scale = u8 / 255. None for a tensor with a sign."""

    def __post_init__(self) -> None:
        for amax in (self.s8, self.u8):
            if amax is not None and not 0 <= amax <= _LARGEST_FLOAT32:
                raise ValueError(f"threshold {amax}, expected 0 to {_LARGEST_FLOAT32:.5g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRange:
    """What calibration saw of one activation."""

    amax: float
    """Largest absolute value over all images, exact."""
    signed: bool
    """Whether the network can make it negative: False behind a ReLU."""
    thresholds: Mapping[Method, Threshold]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLineage:
    """The images that a table was made from."""

    path: str
    fingerprint: str
    """Hash over the images' hashes in the order used."""
    image_hashes: tuple[str, ...]
    """64-bit hash of each image's decoded pixels, to find it again among validation images."""

    @classmethod
    def of(cls, path: str, image_hashes: Iterable[str]) -> DataLineage:
        """Returns the lineage of images given by their hashes, in the order used."""
        hashes = tuple(image_hashes)
        fingerprint = hashlib.sha256("".join(hashes).encode("ascii")).hexdigest()
        return cls(path=path, fingerprint=fingerprint, image_hashes=hashes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationTable:
    """Thresholds of every activation by every method, and where they come from."""

    model_sha256: str
    data: DataLineage
    contract: Contract
    method: Method
    percentile: float
    samples: int
    seed: int
    edgeres_version: str
    tensors: Mapping[str, TensorRange]
    choices: tuple[Choice, ...] = ()
    """How method auto came to its thresholds, for each lowering; empty without it."""
    sensitivity: Sensitivity | None = None
    """What each block and layer does to the logits; None unless it was asked for."""
    recovery: Recovery | None = None
    """Weights and biases to quantize in the place of the model's; None: the model's own."""

    def threshold(self, tensor: str, method: Method | None = None) -> Threshold:
        """Returns the threshold of a tensor by the table's own method or another.

        Raises:
            ArtifactError: the table does not have that tensor, or not by that method.
        """
        if tensor not in self.tensors:
            raise ArtifactError(
                f"The calibration table has no tensor '{tensor}' among its {len(self.tensors)}. "
                "It was made by another version of edgeres: run calibrate again."
            )
        thresholds, wanted = self.tensors[tensor].thresholds, method or self.method
        if wanted not in thresholds:
            raise ArtifactError(
                f"The calibration table has no {wanted} threshold of '{tensor}'; it has "
                f"{', '.join(thresholds)}. Build with one of these methods, or run calibrate again."
            )
        return thresholds[wanted]

    @property
    def sha256(self) -> str:
        """Hash of the file that `save_table` writes of this table."""
        return hashlib.sha256(json_text(self.to_dict()).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": TABLE_KIND,
            "model_sha256": self.model_sha256,
            "data": asdict(self.data),
            "contract": self.contract.to_dict(),
            "method": self.method.value,
            "percentile": self.percentile,
            "samples": self.samples,
            "seed": self.seed,
            "edgeres_version": self.edgeres_version,
            "tensors": {
                name: {
                    "amax": seen.amax,
                    "signed": seen.signed,
                    "thresholds": {m.value: asdict(t) for m, t in seen.thresholds.items()},
                }
                for name, seen in self.tensors.items()
            },
            "choices": [choice.to_dict() for choice in self.choices],
            "sensitivity": self.sensitivity and self.sensitivity.to_dict(),
            "recovery": self.recovery and self.recovery.to_dict(),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> CalibrationTable:
        """Reads `to_dict`'s form; missing or malformed keys raise KeyError, TypeError, ValueError."""
        return cls(
            model_sha256=raw["model_sha256"],
            data=DataLineage(
                path=raw["data"]["path"],
                fingerprint=raw["data"]["fingerprint"],
                image_hashes=tuple(raw["data"]["image_hashes"]),
            ),
            contract=Contract.from_dict(raw["contract"]),
            method=Method(raw["method"]),
            percentile=float(raw["percentile"]),
            samples=int(raw["samples"]),
            seed=int(raw["seed"]),
            edgeres_version=raw["edgeres_version"],
            tensors={
                name: TensorRange(
                    amax=float(seen["amax"]),
                    signed=bool(seen["signed"]),
                    thresholds={Method(m): _threshold(t) for m, t in seen["thresholds"].items()},
                )
                for name, seen in raw["tensors"].items()
            },
            choices=tuple(Choice.from_dict(choice) for choice in raw.get("choices", ())),
            sensitivity=_optional(Sensitivity.from_dict, raw.get("sensitivity")),
            recovery=_optional(Recovery.from_dict, raw.get("recovery")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPrecision:
    """Precision that one operator of the network was lowered to, and why."""

    name: str
    op_type: str
    precision: Precision
    reason: str = ""
    """Why the operator is not in the precision asked for; empty where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What stands beside an engine: where it belongs and what it was made from."""

    target: Target
    precision: Precision
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

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "edgeres-engine",
            **asdict(self),
            "contract": self.contract.to_dict(),
            "audit": self.audit and self.audit.to_dict(),
            "search": self.search and self.search.to_dict(),
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
            options=_optional(TensorRTOptions.from_dict, raw["options"]),
            required_coverage=_optional(float, raw["required_coverage"]),
            audit=_optional(Audit.from_dict, raw["audit"]),
            search=_optional(MixedSearch.from_dict, raw.get("search")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArtifact:
    """An engine file and its manifest."""

    path: Path
    manifest: Manifest


def _optional(read: Callable[[Any], T], raw: Any) -> T | None:
    return None if raw is None else read(raw)


def _profile(raw: Any) -> tuple[int, int, int] | None:
    if raw is None:
        return None
    low, best, high = (int(value) for value in raw)
    return low, best, high


def _threshold(raw: Mapping[str, Any]) -> Threshold:
    u8 = raw["u8"]
    return Threshold(s8=float(raw["s8"]), u8=None if u8 is None else float(u8))


def _tensor_spec(raw: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(name=raw["name"], shape=tuple(raw["shape"]), dtype=raw["dtype"])


def save_table(path: Path, table: CalibrationTable) -> None:
    """Writes a calibration table."""
    save_json(path, table.to_dict())


def load_table(path: Path) -> CalibrationTable:
    """Reads a calibration table.

    Raises:
        ArtifactError: the file is unreadable or no calibration table.
    """
    raw = load_json(path, TABLE_KIND)
    try:
        return CalibrationTable.from_dict(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is a damaged calibration table ({error!r}). Run calibrate again."
        ) from error


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
            "of unknown origin is not run. Copy both files, or build it with build-engine."
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
