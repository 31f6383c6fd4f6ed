"""`edgeres explain` on the command line: numbers of the papers, refusals, a drawing in a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commands import passed, refusal, run
from published import PARAMETERS


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_the_json_has_the_published_count(name: str, count: int) -> None:
    """One object, with the total that torchvision documents."""
    told = json.loads(passed("explain", name, "--json"))
    assert told["cost"]["parameters"] == count


@pytest.mark.parametrize(("block", "weights"), [("plain", "73,728"), ("bottleneck", "69,632")])
def test_a_block_is_worked_out_without_an_architecture(block: str, weights: str) -> None:
    """He et al. 2016a, figure 5: two 3x3 of 64 channels, and 256-64-64-256."""
    assert f"= {weights:>10}" in passed("explain", "--block", block)


def test_two_networks_stand_side_by_side() -> None:
    """The ratio of their parameters, in text and in JSON."""
    line = ("explain", "resnet50", "--against", "wide_resnet50_2")
    assert "25,557,032" in passed(*line)
    ratios = json.loads(passed(*line, "--json"))["ratios"]
    assert ratios["parameters"] == pytest.approx(
        PARAMETERS["resnet50"] / PARAMETERS["wide_resnet50_2"]
    )


def test_a_plain_net_differs_by_its_skips_alone() -> None:
    """The skip connection of option A costs no parameter."""
    line = ("explain", "resnet20", "--against", "plain20", "--json")
    told = json.loads(passed(*line))
    assert told["ratios"]["parameters"] == 1
    assert told["ratios"]["macs"] == 1


def test_size_and_classes_are_taken() -> None:
    """MACs of the convolutions grow with the image's area, the classifier with the classes."""
    small, large = (
        json.loads(passed("explain", "resnet18", "--input-size", side, "--json"))["cost"]["macs"]
        for side in (64, 128)
    )
    classifier = 512 * 1000
    assert large - classifier == 4 * (small - classifier)
    few = json.loads(passed("explain", "resnet18", "--num-classes", 10, "--json"))
    assert few["cost"]["parameters"] == PARAMETERS["resnet18"] - 990 * 513


def test_the_drawing_is_a_file_of_its_own(tmp_path: Path) -> None:
    """Whole, and XML."""
    path = tmp_path / "r.svg"
    passed("explain", "resnet18", "--svg", path)
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert list(tmp_path.iterdir()) == [path]


QUICK = ("--gradients", "--steps", 1, "--input-size", 8)


def test_gradients_stand_beside_the_plain_counterpart_s(tmp_path: Path) -> None:
    """Table, plot and JSON of one measurement, the same each time."""
    svg = tmp_path / "g.svg"
    printed = passed("explain", "resnet20", *QUICK, "--svg", svg)
    assert "plain20" in printed
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    told = json.loads(passed("explain", "resnet20", *QUICK, "--json"))["gradients"]
    assert (told["network"]["name"], told["other"]["name"]) == ("resnet20", "plain20")
    first = told["other"]["initial"]["blocks"][0]
    assert (first["name"], first["depth"]) == ("layer1.0", 3)
    assert f"{first['input_norm']:.2e}" in printed


def test_gradients_of_two_named_networks() -> None:
    """--against takes the counterpart's place."""
    told = json.loads(passed("explain", "resnet20", *QUICK, "--against", "resnet32", "--json"))
    assert told["gradients"]["other"]["name"] == "resnet32"
    assert len(told["gradients"]["other"]["trained"]["blocks"]) == 15


