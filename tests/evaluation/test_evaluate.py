"""Evaluation: what counts as correct, what is kept of it and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edgeres.core.verdict import Accuracy
from edgeres.errors import DataError, MismatchError, RunnerError
from edgeres.evaluation.evaluate import (
    Outcomes,
    Predictions,
    evaluate,
    evaluate_pair,
    take_outcomes,
    unseen_rows,
)
from edgeres.testing import FakeRunner


@dataclass(frozen=True)
class Batch:
    """A labelled batch whose images carry their own position in the first pixel."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    indices: NDArray[np.int64]
    hashes: tuple[str, ...]


def batches_of(labels: list[int], size: int) -> Iterator[Batch]:
    """Yields the labels in batches; image i is filled with i and hashed as `h<i>`."""
    for start in range(0, len(labels), size):
        indices = np.arange(start, min(start + size, len(labels)))
        images = np.ones((len(indices), 3, 1, 1), np.float32) * indices[:, None, None, None]
        names = tuple(f"h{index}" for index in indices)
        yield Batch(images.astype(np.float32), np.array(labels)[indices], indices, names)


def runner_of(logits: NDArray[np.float32], name: str = "fake") -> FakeRunner:
    """Returns a runner that answers image i with row i of `logits`."""
    return FakeRunner(logits=lambda images: logits[images[:, 0, 0, 0].astype(int)], name=name)


def random_logits(images: int, classes: int, seed: int = 0) -> NDArray[np.float32]:
    """Returns reproducible logits, (images, classes)."""
    return np.random.default_rng(seed).normal(size=(images, classes)).astype(np.float32)


def test_top1_top5_and_confidence_are_those_of_torch() -> None:
    """Against torch's argmax, topk and softmax, over batches that do not divide the images."""
    logits = random_logits(37, 12)
    labels = np.random.default_rng(1).integers(0, 12, 37).tolist()
    result = evaluate(runner_of(logits), batches_of(labels, 8))
    expected = torch.from_numpy(logits)
    top5 = expected.topk(5).indices == torch.tensor(labels)[:, None]
    assert result.top1.tolist() == expected.argmax(1).tolist()
    assert result.in_top5.tolist() == top5.any(1).tolist()
    assert result.correct.tolist() == (expected.argmax(1) == torch.tensor(labels)).tolist()
    highest = expected.double().softmax(1).max(1).values
    np.testing.assert_allclose(result.confidence, highest.numpy(), rtol=1e-6)


def test_accuracy_counts_the_images() -> None:
    """By hand: labels ranked first, second, sixth and seventh of seven."""
    logits = np.tile(np.arange(7, 0, -1, dtype=np.float32), (4, 1))
    result = evaluate(runner_of(logits), batches_of([0, 1, 5, 6], 4))
    assert result.rank.tolist() == [0, 1, 5, 6]
    assert result.accuracy == Accuracy(samples=4, correct=1, correct_top5=2)


def test_top5_is_left_out_where_it_means_nothing() -> None:
    """With five classes every label is among the five highest."""
    result = evaluate(runner_of(random_logits(4, 5)), batches_of([0, 1, 2, 3], 4))
    assert result.accuracy.correct_top5 is None


@given(logits=arrays(np.float32, (6, 8), elements=st.sampled_from([0.0, 1.0, 2.0])))
def test_ties_go_to_the_lowest_class(logits: NDArray[np.float32]) -> None:
    """With equal logits, classes stand as a stable descending sort puts them."""
    labels = [0, 7, 3, 4, 1, 6]
    result = evaluate(runner_of(logits), batches_of(labels, 6))
    order = np.argsort(-logits, axis=1, kind="stable")
    assert result.top1.tolist() == order[:, 0].tolist()
    assert result.rank.tolist() == [
        row.tolist().index(label) for row, label in zip(order, labels, strict=True)
    ]


