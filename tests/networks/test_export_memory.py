"""An export holds the weights few times over, whatever stands in them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from edgeres.core.contract import Contract
from edgeres.core.requests import OnnxExportRequest
from edgeres.networks.frozen import frozen_copy
from edgeres.networks.onnx_export import export_onnx

CONFIG = OnnxExportRequest(contract=Contract(height=8, width=8))

PEAK = """
import json, re, sys
from pathlib import Path
from torch import nn
from edgeres.core.contract import Contract, InputType
from edgeres.core.requests import OnnxExportRequest
from edgeres.networks.onnx_export import export_onnx

def size(name):
    return int(re.search(rf"{name}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

# Of bytes: the file of floats is written and compared on the way.
contract = Contract(height=8, width=8, input=InputType.UINT8)
wide = [nn.Sequential(nn.Conv2d(1024, 1024, 3, padding=1, bias=False), nn.BatchNorm2d(1024))
        for _ in range(4)]
# Small first: what the libraries themselves take, and load when they are first used, is the base.
for name, layers in {"before": [], "after": wide}.items():
    net = nn.Sequential(nn.Conv2d(3, 1024, 3, stride=8), *layers, nn.Flatten(), nn.Linear(1024, 2))
    export_onnx(net.eval(), OnnxExportRequest(contract=contract), output=Path(sys.argv[1]))
    if name == "before":
        base = size("VmRSS") - sum(p.nbytes for layer in wide for p in layer.parameters()) / 2**20
weights = sum(value.nbytes for value in net.state_dict().values()) / 2**20
print(json.dumps({"weights": weights, "beyond": size("VmHWM") - base}))
"""


def test_an_export_takes_at_most_four_times_the_weights(tmp_path: Path) -> None:
    """The network's own are one of them; counted by the system in a process of its own."""
    command = [sys.executable, "-c", PEAK, str(tmp_path / "net.onnx")]
    counted = json.loads(subprocess.check_output(command, text=True))
    assert counted["weights"] > 140
    assert counted["beyond"] < 4 * counted["weights"], counted


def test_the_copy_that_is_traced_shares_the_weights() -> None:
    """And nothing else: the statistics are its own, and the mode."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    copied = frozen_copy(net)
    pairs = list(zip(net.parameters(), copied.parameters(), strict=True))
    assert len(pairs) == 4
    assert all(one is other for one, other in pairs)
    statistics = zip(net.buffers(), copied.buffers(), strict=True)
    assert not any(one is other for one, other in statistics)
    assert (net.training, copied.training) == (True, False)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_type_keeps_it(tmp_path: Path, kind: torch.dtype) -> None:
    """The copy has float32, and its file computes that."""
    conv = nn.Conv2d(3, 4, 8, bias=False).to(kind)
    images = torch.rand(2, 3, 8, 8)
    export_onnx(nn.Sequential(conv, nn.Flatten()), CONFIG, output=tmp_path / "net.onnx")
    assert conv.weight.dtype is kind
    expected = nn.functional.conv2d(images, conv.weight.float())
    assert close(tmp_path / "net.onnx", images, expected.flatten(1))


class Standardized(nn.Conv2d):
    """A convolution whose weights are computed from stored ones, as in BiT."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, C, H, W)."""
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias, padding=1)


def tied() -> nn.Module:
    """Returns two convolutions of one weight."""
    first, second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second)


def unusual_strides() -> nn.Module:
    """Returns weights that lie in memory with the channels last."""
    conv = nn.Conv2d(3, 3, 3, padding=1)
    conv.weight = nn.Parameter(conv.weight.detach().contiguous(memory_format=torch.channels_last))
    return conv


def with_gradients() -> nn.Module:
    """Returns a network in training, with gradients and a frozen part."""
    first = nn.Conv2d(3, 3, 3, padding=1)
    net = nn.Sequential(first, nn.BatchNorm2d(3), Standardized(3, 3, 3))
    net(torch.rand(2, 3, 8, 8)).sum().backward()
    first.weight.requires_grad_(False)
    return net


@pytest.mark.parametrize("make", [tied, unusual_strides, with_gradients])
def test_weights_that_the_graph_does_not_hold_are_the_networks(
    tmp_path: Path, make: Callable[[], nn.Module]
) -> None:
    """Shared, strided, computed from others: the file computes what torch does."""
    torch.manual_seed(0)
    net = nn.Sequential(make(), nn.Flatten(), nn.Linear(192, 5))
    export_onnx(net, CONFIG, output=tmp_path / "net.onnx")
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert close(tmp_path / "net.onnx", images, net.eval()(images))


def close(path: Path, images: Tensor, expected: Tensor) -> bool:
    """Returns whether a file computes logits, in ONNX Runtime as everybody opens it."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": images.numpy()})
    return np.allclose(logits, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