def test_gradients_need_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that installs it is said."""
    for name in [name for name in sys.modules if name.startswith("edgeres.workflows.gradients")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "edgeres.networks.backward", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    said = refusal("explain", "resnet20", *QUICK)
    assert said.startswith("Measuring gradients needs torch, which is not installed. In edgeres")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("explain resnet500", "Did you mean 'resnet50'?"),
        ("explain resnet50 --against plain", "Did you mean 'plain"),
        ("explain resnet50 --block plian", "plain"),
        ("explain", "Missing ARCH"),
        ("explain --block plain --input-size 32", "--input-size needs ARCH"),
        ("explain resnet50 --input-size 0", "input_size is 0"),
        ("explain my.module:factory", "is a factory"),
        ("explain --gradients", "Missing ARCH"),
        ("explain --block plain --gradients", "--gradients needs ARCH"),
        ("explain resnet20 --steps 5", "--steps needs --gradients"),
        ("explain resnet20 --gradients --steps 0", "0 steps train nothing"),
        ("explain resnet20 --gradients --block plain", "two questions"),
        ("explain resnet20 --gradients --num-classes 5", "the digits are ten"),
        ("explain resnet20 --gradients --input-size 0", "resize is to 0"),
        ("explain resnet20 --gradients --against plain21", "No architecture 'plain21'"),
    ],
)
def test_what_it_refuses(line: str, said: str) -> None:
    """Each with what is wrong or what was meant."""
    assert said in refusal(*line.split(), code=2)


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs", "depth", "convolutions"),
    [
        # torchvision.models documents these parameters; MACs of the papers' 224-pixel images.
        ("vgg16", 138_357_544, 15.5, 16, 13),
        ("vgg19", 143_667_240, 19.6, 19, 16),
        ("googlenet", 6_998_552, 1.58, 22, 57),
        ("googlenet_bn", 6_624_904, 1.50, 22, 57),
    ],
)
def test_another_family_has_its_published_counts(
    name: str, parameters: int, gmacs: float, depth: int, convolutions: int
) -> None:
    """Beside a ResNet, with ratios of the two."""
    line = ("explain", "resnet152", "--against", name)
    told = json.loads(passed(*line, "--json"))
    other = told["against"]
    assert (other["name"], other["depth"]) == (name, depth)
    assert other["cost"]["parameters"] == parameters
    assert other["cost"]["macs"] / 1e9 == pytest.approx(gmacs, abs=0.05 if gmacs > 2 else 0.005)
    assert len(other["layers"]) == other["convolutions"] == convolutions
    assert told["ratios"]["parameters"] == pytest.approx(60_192_808 / parameters)
    assert name in passed(*line)


def test_vgg_16_s_activations_are_counted_by_hand() -> None:
    """Every stage's maps: 2 of 64 x 224^2, 2 of 128 x 112^2, 3 of 256 x 56^2 and so on."""
    told = json.loads(passed("explain", "resnet18", "--against", "vgg16", "--json"))["against"]
    maps = 2 * 64 * 224**2 + 2 * 128 * 112**2 + 3 * 256 * 56**2 + 3 * 512 * 28**2 + 3 * 512 * 14**2
    assert told["cost"]["activations"] == maps + 4096 + 4096 + 1000


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "googlenet", "googlenet_bn"])
@pytest.mark.parametrize("line", ["explain {}", "export {} -o x.onnx", "estimate {} --board t4"])
def test_what_is_for_comparison_is_refused_elsewhere(name: str, line: str) -> None:
    """With what it is known for."""
    said = run(*line.format(name).split())
    assert said.exit_code != 0
    assert f"{name} is known for comparison alone" in said.stderr
    assert f"--against {name}" in said.stderr


def test_ilsvrc_has_depths_errors_and_sources() -> None:
    """As the papers report them; it goes with no other question."""
    told = json.loads(passed("explain", "--ilsvrc", "--json"))["ilsvrc"]
    found = {(one["year"], one["network"]): (one["depth"], one["top5_error"]) for one in told}
    assert found[2014, "GoogLeNet"] == (22, 6.7)
    assert found[2014, "VGG"] == (19, 7.3)
    assert found[2015, "ResNet"] == (152, 3.57)
    assert found[2016, "Wide ResNet-50-2"] == (50, 6.03)
    assert all(one["source"] for one in told)
    assert "3.57" in passed("explain", "--ilsvrc")
    result = run("explain", "resnet50", "--ilsvrc")
    assert result.exit_code == 2
    assert "has no part in it" in result.stderr


def test_a_board_shows_the_time_that_estimate_gives() -> None:
    """One cost model: the same figures of each network, in the mode that was named."""
    board = ("--board", "agx-orin-64", "--power-mode", "MAXN")
    line = ("explain", "resnet18", "--against", "resnet34", *board)
    estimates = json.loads(passed(*line, "--json"))["estimates"]
    alone = [json.loads(passed("estimate", n, *board, "--json")) for n in ("resnet18", "resnet34")]
    assert [one["estimates"] for one in estimates] == [one["estimates"] for one in alone]
    assert estimates[0]["power_mode"] == "MAXN"
    assert "80 % interval" in passed(*line)


def test_a_smaller_image_takes_less_time() -> None:
    """The time is of the network that is explained, not of the architecture's default."""
    times = [
        json.loads(passed("explain", "resnet18", "--board", "t4", "--json", *size))["estimates"][0][
            "estimates"
        ][0]["latency_ms"]
        for size in ((), ("--input-size", "112"))
    ]
    assert times[1] < 0.6 * times[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("resnet18 --power-mode 15W", "--power-mode needs --board"),
        ("--block plain --board t4", "--board needs ARCH"),
        ("resnet20 --gradients --board t4", "--board and --gradients are two questions"),
        ("resnet18 --against vgg16 --board t4", "vgg16 is there to be counted"),
        ("resnet18 --board t5", "No board 't5'. Available: "),
        ("--ilsvrc --board t4", "--ilsvrc is a question of its own; board has no part in it"),
    ],
)
def test_a_board_that_nothing_is_estimated_on_is_refused(line: str, said: str) -> None:
    """Never dropped in silence."""
    assert said in refusal("explain", *line.split(), code=2)
