"""Data sets from folders, labels.csv and .npz, and every way in which they contradict themselves."""

from __future__ import annotations

import errno
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeres.errors import DataError
from edgeres.images.load import load_dataset


def draw(path: Path, grey: int = 0) -> None:
    """Writes a 4 x 4 image of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (grey, grey, grey)).save(path)


def write_labels(root: Path, *rows: str, header: str = "file,class_index") -> None:
    """Writes a labels.csv."""
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")


def test_class_folders_give_classes_in_sorted_order(tmp_path: Path) -> None:
    """Index 0 is the first name in sorted order; images below a class folder belong to it."""
    draw(tmp_path / "dog" / "b.png", 2)
    draw(tmp_path / "cat" / "sub" / "a.JPEG", 1)
    draw(tmp_path / "cat" / "z.png", 0)
    data = load_dataset(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1]
    assert data.labels.dtype == np.int64
    assert [data.image_name(i) for i in range(len(data))] == [
        "cat/sub/a.JPEG",
        "cat/z.png",
        "dog/b.png",
    ]
    assert data.image(2)[0, 0].tolist() == [2, 2, 2]


def test_hidden_files_and_other_files_are_ignored(tmp_path: Path) -> None:
    """Notes, thumbnails and hidden folders are no images and no classes."""
    draw(tmp_path / "cat" / "a.png")
    draw(tmp_path / "cat" / "._a.png")
    draw(tmp_path / "cat" / ".cache" / "a.png")
    draw(tmp_path / ".trash" / "a.png")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "README.md").write_text("x")
    data = load_dataset(tmp_path)
    assert (len(data), data.classes) == (1, ("cat",))


def test_a_linked_class_folder_counts(tmp_path: Path) -> None:
    """A class folder and one inside it may be symbolic links, as subsets are often made."""
    draw(tmp_path / "all" / "cat" / "a.png")
    draw(tmp_path / "more" / "b.png")
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "cat").symlink_to(tmp_path / "all" / "cat")
    (tmp_path / "all" / "cat" / "more").symlink_to(tmp_path / "more")
    assert len(load_dataset(tmp_path / "few")) == 2


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("cat/self", "cat"),
        ("cat/sub/up", "cat"),
        ("cat/root", ""),
        ("cat/above", ".."),
        ("cat/other", "dog"),
        ("cat/again", "cat/sub"),
    ],
)
def test_each_real_folder_is_walked_once(tmp_path: Path, link: str, target: str) -> None:
    """A link to itself, to a folder above, to another class or to the same images adds nothing."""
    root = tmp_path / "data"
    draw(root / "cat" / "a.png", 1)
    draw(root / "cat" / "sub" / "b.png", 2)
    draw(root / "dog" / "c.png", 3)
    draw(tmp_path / "beside" / "d.png", 4)
    (root / link).symlink_to(root / target)
    data = load_dataset(root)
    assert data.labels is not None
    assert (len(data), data.labels.tolist()) == (3, [0, 0, 1])


def test_links_that_lead_to_each_other_end(tmp_path: Path) -> None:
    """Two folders outside the data, each with a link to the other, are walked once each."""
    for name, other in (("x", "y"), ("y", "x")):
        draw(tmp_path / name / f"{name}.png")
        (tmp_path / name / "next").symlink_to(tmp_path / other)
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "x").symlink_to(tmp_path / "x")
    data = load_dataset(tmp_path / "data")
    names = [data.image_name(row) for row in range(len(data))]
    assert names == ["cat/x/next/y.png", "cat/x/x.png"]


def test_two_class_folders_that_are_one_are_refused(tmp_path: Path) -> None:
    """A link would give each of the images two labels."""
    draw(tmp_path / "cat" / "a.png")
    (tmp_path / "kitten").symlink_to(tmp_path / "cat")
    with pytest.raises(DataError, match=r"cat and kitten of .* are one folder by a link.*Remove"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "__MACOSX", ".thumbnails", "$RECYCLE.BIN", "#recycle", "System Volume Information"],
)
def test_what_systems_leave_is_no_image(tmp_path: Path, name: str) -> None:
    """Neither as a class folder nor in one nor beside loose images."""
    draw(tmp_path / "cat" / "a.png")
    draw(tmp_path / "cat" / "._a.png")
    draw(tmp_path / "cat" / name / "a.png")
    draw(tmp_path / name / "a.png")
    data = load_dataset(tmp_path)
    assert (len(data), data.classes) == (1, ("cat",))
    assert len(load_dataset(tmp_path / "cat", labelled=False)) == 1


@pytest.mark.parametrize("folder", ["", "images"])
def test_labels_csv_names_images_beside_it_or_under_images(tmp_path: Path, folder: str) -> None:
    """The order is the file's, and images that it does not name are not used."""
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        draw(tmp_path / folder / name, number)
    write_labels(tmp_path, "c.png,7", "a.png, 0")
    data = load_dataset(tmp_path)
    assert data.labels is not None
    assert (data.labels.tolist(), data.classes) == ([7, 0], ())
    assert [int(data.image(i)[0, 0, 0]) for i in range(2)] == [2, 0]


