"""Copies of an image count once; an image with two labels has no correct answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeres.errors import DataError
from edgeres.images import distinct_images, load_dataset, without_copies


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), max_size=12))
def test_the_first_of_each_is_used_unless_labels_contradict(pairs: list[tuple[str, int]]) -> None:
    """Against a count by hand over every list of hashes and labels."""
    hashes, labels = [name for name, _ in pairs], np.array([n for _, n in pairs], np.int64)
    by_name = {name: {label for other, label in pairs if other == name} for name in hashes}
    expected = [hashes.index(name) for name, found in by_name.items() if len(found) == 1]
    if pairs and not expected:
        with pytest.raises(DataError, match="occurs again with another label"):
            distinct_images(hashes, labels)
        return
    found = distinct_images(hashes, labels)
    assert found.rows.tolist() == sorted(expected)
    assert (found.total, found.distinct) == (len(hashes), len(set(hashes)))
    assert found.all_used == (len(expected) == len(hashes))
    assert [row for row, _ in found.contradicting] == [
        hashes.index(name) for name in by_name if len(by_name[name]) > 1
    ]


def test_without_labels_nothing_contradicts() -> None:
    """Copies are left out all the same."""
    assert distinct_images(["a", "b", "a"]).rows.tolist() == [0, 1]


def test_the_sentence_has_the_numbers_and_the_names() -> None:
    """How many there are, how many count, and which images have two labels."""
    found = distinct_images(["a", "b", "a", "b", "c"], np.array([0, 1, 0, 2, 2]))
    assert found.sentence("cat/{}.png".format) == (
        "Of 5 images 3 are distinct: pixels that occur again, in copies or behind links, count "
        "once, and the figures rest on 2 images. 1 of the distinct ones have two labels and are "
        "left out (first: cat/1.png and cat/3.png): correct the labels. Take the copies out of "
        "the data."
    )


def test_a_data_set_loses_its_copies_and_keeps_its_order(tmp_path: Path) -> None:
    """The same pixels in another format and folder are a copy; another grey is not."""
    for name, grey in (("b.png", 1), ("a.bmp", 1), ("sub/c.png", 1), ("d.png", 2)):
        path = tmp_path / "cat" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (grey, grey, grey)).save(path)
    data = without_copies(load_dataset(tmp_path))
    assert [data.image_name(row) for row in range(len(data))] == ["cat/a.bmp", "cat/d.png"]


def test_the_same_picture_in_another_mode_is_a_copy(tmp_path: Path) -> None:
    """Gray as three channels, with an opaque alpha, in a palette, and by a hard link."""
    (tmp_path / "x").mkdir()
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    picture = Image.fromarray(gray)
    others = {
        "b.png": picture.convert("RGB"),
        "c.png": picture.convert("RGBA"),
        "d.png": picture.convert("P"),
        "e.webp": picture.convert("RGB"),
        "f.tiff": picture,
    }
    picture.save(tmp_path / "x" / "a.png")
    for name, other in others.items():
        other.save(tmp_path / "x" / name, lossless=True)
    (tmp_path / "x" / "g.png").hardlink_to(tmp_path / "x" / "a.png")
    Image.fromarray(gray[::-1]).save(tmp_path / "x" / "h.png")
    data = without_copies(load_dataset(tmp_path))
    assert [data.image_name(row) for row in range(len(data))] == ["x/a.png", "x/h.png"]


def test_a_hard_link_in_two_classes_has_no_correct_answer(tmp_path: Path) -> None:
    """Neither folder is known to be right, and the others still count."""
    for folder, grey in (("cat", 1), ("dog", 2)):
        (tmp_path / folder).mkdir()
        Image.new("L", (4, 4), grey).save(tmp_path / folder / "a.png")
    (tmp_path / "dog" / "b.png").hardlink_to(tmp_path / "cat" / "a.png")
    data = without_copies(load_dataset(tmp_path))
    assert [data.image_name(row) for row in range(len(data))] == ["dog/a.png"]


def test_a_data_set_without_copies_is_returned_as_it_is(tmp_path: Path) -> None:
    """Nothing is taken where all images are distinct."""
    np.savez(tmp_path / "a.npz", images=np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3))
    data = load_dataset(tmp_path / "a.npz", labelled=False)
    assert without_copies(data) is data
