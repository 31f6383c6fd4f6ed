"""scripts/fuzz.py finds what a reader does wrong, and nothing in one that does it right."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from fuzz import Campaign, Outcome, planned, run
from fuzz_readers import READERS, Reader
from mutations import mutate_bytes, mutate_json, mutate_lines, mutate_zip


def refuses_well(path: Path) -> None:
    """Reads labels as edgeres does."""
    from edgeres.images.load import read_labels

    read_labels(path)


def raises(path: Path) -> None:
    """Has a fault: an exception of Python's."""
    if path.read_bytes() != b"file,class_index\na.png,0\n":
        raise ValueError("a fault")


def hangs(path: Path) -> None:
    """Has a fault: it does not end."""
    time.sleep(60)


def spins(path: Path) -> None:
    """Has a fault: it computes without an end."""
    while True:
        pass


def crashes(path: Path) -> None:
    """Has a fault: the process is gone."""
    os.abort()


@pytest.mark.parametrize(
    ("read", "code", "said"),
    [
        (refuses_well, 0, "0 failures"),
        (raises, 1, "escape: ValueError at test_fuzz.py"),
        (hangs, 1, "hang: no end"),
        (spins, 1, "hang: no end"),
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
        inputs=inputs,
        each=0,
        seed=0,
        end=time.monotonic() + 60,
        seeds=seeds,
        failures=failures,
        hang_s=0.5,
    )
    assert run([reader], campaign, 1) == code
    table = capsys.readouterr().out
    assert said in table
    assert f"{inputs} inputs in " in table
    assert len(list(failures.iterdir())) == code


def test_a_plan_gives_each_reader_its_part_and_the_rest_to_the_fast(tmp_path: Path) -> None:
    """By hand: of 100 inputs each of two gets 20, and of the other 60 the faster one 3 of 4."""
    campaign = Campaign(inputs=100, each=20, seed=0, end=0.0, seeds=tmp_path, failures=tmp_path)
    one, two = (
        Reader(name=name, seed="x", mutate=mutate_bytes, read=refuses_well) for name in "ab"
    )
    outcomes = (
        Outcome(reader=one, inputs=10, cpu_s=1.0),
        Outcome(reader=two, inputs=10, cpu_s=3.0),
    )
    assert planned(outcomes, campaign) == {"a": 20 + 45, "b": 20 + 15}


def test_a_campaign_that_ends_too_early_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was requested and not read is no success."""
    (tmp_path / "labels.csv").write_text("file,class_index\na.png,0\n")
    reader = Reader(name="labels", seed="labels.csv", mutate=mutate_lines, read=refuses_well)
    campaign = Campaign(inputs=9, each=0, seed=0, end=0.0, seeds=tmp_path, failures=tmp_path)
    assert run([reader], campaign, 1) == 1
    assert "9 inputs were not reached in the time given" in capsys.readouterr().out


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
