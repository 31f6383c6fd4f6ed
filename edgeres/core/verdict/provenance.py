"""Where a verdict comes from: machine, files, images, versions and the command that repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeres.core.contract import Contract
from edgeres.core.deployment import Destination
from edgeres.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A file that took part."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecord:
    """The images that accuracy was evaluated on."""

    path: str
    fingerprint: str
    """Hash over the images' hashes and labels in the order evaluated."""
    samples: int
    seed: int
    """Random seed for sampling images, where fewer were evaluated than there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulation:
    """Preprocessing of another runtime, emulated on the CPU for the engine's images alone."""

    destination: Destination
    contract: Contract
    """What that runtime makes of the engine's own contract."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The machine that engine and reference ran on, and what ran each of them."""

    # Flat: the names stand among the machine's own keys, which readers of the JSON know so.
    json_keys = ("machine.*", "engine=engine_name", "reference=reference_name")

    machine: Machine
    engine_name: str
    """File and execution provider, such as `resnet18.int8.onnx on onnxruntime-cpu`."""
    reference_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What it takes to repeat a verdict and to know what it is about."""

    command: tuple[str, ...]
    """Words of the command line; empty where the library was called from Python."""
    started: str
    """When the measurement began, ISO 8601 in UTC."""
    engine: FileRecord
    """With a simulation, the calibration table."""
    reference: FileRecord
    model_sha256: str | None
    """Model that the engine was built from."""
    table_sha256: str | None
    """Calibration table that the engine was built with."""
    data: DataRecord
    target: str
    precision: str | None
    """None for a plan that only the user vouches for."""
    versions: Mapping[str, str]
    """Versions of the libraries that built the engine."""
    emulated: Emulation | None = None
    """None: engine and reference had the same images."""
