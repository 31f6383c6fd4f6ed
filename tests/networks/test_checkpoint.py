"""Checkpoints of every usual form load; what cannot be read, trusted or fitted is named."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from edgeres.core.contract import preset
from edgeres.errors import CheckpointError, ConfigError
from edgeres.images import embedded_digits, embedded_path, normalise, prepare
from edgeres.networks import find_spec
from edgeres.networks.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    model_from_checkpoint,
    spec_from_checkpoint,
)
from edgeres.networks.resnet import ResNet, build_model
from edgeres.networks.specification import ModelSpec, Shortcut

SMALL = replace(find_spec("resnet20"), layers=(1, 1, 1), base_width=4, name="small")
"""A CIFAR net of one block a stage."""

Weights = dict[str, Tensor]


def weights(spec: ModelSpec = SMALL, seed: int = 0) -> Weights:
    """Returns the state dict of a freshly initialised network."""
    torch.manual_seed(seed)
    return dict(build_model(spec).state_dict())


def saved(path: Path, content: Any, *, legacy: bool = False) -> Path:
    """Writes with torch.save, in its zip format or the older pickle stream."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def renamed(state: Weights, rename: Callable[[str], str]) -> Weights:
    """Returns the same weights under other names."""
    return {rename(key): value for key, value in state.items()}


def refusal(path: Path) -> str:
    """Returns the message that a file is refused with."""
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(path)
    return str(refused.value)


def misfit(spec: ModelSpec, checkpoint: Checkpoint) -> str:
    """Returns the message on weights that do not fit."""
    with pytest.raises(CheckpointError) as refused:
        model_from_checkpoint(spec_from_checkpoint(spec, checkpoint), checkpoint)
    return str(refused.value)


def same_floats(found: Mapping[str, Tensor], expected: Weights) -> bool:
    """Whether all floating-point weights, and nothing else, were found."""
    floats = {k: v for k, v in expected.items() if v.is_floating_point()}
    return found.keys() == floats.keys() and all(torch.equal(found[k], floats[k]) for k in floats)


CIFAR_NAMES = {
    "as torchvision": lambda key: key,
    "module. in front": lambda key: f"module.{key}",
    "compiled and parallel": lambda key: f"_orig_mod.module.{key}",
    "linear for fc": lambda key: key.replace("fc.", "linear."),
}


@pytest.mark.parametrize("rename", CIFAR_NAMES.values(), ids=CIFAR_NAMES)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_key_names_are_brought_to_torchvisions(
    tmp_path: Path, rename: Callable[[str], str], legacy: bool
) -> None:
    """Prefixes and the classifier's other name change nothing, in both formats of torch.save."""
    state = weights()
    path = saved(tmp_path / "net.th", renamed(state, rename), legacy=legacy)
    assert same_floats(load_checkpoint(path).tensors, state)


@pytest.mark.parametrize(
    "wrapper", ["state_dict", "model", "model_state_dict", "model_ema", "state_dict_ema", "net"]
)
def test_weights_are_taken_out_of_their_wrapper(tmp_path: Path, wrapper: str) -> None:
    """What else a training script stores beside them is left alone."""
    state = weights()
    content = {"epoch": 3, "best_acc1": 91.5, wrapper: state, "optimizer": {"lr": 0.1}}
    assert same_floats(load_checkpoint(saved(tmp_path / "net.pt", content)).tensors, state)


def test_an_averaged_model_loses_its_counter(tmp_path: Path) -> None:
    """The AveragedModel of torch keeps `n_averaged` beside `module.`."""
    state = weights()
    averaged = {"n_averaged": torch.tensor(9), **renamed(state, lambda key: f"module.{key}")}
    path = saved(tmp_path / "net.pth", {"model_ema": averaged})
    assert same_floats(load_checkpoint(path).tensors, state)


