"""Published checkpoints load as their files have them, and come with their own preprocessing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from commands import passed, refusal, run
from torch import Tensor, nn

from edgeres.core.contract import Contract, preset
from edgeres.core.contract_options import ContractOptions
from edgeres.core.resize import Interpolation, shortest
from edgeres.errors import CheckpointError, ConfigError, DependencyError
from edgeres.networks import PUBLISHED, find_spec, is_factory, is_published
from edgeres.networks.checkpoint import load_checkpoint, load_weights
from edgeres.networks.load import load_trained
from edgeres.networks.published import fetch_published
from edgeres.networks.resnet import ResNet, build_model
from edgeres.onnx_file import load_onnx

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TV2 = Contract(height=224, width=224, resize=shortest(232), mean=IMAGENET_MEAN, std=IMAGENET_STD)
"""Source: torchvision's documentation of ResNet50_Weights.IMAGENET1K_V2."""

A1 = Contract(
    height=224,
    width=224,
    resize=shortest(235, interpolation=Interpolation.BICUBIC),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
"""Source: timm's resnet50.a1_in1k, crop_pct 0.95, bicubic: floor(224 / 0.95) = 235."""

_NORM = ("weight", "bias", "running_mean", "running_var")


@cache
def published_keys() -> Mapping[str, Mapping[str, tuple[int, ...]]]:
    """Returns by network the keys and shapes in published_keys.txt, whose first line says its origin."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    text = (Path(__file__).parent / "published_keys.txt").read_text(encoding="utf-8")
    for line in text.splitlines()[1:]:
        if line.startswith("["):
            keys = found.setdefault(line.strip("[]"), {})
            continue
        key, *sizes = line.split()
        shape = tuple(map(int, sizes))
        if key.endswith(".*"):
            keys |= {key.replace("*", part): shape for part in _NORM}
            keys[key.replace("*", "num_batches_tracked")] = ()
        else:
            keys[key] = shape
    return found


def published_state(name: str) -> dict[str, Tensor]:
    """Returns a checkpoint in the published form: every tensor one number, none like another.

    The numbers are stored once each, so that the file stays small.
    """
    state: dict[str, Tensor] = {}
    for number, (key, shape) in enumerate(published_keys()[name].items(), start=1):
        counter = key.endswith("num_batches_tracked")
        state[key] = torch.tensor(0 if counter else float(number)).expand(shape)
    return state


def unlearned(name: str) -> nn.Module:
    """Returns the network with whatever stands in memory for weights."""
    with torch.device("meta"):
        model = ResNet(find_spec(name))
    return model.to_empty(device="cpu")


def test_the_list_has_every_published_network() -> None:
    """Those of the registry that both libraries have."""
    assert tuple(published_keys()) == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_networks_have_the_published_keys_and_shapes(name: str) -> None:
    """In the published order, to the last counter."""
    with torch.device("meta"):
        state = ResNet(find_spec(name)).state_dict()
    ours = {key: tuple(value.shape) for key, value in state.items()}
    assert ours == published_keys()[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_checkpoint_in_the_published_form_loads(name: str, tmp_path: Path) -> None:
    """Every tensor of the file stands under its own key in the network."""
    path = tmp_path / f"{name}.pth"
    expected = published_state(name)
    torch.save(expected, path)
    loaded = load_weights(unlearned(name), load_checkpoint(path), name=name).state_dict()
    floats = {key: value for key, value in expected.items() if value.is_floating_point()}
    wrong = [key for key, value in floats.items() if not torch.equal(loaded[key], value)]
    assert wrong == []


def test_a_published_key_more_or_less_is_seen(tmp_path: Path) -> None:
    """The comparison is not blind: one key left out, one shape changed."""
    state = published_state("resnet18")
    del state["layer3.0.downsample.1.running_var"]
    state["fc.bias"] = torch.ones(7)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"1 missing \(layer3\.0\.downsample\.1\.running_var"):
        load_weights(unlearned("resnet18"), load_checkpoint(tmp_path / "a.pth"), name="resnet18")


class FakeWeights(Enum):
    """What torchvision's `ResNet18_Weights` offers."""

    IMAGENET1K_V1 = 1
    IMAGENET1K_V2 = 2
    DEFAULT = IMAGENET1K_V2

    @property
    def url(self) -> str:
        """Returns where the file is."""
        return f"models/{self.name}.pth"

    @property
    def meta(self) -> dict[str, Any]:
        """Returns the names of 1,000 classes."""
        return {"categories": [f"class {number}" for number in range(1000)]}

    def transforms(self) -> Any:
        """Returns fields as `ImageClassification` has them."""
        return SimpleNamespace(
            crop_size=[224],
            resize_size=[232 if self.value == 2 else 256],
            interpolation=SimpleNamespace(value="bilinear"),
            mean=list(IMAGENET_MEAN),
            std=list(IMAGENET_STD),
        )

    def get_state_dict(self, *, progress: bool, check_hash: bool) -> Mapping[str, Tensor]:
        """Returns weights; the hash must be requested."""
        assert check_hash
        return trained_state()


@cache
def trained_state() -> Mapping[str, Tensor]:
    """Returns a resnet18's weights, drawn with a seed."""
    torch.manual_seed(3)
    return build_model(find_spec("resnet18")).state_dict()


@dataclass
class FakeTimm(ModuleType):
    """The part of timm that is used, with one tag for resnet18."""

    created: list[str] = field(default_factory=list)
    crop_mode: str = "center"
    fails: Exception | None = None

    def __post_init__(self) -> None:
        super().__init__("timm")

    def list_models(self, pattern: str, *, pretrained: bool) -> list[str]:
        """Returns the networks that have weights."""
        assert pretrained
        return [pattern.replace("*", tag) for tag in ("a1_in1k", "tv_in1k")]

    def get_pretrained_cfg(self, name: str) -> Any:
        """Returns what resnet50.a1_in1k says of itself."""
        config = {
            "input_size": (3, 224, 224),
            "crop_pct": 0.95,
            "crop_mode": self.crop_mode,
            "interpolation": "bicubic",
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
        }
        tag = name.partition(".")[2] or "a1_in1k"
        return SimpleNamespace(tag=tag, hf_hub_id=f"timm/{name}", to_dict=lambda: config)

    def resolve_data_config(self, *, pretrained_cfg: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the configuration as it came."""
        return pretrained_cfg

    def create_model(self, name: str, *, pretrained: bool) -> nn.Module:
        """Returns the network with `trained_state`, or fails."""
        assert pretrained
        self.created.append(name)
        if self.fails is not None:
            raise self.fails
        model = build_model(find_spec("resnet18"))
        model.load_state_dict(trained_state())
        return model


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> type[FakeWeights]:
    """Stands in for torchvision, with `FakeWeights` for every network."""
    module = ModuleType("torchvision.models")
    module.get_model_weights = lambda name: FakeWeights  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", module)
    return FakeWeights


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> FakeTimm:
    """Stands in for timm."""
    fake = FakeTimm()
    for name in ("timm", "timm.models", "timm.data"):
        monkeypatch.setitem(sys.modules, name, fake)
    return fake


def raising(error: Exception) -> Callable[..., Any]:
    """Returns a function that fails with this error, whatever it is called with."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_a_publisher_s_name_is_no_factory() -> None:
    """A dotted module of theirs still is one."""
    assert is_published("timm:resnet50.a1_in1k")
    assert not is_factory("torchvision:resnet50")
    assert is_factory("torchvision.models:resnet50")
    assert not is_published("resnet50")


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("requested", "name", "resize"),
    [
        ("torchvision:resnet18", "torchvision:resnet18.IMAGENET1K_V2", 232),
        ("torchvision:resnet18.IMAGENET1K_V1", "torchvision:resnet18.IMAGENET1K_V1", 256),
    ],
)
def test_torchvision_s_transforms_become_the_contract(
    requested: str, name: str, resize: int
) -> None:
    """Those of the weights named, or of the default ones; with the class names."""
    found = fetch_published(requested)
    assert (found.name, found.architecture) == (name, "resnet18")
    assert found.contract == Contract(
        height=224, width=224, resize=shortest(resize), mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    assert found.classes[999] == "class 999"


def test_timm_s_configuration_becomes_the_contract(timm: FakeTimm) -> None:
    """Size, crop fraction and filter; the tag that stands by default is named."""
    found = fetch_published("timm:resnet18")
    assert (found.name, found.contract, found.classes) == ("timm:resnet18.a1_in1k", A1, ())
    assert fetch_published("timm:resnet18.tv_in1k").name == "timm:resnet18.tv_in1k"
    assert timm.created == ["resnet18", "resnet18.tv_in1k"]


@pytest.mark.usefixtures("torchvision", "timm")
@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_the_fetched_weights_are_the_network_s(name: str) -> None:
    """The same from both, with one hash."""
    trained = load_trained(name, None)
    state, expected = trained.module.state_dict(), trained_state()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert not trained.module.training
    assert trained.checkpoint_sha256 == load_trained("timm:resnet18", None).checkpoint_sha256


@pytest.mark.usefixtures("torchvision")
def test_export_carries_what_the_library_says(tmp_path: Path) -> None:
    """Contract, class names and the weights' full name; an option changes its own value alone."""
    path = tmp_path / "r.onnx"
    passed("export", "torchvision:resnet18", "--input-size", 64, "-o", path)
    described = load_onnx(path).artifact
    assert described.contract == replace(
        TV2, height=64, width=64, resize=shortest(round(232 * 64 / 224))
    )
    assert described.classes[1] == "class 1"
    assert described.architecture == "torchvision:resnet18.IMAGENET1K_V2"


def test_options_come_before_the_library() -> None:
    """A preset replaces its contract, a value the one in it."""
    assert ContractOptions(preset="digits").resolve(TV2) == preset("digits")
    lanczos = ContractOptions(interpolation=Interpolation.LANCZOS)
    assert lanczos.resolve(TV2) == replace(
        TV2, resize=shortest(232, interpolation=Interpolation.LANCZOS)
    )
    assert ContractOptions().resolve(TV2) == TV2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet18.IMAGENET1K_V3", "has no weights 'IMAGENET1K_V3'. Did you mean"),
        ("timm:resnet18.a2_in1k", "Available: a1_in1k, tv_in1k"),
        ("timm:resnet51", "Did you mean 'resnet50'? Available by timm:ARCH: resnet18"),
        ("timm:plain34", "No published weights of 'plain34' are known"),
        ("torchvision:resnet50_v1", "No published weights of 'resnet50_v1'"),
        ("timm:", "No published weights of ''"),
    ],
)
@pytest.mark.usefixtures("torchvision", "timm")
def test_what_is_not_published_is_refused(name: str, message: str) -> None:
    """With the nearest and all that there is."""
    with pytest.raises(ConfigError) as refused:
        fetch_published(name)
    assert message in str(refused.value)


