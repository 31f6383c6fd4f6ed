"""The degradation experiment: its networks, what it keeps between runs, its table and figure."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from edgeres.networks import ARCHITECTURES
from edgeres.networks.explain import network_from_spec
from training.degradation import NETWORKS, Trained, depth_of, figure, main, spec_of, table

RUN = Trained(
    network="plain20",
    seed=0,
    depth=20,
    parameters=269_722,
    macs=40_000_000,
    losses=(2.0, 1.0),
    training_error=0.1,
    test_error=0.2,
    epoch_s=1.5,
)


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """Leaves threads and determinism to the other tests as they were."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, more: str) -> None:
    """Runs the script on 50 random images."""
    count = 50
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    np.savez(folder / "a.npz", images=images, labels=np.arange(count) % 4)
    line = f"degradation --data {folder / 'a.npz'} --epochs 1 --seeds 1 -o {folder / 'out'} {more}"
    monkeypatch.setattr(sys, "argv", line.split())
    main()


@pytest.mark.parametrize("name", ["wrn_16_4", "wrn_28_10", "wrn_40_4"])
def test_wide_networks_are_the_registry_s(name: str) -> None:
    """WRN-d-k by the same rule, where the registry has it."""
    assert spec_of(name) == ARCHITECTURES[name]


def test_every_network_is_as_deep_as_its_name_says() -> None:
    """The plain and the residual ones in explain's counting too."""
    for name in NETWORKS:
        depth = network_from_spec(spec_of(name)).depth
        # Without a wider first stage WRN-d-1 projects once less than the papers' d counts.
        assert depth_of(name) - depth == (1 if name.endswith("_1") else 0)


def test_a_second_run_trains_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands in the JSON is kept; table and figure are written again."""
    run(monkeypatch, tmp_path, "--networks plain20")
    path = tmp_path / "out" / "degradation.json"
    first = json.loads(path.read_text())["networks"]
    run(monkeypatch, tmp_path, "--networks plain20 wrn_16_1")
    assert capsys.readouterr().err.count("seed 0") == 2
    second = json.loads(path.read_text())["networks"]
    assert second[0] == first[0]
    assert [each["network"] for each in second] == ["plain20", "wrn_16_1"]
    assert "| wrn_16_1 | 16 | " in (tmp_path / "out" / "degradation.md").read_text()
    ElementTree.parse(tmp_path / "out" / "degradation.svg")


def test_a_run_under_other_conditions_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks of one file are comparable."""
    run(monkeypatch, tmp_path, "--networks plain20")
    with pytest.raises(SystemExit, match="holds networks trained otherwise"):
        run(monkeypatch, tmp_path, "--networks plain20 --input-size 8")


def test_an_unknown_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is trained."""
    with pytest.raises(SystemExit, match=r"No architecture 'plain21'\. Did you mean"):
        run(monkeypatch, tmp_path, "--networks plain20 plain21")
    assert not (tmp_path / "out" / "degradation.json").exists()


def test_the_table_has_mean_and_range_over_the_seeds() -> None:
    """A line a network, in the order of training."""
    other = replace(RUN, seed=1, training_error=0.3, test_error=0.4, epoch_s=2.5)
    assert table([RUN, other]).splitlines()[-1] == (
        "| plain20 | 20 | 269,722 | 40.0 M | 2 | 20.0 % (10.0 to 30.0) | 30.0 % (20.0 to 40.0) | 2.00 |"
    )


def test_the_figure_has_the_mean_error_by_depth() -> None:
    """Plain and residual apart, by growing depth; wide networks are none of them."""
    deep = replace(RUN, network="plain56", depth=56, training_error=0.5)
    wide = replace(RUN, network="wrn_16_2", depth=16)
    other = replace(RUN, seed=1, training_error=0.3)
    plot = figure([deep, RUN, other, wide])
    assert plot is not None
    assert [line.label for line in plot.lines] == ["plain, training", "plain, test"]
    depths, errors = zip(*plot.lines[0].points, strict=True)
    assert depths == (20, 56)
    assert errors == pytest.approx((20.0, 50.0))


def test_without_test_images_there_is_no_test_error() -> None:
    """Neither in the table nor in the figure."""
    alone = replace(RUN, test_error=None)
    assert table([alone]).splitlines()[-1].endswith("| 1 | 10.0 % |  | 1.50 |")
    plot = figure([alone])
    assert plot is not None
    assert [line.label for line in plot.lines] == ["plain, training"]
    assert figure([replace(RUN, network="wrn_16_2")]) is None