def test_a_pair_keeps_every_image_in_the_order_of_the_batches() -> None:
    """Indices, labels and hashes line up with the answers of both networks."""
    first, second = random_logits(11, 10, seed=2), random_logits(11, 10, seed=3)
    labels = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    result = evaluate_pair(runner_of(first), runner_of(second), batches_of(labels, 4))
    assert result.indices.tolist() == list(range(11))
    assert result.labels.tolist() == labels
    assert result.hashes == tuple(f"h{i}" for i in range(11))
    assert result.reference.top1.tolist() == first.argmax(1).tolist()
    assert result.engine.top1.tolist() == second.argmax(1).tolist()


def test_taken_outcomes_are_those_of_these_images_alone() -> None:
    """As if no other image had been evaluated; the positions stay those of the data set."""
    first, second = random_logits(9, 10, seed=2), random_logits(9, 10, seed=3)
    labels, rows = [3, 1, 4, 1, 5, 9, 2, 6, 5], np.array([0, 4, 5, 8])
    every = evaluate_pair(runner_of(first), runner_of(second), batches_of(labels, 4))
    few = [labels[row] for row in rows]
    alone = evaluate_pair(runner_of(first[rows]), runner_of(second[rows]), batches_of(few, 4))
    taken = take_outcomes(every, rows)
    assert taken.indices.tolist() == rows.tolist()
    assert taken.hashes == ("h0", "h4", "h5", "h8")
    for name in ("reference", "engine"):
        own, other = getattr(taken, name), getattr(alone, name)
        assert own.accuracy == other.accuracy
        assert own.confidence.tolist() == other.confidence.tolist()
    assert taken.newly_wrong.tolist() == alone.newly_wrong.tolist()
    assert taken.distances.cosine.tolist() == alone.distances.cosine.tolist()
    assert not taken.labels.flags.writeable


def test_flips_are_the_images_that_one_network_alone_has_correct() -> None:
    """By hand: both correct, only the engine, only the reference, none."""
    reference = np.array([[9, 0], [9, 0], [9, 0], [9, 0]], np.float32)
    engine = np.array([[9, 0], [0, 9], [0, 9], [9, 0]], np.float32)
    result = evaluate_pair(runner_of(reference), runner_of(engine), batches_of([0, 1, 0, 1], 2))
    assert result.newly_correct.tolist() == [False, True, False, False]
    assert result.newly_wrong.tolist() == [False, False, True, False]


def test_the_two_alternate_in_going_first() -> None:
    """Both see each batch, the very same array, and the order changes every time."""
    calls: list[tuple[str, int]] = []

    def recorder(name: str) -> FakeRunner:
        def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
            calls.append((name, id(images)))
            return random_logits(len(images), 10)

        return FakeRunner(logits=logits, name=name)

    given = list(batches_of([0] * 6, 2))
    evaluate_pair(recorder("reference"), recorder("engine"), given)
    assert [name for name, _ in calls] == [
        *("reference", "engine"),
        *("engine", "reference"),
        *("reference", "engine"),
    ]
    assert [which for _, which in calls] == [id(b.images) for b in given for _ in range(2)]


def test_logits_are_not_kept() -> None:
    """What is kept grows by a fixed number of bytes an image, whatever the classes."""
    result = evaluate(runner_of(random_logits(20, 1000)), batches_of([0] * 20, 5))
    kept = (result.top1, result.rank, result.confidence)
    assert all(column.base is None and column.shape == (20,) for column in kept)