def test_labels_csv_may_have_a_byte_order_mark_and_more_columns(tmp_path: Path) -> None:
    """Spreadsheets write both."""
    draw(tmp_path / "a.png")
    write_labels(tmp_path, "a.png,cat,3", header="\ufefffile,name,class_index")
    labels = load_dataset(tmp_path).labels
    assert labels is not None
    assert labels.tolist() == [3]


@pytest.mark.parametrize("value", ["-1", "1.5", "cat", "", "99999999999"])
def test_a_label_that_is_no_index_is_named_with_its_line(tmp_path: Path, value: str) -> None:
    """Negative, fractional, textual, missing and absurd labels are refused."""
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png")
    write_labels(tmp_path, "a.png,0", f"b.png,{value}")
    with pytest.raises(
        DataError, match=rf"labels\.csv line 3 has the class index '{value}'; expected"
    ):
        load_dataset(tmp_path)


def test_a_label_of_a_short_row_is_refused(tmp_path: Path) -> None:
    """A row without a comma has no label."""
    draw(tmp_path / "a.png")
    write_labels(tmp_path, "a.png")
    with pytest.raises(DataError, match="line 2 has the class index ''"):
        load_dataset(tmp_path)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    """The message has how many, which, and where they were searched."""
    draw(tmp_path / "a.png")
    write_labels(tmp_path, "x.png,0", "a.png,1", "y.png,2")
    with pytest.raises(
        DataError, match=r"names 3 images but 2 are missing \(first: x\.png\).*Copy"
    ):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (
            ("a.png,0",),
            "name,label",
            r"begins with name,label; expected the columns file,class_index",
        ),
        ((), "", "begins with an empty line"),
        ((), "file,class_index", "names no images"),
        ((",0",), "file,class_index", "line 2 names no file"),
        (("a.png,0", "a.png,1"), "file,class_index", r"line 3 names a\.png a second time"),
    ],
)
def test_a_malformed_labels_csv_is_refused(
    tmp_path: Path, rows: tuple[str, ...], header: str, message: str
) -> None:
    """Columns, emptiness and doubled images are named."""
    draw(tmp_path / "a.png")
    write_labels(tmp_path, *rows, header=header)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "other", ["./a.png", "sub/../a.png", "link/a.png", "images/../a.png", "sub//../a.png"]
)
def test_one_file_under_two_names_is_refused(tmp_path: Path, other: str) -> None:
    """It would count twice; the message has both names."""
    draw(tmp_path / "a.png")
    for folder in ("sub", "images"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    write_labels(tmp_path, "a.png,0", f"{other},0")
    with pytest.raises(DataError) as refused:
        load_dataset(tmp_path)
    assert f"names one file twice, as a.png and as {other}" in str(refused.value)


def test_files_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    """Only the real path decides, and a folder by a link holds what it leads to."""
    draw(tmp_path / "one" / "a.png", 1)
    draw(tmp_path / "two" / "a.png", 2)
    write_labels(tmp_path, "one/a.png,0", "./two/a.png,1")
    assert len(load_dataset(tmp_path)) == 2


def test_a_labels_csv_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A file in another encoding is named."""
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match=r"labels\.csv is no UTF-8 text: byte 0 is 0xff"):
        load_dataset(tmp_path)


def test_a_folder_of_images_needs_no_labels_for_calibration(tmp_path: Path) -> None:
    """It is taken where labels are not required, and refused with the remedy where they are."""
    draw(tmp_path / "b.png")
    draw(tmp_path / "a.png")
    data = load_dataset(tmp_path, labelled=False)
    assert (data.labels, data.classes) == (None, ())
    assert [data.image_name(i) for i in range(2)] == ["a.png", "b.png"]
    with pytest.raises(DataError, match=r"has 2 images but no labels.*labels\.csv"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("labelled", [True, False])
def test_labels_that_are_there_are_kept(tmp_path: Path, labelled: bool) -> None:
    """Calibration that does not need labels still gets them, to draw evenly."""
    draw(tmp_path / "cat" / "a.png")
    assert load_dataset(tmp_path, labelled=labelled).labels is not None


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """The message lists what a data set can be."""
    with pytest.raises(
        DataError, match=r"nowhere does not exist; expected a folder of class folders"
    ):
        load_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize("labelled", [True, False])
def test_an_empty_folder_is_refused(tmp_path: Path, labelled: bool) -> None:
    """No images is an error, not an accuracy of nothing."""
    with pytest.raises(DataError, match="has no images; expected a folder of class folders"):
        load_dataset(tmp_path, labelled=labelled)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A tar archive is not unpacked silently."""
    (tmp_path / "val.tar").write_bytes(b"x")
    with pytest.raises(DataError, match=r"val\.tar is a file of another kind"):
        load_dataset(tmp_path / "val.tar")


def test_a_class_folder_without_images_is_refused(tmp_path: Path) -> None:
    """Were it left out, every later class would have another index."""
    draw(tmp_path / "cat" / "a.png")
    (tmp_path / "bird").mkdir()
    with pytest.raises(
        DataError, match=r"1 of 2 class folders of .* have no images \(first: bird\)"
    ):
        load_dataset(tmp_path)


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    """Images without a class are not dropped silently."""
    draw(tmp_path / "cat" / "a.png")
    draw(tmp_path / "loose.png")
    with pytest.raises(DataError, match=r"1 image \(first: loose\.png\) beside 1 folder"):
        load_dataset(tmp_path)


def test_an_image_of_an_unsupported_format_is_not_ignored(tmp_path: Path) -> None:
    """An .avif in a class folder is an image; reading it is the error, not leaving it out."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.avif").write_bytes(b"\0\0\0 ftypavif")
    data = load_dataset(tmp_path)
    with pytest.raises(DataError, match=r"a\.avif is no image that can be decoded"):
        data.image(0)


def test_a_folder_that_may_not_be_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions are named, not taken for emptiness."""
    draw(tmp_path / "cat" / "a.png")

    listed = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "cat":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(
        DataError, match=r"/cat cannot be listed: Permission denied\. Check its perm"
    ):
        load_dataset(tmp_path)


@pytest.mark.shared
def test_the_imagenet_images_are_found_with_their_labels(shared: Path) -> None:
    """1,300 images under images/, labels of the 1,000 classes."""
    data = load_dataset(shared / "data" / "imagenet" / "val1300")
    assert data.labels is not None
    assert (len(data), data.image(0).shape) == (1300, (227, 227, 3))
    assert (data.image_name(0), data.labels[0]) == ("images/ILSVRC2012_val_00000347.JPEG", 472)


def test_folders_nested_deeper_than_python_calls(tmp_path: Path) -> None:
    """A list holds what is open, not the interpreter's stack."""
    draw(tmp_path / "cat" / Path(*["n"] * 300) / "a.png")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        assert len(load_dataset(tmp_path)) == 1
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("name", ["n" * 300, "a\0b"], ids=["long", "null byte"])
def test_a_name_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    """As the data set itself, and in a labels.csv."""
    with pytest.raises(DataError, match=r"cannot be read: (File name too long|embedded null byte)"):
        load_dataset(tmp_path / name)
    draw(tmp_path / "a.png")
    write_labels(tmp_path, "a.png,0", f"{name},1")
    with pytest.raises(DataError, match=r"(cannot be listed|missing|line contains NUL)"):
        load_dataset(tmp_path)
