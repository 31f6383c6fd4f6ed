"""The workflows that need torch, imported when one of them is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgeres.errors import DependencyError
from edgeres.installation import install_hint

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
        # Any other missing module is a fault of this package, and keeps its traceback.
        if error.name not in {"torch", "safetensors"}:
            raise
        raise DependencyError(
            f"{work} needs {error.name}, which is not installed. {install_hint(error.name)}"
        ) from error