def test_results_cannot_be_changed() -> None:
    """The arrays of a result are read-only."""
    result = evaluate(runner_of(random_logits(2, 10)), batches_of([0, 1], 2))
    with pytest.raises(ValueError, match="read-only"):
        result.rank[0] = 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_refused(value: float) -> None:
    """The network, the number of images and the first of them are named."""
    logits = random_logits(8, 10)
    logits[5, 3] = logits[7, 0] = value
    with pytest.raises(RunnerError) as refused:
        evaluate_pair(
            runner_of(random_logits(8, 10)),
            runner_of(logits, "bad_fp16.onnx on cpu"),
            batches_of([0] * 8, 4),
        )
    assert str(refused.value) == (
        "bad_fp16.onnx on cpu returned NaN or infinite logits for 2 of the 4 images of a batch "
        "(first: image 5). No accuracy can rest on them: check the weights, or build in a "
        "precision of wider range."
    )


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_outside_the_classes_is_refused(label: int) -> None:
    """The label and the network's classes are named, in either direction."""
    with pytest.raises(MismatchError) as refused:
        evaluate(runner_of(random_logits(2, 10), "net"), batches_of([3, label], 2))
    assert str(refused.value) == (
        f"net has 10 classes (0 to 9), but a label of the data is {label}. "
        "Pass --data with the classes that the network was trained on."
    )


def test_networks_of_different_classes_are_refused() -> None:
    """A reference of ten classes is no measure for an engine of twelve, in either turn."""
    pair = runner_of(random_logits(4, 10), "ten"), runner_of(random_logits(4, 12), "twelve")
    for reference, engine in (pair, pair[::-1]):
        with pytest.raises(MismatchError) as refused:
            evaluate_pair(reference, engine, batches_of([0] * 4, 4))
        assert f"{reference.name} has " in str(refused.value)
        assert f"{engine.name} has " in str(refused.value)
        assert "Pass as --reference the model that the engine was built from." in str(refused.value)


@pytest.mark.parametrize("shape", [(3, 10), (4, 10, 1), (40,)])
def test_logits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """The shape that came and the one expected are named."""
    broken = FakeRunner(logits=lambda _: np.zeros(shape, np.float32), name="net")
    with pytest.raises(RunnerError) as refused:
        evaluate(broken, batches_of([0] * 4, 4))
    assert str(refused.value) == (
        f"net returned logits of shape {shape} for 4 images; expected (4, classes). "
        "Export the model as a classifier with a dynamic batch."
    )


def test_no_images_are_refused() -> None:
    """There is no accuracy of nothing, for one network or for two."""
    runner = runner_of(random_logits(1, 10))
    message = "There is no image to evaluate the network on; at least 1 labelled image is needed."
    with pytest.raises(DataError, match=message):
        evaluate(runner, ())
    with pytest.raises(DataError, match=message):
        evaluate_pair(runner, runner, ())


def test_images_without_labels_are_refused() -> None:
    """Before anything is run, with the layouts that carry labels."""
    batch = replace(next(batches_of([0, 1], 2)), labels=None)
    runner = FakeRunner(logits=lambda images: random_logits(len(images), 10), latency_ns=1)
    with pytest.raises(DataError) as refused:
        evaluate_pair(runner, runner, [batch])
    assert runner.clock.now_ns == 0
    assert str(refused.value) == (
        "The images have no labels, and accuracy needs the class of each. Pass --data with a "
        "folder of class folders, a folder with labels.csv, or an .npz with labels."
    )


def test_an_error_of_the_runner_passes_through() -> None:
    """Evaluation adds nothing to what a runner says."""

    def fail(images: NDArray[np.float32]) -> NDArray[np.float32]:
        raise MismatchError("the engine takes 224 pixels")

    with pytest.raises(MismatchError, match="the engine takes 224 pixels"):
        evaluate(FakeRunner(logits=fail), batches_of([0], 1))


def test_images_that_calibration_did_not_use() -> None:
    """An image that was calibrated on is none, nor are its repetitions."""
    assert unseen_rows(("a", "b", "c", "b"), ("b", "x", "b")).tolist() == [0, 2]
    assert unseen_rows(("a", "b"), ()).tolist() == [0, 1]
    assert unseen_rows(("a",), ("a",)).tolist() == []


def test_the_results_are_values_of_their_type() -> None:
    """A pair gives Outcomes, one network gives Predictions."""
    runner = runner_of(random_logits(1, 10))
    assert isinstance(evaluate(runner, batches_of([0], 1)), Predictions)
    assert isinstance(evaluate_pair(runner, runner, batches_of([0], 1)), Outcomes)
