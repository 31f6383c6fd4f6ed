"""Subsets are seeded, ordered and stratified; labels are checked against the network's classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeres.errors import ConfigError, DataError
from edgeres.images.dataset import (
    Dataset,
    ImageArray,
    ImageFiles,
    check_labels,
    class_order_note,
    order_classes,
    select,
    take,
)


def dataset(count: int, labels: list[int] | None = None, classes: tuple[str, ...] = ()) -> Dataset:
    """Returns images of 1 x 1 whose value is their row."""
    pixels = np.repeat(np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1), 3, axis=-1)
    return Dataset(
        name="rows",
        path=Path("rows.npz"),
        images=ImageArray(file="rows.npz", pixels=pixels, rows=np.arange(count)),
        classes=classes,
        labels=None if labels is None else np.array(labels, np.int64),
    )


def rows(data: Dataset) -> list[int]:
    """Returns the rows that a subset of `dataset` holds."""
    return [int(data.image(i)[0, 0, 0]) for i in range(len(data))]


def test_a_subset_keeps_images_and_labels_together() -> None:
    """Row, label and name belong to the same image after the draw."""
    chosen = select(dataset(100, [i % 7 for i in range(100)]), 20, 4)
    assert chosen.labels is not None
    assert chosen.labels.tolist() == [row % 7 for row in rows(chosen)]
    assert [chosen.image_name(i) for i in range(20)] == [f"rows.npz[{row}]" for row in rows(chosen)]


def test_the_seed_alone_decides() -> None:
    """The same seed draws the same images, another seed others."""
    assert rows(select(dataset(100), 20, 4)) == rows(select(dataset(100), 20, 4))
    assert rows(select(dataset(100), 20, 4)) != rows(select(dataset(100), 20, 5))


def test_the_draw_stays_the_same() -> None:
    """A seed in a calibration table stands for these images on every version of numpy."""
    assert rows(select(dataset(50), 8, 9)) == [0, 7, 8, 12, 27, 30, 37, 44]
    assert rows(select(dataset(50, [0, 1] * 25), 8, 9)) == [2, 12, 13, 32, 35, 38, 39, 49]


@pytest.mark.parametrize("samples", [None, 10, 11])
def test_asking_for_all_or_more_gives_the_whole_set(samples: int | None) -> None:
    """More than there are is no error: `len` is the number in use."""
    assert rows(select(dataset(10), samples, 0)) == list(range(10))


@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=120),
    share=st.floats(0, 1, exclude_min=True),
    seed=st.integers(0, 1000),
)
def test_a_labelled_draw_is_stratified(labels: list[int], share: float, seed: int) -> None:
    """Each class gives its share of the samples, rounded up or down."""
    samples = max(1, int(share * len(labels)))
    chosen = select(dataset(len(labels), labels), samples, seed)
    assert chosen.labels is not None
    assert rows(chosen) == sorted(set(rows(chosen)))
    assert len(chosen) == samples
    for label in set(labels):
        due = samples * labels.count(label) / len(labels)
        assert abs(int(np.sum(chosen.labels == label)) - due) < 1


def test_balanced_classes_give_equal_counts() -> None:
    """Of ten classes of 100, 50 samples are 5 of each."""
    chosen = select(dataset(200, [i % 10 for i in range(200)]), 50, 1)
    assert chosen.labels is not None
    assert np.bincount(chosen.labels).tolist() == [5] * 10


def test_every_image_can_be_drawn() -> None:
    """No image of a class is left out whatever the seed."""
    drawn = {row for seed in range(200) for row in rows(select(dataset(12, [0, 1] * 6), 2, seed))}
    assert drawn == set(range(12))


def test_a_class_is_drawn_as_often_as_its_size_says() -> None:
    """One sample of ten images is the only one of its class about once in ten draws."""
    data = dataset(10, [0] + [1] * 9)
    drawn = sum(rows(select(data, 1, seed)) == [0] for seed in range(400))
    assert 25 <= drawn <= 55


def test_neighbouring_classes_can_be_drawn_together() -> None:
    """Five of ten classes are not always every second one."""
    data = dataset(10, list(range(10)))
    draws = {tuple(rows(select(data, 5, seed))) for seed in range(20)}
    assert len(draws) > 2


@pytest.mark.parametrize(("samples", "seed"), [(0, 0), (-1, 0), (5, -1)])
def test_impossible_draws_are_refused(samples: int, seed: int) -> None:
    """Zero images and negative seeds are usage errors."""
    with pytest.raises(ConfigError, match="expected"):
        select(dataset(10), samples, seed)


def test_files_are_taken_in_the_order_asked() -> None:
    """`take` follows the indices, for files as for arrays."""
    files = ImageFiles(root=Path("d"), files=("a", "b", "c"))
    order: NDArray[np.int64] = np.array([2, 0])
    assert files.take(order).files == ("c", "a")
    assert rows(take(dataset(3), order)) == [2, 0]


def test_labels_within_the_classes_pass() -> None:
    """The highest index is one less than the number of classes."""
    check_labels(dataset(3, [0, 9, 4]), 10)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dataset(3), r"rows\.npz has no labels"),
        (
            dataset(3, [0, 10, 12]),
            r"2 of 3 labels of rows\.npz .* 10 classes \(first: rows\.npz\[1\] with 10\); .*0 to 9",
        ),
        (
            dataset(2, [0, 1], ("cat", "dog")),
            r"has 2 classes, the network 10\. .* Use a labels\.csv",
        ),
    ],
    ids=["none", "outside", "folders"],
)
def test_labels_that_do_not_belong_to_the_network_are_refused(data: Dataset, message: str) -> None:
    """An accuracy against foreign indices would be a number without a meaning."""
    with pytest.raises(DataError, match=message):
        check_labels(data, 10)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("bird", "cat", "dog"), ("dog", "bird", "cat")),
        (("Bird", "CAT", "dog"), ("dog", "bird", "cat")),
        (("hot_dog", "ice-cream", "tea"), ("tea", "hot dog", "ice cream")),
        (("cafe\u0301", "tee"), ("tee", "caf\u00e9")),
        (("1", "10", "2"), ("1", "2", "10")),
    ],
    ids=["order", "case", "separators", "accents", "numbers"],
)
def test_class_folders_are_matched_by_name(
    folders: tuple[str, ...], names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Each image has the index of the network's class of its folder's name, and the log says so."""
    labels = [2, 0, 1, 0] if len(folders) == 3 else [1, 0, 1, 0]
    given_data = dataset(4, labels, folders)
    matched = order_classes(given_data, names)
    assert matched.labels is not None
    plain = [folders[label].lower().translate(str.maketrans("_-", "  ")) for label in labels]
    assert [names[label] for label in matched.labels] == [
        text.replace("e\u0301", "\u00e9") for text in plain
    ]
    assert matched.classes == names
    assert caplog.messages == [class_order_note(given_data)]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("cat", "dog"), ("cat", "dog")),
        (("cat", "dog"), ()),
        (("cat", "dog"), ("tench", "goldfish")),
        (("cat", "dog"), ("cat", "hound")),
        (("cat", "dog"), ("dog", "cat", "bird")),
        ((), ("dog", "cat")),
        (("crane", "tench"), ("crane", "crane")),
    ],
    ids=["same", "unknown", "others", "one-differs", "count", "no-folders", "twice"],
)
def test_other_class_folders_keep_their_place(
    folders: tuple[str, ...], names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Where names say nothing against the sorted order, it stays the index."""
    given_data = dataset(2, [0, 1], folders)
    assert order_classes(given_data, names) is given_data
    assert caplog.messages == []


def test_names_at_other_places_are_refused_where_not_all_match() -> None:
    """By place a folder would be another class than its name says."""
    with pytest.raises(DataError) as refused:
        order_classes(dataset(3, [0, 1, 2], ("bird", "car", "cat")), ("automobile", "bird", "cat"))
    assert str(refused.value) == (
        "The class folder bird of rows.npz is number 0 in sorted order, and the network's class of "
        "that name is number 1; no classes of the network have the names car. Name every folder "
        "as one of automobile, bird, cat, or write a labels.csv (file,class_index)."
    )


def test_missing_class_folders_are_named() -> None:
    """With the network's names known the message has what lacks and what is none of them."""
    data = dataset(2, [0, 1], ("bird", "hound"))
    with pytest.raises(DataError) as refused:
        check_labels(data, 7, ("bird", "a", "b", "c", "d", "e", "f"))
    assert (
        "has 2 classes, the network 7. A class folder's place in sorted order is its index, so "
        "there must be one for each class of the network. Classes without a folder: a, b, c, d, e "
        "and 1 more. Folders that are no class of the network: hound. Use a labels.csv"
    ) in str(refused.value)


def test_names_of_another_kind_are_not_listed() -> None:
    """Synset folders beside English names: no folder is known to be missing."""
    with pytest.raises(DataError) as refused:
        check_labels(dataset(2, [0, 1], ("n01", "n02")), 3, ("tench", "goldfish", "shark"))
    assert "without a folder" not in str(refused.value)
