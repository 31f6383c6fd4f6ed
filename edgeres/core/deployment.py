"""Requests to deploy an engine, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeres.core.contract_options import NO_OPTIONS, ContractOptions
from edgeres.errors import ConfigError
from edgeres.names import Name
from edgeres.serialization import SCHEMA_VERSION


class Destination(Name):
    """What an engine is handed on to."""

    TRITON = "triton"
    """A model repository of Triton Inference Server."""
    DEEPSTREAM = "deepstream"
    """A configuration of DeepStream's nvinfer."""
    PYTHON = "python"
    """A program that needs NumPy, an image library and the runtime alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRequest:
    """How an engine is deployed."""

    destination: Destination
    tensors: bool = False
    """Triton: serve prepared tensors by the runtime's own backend, where images would be served."""
    instances: int = 1
    """Triton: copies of the engine that infer side by side."""

    approximate: bool = False
    """DeepStream: prepare images as nearly as it can, where a verdict has the cost of that."""

    def __post_init__(self) -> None:
        if self.approximate and self.destination is not Destination.DEEPSTREAM:
            raise ConfigError(
                f"--approximate is for --to deepstream: {self.destination} prepares images exactly. "
                "Leave it out."
            )
        if self.instances < 1:
            raise ConfigError(f"--instances is {self.instances}; expected at least 1.")
        if self.destination is not Destination.TRITON and (self.tensors or self.instances != 1):
            raise ConfigError(
                f"--tensors and --instances are for --to triton, not {self.destination}. Leave "
                "them out."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployInputs:
    """Files that deploy reads and writes."""

    engine: Path
    output: Path
    """The folder, which must not exist or be empty."""
    image: Path | None = None
    """Image of the golden pair; None: a drawn one."""
    verdict: Path | None = None
    """JSON of bench on this engine, which goes along; None: none does."""
    reference: Path | None = None
    """ONNX model or engine that lends preprocessing and class names to an engine without."""
    contract: ContractOptions = NO_OPTIONS
    """Preprocessing of an engine that carries none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A folder that runs an engine elsewhere."""

    kind: ClassVar[str] = "edgeres-deployment"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys = ("schema_version", "kind", "*")

    destination: Destination
    folder: str
    engine_sha256: str
    files: tuple[str, ...]
    """Paths in the folder."""
    golden: tuple[int, ...]
    """Classes that the engine ranks highest for the golden image; empty where this machine cannot
    run it."""
    notes: tuple[str, ...]
    """What the folder lacks, and why, in sentences."""