def test_shortcut_names_of_cifar_nets_are_known(tmp_path: Path) -> None:
    """`shortcut.0` is what torchvision calls `downsample.0`."""
    spec = replace(SMALL, shortcut=Shortcut.B)
    state = weights(spec)
    content = renamed(state, lambda key: key.replace("downsample", "shortcut"))
    checkpoint = load_checkpoint(saved(tmp_path / "net.pth", content))
    assert same_floats(checkpoint.tensors, state)
    assert spec_from_checkpoint(SMALL, checkpoint).shortcut is Shortcut.B


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_float_becomes_float32(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    """Half precision loses nothing on its way up."""
    state = {k: v.to(dtype) for k, v in weights().items() if v.is_floating_point()}
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        saved(path, state)
    found = load_checkpoint(path).tensors
    assert same_floats(found, {k: v.float() for k, v in state.items()})
    assert {v.dtype for v in found.values()} == {torch.float32}


@pytest.mark.parametrize("counted", [True, False])
def test_batch_counters_may_be_there_or_not(tmp_path: Path, counted: bool) -> None:
    """The network computes the same with and without them."""
    original = build_model(SMALL).eval()
    state = original.state_dict()
    kept = {k: v for k, v in state.items() if counted or not k.endswith("num_batches_tracked")}
    checkpoint = load_checkpoint(saved(tmp_path / "net.pth", kept))
    loaded = model_from_checkpoint(spec_from_checkpoint(SMALL, checkpoint), checkpoint)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded(images), original(images))


def test_the_file_says_whether_convolutions_have_biases(tmp_path: Path) -> None:
    """A net with biases loads into an architecture that has none by default."""
    with_bias = replace(SMALL, conv_bias=True)
    checkpoint = load_checkpoint(saved(tmp_path / "net.pth", weights(with_bias)))
    assert spec_from_checkpoint(SMALL, checkpoint) == with_bias
    model = model_from_checkpoint(with_bias, checkpoint)
    assert model.state_dict().keys() == build_model(with_bias).state_dict().keys()


def test_classes_are_read_from_the_classifier(tmp_path: Path) -> None:
    """The user need not say that it is CIFAR-100."""
    state = weights(replace(SMALL, num_classes=100))
    checkpoint = load_checkpoint(saved(tmp_path / "net.pth", state))
    assert spec_from_checkpoint(SMALL, checkpoint).num_classes == 100
    assert spec_from_checkpoint(SMALL, checkpoint, num_classes=100).num_classes == 100


def test_a_contradiction_on_the_classes_is_refused(tmp_path: Path) -> None:
    """Neither the user's number nor the file's is taken in silence."""
    path = saved(tmp_path / "net.pth", weights())
    with pytest.raises(CheckpointError) as refused:
        spec_from_checkpoint(SMALL, load_checkpoint(path), num_classes=100)
    assert str(refused.value) == (
        f"{path} classifies 10 classes, not 100. Pass --num-classes 10, or leave it out: it is "
        "read from the file."
    )


def test_the_users_shortcut_is_held_against_the_file(tmp_path: Path) -> None:
    """Option A requested for a file with projections leaves their weights over."""
    state = weights(replace(SMALL, shortcut=Shortcut.B))
    checkpoint = load_checkpoint(saved(tmp_path / "net.pth", state))
    spec = spec_from_checkpoint(SMALL, checkpoint, shortcut=Shortcut.A)
    with pytest.raises(CheckpointError, match=r"10 unexpected \(layer2.0.downsample.0.weight, "):
        model_from_checkpoint(spec, checkpoint)


@pytest.mark.parametrize("name", ["resnet50", "plain20", "wrn_16_4"])
def test_a_shortcut_that_the_architecture_cannot_have_is_refused(tmp_path: Path, name: str) -> None:
    """Only nets of basic blocks with a skip connection have the choice."""
    checkpoint = load_checkpoint(saved(tmp_path / "net.pth", weights()))
    with pytest.raises(ConfigError, match=f"--shortcut A does not go with {name}, whose shortcut"):
        spec_from_checkpoint(find_spec(name), checkpoint, shortcut=Shortcut.A)


