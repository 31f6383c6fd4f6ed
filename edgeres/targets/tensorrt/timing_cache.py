"""Kernel timings kept between builds, and refused where they were taken elsewhere.

The file is TensorRT's own, so that trtexec reads it; module and GPU stand in `FILE.json`.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeres.core.artifacts import manifest_path
from edgeres.errors import ArtifactError, MismatchError
from edgeres.files import sha256_of, whole_file
from edgeres.serialization import SCHEMA_VERSION, load_json, save_json
from edgeres.targets.tensorrt.logger import TensorRTLog

_KIND = "edgeres-timing-cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where timings were taken; those of another GPU or version do not hold."""

    module: str
    version: str
    gpu: str
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.module} {self.version} on {self.gpu} ({self.compute_capability})"


def attach(builder_config: Any, path: Path, origin: Origin, log: TensorRTLog) -> None:
    """Gives a build the timings of a file, or an empty cache where there is none yet.

    Args:
        builder_config: IBuilderConfig.
        path: the file.
        origin: module and GPU of this build.
        log: receives NVIDIA's messages.

    Raises:
        MismatchError: the timings were taken by another version or on another GPU.
        ArtifactError: the file is unreadable or changed since.
    """
    exists = path.exists()
    if exists:
        _check_origin(path, origin)
    messages_before = len(log.errors) + len(log.warnings)
    cache = builder_config.create_timing_cache(path.read_bytes() if exists else b"")
    accepted = cache is not None and builder_config.set_timing_cache(cache, False)
    # TensorRT takes a file that it cannot read for an empty cache and only warns of it.
    warned = len(log.errors) + len(log.warnings) > messages_before
    if not accepted or (exists and warned):
        raise MismatchError(
            f"The timing cache {path} is none that {origin} can use: "
            f"{' '.join((*log.errors, *log.warnings)) or 'another version or GPU wrote it.'} "
            "Pass another --timing-cache, or delete it to start anew."
        )


def save(builder_config: Any, path: Path, origin: Origin) -> None:
    """Writes the timings of a finished build and where they were taken.

    Raises:
        ArtifactError: the files cannot be written.
    """
    timings = bytes(builder_config.get_timing_cache().serialize())
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
    """Checks that the timings were taken where this build runs."""
    description = manifest_path(path)
    # trtexec writes none: TensorRT's own header in the file decides then.
    if not description.exists():
        return
    raw = load_json(description, _KIND)
    try:
        written = Origin(**{name: raw[name] for name in asdict(origin)})
        sha256 = raw["sha256"]
    except KeyError as error:
        raise ArtifactError(
            f"{description} is damaged: it has no {error}. Delete it with {path.name} to start "
            "anew."
        ) from error
    if written != origin:
        raise MismatchError(
            f"The timing cache {path} was taken by {written}, and this build is of {origin}, for "
            "which its timings do not hold. Pass another --timing-cache."
        )
    if sha256_of(path) != sha256:
        raise ArtifactError(
            f"The timing cache {path} was changed or truncated after it was written. Delete it to "
            "start anew."
        )
