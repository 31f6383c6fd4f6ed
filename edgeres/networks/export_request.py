"""The request to export, apart from what fulfils it: that needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeres.core.contract import InputType
from edgeres.core.contract_options import ContractOptions
from edgeres.core.requests import Head, Layout
from edgeres.networks.specification import Shortcut


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Which checkpoint `export_model` writes, and what it records with it."""

    architecture: str
    """Registry name, `package.module:factory`, or published weights such as `timm:resnet50`."""
    weights: Path | None
    """None for published weights, which are fetched."""
    contract: ContractOptions
    num_classes: int | None = None
    labels: Path | None = None
    """Text file with one class name a line."""
    bn_eps: float | None = None
    shortcut: Shortcut | None = None
    opset: int = 17
    head: Head | None = None
    """What the file ends in; None: what the network itself ends in."""
    weights_key: str | None = None
    """Key of the set of weights in the checkpoint; None: the averaged one where there is one."""
    uniform_std: bool = False
    """Fold what differs of the channels' deviations into the first convolution."""
    input: InputType = InputType.FLOAT32
    """Whether the file takes prepared floats, or pixels with the arithmetic inside."""
    layout: Layout | None = None
    """Of the pixels; None: HWC, as a camera has them."""
