"""A torch network as it is traced: a form of its own that costs no second set of weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


def frozen_copy(module: nn.Module) -> nn.Module:
    """Returns a copy in evaluation mode, on the CPU and in float32; the original stays as it is.

    Weights that are there and in float32 already are shared with the original: replace a
    parameter of the copy, and never write into one.
    """
    shared = {
        id(weight): weight
        for weight in module.parameters()
        if weight.device.type == "cpu" and weight.dtype is torch.float32
    }
    # What deepcopy finds in its memo it takes for copied.
    return copy.deepcopy(module, shared).cpu().float().eval()
