"""The values beside its weights that a checkpoint is read with: names that make data and run nothing.

Training scripts store their options, random states and schedules. Each name stands for a plain
value here; what is not listed is refused by torch's reader.
"""

from __future__ import annotations

import argparse
import datetime
from collections import OrderedDict
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np


def _plain_dict(*_: object) -> dict[Any, Any]:
    # torch sets items in dict and OrderedDict alone, so a defaultdict is read as a dict.
    return {}


def _plain_list(*_: object) -> list[Any]:
    # torch appends to list alone; a deque's length is not kept.
    return []


class _UnreadArray:
    """What a NumPy array becomes: its state is dropped, so that no crafted one reaches NumPy."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_scalar: Callable[..., Any] = np.float64(0).__reduce__()[0]  # type: ignore[assignment]

SAFE_VALUES: tuple[tuple[Callable[..., Any], str], ...] = (
    (argparse.Namespace, "argparse.Namespace"),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_UnreadArray, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (_UnreadArray, "numpy.ndarray"),
    (np.dtype, "numpy.dtype"),
    # A dtype's state is set on an object of the dtype's own class.
    *(
        (type(np.dtype(c)), f"numpy.dtypes.{type(np.dtype(c)).__name__}")
        for c in "?bBhHiIlLqQefdSUMm"
    ),
    # Python 3.13 moved the classes. A Windows path can be constructed on Windows alone, its pure
    # form anywhere; neither touches a file.
    *(
        (kind, f"{module}.{prefix}{name}")
        for module in ("pathlib", "pathlib._local")
        for kind, name in ((PurePosixPath, "PosixPath"), (PureWindowsPath, "WindowsPath"))
        for prefix in ("", "Pure")
    ),
    (_plain_dict, "collections.defaultdict"),
    (_plain_list, "collections.deque"),
    (SimpleNamespace, "types.SimpleNamespace"),
    (str, "torch.torch_version.TorchVersion"),
    *((kind, f"builtins.{kind.__name__}") for kind in (list, dict, int, float)),
    *(
        (kind, f"datetime.{kind.__name__}")
        for kind in (
            datetime.datetime,
            datetime.date,
            datetime.time,
            datetime.timedelta,
            datetime.timezone,
        )
    ),
    # Dictionaries of configuration, known by name: nothing of these packages is imported.
    *(
        (OrderedDict, name)
        for name in (
            "pytorch_lightning.utilities.parsing.AttributeDict",
            "lightning.pytorch.utilities.parsing.AttributeDict",
            "lightning_fabric.utilities.data.AttributeDict",
            "lightning.fabric.utilities.data.AttributeDict",
            "easydict.EasyDict",
            "addict.addict.Dict",
            "yacs.config.CfgNode",
            "fvcore.common.config.CfgNode",
            "mmcv.utils.config.ConfigDict",
            "mmengine.config.config.ConfigDict",
        )
    ),
)
"""Classes and functions that a checkpoint may name beside torch's own, by their full name: each
makes a value and does nothing else."""
