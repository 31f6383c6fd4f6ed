"""What stages make: files on disk and the frozen values that describe them.

A file appears whole or not at all. Hashes tie an engine to its table and its model, so that
a stale or foreign file is refused with a sentence. Nothing here imports a heavy library.
"""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeres.errors import ArtifactError
from edgeres.spec import Contract, Method, Precision, Target

SCHEMA_VERSION = 1
"""Version of the JSON forms written here; a file of another version is refused."""

_READ_BLOCK = 1 << 20


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Amax by number of levels, for one tensor and one method."""

    s8: float
    """For the signed grid of 127 steps on each side of zero; scale = s8 / 127."""
    u8: float | None = None
    """For the unsigned grid of 255 steps; scale = u8 / 255. None for a tensor with a sign."""


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
        return hashlib.sha256(_json(self.to_dict()).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "edgeres-calibration-table",
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

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "edgeres-engine",
            **asdict(self),
            "contract": self.contract.to_dict(),
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
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArtifact:
    """An engine file and its manifest."""

    path: Path
    manifest: Manifest


def _threshold(raw: Mapping[str, Any]) -> Threshold:
    u8 = raw["u8"]
    return Threshold(s8=float(raw["s8"]), u8=None if u8 is None else float(u8))


def _tensor_spec(raw: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(name=raw["name"], shape=tuple(raw["shape"]), dtype=raw["dtype"])


def sha256_of(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file.

    Raises:
        ArtifactError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_READ_BLOCK):
                digest.update(block)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    return digest.hexdigest()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that becomes `path` when the block succeeds.

    On any exception, Ctrl-C included, the temporary file is removed and `path` is untouched.

    Raises:
        ArtifactError: the folder is missing or not writable, or the disk is full.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise ArtifactError(_write_error(path, error)) from error
    finally:
        # A folder that refused the file refuses this too; the first reason is the one to tell.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Checks that a file can appear at `path`, before long work is done for it.

    Raises:
        ArtifactError: the folder is missing or not writable, or the disk is full.
    """
    probe = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise ArtifactError(_write_error(path, error)) from error


def _write_error(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{path} was not written: no space left on the disk. Free some and run again."
    if error.errno == errno.ENOENT and not path.parent.exists():
        return f"{path} was not written: the folder {path.parent} does not exist. Create it first."
    return f"{path} was not written: {error.strerror or error}. Pass -o with a path that you may write."


def save_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes one JSON object, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(_json(value), encoding="utf-8")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def load_json(path: Path, kind: str) -> dict[str, Any]:
    """Reads a JSON object that `save_json` wrote, and checks its kind and schema version.

    Raises:
        ArtifactError: unreadable, not JSON, another kind of file or another schema version.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not JSON ({error}); expected an {kind} file.") from error
    if not isinstance(raw, dict) or raw.get("kind") != kind:
        found = raw.get("kind") if isinstance(raw, dict) else type(raw).__name__
        raise ArtifactError(f"{path} is no {kind} file: its kind is {found!r}. Check the path.")
    if raw.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema version {raw.get('schema_version')!r}, this edgeres reads "
            f"{SCHEMA_VERSION}. Make the file again with this version."
        )
    return raw


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def save_table(path: Path, table: CalibrationTable) -> None:
    """Writes a calibration table."""
    save_json(path, table.to_dict())


def load_table(path: Path) -> CalibrationTable:
    """Reads a calibration table.

    Raises:
        ArtifactError: the file is unreadable or no calibration table.
    """
    raw = load_json(path, "edgeres-calibration-table")
    try:
        return CalibrationTable.from_dict(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is a damaged calibration table ({error!r}). Run calibrate again."
        ) from error


def manifest_path(engine: Path) -> Path:
    """Returns where an engine's manifest stands: `ENGINE.json` beside `ENGINE`."""
    return engine.with_name(engine.name + ".json")


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