def test_without_a_network_the_error_says_how_to_bring_the_file(
    torchvision: type[FakeWeights], timm: FakeTimm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its origin, and the options that say the same contract."""
    gone = OSError("Name or service not known")
    monkeypatch.setattr(torchvision, "get_state_dict", raising(gone))
    timm.fails = gone
    with pytest.raises(CheckpointError) as refused:
        fetch_published("torchvision:resnet18")
    assert str(refused.value) == (
        "The weights torchvision:resnet18.IMAGENET1K_V2 could not be fetched (Name or service not "
        "known). Try again with a network, or fetch the file (models/IMAGENET1K_V2.pth) where "
        "there is one and bring it: edgeres export resnet18 --weights FILE --preset imagenet "
        "--input-size 224 --resize 232 --interpolation bilinear --mean 0.485,0.456,0.406 "
        "--std 0.229,0.224,0.225."
    )
    with pytest.raises(CheckpointError, match=r"\(timm/resnet18\).*--resize 235 .* bicubic"):
        fetch_published("timm:resnet18")


@pytest.mark.usefixtures("timm")
def test_the_options_of_the_error_say_the_contract(
    timm: FakeTimm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed in as they stand, they make the contract that fetching would have made."""
    timm.fails = OSError("no network")
    message = refusal("export", "timm:resnet18", "-o", tmp_path / "a.onnx")
    torch.save(dict(trained_state()), tmp_path / "FILE")
    monkeypatch.chdir(tmp_path)
    words = message.rpartition("edgeres ")[2].removesuffix(".").split()
    passed(*words, "-o", "b.onnx")
    assert load_onnx(Path("b.onnx")).artifact.contract == A1


def test_another_crop_is_refused(timm: FakeTimm) -> None:
    """A picture squashed to a square is not what the contract can say."""
    timm.crop_mode = "squash"
    with pytest.raises(ConfigError, match=r"timm:resnet18\.a1_in1k crops by 'squash'"):
        fetch_published("timm:resnet18.a1_in1k")


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_missing_library_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line that installs it, and the way without it."""
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"{library}.models", raising=False)
    with pytest.raises(DependencyError) as refused:
        fetch_published(f"{library}:resnet18")
    assert f"pip install {library}, or bring a file: edgeres export resnet18" in str(refused.value)


def test_a_library_of_another_torch_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torchvision fails beside a torch that it was not compiled for."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(DependencyError, match=r"cannot be loaded \(operator nms does not exist\)"):
        fetch_published("torchvision:resnet18")


def test_weights_and_a_publisher_s_name_exclude_each_other(tmp_path: Path) -> None:
    """Neither is passed over; an architecture alone needs a file."""
    line = ("export", "timm:resnet18", "--weights", "r.pth", "-o", tmp_path / "a.onnx")
    assert "names published weights, and --weights r.pth others" in refusal(*line, code=2)
    missing = run("export", "resnet18", "-o", tmp_path / "a.onnx")
    assert missing.exit_code == 2
    assert "Missing option '--weights'" in missing.stderr
    with pytest.raises(ConfigError, match="resnet18 needs a checkpoint: pass it with --weights"):
        load_trained("resnet18", None)


def test_explain_describes_the_architecture_not_the_weights() -> None:
    """The name that it takes is reported; a factory is not offered where none is taken."""
    assert "Pass resnet50." in refusal("explain", "timm:resnet50.a1_in1k", code=2)
    assert "factory" not in refusal("explain", "reznet50", code=2)


@cache
def installed(library: str) -> Any:
    """Returns an installed library's models, or skips the test."""
    return pytest.importorskip(f"{library}.models", reason=f"{library} is not installed")


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_the_library_s_module_gives_the_same_logits(library: str, name: str) -> None:
    """With the same weights, bit for bit or within the rounding of another order."""
    models = installed(library)
    make = models.get_model if library == "torchvision" else sys.modules["timm"].create_model
    torch.manual_seed(0)
    theirs = make(name).eval()
    ours = build_model(find_spec(name)).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


def test_the_installed_torchvision_exports_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own weights' name, transforms and file name, without a network."""
    models = installed("torchvision")
    weights = models.get_model_weights("resnet18").DEFAULT
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    cached = tmp_path / "checkpoints" / weights.url.rpartition("/")[2]
    cached.parent.mkdir()
    torch.save(dict(trained_state()), cached)
    passed("export", "torchvision:resnet18", "-o", tmp_path / "r.onnx")
    described = load_onnx(tmp_path / "r.onnx").artifact
    assert described.architecture == f"torchvision:resnet18.{weights.name}"
    assert described.classes[0] == "tench"
    assert described.contract == Contract(
        height=224, width=224, resize=shortest(256), mean=IMAGENET_MEAN, std=IMAGENET_STD
    )


def test_the_installed_timm_has_the_contract_s_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own configuration of resnet50.a1_in1k, with weights that need no network."""
    installed("timm")
    module = sys.modules["timm"]
    create = module.create_model
    monkeypatch.setattr(module, "create_model", lambda name, pretrained: create(name))
    assert fetch_published("timm:resnet50.a1_in1k").contract == A1
    assert fetch_published("timm:resnet50").name == "timm:resnet50.a1_in1k"
