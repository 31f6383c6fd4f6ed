"""The one stage whose packages are optional."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgeres.errors import DependencyError

if TYPE_CHECKING:
    from types import ModuleType


def export_stage() -> ModuleType:
    """Returns `edgeres.pipeline.export`.

    Raises:
        DependencyError: torch or safetensors is not installed.
    """
    try:
        return importlib.import_module("edgeres.pipeline.export")
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "safetensors"}:
            raise
        raise DependencyError(
            f"Reading a checkpoint needs {error.name}, which is not installed. "
            "pip install 'edgeres[export]' (where torch comes with CUDA by default and none is "
            "needed, install a CPU build of torch first)."
        ) from error
