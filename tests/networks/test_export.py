"""An exported file computes what the network computes, or there is no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeres.core.contract import Color, Contract, preset
from edgeres.core.requests import OnnxExportRequest
from edgeres.core.resize import NO_RESIZE, Interpolation, shortest
from edgeres.errors import ArtifactError, ConfigError, ExportError
from edgeres.networks import ARCHITECTURES, find_spec
from edgeres.networks import onnx_export as export
from edgeres.networks.onnx_export import TOLERANCE, export_onnx, probes
from edgeres.networks.resnet import build_model
from edgeres.networks.specification import BlockKind, ModelSpec, Shortcut, Stem
from edgeres.normalization import Weights, fold_batch_norms, relative_difference
from edgeres.onnx_file import IR_VERSION, load_model, load_onnx

CONTRACT = Contract(height=16, width=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
CONFIG = OnnxExportRequest(contract=CONTRACT)


def slim(name: str) -> ModelSpec:
    """Returns the architecture with at most two blocks a stage and few channels."""
    spec = find_spec(name)
    return replace(
        spec,
        layers=tuple(min(blocks, 2) for blocks in spec.layers),
        base_width=16 if spec.stem is Stem.IMAGENET else 4,
        num_classes=7,
        bn_eps=1e-3,
    )


SLIM = {replace(slim(name), name=""): name for name in reversed(list(ARCHITECTURES))}
"""One member for each slim net: those that differ in depth alone have the same."""


def randomised(model: nn.Module) -> nn.Module:
    """Gives every batch normalisation the statistics of a trained net, not the identity."""
    generator = torch.Generator().manual_seed(1)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(part.running_var, 0.5, 2.0, generator=generator)
            nn.init.normal_(part.bias, 0, 0.3, generator=generator)
            nn.init.normal_(part.running_mean, 0, 0.3, generator=generator)
    return model


def logits(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns what ONNX Runtime makes of a file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(["logits"], {"input": images})[0]
    return result


def operators(path: Path) -> Counter[str]:
    """Returns how often each operator occurs."""
    return Counter(node.op_type for node in load_model(path).graph.node)


@pytest.mark.parametrize("name", SLIM.values())
def test_every_architecture_exports_what_torch_computes(tmp_path: Path, name: str) -> None:
    """Equal logits on images that the export did not see, and only operators that TensorRT fuses."""
    spec = slim(name)
    model = randomised(build_model(spec)).eval()
    size = 64 if spec.stem is Stem.IMAGENET else 16
    output = tmp_path / f"{name}.onnx"
    export_onnx(
        model, OnnxExportRequest(contract=replace(CONTRACT, height=size, width=size)), output=output
    )
    images = np.random.default_rng(5).standard_normal((4, 3, size, size)).astype(np.float32)
    with torch.inference_mode():
        expected = model.double()(torch.from_numpy(images).double()).numpy()
    assert relative_difference(logits(output, images), expected) < 1e-5
    found = operators(output)
    blocks = sum(spec.layers)
    preactivation = spec.block is BlockKind.PREACTIVATION
    assert found["Add"] == (0 if spec.shortcut is Shortcut.NONE else blocks)
    # The first block's follows the stem's convolution; every other one follows an Add.
    assert found["BatchNormalization"] == (blocks if preactivation else 0)
    assert found.keys() <= {
        "Add",
        "BatchNormalization",
        "Conv",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "MaxPool",
        "Pad",
        "Relu",
        "Slice",
    }


def test_node_names_show_the_block(tmp_path: Path) -> None:
    """So that a report on single layers can be read."""
    export_onnx(build_model(slim("resnet20")), CONFIG, output=tmp_path / "a.onnx")
    spec = replace(slim("resnet50"), layers=(1, 1))
    export_onnx(build_model(spec), CONFIG, output=tmp_path / "b.onnx")
    basic, bottleneck = (
        [node.name for node in load_model(tmp_path / file).graph.node]
        for file in ("a.onnx", "b.onnx")
    )
    assert basic[:7] == [
        "/conv1/Conv",
        "/relu/Relu",
        "/layer1/layer1.0/conv1/Conv",
        "/layer1/layer1.0/relu/Relu",
        "/layer1/layer1.0/conv2/Conv",
        "/layer1/layer1.0/Add",
        "/layer1/layer1.0/relu_1/Relu",
    ]
    assert "/layer2/layer2.0/downsample/Pad" in basic
    assert "/layer2/layer2.0/downsample/downsample.0/Conv" in bottleneck


def test_initializers_keep_the_names_of_the_weights(tmp_path: Path) -> None:
    """Nothing else is left of batch normalisation, though untrained ones are all alike."""
    spec = replace(slim("resnet18"), layers=(1,))
    export_onnx(build_model(spec), CONFIG, output=tmp_path / "net.onnx")
    convolutions = ("conv1", "layer1.0.conv1", "layer1.0.conv2", "fc")
    assert {tensor.name for tensor in load_model(tmp_path / "net.onnx").graph.initializer} == {
        f"{name}.{part}" for name in convolutions for part in ("weight", "bias")
    }


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    """Contract, classes and lineage are read back as they were given."""
    config = OnnxExportRequest(
        contract=Contract(
            height=16,
            width=16,
            resize=shortest(20, interpolation=Interpolation.BICUBIC),
            color=Color.BGR,
            scale=1.0,
        ),
        classes=tuple("abcdefg"),
        architecture="resnet20",
        checkpoint_sha256="5f" * 32,
    )
    artifact = export_onnx(build_model(slim("resnet20")), config, output=tmp_path / "net.onnx")
    assert load_onnx(tmp_path / "net.onnx").artifact == artifact
    assert artifact.contract == config.contract
    assert (artifact.classes, artifact.architecture) == (config.classes, "resnet20")
    assert (artifact.checkpoint_sha256, artifact.num_classes) == ("5f" * 32, 7)
    assert artifact.input.shape == (None, 3, 16, 16)


@pytest.mark.parametrize("opset", [13, 17, 20])
def test_opset_and_ir_version_are_those_requested(tmp_path: Path, opset: int) -> None:
    """The IR version stays at what TensorRT 8.6 reads."""
    output = tmp_path / "net.onnx"
    export_onnx(build_model(slim("resnet20")), replace(CONFIG, opset=opset), output=output)
    model = load_model(output)
    assert [(i.domain, i.version) for i in model.opset_import] == [("", opset)]
    assert model.ir_version == IR_VERSION


@pytest.mark.parametrize("opset", [12, 21])
def test_other_opsets_are_refused(opset: int) -> None:
    """Before 13 there is no per-channel Q/DQ, after 20 no exporter by tracing."""
    with pytest.raises(ConfigError) as refused:
        OnnxExportRequest(contract=CONTRACT, opset=opset)
    assert str(refused.value) == (
        f"Opset {opset} is not supported; expected 13 to 20. Use 17, the newest that TensorRT 8.6 "
        "reads, unless a consumer needs another."
    )


def test_the_network_is_left_as_it_is(tmp_path: Path) -> None:
    """Export works on a copy: mode, statistics and weights stay."""
    model = randomised(build_model(slim("resnet20"))).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    export_onnx(model, CONFIG, output=tmp_path / "net.onnx")
    after = model.state_dict()
    assert model.training
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_as_many_class_names_as_logits(tmp_path: Path) -> None:
    """A list of labels of another data set is refused."""
    config = replace(CONFIG, classes=("cat", "dog"))
    with pytest.raises(ConfigError) as refused:
        export_onnx(build_model(slim("resnet20")), config, output=tmp_path / "net.onnx")
    assert str(refused.value) == (
        "2 class names for 7 logits. Pass --labels with one name per class, in the order of the "
        "network's outputs."
    )


class Network(nn.Module):
    """One convolution and a mean, with a seeded fault in between."""

    def __init__(self, fault: Callable[[Tensor], Tensor]) -> None:
        """`fault` maps the convolution's (N, 4, H, W)."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.fault = fault

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, 4)."""
        return self.fault(self.conv1(x)).mean((2, 3))


def branching(x: Tensor) -> Tensor:
    """Takes the way of the first image that it sees: a trace keeps it for all."""
    return x.relu() if x.abs().mean() > 1 else x


def batched(x: Tensor) -> Tensor:
    """Has the batch size of the trace in it."""
    return x.reshape(int(x.shape[0]), 2, 2, -1).flatten(1, 2).unsqueeze(-1)


def frozen_batch(x: Tensor) -> Tensor:
    """Adds one value for each image of the batch that was traced."""
    return x + torch.arange(float(len(x))).reshape(-1, 1, 1, 1)


def test_control_flow_on_values_is_found(tmp_path: Path) -> None:
    """A trace keeps one branch; black and white images take both."""
    output = tmp_path / "net.onnx"
    output.write_bytes(b"an older export")
    with pytest.raises(ExportError) as refused:
        export_onnx(Network(branching), CONFIG, output=output)
    assert "The exported model differs from the network on " in str(refused.value)
    assert f"where rounding explains {TOLERANCE:.0e}. No file was written." in str(refused.value)
    assert output.read_bytes() == b"an older export"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("fault", [batched, frozen_batch])
def test_a_fixed_batch_size_is_found(
    tmp_path: Path, fault: Callable[[Tensor], Tensor], capfd: pytest.CaptureFixture[str]
) -> None:
    """The file must run, and agree, at other batch sizes than the traced one."""
    with pytest.raises(ExportError, match="No file was written") as refused:
        export_onnx(Network(fault), CONFIG, output=tmp_path / "net.onnx")
    assert "one batch size" in str(refused.value) or "fix the batch size" in str(refused.value)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_wrong_epsilon_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch normalisation folded with 1e-5 for 1e-3 is far beyond rounding."""

    def fold_wrongly(model: onnx.ModelProto, weights: Weights) -> None:
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "epsilon":
                    attribute.f = 1e-5
        fold_batch_norms(model, weights)

    monkeypatch.setattr(export, "fold_batch_norms", fold_wrongly)
    with pytest.raises(ExportError, match="The exported model differs from the network on"):
        export_onnx(randomised(build_model(slim("resnet20"))), CONFIG, output=tmp_path / "n.onnx")
    assert not list(tmp_path.iterdir())


