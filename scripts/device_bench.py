"""What the steps of verify_on_device.py share: options, engines, and what the machine lacks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeres.core.artifacts import EngineArtifact
from edgeres.core.precision import Precision
from edgeres.core.table import CalibrationTable
from edgeres.installation import is_installed
from edgeres.machine.cuda import CudaDevice, find_cuda_device
from edgeres.targets.tensorrt.module import MODULES

Figures = dict[str, Any]

TRTEXEC_PLACES = ("/usr/src/tensorrt/bin", "/usr/local/tensorrt/bin")
"""Where JetPack and NVIDIA's containers keep trtexec."""


class LackError(Exception):
    """A step cannot run here; the message has what it lacks."""


class FailureError(Exception):
    """A step ran and its figures are not what they should be."""

    def __init__(self, message: str, figures: Figures) -> None:
        """Takes what was expected, and the figures."""
        super().__init__(message)
        self.figures = figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line's options."""

    folder: Path
    networks: tuple[str, ...]
    onnx: Path | None
    data: Path | None
    target: str
    inferences: int
    images: int


@dataclass(slots=True)
class PreparedNetwork:
    """A model with images to run it on."""

    model: Path
    images: NDArray[np.float32]
    """(N, 3, H, W) float32, preprocessed."""
    labels: NDArray[np.int64]
    table: CalibrationTable
    data: Path
    """What it was calibrated on, and what mixed precision is chosen by."""


@dataclass(slots=True)
class Bench:
    """What the steps make and hand on."""

    options: Options
    lacks: Mapping[str, str]
    """What this machine does not have, and why."""
    networks: dict[str, PreparedNetwork] = field(default_factory=dict)
    simulated: dict[tuple[str, Precision], NDArray[np.float32]] = field(default_factory=dict)
    engines: dict[tuple[str, Precision], EngineArtifact] = field(default_factory=dict)

    def need(self, *things: str) -> None:
        """Ends a step that lacks something."""
        missing = [thing for thing in things if thing in self.lacks]
        if missing:
            raise LackError(f"lacks {', '.join(missing)}")

    def network(self, name: str) -> PreparedNetwork:
        """Returns a network, or ends the step."""
        if name not in self.networks:
            raise LackError(f"the model of {name} was not made")
        return self.networks[name]

    def engine(self, name: str, precision: Precision) -> EngineArtifact:
        """Returns an engine that runs here, or ends the step."""
        self.need("GPU", "TensorRT", "pycuda")
        if (name, precision) not in self.engines:
            raise LackError(f"the {precision} engine of {name} was not built")
        return self.engines[name, precision]


def lacks(target: str) -> dict[str, str]:
    """Returns what this machine does not have, with the reason. Packages are not imported."""
    device = find_cuda_device()
    missing = {} if isinstance(device, CudaDevice) else {"GPU": f"this machine: {device.reason}"}
    module = MODULES[target].name
    for thing, package in (("TensorRT", module), ("pycuda", "pycuda"), ("torch", "torch")):
        if not is_installed(package):
            missing[thing] = f"the Python module {package} is not installed"
    if trtexec() is None:
        missing["trtexec"] = f"not on the PATH, nor in {' or '.join(TRTEXEC_PLACES)}"
    return missing


def trtexec() -> str | None:
    """Returns the path of NVIDIA's trtexec."""
    return shutil.which("trtexec", path=os.pathsep.join((os.environ["PATH"], *TRTEXEC_PLACES)))
