"""The usual mistakes: each has a candidate, none two, and the options that are named repair it."""

from __future__ import annotations

from dataclasses import replace

import click
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from edgeres.cli.options import contract_options
from edgeres.core.contract import PRESETS, Color, Contract, with_resize
from edgeres.core.contract_options import ContractOptions
from edgeres.core.resize import NO_RESIZE, Interpolation, letterbox, shortest, squash
from edgeres.errors import ConfigError
from edgeres.evaluation.mistakes.candidates import (
    ImageSizes,
    candidate_contracts,
    with_geometry,
)
from edgeres.evaluation.mistakes.labels import label_mappings
from edgeres.evaluation.mistakes.values import Candidate, options_between
from edgeres.images import normalise, prepare
from edgeres.serialization import to_json

IMAGENET, CAFFE, DIGITS = (PRESETS[name] for name in ("imagenet", "imagenet-caffe", "digits"))
SIZES = ImageSizes(sizes=frozenset({(240, 300), (250, 300), (300, 300)}))
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def image() -> NDArray[np.uint8]:
    """Returns (250, 300, 3) uint8 RGB, another value everywhere."""
    return np.random.default_rng(0).integers(0, 256, (250, 300, 3)).astype(np.uint8)


def numbers(contract: Contract) -> NDArray[np.float32]:
    """Returns what a network is fed by a contract, (3, H, W)."""
    batch = normalise(prepare(image(), contract)[None], contract)
    return batch.reshape(batch.shape[1:])


def single(contract: Contract) -> dict[str, Contract]:
    """Returns the candidates of one mistake by that mistake."""
    candidates = candidate_contracts(contract, SIZES)
    return {s.mistakes[0]: s.contract for s in candidates if len(s.mistakes) == 1}


MISTAKES = {
    "the wrong colour order was typed": (replace(IMAGENET, color=Color.BGR), IMAGENET),
    "the other colour order with its mean": (
        replace(IMAGENET, color=Color.BGR, mean=IMAGENET.mean[::-1], std=IMAGENET.std[::-1]),
        IMAGENET,
    ),
    "mean and std left out": (replace(IMAGENET, mean=ZERO, std=ONE), IMAGENET),
    "the mean of caffe left out": (replace(CAFFE, mean=ZERO), CAFFE),
    "scaled twice by units": (
        replace(
            IMAGENET,
            mean=(123.675, 116.28, 103.53),
            std=(58.395, 57.12, 57.375),
        ),
        IMAGENET,
    ),
    "scaled although the network scales": (
        replace(IMAGENET, mean=ZERO, std=ONE),
        replace(IMAGENET, scale=1.0, mean=ZERO, std=ONE),
    ),
    "the scaling left out": (replace(IMAGENET, scale=1.0), IMAGENET),
    "0..255 for 0..1": (
        replace(IMAGENET, scale=1.0, mean=ZERO, std=ONE),
        replace(IMAGENET, mean=ZERO, std=ONE),
    ),
    "0..1 for -1..1": (
        replace(IMAGENET, mean=ZERO, std=ONE),
        PRESETS["imagenet-inception"],
    ),
    "ImageNet's mean for CIFAR's": (PRESETS["cifar-imagenet-norm"], PRESETS["cifar"]),
    "resized to the crop": (replace(IMAGENET, resize=shortest(224)), IMAGENET),
    "a margin cropped off": (IMAGENET, replace(IMAGENET, resize=shortest(224))),
    "resized although it should not be": (IMAGENET, replace(IMAGENET, resize=NO_RESIZE)),
    "nearest for bilinear": (
        replace(IMAGENET, resize=shortest(256, interpolation=Interpolation.NEAREST)),
        IMAGENET,
    ),
    "bilinear for bicubic": (
        IMAGENET,
        replace(IMAGENET, resize=shortest(256, interpolation=Interpolation.BICUBIC)),
    ),
    "RGB without scaling for caffe's BGR": (replace(CAFFE, color=Color.RGB, mean=ZERO), CAFFE),
    "ImageNet's for caffe's": (IMAGENET, CAFFE),
}
"""What was said, and what the network takes."""


