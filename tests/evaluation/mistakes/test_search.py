"""The diagnosis on a world of plain colours: what it names, on what evidence, at which cost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from worlds import COLORS, RIGHT, Painter, framed_colors, labelled, plain_colors

from edgeres.core.contract import PRESETS, Color, Contract
from edgeres.core.resize import shortest
from edgeres.errors import DataError, RunnerError
from edgeres.evaluation.evaluate import Predictions
from edgeres.evaluation.mistakes import Diagnosis, diagnose, is_suspicious, search
from edgeres.evaluation.mistakes.labels import assigned_mappings
from edgeres.evaluation.mistakes.search import CONFIRMATION, SCREENING, gain_p
from edgeres.images import Batch, Dataset, take
from edgeres.progress import Progress
from edgeres.serialization import to_json
from edgeres.statistics import drop_interval
from edgeres.testing import FakeRunner

BGR = replace(RIGHT, color=Color.BGR)
BARE = replace(RIGHT, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
CROPPED = replace(RIGHT, resize=shortest(37))
COUNT = SCREENING + CONFIRMATION


def diagnosis_of(contract: Contract, dataset: Dataset | None = None, **more: object) -> Diagnosis:
    """Returns what the diagnosis gives where the colours' network is fed by `contract`."""
    return diagnose(Painter().runner(), dataset or plain_colors(COUNT), contract, **more)  # type: ignore[arg-type]


