"""The stages whose packages are optional."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgeres.errors import DependencyError

if TYPE_CHECKING:
    from types import ModuleType


def export_stage() -> ModuleType:
    """Returns `edgeres.workflows.export`.

    Raises:
        DependencyError: torch or safetensors is not installed.
    """
    return _with_torch("edgeres.workflows.export", "Reading a checkpoint")


def gradient_stage() -> ModuleType:
    """Returns `edgeres.workflows.gradients`.

    Raises:
        DependencyError: torch is not installed.
    """
    return _with_torch("edgeres.workflows.gradients", "Measuring gradients")


def _with_torch(module: str, work: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "safetensors"}:
            raise
        raise DependencyError(
            f"{work} needs {error.name}, which is not installed. "
            "pip install 'edgeres[export]' (where torch comes with CUDA by default and none is "
            "needed, install a CPU build of torch first)."
        ) from error
