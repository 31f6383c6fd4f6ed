"""Kernel timings kept between builds, and refused where they were taken elsewhere.

The file is TensorRT's own, so that trtexec reads it; module and GPU stand in `FILE.json`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgeres.core.artifacts import manifest_path
from edgeres.core.described import load_described, save_described
from edgeres.errors import ArtifactError, MismatchError
from edgeres.input_files import ENGINE, JSON, exists, read_bytes
from edgeres.serialization import SCHEMA_VERSION
from edgeres.targets.tensorrt.logger import TensorRTLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where timings were taken; those of another GPU or version do not hold."""

    module: str
    version: str
    gpu: str
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.module} {self.version} on {self.gpu} ({self.compute_capability})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingCacheDescription:
    """What stands beside a file of timings."""

    kind: ClassVar[str] = "edgeres-timing-cache"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys = ("schema_version", "kind", "*", "origin.*")

    sha256: str
    """Of the file."""
    origin: Origin


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
    known, description = exists(path, ENGINE), manifest_path(path)
    content = read_bytes(path, ENGINE) if known else b""
    # trtexec writes no description: TensorRT's own header in the file decides then.
    if known and exists(description, JSON):
        remedy = f"Delete it with {path.name} to start anew."
        actual = hashlib.sha256(content).hexdigest()
        timings = load_described(
            description, TimingCacheDescription, hash_key="sha256", sha256=actual, remedy=remedy
        )
        if timings.origin != origin:
            raise MismatchError(
                f"The timing cache {path} was taken by {timings.origin}, and this build is of "
                f"{origin}, for which its timings do not hold. Pass another --timing-cache."
            )
        if actual != timings.sha256:
            raise ArtifactError(
                f"The timing cache {path} was changed or truncated after it was written. Delete "
                "it to start anew."
            )
    messages_before = len(log.errors) + len(log.warnings)
    cache = builder_config.create_timing_cache(content)
    accepted = cache is not None and builder_config.set_timing_cache(cache, False)
    # TensorRT takes a file that it cannot read for an empty cache and only warns of it.
    warned = len(log.errors) + len(log.warnings) > messages_before
    if not accepted or (known and warned):
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
    content = bytes(builder_config.get_timing_cache().serialize())
    timings = TimingCacheDescription(sha256=hashlib.sha256(content).hexdigest(), origin=origin)
    save_described(path, content, manifest_path(path), timings)