@pytest.mark.parametrize("typed", MISTAKES)
def test_the_correct_preprocessing_is_among_the_candidates(typed: str) -> None:
    """It makes the very numbers of an image that the network was trained on."""
    wrong, correct = MISTAKES[typed]
    candidates = [s.contract for s in candidate_contracts(wrong, SIZES)]
    candidates = [c for c in candidates if c.shape == correct.shape]
    assert any(np.allclose(numbers(c), numbers(correct), rtol=1e-5, atol=1e-5) for c in candidates)


@pytest.mark.parametrize("contract", [IMAGENET, CAFFE, DIGITS], ids=["imagenet", "caffe", "digits"])
def test_no_two_candidates_make_the_same_numbers(contract: Contract) -> None:
    """Nor does one make those of the present contract: each inference tells something."""
    inputs = [
        numbers(contract),
        *(numbers(s.contract) for s in candidate_contracts(contract, SIZES)),
    ]
    texts = {array.round(4).tobytes() for array in inputs}
    assert len(texts) == len(inputs)


SIZED = {
    "the short side": (IMAGENET, {"112x112": shortest(128), "299x299": shortest(341)}),
    "squashed": (
        with_resize(replace(IMAGENET, resize=NO_RESIZE), squash(224, 224)),
        {"448x448": squash(448, 448), "224x299": squash(224, 299), "112x224": squash(112, 224)},
    ),
    "squashed and cropped": (
        replace(IMAGENET, resize=squash(256, 256)),
        {"168x168": squash(192, 192), "299x224": squash(341, 256)},
    ),
    "in a frame": (
        with_resize(IMAGENET, letterbox(224, 224, pad=9)),
        {"168x224": letterbox(168, 224, pad=9)},
    ),
    "as they are": (replace(IMAGENET, resize=NO_RESIZE), {"168x224": NO_RESIZE}),
    "a crop of another shape": (IMAGENET, {"224x299": squash(224, 299)}),
}
"""A contract, and resizes of the inputs of another size that are tried."""


@pytest.mark.parametrize("kind", SIZED)
def test_another_size_has_the_resize_of_its_own(kind: str) -> None:
    """As much of the image, by the same mode; a squash where only one side changes."""
    contract, expected = SIZED[kind]
    found = {
        mistake.rpartition(" ")[2]: other
        for mistake, other in single(contract).items()
        if "was made for about" in mistake
    }
    assert {size: found[size].resize for size in expected} == expected
    for size, other in found.items():
        assert size == f"{other.height}x{other.width}"
        assert numbers(other).shape == other.shape


def test_images_that_are_too_small_have_no_larger_input() -> None:
    """Where they are not resized at all."""
    contract = replace(IMAGENET, resize=NO_RESIZE)
    found = {(c.height, c.width) for c in single(contract).values()}
    assert (224, 299) in found
    assert max(height for height, _ in found) == 224


def test_mistakes_are_said_as_they_were_made() -> None:
    """Missing, twice and swapped each have their own words."""
    bare = single(replace(IMAGENET, mean=ZERO, std=ONE))
    assert "mean and std are missing, the network takes ImageNet's mean and std" in bare
    twice = "the values are scaled twice, the network takes raw values in [0, 255]"
    assert f"{twice} and scales them itself" in bare
    assert "red and blue are swapped, the network takes BGR" in bare
    assert "the scaling by 1/255 is missing" in single(replace(IMAGENET, scale=1.0))


def test_two_mistakes_come_with_both_their_names() -> None:
    """Colour beside values, and geometry beside a candidate of one mistake."""
    wrong = replace(CAFFE, color=Color.RGB, mean=ZERO)
    (pair,) = (s for s in candidate_contracts(wrong, SIZES) if s.contract == CAFFE)
    assert len(pair.mistakes) == 2
    first = candidate_contracts(IMAGENET, SIZES)[0]
    beside = with_geometry(first, SIZES)
    assert {s.mistakes[0] for s in beside} == {first.mistakes[0]}
    assert all(len(s.mistakes) == 2 for s in beside)
    assert with_geometry(pair, SIZES) == ()