def test_an_invalid_graph_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ONNX checker refuses is not written."""

    def break_graph(model: onnx.ModelProto, _: Weights) -> None:
        model.graph.node[0].input[0] = "nowhere"

    monkeypatch.setattr(export, "fold_batch_norms", break_graph)
    with pytest.raises(ExportError, match=r"The exported model is no valid ONNX: .*nowhere"):
        export_onnx(Network(torch.relu), CONFIG, output=tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_logits_that_are_not_finite_are_never_equal(tmp_path: Path) -> None:
    """NaN on both sides is no agreement."""
    with pytest.raises(ExportError, match="on a black image: by nan of the largest logit"):
        export_onnx(Network(lambda x: x * torch.nan), CONFIG, output=tmp_path / "net.onnx")


def test_an_operation_without_onnx_form_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard output stays the caller's, whatever torch has to say."""
    with pytest.raises(ExportError) as refused:
        export_onnx(
            Network(lambda x: torch.fft.rfft(x).abs()), CONFIG, output=tmp_path / "net.onnx"
        )
    assert "torch cannot export the network to opset 17: " in str(refused.value)
    assert "'aten::fft_rfft'" in str(refused.value)
    assert capfd.readouterr().out == ""


def test_an_error_within_torchs_exporter_is_explained(tmp_path: Path) -> None:
    """Normalisation by the batch's own statistics fails there on an assertion."""
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(ExportError, match="torch cannot export the network to opset 17: batch_"):
        export_onnx(Network(norm), CONFIG, output=tmp_path / "net.onnx")


