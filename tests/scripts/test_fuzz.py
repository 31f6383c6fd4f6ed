"""scripts/fuzz.py finds what a reader does wrong, and nothing in one that does it right."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from fuzz import Campaign, run
from fuzz_readers import READERS, Reader
from mutations import mutate_bytes, mutate_json, mutate_lines, mutate_zip


def refuses_well(path: Path) -> None:
    """Reads labels as edgeres does."""
    from edgeres.images.labels_file import read_labels

    read_labels(path)


def raises(path: Path) -> None:
    """Has a fault: an exception of Python's."""
    if path.read_bytes() != b"file,class_index\na.png,0\n":
        raise ValueError("a fault")


def hangs(path: Path) -> None:
    """Has a fault: it does not end."""
    time.sleep(60)


def crashes(path: Path) -> None:
    """Has a fault: the process is gone."""
    os.abort()


@pytest.mark.parametrize(
    ("read", "code", "said"),
    [
        (refuses_well, 0, "0 failures"),
        (raises, 1, "escape: ValueError at test_fuzz.py"),
        (hangs, 1, "hang: no end"),
        (crashes, 1, "crash: exit code -6"),
    ],
)
def test_a_fault_of_a_reader_is_found(
    read: Callable[[Path], object],
    code: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each kind of failure, with the input that shows it."""
    seeds, failures = tmp_path / "seeds", tmp_path / "failures"
    seeds.mkdir()
    failures.mkdir()
    (seeds / "labels.csv").write_text("file,class_index\na.png,0\n")
    reader = Reader(name="labels", seed="labels.csv", mutate=mutate_lines, read=read)
    inputs = 20 if read in (refuses_well, raises) else 1
    campaign = Campaign(
        inputs=inputs, seed=0, seconds=60, seeds=seeds, failures=failures, hang_s=0.5
    )
    assert run([reader], campaign, 1) == code
    assert said in capsys.readouterr().out
    assert len(list(failures.iterdir())) == code


def test_every_kind_of_file_is_read() -> None:
    """A reader has a name of its own."""
    names = {reader.name for reader in READERS}
    assert len(names) == len(READERS) >= 12


@pytest.mark.parametrize("mutate", [mutate_bytes, mutate_json, mutate_lines])
def test_a_mutation_is_the_same_in_every_run(mutate: Callable[[Random, bytes], bytes]) -> None:
    """By its seed alone; and most are changes."""
    content = b'{"a": [1, 2.5, "x"], "b": {"c": null}}'
    made = [[mutate(Random(seed), content) for seed in range(50)] for _ in range(2)]
    assert made[0] == made[1]
    assert sum(each != content for each in made[0]) > 30


def test_an_archive_stays_one(tmp_path: Path) -> None:
    """Most of the changed archives are opened, so that what is in them is reached."""
    import io
    import zipfile

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY" + bytes(200))
        archive.writestr("b.npy", bytes(200))
    made = [mutate_zip(Random(seed), content.getvalue()) for seed in range(50)]
    assert sum(zipfile.is_zipfile(io.BytesIO(each)) for each in made) > 30
