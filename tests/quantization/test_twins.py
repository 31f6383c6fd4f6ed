"""A stride or a shortcut moved in the graph gives what torch computes with the other architecture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import network

from edgeres.core.contract import Contract
from edgeres.core.requests import OnnxExportRequest
from edgeres.quantization.twins import twins
from edgeres.session import open_session

torch = pytest.importorskip("torch", reason="torch, the reference here, is not installed")

PAIRS = [("resnet50", "resnet50_v1"), ("resnet20", "plain20")]


@pytest.mark.parametrize(
    ("trained", "exported"), [*PAIRS, *(pair[::-1] for pair in PAIRS)], ids=" as ".join
)
def test_the_twin_computes_what_the_weights_were_trained_as(
    trained: str, exported: str, tmp_path: Path
) -> None:
    """Logits of torch's network of the right architecture, from the file of the wrong one."""
    from edgeres.networks.onnx_export import export_onnx
    from edgeres.networks.registry import find_spec
    from edgeres.networks.resnet import build_model

    torch.manual_seed(0)
    right, wrong = (
        build_model(replace(find_spec(name), base_width=8, num_classes=5)).eval()
        for name in (trained, exported)
    )
    wrong.load_state_dict(right.state_dict())
    config = OnnxExportRequest(contract=Contract(height=32, width=32))
    export_onnx(wrong, config, output=tmp_path / "net.onnx")
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = right(torch.from_numpy(images)).numpy()
        other = wrong(torch.from_numpy(images)).numpy()
    assert np.abs(expected - other).max() > 0.01 * np.abs(expected).max()
    ((_, twin),) = twins(onnx.load(tmp_path / "net.onnx"))
    logits = open_session(twin.SerializeToString()).run(None, {"input": images})[0]
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["down-sampling", "pre-activation"])
def test_a_network_without_a_twin_has_none(name: str) -> None:
    """A projection has weights of its own; batch normalisation before a convolution is a block."""
    names = [what for what, _ in twins(network(name))]
    assert names == ([] if name == "down-sampling" else ["no shortcuts, as a plain net"])