def test_a_users_own_network_may_use_the_other_names(tmp_path: Path) -> None:
    """Names are matched after both sides are brought to one form."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

    original = Own()
    checkpoint = load_checkpoint(saved(tmp_path / "own.pth", original.state_dict()))
    loaded = load_weights(Own(), checkpoint, name="own:Own")
    assert torch.equal(loaded.get_parameter("linear.weight"), original.linear.weight)
    assert not loaded.training


def test_the_hash_is_the_files(tmp_path: Path) -> None:
    """It ties the exported model to the weights that it came from."""
    path = saved(tmp_path / "net.pth", weights())
    assert load_checkpoint(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """So is a folder in its place."""
    path = tmp_path / "absent.pth"
    assert refusal(path) == f"No checkpoint at {path}. Check the path given with --weights."
    assert refusal(tmp_path).startswith(f"No checkpoint at {tmp_path}.")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint\n", b"\xff\xd8\xff\xe0" + bytes(99)])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty file, a text and a JPEG."""
    path = tmp_path / "photo.pth"
    path.write_bytes(content)
    assert refusal(path) == (
        f"{path} is no checkpoint. Expected a file of torch.save (.pth, .pt, .th) or a "
        ".safetensors file: check the path given with --weights."
    )


class _Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle 2", "pickle 4"])
def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(
    tmp_path: Path, form: str
) -> None:
    """The file that the code would create does not appear."""
    path, marker = tmp_path / "evil.pth", tmp_path / "marker"
    content = {"state_dict": _Attack(marker)}
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, protocol=int(form[-1])))
    else:
        saved(path, content, legacy=form == "legacy")
    message = refusal(path)
    assert message.startswith(f"{path} was refused: ")
    assert "Nothing was run." in message
    assert form == "pickle 4" or "reading it would run code (posix.system)" in message
    assert not marker.exists()


def test_the_attack_of_these_tests_is_real(tmp_path: Path) -> None:
    """Plain unpickling does create the marker."""
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(_Attack(marker)))
    assert marker.exists()


