"""Kernel timings kept between builds, and refused where they were taken elsewhere.

The file is TensorRT's own, so that trtexec reads it; what it belongs to stands in `FILE.json`.
TensorRT takes a cache that it cannot read for an empty one and only warns, so its log decides.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeres.core.artifacts import manifest_path
from edgeres.errors import ArtifactError, MismatchError
from edgeres.files import SCHEMA_VERSION, load_json, save_json, sha256_of, whole_file
from edgeres.targets.tensorrt.log import TrtLog

_KIND = "edgeres-timing-cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where timings were taken; those of another GPU or version say nothing here."""

    module: str
    version: str
    gpu: str
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.module} {self.version} on {self.gpu} ({self.compute_capability})"


def attach(settings: Any, path: Path, origin: Origin, log: TrtLog) -> None:
    """Gives a build the timings of a file, or an empty cache where there is none yet.

    Args:
        settings: IBuilderConfig.
        path: the file.
        origin: what this build runs on.
        log: hears NVIDIA's messages.

    Raises:
        MismatchError: the timings were taken by another version or on another GPU.
        ArtifactError: the file is unreadable or changed since.
    """
    known = path.exists()
    if known:
        _check_origin(path, origin)
    heard = len(log.errors) + len(log.warnings)
    cache = settings.create_timing_cache(path.read_bytes() if known else b"")
    taken = cache is not None and settings.set_timing_cache(cache, False)
    if not taken or (known and len(log.errors) + len(log.warnings) > heard):
        raise MismatchError(
            f"The timing cache {path} is none that {origin} can use: "
            f"{' '.join((*log.errors, *log.warnings)) or 'another version or GPU wrote it.'} "
            "Pass another --timing-cache, or delete it to start anew."
        )


def keep(settings: Any, path: Path, origin: Origin) -> None:
    """Writes the timings of a finished build and where they were taken.

    Raises:
        ArtifactError: the files cannot be written.
    """
    timings = bytes(settings.get_timing_cache().serialize())
    described = {
        "schema_version": SCHEMA_VERSION,
        "kind": _KIND,
        "sha256": hashlib.sha256(timings).hexdigest(),
        **asdict(origin),
    }
    with whole_file(path) as temporary:
        temporary.write_bytes(timings)
        save_json(manifest_path(path), described)


def _check_origin(path: Path, origin: Origin) -> None:
    """Refuses timings that say they are another's; a file without a word is left to TensorRT."""
    beside = manifest_path(path)
    if not beside.exists():
        return
    raw = load_json(beside, _KIND)
    try:
        written = Origin(**{name: raw[name] for name in asdict(origin)})
        sha256 = raw["sha256"]
    except KeyError as error:
        raise ArtifactError(
            f"{beside} is damaged: it has no {error}. Delete it with {path.name} to start anew."
        ) from error
    if written != origin:
        raise MismatchError(
            f"The timing cache {path} was taken by {written}, and this build is of {origin}: its "
            "timings say nothing here. Pass another --timing-cache."
        )
    if sha256_of(path) != sha256:
        raise ArtifactError(
            f"The timing cache {path} was changed or truncated after it was written. Delete it to "
            "start anew."
        )