def test_a_geometry_keeps_the_labels_of_what_it_is_added_to() -> None:
    """Else a pair would name two mistakes and correct one."""
    (low, *_) = label_mappings(10, (), ())
    mapped = Candidate(contract=IMAGENET, labels=low, mistakes=(low.mistake,))
    beside = with_geometry(mapped, SIZES)
    assert beside
    assert {(s.labels, s.mistakes[0]) for s in beside} == {(low, low.mistake)}


def test_a_resize_that_changes_nothing_has_no_filter() -> None:
    """Images of the correct size are the same by every filter, and cannot be cropped larger."""
    candidates = candidate_contracts(PRESETS["digits"], ImageSizes(sizes=frozenset({(32, 32)})))
    assert {
        s.contract.resize.interpolation for s in candidates if s.contract.resize.short == 32
    } == {Interpolation.BILINEAR}
    small = candidate_contracts(PRESETS["digits"], ImageSizes(sizes=frozenset({(8, 8)})))
    assert all(s.contract.resize != NO_RESIZE for s in small)


@click.command()
@contract_options
def print_contract(contract: ContractOptions) -> None:
    """Prints the contract that the options make of ImageNet's."""
    click.echo(to_json(contract.resolve(IMAGENET)))


@pytest.mark.parametrize(
    "candidate", candidate_contracts(IMAGENET, SIZES), ids=lambda s: str(s.contract)
)
def test_the_options_make_the_contract(candidate: Candidate) -> None:
    """Read by the command line's own parser, they turn the present contract into the correct one."""
    options = options_between(IMAGENET, candidate.contract)
    printed = CliRunner().invoke(
        print_contract, [word for option in options for word in option.split()]
    )
    assert printed.exit_code == 0, printed.output
    expected = {**to_json(candidate.contract)}
    assert printed.output.strip() == str(expected)


def test_one_value_is_told_by_its_option_and_several_by_a_preset() -> None:
    """The shortest way to say it; nothing where nothing differs."""
    assert options_between(IMAGENET, IMAGENET) == ()
    swapped = replace(IMAGENET, color=Color.BGR)
    assert options_between(swapped, IMAGENET) == ("--color rgb",)
    assert options_between(IMAGENET, CAFFE) == ("--preset imagenet-caffe",)
    assert options_between(replace(IMAGENET, scale=1.0), IMAGENET) == ("--scale 1/255",)
    assert options_between(IMAGENET, replace(IMAGENET, resize=NO_RESIZE)) == ("--resize none",)


def test_contracts_of_two_networks_are_refused() -> None:
    """No option of preprocessing changes the channels of a network."""
    gray = replace(DIGITS, channels=1, color=Color.GRAY, mean=(0.5,), std=(0.5,))
    with pytest.raises(
        ConfigError, match=r"Contracts of \(3, 224, 224\) and \(1, 32, 32\) are for different"
    ):
        options_between(IMAGENET, gray)


def test_labels_are_read_one_higher_and_one_lower() -> None:
    """A label that leaves the network's classes stands for none."""
    higher, lower = label_mappings(4, (), ())
    assert higher.network_class == (1, 2, 3, -1)
    assert lower.network_class == (-1, 0, 1, 2)
    assert "count from 1" in lower.mistake
    assert "every class index -1" in lower.remedy


def test_folders_sorted_as_text_are_read_by_number() -> None:
    """Of 12 folders 0 to 11, the third as text is 10."""
    names = sorted(map(str, range(12)))
    (by_number,) = (o for o in label_mappings(12, names, ()) if "as text" in o.mistake)
    assert by_number.network_class == tuple(int(name) for name in names)
    assert len(label_mappings(10, tuple("0123456789"), ())) == 2


def test_folders_are_read_by_the_names_of_the_networks_classes() -> None:
    """Where both name the same classes, their order alone may differ."""
    (by_name,) = label_mappings(3, ("cat", "dog", "eel"), ("dog", "eel", "cat"))[2:]
    assert by_name.network_class == (2, 0, 1)
    assert len(label_mappings(3, ("cat", "dog", "eel"), ("cat", "dog", "eel"))) == 2