def test_a_whole_module_is_refused_with_what_to_save_instead(tmp_path: Path) -> None:
    """torch.save(model) stores code by reference."""
    message = refusal(saved(tmp_path / "net.pth", nn.Linear(2, 2)))
    assert "would run code (torch.nn.modules.linear.Linear)" in message
    assert message.endswith("save model.state_dict() alone.")


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    """It is a program, not weights."""
    path = tmp_path / "net.pt"
    traced = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
    torch.jit.save(traced, path)
    assert "is a TorchScript archive, a program. Save the state_dict()" in refusal(path)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_truncated_torch_file_is_refused(tmp_path: Path, fraction: float, legacy: bool) -> None:
    """Wherever it breaks off."""
    path = saved(tmp_path / "net.pth", weights(), legacy=legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    assert refusal(path) == (
        f"{path} is truncated, damaged or not from torch.save. Copy or download it again."
    )


@pytest.mark.parametrize("kept", [0, 6, 100, -1])
def test_a_truncated_safetensors_file_is_refused(tmp_path: Path, kept: int) -> None:
    """In its header as well as in its last tensor."""
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(weights(), path)
    path.write_bytes(path.read_bytes()[:kept])
    message = refusal(path)
    assert message.startswith(f"{path} is truncated or no safetensors file (")
    assert message.endswith("Copy or download it again.")


@pytest.mark.parametrize(
    ("content", "contents"),
    [
        ({"weights": {"a": 1}, "epoch": 3}, "weights, epoch"),
        ({"state_dict": {}}, "state_dict"),
        (torch.zeros(3), "Tensor"),
        ([1, 2], "list"),
    ],
)
def test_a_file_without_weights_says_what_it_holds(
    tmp_path: Path, content: Any, contents: str
) -> None:
    """And where weights are looked for."""
    path = saved(tmp_path / "net.pth", content)
    assert refusal(path).startswith(
        f"{path} holds no weights, only: {contents}. Expected tensors by"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    """With the number of tensors that have them."""
    state = weights()
    state["layer2.0.conv1.weight"][1, 0, 0, 0] = value
    state["fc.bias"][3] = value
    path = saved(tmp_path / "net.pth", state)
    assert refusal(path).startswith(
        f"{path} has NaN or infinite values in 2 tensors (layer2.0.conv1.weight, fc.bias)."
    )


@pytest.mark.parametrize("value", [0.0, -1e-3])
def test_a_variance_that_is_not_positive_is_named(tmp_path: Path, value: float) -> None:
    """Dividing by its root gives no network that was ever trained."""
    state = weights()
    state["layer1.0.bn2.running_var"][2] = value
    path = saved(tmp_path / "net.pth", state)
    assert refusal(path).startswith(
        f"{path} has a zero or negative variance in 1 tensor (layer1.0.bn2.running_var)."
    )


PRUNED = {
    "gamma": ("layer1.0.bn1.running_var", "layer1.0.bn1.weight"),
    "kernel": ("layer1.0.bn2.running_var", "layer1.0.conv2.weight"),
    "stem's kernel": ("bn1.running_var", "conv1.weight"),
    "projection's kernel": ("layer2.0.downsample.1.running_var", "layer2.0.downsample.0.weight"),
}


@pytest.mark.parametrize(("variance", "weight"), PRUNED.values(), ids=PRUNED)
def test_a_variance_of_zero_is_read_where_the_channel_was_pruned(
    tmp_path: Path, variance: str, weight: str
) -> None:
    """The network computes what torch computes with these weights."""
    spec = replace(SMALL, shortcut=Shortcut.B)
    original = build_model(spec).eval()
    for key in (variance, weight):
        original.state_dict()[key][2] = 0
    checkpoint = load_checkpoint(saved(tmp_path / "net.pth", original.state_dict()))
    logits = model_from_checkpoint(spec, checkpoint)(images := torch.randn(2, 3, 8, 8))
    assert torch.equal(logits, original(images))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("variance", "weight", "value"),
    [
        ("layer1.0.bn1.running_var", "layer1.0.bn1.weight", -1e-3),
        ("layer1.0.bn1.running_var", "layer1.0.conv2.weight", 0.0),
        ("layer1.0.bn1.running_var", "layer1.0.bn1.bias", 0.0),
    ],
    ids=["negative", "another layer's kernel", "beta"],
)
def test_a_variance_of_zero_elsewhere_is_refused(
    tmp_path: Path, variance: str, weight: str, value: float
) -> None:
    """No pruning explains it."""
    state = weights()
    state[weight][2], state[variance][2] = 0, value
    assert "has a zero or negative variance in 1 tensor" in (
        refusal(saved(tmp_path / "net.pth", state))
    )


def test_one_pruned_channel_excuses_no_other(tmp_path: Path) -> None:
    """Channel 1 has a gamma of 0, channel 3 none."""
    state = weights()
    state["bn1.weight"][1] = 0
    state["bn1.running_var"][[1, 3]] = 0
    assert "variance in 1 tensor (bn1.running_var)" in (refusal(saved(tmp_path / "net.pth", state)))


@pytest.mark.parametrize("key", ["bn1.running_mean", "bn1.running_var"])
def test_statistics_that_are_nan_are_refused_in_a_pruned_channel_too(
    tmp_path: Path, key: str
) -> None:
    """A gamma of 0 does not hide a NaN."""
    state = weights()
    state["bn1.weight"][1], state[key][1] = 0, float("nan")
    assert f"has NaN or infinite values in 1 tensor ({key})" in (
        refusal(saved(tmp_path / "net.pth", state))
    )


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    """Integers are no trained network without their scales."""
    state = weights()
    state["fc.weight"] = state["fc.weight"].to(torch.int8)
    message = refusal(saved(tmp_path / "net.pth", state))
    assert "stores fc.weight as torch.int8; expected floating point." in message


def test_a_weight_under_two_names_is_refused(tmp_path: Path) -> None:
    """Which of them is the trained one cannot be known."""
    state = weights()
    state["module.fc.bias"] = state["fc.bias"] + 1
    message = refusal(saved(tmp_path / "net.pth", state))
    assert "has the weight fc.bias twice, once as module.fc.bias." in message


def test_another_architecture_is_listed_and_named(tmp_path: Path) -> None:
    """resnet32's weights for resnet20: what is over, and whose shapes they are."""
    path = saved(tmp_path / "net.pth", weights(find_spec("resnet32")))
    assert misfit(find_spec("resnet20"), load_checkpoint(path)) == (
        f"{path} does not fit resnet20: 60 unexpected (layer1.3.conv1.weight, "
        "layer1.3.bn1.weight, layer1.3.bn1.bias, ...). These are the shapes of resnet32 or "
        "plain32: export that architecture instead."
    )


def test_unexpected_and_wrongly_shaped_weights_are_listed() -> None:
    """Basic blocks requested for a bottleneck net's weights, with both shapes."""
    with torch.device("meta"):
        state = ResNet(find_spec("resnet50")).state_dict()
    floats = {key: value for key, value in state.items() if value.is_floating_point()}
    checkpoint = Checkpoint(path=Path("net.pth"), sha256="", tensors=floats)
    message = misfit(find_spec("resnet34"), checkpoint)
    # 5 tensors of conv3 and bn3 in each of 16 blocks, and the first stage's projection.
    assert message.startswith("net.pth does not fit resnet34: 85 unexpected (layer1.0.conv3.weight")
    reshaped = "layer1.0.conv1.weight is (64, 64, 1, 1), expected (64, 64, 3, 3), "
    assert f"of another shape ({reshaped}" in message
    assert "These are the shapes of resnet50 or resnet50_v1" in message


def test_missing_weights_name_the_nearest_architecture(tmp_path: Path) -> None:
    """A file that lost its classifier is still the same architecture for the most part."""
    state = {k: v for k, v in weights(find_spec("resnet20")).items() if not k.startswith("fc.")}
    message = misfit(find_spec("resnet20"), load_checkpoint(saved(tmp_path / "net.pth", state)))
    assert "does not fit resnet20: 2 missing (fc.weight, fc.bias)." in message
    assert "The nearest architecture is resnet20 or plain20, with 98 % of the tensors." in message


def test_a_foreign_network_has_no_nearest_architecture(tmp_path: Path) -> None:
    """The way to one's own network is named instead."""
    path = saved(tmp_path / "net.pth", {"encoder.weight": torch.zeros(3, 3)})
    message = misfit(find_spec("resnet20"), load_checkpoint(path))
    assert "97 missing (conv1.weight, bn1.weight, bn1.bias, ...), 1 unexpected" in message
    assert message.endswith(
        "No architecture of edgeres comes near; pass package.module:factory for a net of your own."
    )


def test_the_embedded_digits_network_is_as_good_as_its_training_said() -> None:
    """At least 97.5 % of the 797 digits that it was not trained on, from FP16 storage."""
    checkpoint = load_checkpoint(embedded_path("digits_resnet20.safetensors"))
    model = model_from_checkpoint(find_spec("resnet20"), checkpoint)
    contract = preset("digits")
    _, digits = embedded_digits()
    pixels = np.stack([prepare(digits.image(row), contract) for row in range(len(digits))])
    with torch.inference_mode():
        guesses = model(torch.from_numpy(normalise(pixels, contract))).argmax(1).numpy()
    assert len(guesses) == 797
    assert (guesses == digits.labels).mean() >= 0.975


@pytest.mark.shared
def test_a_keras_resnet50_loads_with_its_biases(shared: Path) -> None:
    """FP16 storage, convolution biases and no batch counters, into v1."""
    path = shared / "data" / "resnet50-imagenet" / "resnet50_v1_keras_fp16.pt"
    checkpoint = load_checkpoint(path)
    spec = spec_from_checkpoint(replace(find_spec("resnet50_v1"), bn_eps=1e-3), checkpoint)
    assert (spec.conv_bias, spec.num_classes, spec.bn_eps) == (True, 1000, 1e-3)
    model = model_from_checkpoint(spec, checkpoint)
    assert torch.equal(model.get_parameter("fc.bias"), checkpoint.tensors["fc.bias"])
