"""Prefixes, classifiers and other codebases' names, against networks that compute on their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeres.errors import CheckpointError
from edgeres.networks import find_spec, naming
from edgeres.networks.checkpoint import (
    load_checkpoint,
    load_weights,
    model_from_checkpoint,
    spec_from_checkpoint,
)
from edgeres.networks.resnet import build_model
from edgeres.networks.specification import ModelSpec, Shortcut

SMALL = replace(find_spec("resnet20"), layers=(2, 1, 1), base_width=4, name="small")
"""A CIFAR net of four blocks."""

PROJECTED = replace(SMALL, shortcut=Shortcut.B)

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def trained(net: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every weight and statistic a value of its own."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in net.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.4 + 0.1)
            if value.ndim == 4:
                value.sub_(0.3)
        assert key
    return net.eval()


def loaded(path: Path, content: Any, spec: ModelSpec = SMALL) -> nn.Module:
    """Returns edgeres' network with what torch.save stored."""
    torch.save(content, path)
    checkpoint = load_checkpoint(path)
    return model_from_checkpoint(spec_from_checkpoint(spec, checkpoint), checkpoint)


def renamed(net: nn.Module, rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Returns the weights under other names."""
    return {rename(key): value for key, value in net.state_dict().items()}


@pytest.mark.parametrize(
    "prefix",
    ["model.", "backbone.", "net.", "encoder_q.", "model.backbone.", "0.", "student.module.net."],
)
@pytest.mark.parametrize("outer", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_a_prefix_common_to_all_is_taken_off_with_a_line(
    tmp_path: Path, prefix: str, outer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever DataParallel and torch.compile put before it."""
    original = trained(build_model(SMALL))
    content = {"state_dict": renamed(original, lambda key: f"{outer}{prefix}{key}")}
    assert torch.equal(loaded(tmp_path / "net.ckpt", content)(IMAGES), original(IMAGES))
    (line,) = caplog.messages
    assert line.endswith(f"the prefix '{prefix}' was taken off the names of its weights.")


def test_a_compiled_network_in_a_module_loses_both_names(tmp_path: Path) -> None:
    """`model._orig_mod.` of Lightning, and a layer that was compiled alone."""
    original = trained(build_model(SMALL))
    for name in ("model._orig_mod.{}", "{}"):
        content = renamed(original, lambda key: key.replace("layer2.", "layer2._orig_mod."))
        content = {name.format(key): value for key, value in content.items()}
        assert torch.equal(loaded(tmp_path / "net.ckpt", content)(IMAGES), original(IMAGES))


@pytest.mark.parametrize(
    ("classifier", "body"),
    [
        ("fc.1", ""),
        ("classifier.1", ""),
        ("head.fc", "backbone."),
        ("model.fc.1", "model."),
        ("module.head", "module."),
        ("classifier", "encoder."),
    ],
)
def test_the_one_linear_layer_is_the_classifier(
    tmp_path: Path, classifier: str, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Sequential(Dropout, Linear), mmpretrain's head, a backbone beside a classifier."""
    original = trained(build_model(replace(SMALL, num_classes=7)))
    content = renamed(
        original,
        lambda key: f"{classifier}.{key[3:]}" if key.startswith("fc.") else f"{body}{key}",
    )
    model = loaded(tmp_path / "net.pth", content)
    assert torch.equal(model(IMAGES), original(IMAGES))
    name = classifier.removeprefix("module.")
    assert f"its one linear layer, {name}, is read as the classifier fc." in caplog.messages[-1]


def test_a_head_of_two_layers_is_refused(tmp_path: Path) -> None:
    """Its hidden layer has no place in a ResNet."""
    content = renamed(build_model(SMALL), lambda key: key.replace("fc.", "fc.3."))
    content |= {"fc.0.weight": torch.ones(16, 16), "fc.0.bias": torch.ones(16)}
    with pytest.raises(CheckpointError, match=r"2 missing \(fc.weight, fc.bias\), 4 unexpected"):
        loaded(tmp_path / "net.pth", content)


def test_preprocessing_inside_the_file_is_not_dropped(tmp_path: Path) -> None:
    """Sequential(Normalize, net): the mean and std would be lost."""
    content = renamed(build_model(SMALL), lambda key: f"1.{key}")
    content |= {"0.mean": torch.zeros(3, 1, 1), "0.std": torch.ones(3, 1, 1)}
    with pytest.raises(CheckpointError, match=r"unexpected \(1.conv1.weight"):
        loaded(tmp_path / "net.pth", content)


def test_a_users_network_keeps_its_own_prefix(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both sides have it, and nothing is reported."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
            self.head = nn.Linear(4, 2)

    original = trained(Own())
    path = tmp_path / "own.pth"
    torch.save(original.state_dict(), path)
    model = load_weights(Own(), load_checkpoint(path), name="own:Own")
    for key, value in original.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    assert caplog.messages == []


class ForeignBlock(nn.Module):
    """A residual block in another codebase's words, computed by itself."""

    def __init__(self, inside: int, outside: int, stride: int, first: str) -> None:
        """Registers the layers in another order, or as a pre-activation block has them."""
        super().__init__()
        self.stride, self.pad = stride, (outside - inside) // 2
        layers = {
            "conv_1": nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            "bn_1": nn.BatchNorm2d(outside),
            "conv_2": nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            "bn_2": nn.BatchNorm2d(outside),
        }
        # The second convolution registered before the first has the same shapes.
        if first == "conv_2":
            layers = {key: layers[key] for key in ("conv_2", "bn_2", "conv_1", "bn_1")}
        if first == "bn_1":
            layers["bn_1"] = nn.BatchNorm2d(inside)
            layers = {key: layers[key] for key in ("bn_1", "conv_1", "bn_2", "conv_2")}
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(residual(x) + shortcut of option A)."""
        y = functional.relu(self.get_submodule("bn_1")(self.get_submodule("conv_1")(x)))
        y = self.get_submodule("bn_2")(self.get_submodule("conv_2")(y))
        kept = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(y + functional.pad(kept, (0, 0, 0, 0, self.pad, self.pad)))


class ForeignNet(nn.Module):
    """Stem, stages 1 to 3 and a classifier, with names of its own."""

    def __init__(self, first: str = "conv_1") -> None:
        """Has the blocks register the layer `first` before the others."""
        super().__init__()
        self.conv_1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        if first != "bn_1":
            self.bn_1 = nn.BatchNorm2d(4)
        self.stage_1 = nn.Sequential(*(ForeignBlock(4, 4, 1, first) for _ in range(2)))
        self.stage_2 = nn.Sequential(ForeignBlock(4, 8, 2, first))
        self.stage_3 = nn.Sequential(ForeignBlock(8, 16, 2, first))
        if first == "bn_1":
            self.bn_1 = nn.BatchNorm2d(16)
        self.output = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits."""
        x = self.stage_1(functional.relu(self.bn_1(self.conv_1(x))))
        logits: Tensor = self.output(self.stage_3(self.stage_2(x)).mean((2, 3)))
        return logits


def test_another_codebases_names_are_matched_by_order_and_shape(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The network computes what that codebase's own code computes."""
    foreign = trained(ForeignNet())
    model = loaded(tmp_path / "net.pth", foreign.state_dict())
    torch.testing.assert_close(model(IMAGES), foreign(IMAGES))
    assert (
        "names its layers in another way: its 47 tensors were all matched to small by order and "
        in (caplog.messages[0])
    )
    assert "(conv_1.weight is conv1.weight)" in caplog.messages[0]


OTHER_NAMES: dict[str, Callable[[str], str]] = {
    "stages from 0": lambda key: key.replace("layer1", "s0").replace("layer2", "s1"),
    "conv and norm in one": lambda key: (
        key.replace("conv1", "a.conv").replace("bn1", "a.norm").replace("conv2", "b.conv")
    ),
    "flat blocks": lambda key: (
        key.replace("layer1.0", "block1")
        .replace("layer1.1", "block2")
        .replace("layer2.0", "block3")
    ),
    "projection by another name": lambda key: key.replace("downsample.0", "proj_conv").replace(
        "downsample.1", "proj_bn"
    ),
    "stage_2.0.downsample.0": lambda key: (
        key.replace("layer", "stage_").replace("conv1", "conv_1").replace("bn1", "bn_1")
    ),
}


@pytest.mark.parametrize("rename", OTHER_NAMES.values(), ids=OTHER_NAMES)
def test_names_of_other_forms_are_matched(tmp_path: Path, rename: Callable[[str], str]) -> None:
    """With projections, whose shortcut is known by its 1x1 kernels."""
    original = trained(build_model(PROJECTED))
    assert torch.equal(
        loaded(tmp_path / "net.pth", renamed(original, rename))(IMAGES), original(IMAGES)
    )


def test_convolutions_with_biases_are_matched(tmp_path: Path) -> None:
    """Their biases are known by the shape of the weight beside them."""
    original = trained(build_model(replace(SMALL, conv_bias=True)))
    content = renamed(original, lambda key: key.replace("conv", "conv_").replace("bn", "bn_"))
    assert torch.equal(loaded(tmp_path / "net.pth", content)(IMAGES), original(IMAGES))


def foreign_refusal(path: Path, content: dict[str, Any]) -> str:
    """Returns the message that weights of other names are refused with."""
    with pytest.raises(CheckpointError) as refused:
        loaded(path, content)
    return str(refused.value)


def test_a_preactivation_net_is_not_taken_for_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its layers have the same order and shapes, one normalisation shifted."""
    content = ForeignNet("bn_1").state_dict()
    message = foreign_refusal(tmp_path / "net.pth", content)
    assert "Nor do its layers fit by order and shape: stage_1.0.conv_1 to stage_1.1.bn_1 would" in (
        message
    )
    # Without that check the shifted weights would be taken.
    monkeypatch.setattr(naming, "_split_block", lambda pairs: "")
    monkeypatch.setattr(naming, "_unordered", lambda names: "")
    loaded(tmp_path / "net.pth", content)


def test_layers_registered_out_of_order_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """conv_2 before conv_1: where the shapes are equal, only the names show it."""
    content = ForeignNet("conv_2").state_dict()
    same_width = {k: v for k, v in content.items() if "stage_2" not in k and "stage_3" not in k}
    shapes = {k: tuple(v.shape) for k, v in same_width.items() if "num_batches" not in k}
    ours = ForeignNet().state_dict()
    expected = {
        k.replace("stage_", "layer").replace("v_", "v").replace("bn_", "bn"): tuple(v.shape)
        for k, v in ours.items()
        if k in shapes
    }
    matched, obstacle = naming.match_by_order(shapes, expected)
    assert (matched, obstacle) == ({}, "stage_1.0.conv_2 is stored before stage_1.0.conv_1")
    monkeypatch.setattr(naming, "_unordered", lambda names: "")
    assert naming.match_by_order(shapes, expected)[0]


def test_names_without_blocks_are_ambiguous(tmp_path: Path) -> None:
    """conv_1 to conv_9 could be those of a pre-activation net as well."""
    count = iter(range(1, 100))
    names: dict[str, str] = {}
    content = {}
    for key, value in build_model(SMALL).state_dict().items():
        module, _, parameter = key.rpartition(".")
        names.setdefault(module, f"unit{next(count)}")
        content[f"{names[module]}.{parameter}"] = value
    assert "would be layer1.0 and are no block by their names." in (
        foreign_refusal(tmp_path / "net.pth", content)
    )


def test_a_projection_registered_first_is_refused_with_what_differs(tmp_path: Path) -> None:
    """Which of the normalisations is which cannot be known."""
    state = build_model(PROJECTED).state_dict()
    first = [k for k in state if "layer2.0.downsample" in k]
    ordered = [k for k in state if not k.startswith(("layer2", "layer3", "fc"))]
    ordered += first + [k for k in state if k.startswith("layer2") and k not in first]
    ordered += [k for k in state if k.startswith(("layer3", "fc"))]
    content = {k.replace("layer", "stage_"): state[k] for k in ordered}
    message = foreign_refusal(tmp_path / "net.pth", content)
    assert (
        "stage_2.0.downsample.0 has weight (8, 4, 1, 1) where layer2.0.conv1 has weight (8, 4, "
        in message
    )


def test_a_sorted_file_has_no_order(tmp_path: Path) -> None:
    """A .safetensors file stores tensors by name: the order of the layers is lost."""
    state = trained(ForeignNet()).state_dict()
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(dict(state), path)
    checkpoint = load_checkpoint(path)
    with pytest.raises(CheckpointError, match="Nor do its layers fit by order and shape: "):
        model_from_checkpoint(spec_from_checkpoint(SMALL, checkpoint), checkpoint)


def test_a_name_that_both_have_keeps_its_meaning(tmp_path: Path) -> None:
    """layer1.1 stored before layer1.0, beside blocks of other names."""
    state = build_model(SMALL).state_dict()
    swap = {"layer1.0": "layer1.1", "layer1.1": "layer1.0", "layer2.0": "other"}
    content = {swap.get(k[:8], k[:8]) + k[8:]: v for k, v in state.items()}
    assert "would become layer1.0" in foreign_refusal(tmp_path / "net.pth", content)


@pytest.mark.parametrize("wrapper", ["", "state_dict"])
@pytest.mark.parametrize("beside", ["target.conv1.weight", "criterion.weight", "mean"])
def test_a_network_beside_something_else_is_named_and_can_be_chosen(
    tmp_path: Path, wrapper: str, beside: str
) -> None:
    """Neither is dropped in silence; the message has the option that takes the network."""
    original = trained(build_model(SMALL))
    state = {**renamed(original, lambda key: f"online.{key}"), beside: torch.ones(3)}
    key = ".".join(filter(None, (wrapper, "online")))
    path = tmp_path / "net.pth"
    message = foreign_refusal(path, {wrapper: state} if wrapper else state)
    assert message.endswith(f"Below online its names fit: pass --weights-key {key}.")
    checkpoint = load_checkpoint(path, weights_key=key)
    model = model_from_checkpoint(spec_from_checkpoint(SMALL, checkpoint), checkpoint)
    assert torch.equal(model(IMAGES), original(IMAGES))


def test_another_architecture_under_other_names_is_named(tmp_path: Path) -> None:
    """By its shapes: resnet32's weights for resnet20."""
    content = renamed(build_model(find_spec("resnet32")), lambda key: key.replace("layer", "stage"))
    with pytest.raises(
        CheckpointError, match="these are the shapes of resnet32 or plain32: export"
    ):
        loaded(tmp_path / "net.pth", content, find_spec("resnet20"))