def named(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Returns the mistakes that it names."""
    assert diagnosis.named is not None, diagnosis.sentence
    return diagnosis.named.candidate.mistakes


def test_the_correct_preprocessing_is_left_alone() -> None:
    """Nothing is named, and it is said how much was tried."""
    diagnosis = diagnosis_of(RIGHT)
    assert diagnosis.named is None
    assert diagnosis.correct == diagnosis.samples == CONFIRMATION
    assert diagnosis.sentence == (
        f"None of {diagnosis.tried} usual mistakes in preprocessing or labels is found: 256 "
        "(100.0 %) of 256 images are correct as it is, and no change gains more than chance."
    )


def test_swapped_colours_are_named_with_their_evidence() -> None:
    """Accuracy before and after, interval, p value, and the option that repairs it."""
    diagnosis = diagnosis_of(BGR)
    assert named(diagnosis) == ("red and blue are swapped, the network takes RGB",)
    assert diagnosis.named is not None
    gained, lost = diagnosis.named.newly_correct, diagnosis.named.newly_wrong
    assert diagnosis.named.correct == diagnosis.correct + gained - lost
    low, high = (100 * bound for bound in drop_interval(lost, gained, CONFIRMATION))
    assert diagnosis.sentence.startswith(
        "Likely mistake: red and blue are swapped, the network takes RGB. With that corrected 256 "
        f"(100.0 %) of 256 images are correct instead of {diagnosis.correct} "
        f"({100 * diagnosis.correct / 256:.1f} %): a gain of {low:.1f} to {high:.1f} pp, p < 1e-6 "
        f"(exact McNemar, corrected for {len(diagnosis.findings)} tries). Export the model again "
        "with --color rgb, then calibrate and build again."
    )


def test_a_contract_of_the_command_line_is_repaired_there() -> None:
    """Where the model carries none, an export would not help."""
    diagnosis = replace(diagnosis_of(BGR), carried=False)
    assert "Pass --color rgb to calibrate, build-engine and bench." in diagnosis.sentence


def test_a_missing_mean_is_named_with_what_is_as_good() -> None:
    """ImageNet's and CIFAR's differ too little for plain colours, and both are said."""
    diagnosis = diagnosis_of(BARE)
    assert named(diagnosis) == (
        "mean and std are missing, the network takes ImageNet's mean and std",
    )
    assert "Export the model again with --preset cifar-imagenet-norm," in diagnosis.sentence
    assert " As good on these images: --preset cifar" in diagnosis.sentence


def test_two_mistakes_at_once_are_named() -> None:
    """Colour and values, neither of which explains the accuracy alone."""
    assert named(diagnosis_of(replace(BARE, color=Color.BGR))) == (
        "mean and std are missing, the network takes ImageNet's mean and std",
        "red and blue are swapped, the network takes RGB",
    )


def test_a_mistake_in_the_labels_beside_one_in_the_images_is_named() -> None:
    """One reading of the labels is tried with every contract, at no inference more."""
    data = plain_colors(COUNT)
    assert data.labels is not None
    keep = np.flatnonzero(data.labels < 9)
    pixels = np.stack([data.image(int(row)) for row in keep])
    shifted = labelled(pixels, data.labels[keep] + 1)
    mistakes = named(diagnosis_of(BARE, shifted))
    assert mistakes[0].startswith("mean and std are missing")
    assert mistakes[1].startswith("the labels are one too high")


@pytest.mark.parametrize("margin", [6, 10, 12])
@pytest.mark.parametrize(
    ("shift", "words"), [(1, "the labels are one too high"), (0, None)], ids=["shifted", "correct"]
)
def test_labels_and_crop_are_named_together(margin: int, shift: int, words: str | None) -> None:
    """A frame that should be cropped off, and labels that count from 1; either alone is no cure."""
    data = framed_colors(400, margin=margin)
    assert data.labels is not None
    data = replace(data, labels=data.labels + shift)
    runner = Painter(trained_on=CROPPED).runner()
    diagnosis = diagnose(runner, data, replace(CROPPED, resize=shortest(32)))
    mistakes = named(diagnosis)
    assert mistakes[0].startswith(("no margin is cropped off", "images are resized"))
    assert [mistake.startswith(words) for mistake in mistakes[1:] if words] == [True] * shift
    assert diagnosis.named is not None
    assert diagnosis.named.correct == CONFIRMATION


@pytest.mark.parametrize("margin", [6, 8])
def test_colours_and_crop_are_named_together_beside_an_order_of_labels(margin: int) -> None:
    """Four classes that swap in pairs look like another order of labels, which takes no place."""
    runner = Painter(trained_on=CROPPED).runner()
    fed = replace(CROPPED, resize=shortest(32), color=Color.BGR)
    diagnosis = diagnose(runner, framed_colors(400, margin=margin, classes=10), fed)
    assert len(named(diagnosis)) == 2
    assert named(diagnosis)[0] == "red and blue are swapped, the network takes RGB"
    assert named(diagnosis)[1].startswith(("no margin is cropped off", "images are resized"))


def test_every_candidate_reads_the_labels_as_it_says() -> None:
    """One that names a mistake in the labels has the mapping that repairs it, and no other has."""
    data = framed_colors(400, margin=10)
    assert data.labels is not None
    diagnosis = diagnose(
        Painter(trained_on=CROPPED).runner(),
        replace(data, labels=data.labels + 1),
        replace(CROPPED, resize=shortest(32)),
    )
    for candidate in (finding.candidate for finding in diagnosis.findings):
        mapped = candidate.labels is not None
        assert mapped == any("the labels" in mistake for mistake in candidate.mistakes)


def test_an_order_of_labels_that_nobody_wrote_down_is_read_off_the_answers() -> None:
    """And confirmed on images that had no part in reading it off."""
    data = plain_colors(COUNT)
    order = np.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    diagnosis = diagnosis_of(RIGHT, replace(data, labels=order[data.labels]))
    assert named(diagnosis) == ("the labels number the classes in another order than the network",)
    assert diagnosis.named is not None
    assert diagnosis.named.correct == CONFIRMATION
    assert "0 is 3, 2 is 6, 3 is 0, 4 is 2, 5 is 4, 6 is 7, 7 is 9, 9 is 5." in diagnosis.sentence


def test_an_order_of_labels_names_the_classes_that_are_known() -> None:
    """Folders by their names, and the network's classes by theirs; a number where there is none."""
    labels = np.repeat(np.arange(3), 40)
    predicted = np.array([1, 0, 2])[labels]
    for folders, names, words in (
        (
            ("cat", "dog", "owl"),
            ("chat", "chien", "hibou"),
            "0 (cat) is 1 (chien), 1 (dog) is 0 (chat)",
        ),
        (("cat", "dog", "owl"), (), "0 (cat) is 1, 1 (dog) is 0"),
        ((), ("chat", "chien"), "0 is 1 (chien), 1 is 0 (chat)"),
    ):
        (mapping,) = assigned_mappings(labels, predicted, 3, folders, names)
        assert mapping.remedy == f"Number the classes as the network does: {words}."


def test_a_network_that_is_still_wrong_is_not_explained() -> None:
    """What helps is named, and that it does not explain everything."""
    data = plain_colors(COUNT)
    assert data.labels is not None
    half = np.where(np.arange(COUNT) % 2, data.labels, (data.labels + 3) % 10)
    diagnosis = diagnosis_of(BARE, replace(data, labels=half))
    assert named(diagnosis)[0].startswith("mean and std are missing")
    assert (
        "That does not explain everything: the network is still more confident"
        in diagnosis.sentence
    )


@pytest.mark.parametrize("contract", [RIGHT, BGR, BARE], ids=["right", "bgr", "bare"])
def test_the_inferences_are_counted_and_bounded(contract: Contract) -> None:
    """What the network itself counted, below the 8,000 that are promised."""
    painter = Painter()
    diagnosis = diagnose(painter.runner(), plain_colors(1000), contract)
    assert diagnosis.inferences == painter.shown < 8000


def test_images_that_choose_do_not_confirm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fifth screens, the rest confirms, and no image is in both."""
    shown: dict[int, set[str]] = {}

    def recorded(
        stream: Iterable[Batch], total: int, stage: str, progress: Progress
    ) -> Iterator[Batch]:
        assert stage == "Diagnosing"
        for batch in stream:
            shown.setdefault(total, set()).update(batch.hashes)
            yield batch

    monkeypatch.setattr(search, "tracked_batches", recorded)
    diagnosis_of(BGR)
    assert {total: len(names) for total, names in shown.items()} == {
        SCREENING: 64,
        CONFIRMATION: 256,
    }
    assert not shown[SCREENING] & shown[CONFIRMATION]


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_prove_nothing(copies: int) -> None:
    """A diagnosis on copied images is that of the images: none confirms what it was chosen by."""
    few = plain_colors(60)
    rows = np.tile(np.arange(60), copies)
    assert diagnosis_of(BGR, take(few, rows)) == diagnosis_of(BGR, few)


def random_answers(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns logits, (N, 10), that depend on each image's numbers by a hash alone."""
    digests = b"".join(hashlib.sha256(image.tobytes()).digest()[:10] for image in images)
    bytes_of = np.frombuffer(digests, np.uint8).reshape(len(images), 10)
    return bytes_of.astype(np.float32) / np.float32(25)


def test_nothing_is_named_by_chance() -> None:
    """A network that guesses is never explained, on 40 data sets with 36 candidates each."""
    runner = FakeRunner(logits=random_answers)
    for seed in range(40):
        diagnosis = diagnose(runner, plain_colors(COUNT, seed=seed), RIGHT)
        assert diagnosis.named is None, diagnosis.sentence


def test_a_candidate_that_overflows_the_network_is_out() -> None:
    """A reference in FP16 may answer raw values with NaN: the others are still tried."""
    painter = Painter()

    def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
        computed = painter.logits(images)
        return computed * np.float32("nan") if np.abs(images).max() > 20 else computed

    diagnosis = diagnose(FakeRunner(logits=logits), plain_colors(COUNT), BGR)
    assert named(diagnosis) == ("red and blue are swapped, the network takes RGB",)


def test_a_network_that_fails_on_the_present_images_is_refused() -> None:
    """That is no candidate's doing."""
    broken = FakeRunner(logits=lambda images: np.full((len(images), 10), np.nan, np.float32))
    with pytest.raises(RunnerError, match="returned NaN or infinite logits"):
        diagnose(broken, plain_colors(COUNT), RIGHT)


def test_few_images_prove_nothing() -> None:
    """The same mistake that 256 images prove stays unnamed on six."""
    diagnosis = diagnosis_of(BARE, plain_colors(8))
    assert diagnosis.samples == 6
    assert diagnosis.named is None
    assert max(finding.correct for finding in diagnosis.findings) == 6


def test_one_image_is_refused() -> None:
    """There would be none left to confirm on."""
    with pytest.raises(DataError, match="has 1 image; a diagnosis needs some to choose by and"):
        diagnosis_of(RIGHT, plain_colors(1))


def test_images_without_labels_are_refused() -> None:
    """Nothing could be correct."""
    with pytest.raises(DataError, match="has no labels; a diagnosis needs one an image"):
        diagnosis_of(RIGHT, replace(plain_colors(20), labels=None))


@given(gained=st.integers(0, 40), lost=st.integers(0, 40))
def test_the_p_value_is_that_of_coin_flips(gained: int, lost: int) -> None:
    """Summed by hand: the chance of at least as many heads."""
    flips = gained + lost
    expected = sum(comb(flips, heads) for heads in range(gained, flips + 1)) / 2**flips
    assert gain_p(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_every_try_is_paid_for() -> None:
    """The p value is the exact one times the candidates confirmed, and at most 1."""
    diagnosis = diagnosis_of(BGR)
    for finding in diagnosis.findings:
        alone = gain_p(finding.newly_correct, finding.newly_wrong)
        assert finding.p_value == min(1.0, len(diagnosis.findings) * alone)


def test_the_json_has_the_evidence() -> None:
    """What was confirmed, what was named and in which words."""
    diagnosis = diagnosis_of(BGR)
    document = to_json(diagnosis)
    assert document["sentence"] == diagnosis.sentence
    assert document["named"]["options"] == ["--color rgb"]
    assert document["named"]["contract"] == to_json(RIGHT)
    assert len(document["findings"]) == len(diagnosis.findings) <= 6
    assert document["inferences"] == diagnosis.inferences


def predictions(correct: int, wrong: int, confidence: float) -> Predictions:
    """Returns answers of which so many are right, all equally sure."""
    rank = np.array([0] * correct + [1] * wrong)
    sure = np.full(len(rank), confidence, np.float32)
    return Predictions(classes=10, top1=np.zeros_like(rank), rank=rank, confidence=sure)


def test_a_network_is_suspicious_that_is_rarely_correct_or_overconfident() -> None:
    """Below half, or confidence more than a tenth above accuracy; a good one is not."""
    assert not is_suspicious(predictions(92, 8, 0.97))
    assert not is_suspicious(predictions(50, 50, 0.55))
    assert is_suspicious(predictions(49, 51, 0.5))
    assert is_suspicious(predictions(78, 22, 0.93))


def test_the_world_is_as_it_says() -> None:
    """The painter knows every colour as trained, and swapped four pairs stand for another."""
    assert len(COLORS) == 10
    assert diagnosis_of(BGR).correct < 0.7 * CONFIRMATION
    assert PRESETS["cifar-imagenet-norm"] is RIGHT