def test_an_input_that_is_too_small_is_named(tmp_path: Path) -> None:
    """The network itself refuses it, before any export."""
    config = OnnxExportRequest(contract=Contract(height=2, width=2))
    with pytest.raises(ExportError, match=r"does not take images of the shape \(1, 3, 2, 2\): "):
        export_onnx(Network(torch.relu), config, output=tmp_path / "net.onnx")


class Feature(nn.Module):
    """Returns a map of features where logits are expected."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns its input."""
        return x


class Several(nn.Module):
    """Returns two tensors, as nets with an auxiliary classifier do."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns two rows of logits."""
        return x.mean((2, 3)), x.mean((2, 3))


@pytest.mark.parametrize(
    ("model", "returned"), [(Feature(), r"\(1, 3, 16, 16\)"), (Several(), "tuple")]
)
def test_what_is_no_row_of_logits_is_refused(
    tmp_path: Path, model: nn.Module, returned: str
) -> None:
    """The message says what came back instead."""
    message = rf"maps \(1, 3, 16, 16\) to {returned}; expected one tensor of logits, \(1, classes\)"
    with pytest.raises(ExportError, match=message):
        export_onnx(model, CONFIG, output=tmp_path / "net.onnx")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """It is not created in silence."""
    with pytest.raises(ArtifactError, match=r"the folder .*absent does not exist"):
        export_onnx(Network(torch.relu), CONFIG, output=tmp_path / "absent" / "net.onnx")


def test_probes_reach_the_ends_of_the_contract() -> None:
    """Black and white as Caffe's contract has them: BGR minus the mean, unscaled."""
    images = probes(replace(preset("imagenet-caffe"), height=4, width=4, resize=NO_RESIZE))
    black, white, random = (
        images[f"{k}"] for k in ("a black image", "a white image", "random images")
    )
    mean = np.array([103.939, 116.779, 123.68])
    np.testing.assert_allclose(black[0, :, 2, 1], -mean, rtol=1e-6)
    np.testing.assert_allclose(white[0, :, 1, 2], 255 - mean, rtol=1e-6)
    assert random.shape == (3, 3, 4, 4)
    assert (random >= black).all()
    assert (random <= white).all()
    assert {x.dtype for x in images.values()} == {np.dtype(np.float32)}
