"""Exponents are chosen so that FP16 loses the least, as a search over all of them finds it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from networks import NAMES, network, network_from_body

from edgeres.quantization.fp16 import exponents
from edgeres.quantization.fp16.exponents import (
    Groups,
    Numbers,
    choose_exponents,
    missing_bits,
    tied_groups,
)
from edgeres.quantization.graph import view


def chain(scales: list[list[float]], amax: list[float]) -> tuple[Groups, list[Numbers]]:
    """Returns a chain of layers, with the scales of each, and what each tensor reaches."""
    names = {f"t{i}": i for i in range(len(scales) + 1)}
    groups = Groups(names, frozenset({0, len(scales)}))
    numbers = [
        Numbers(values=np.array(values), reads=i, writes=i + 1) for i, values in enumerate(scales)
    ]
    numbers += [
        Numbers(values=np.array([value]), writes=i, levels=127.0) for i, value in enumerate(amax)
    ]
    return groups, numbers


def loss(numbers: list[Numbers], chosen: tuple[int, ...]) -> float:
    """Returns the mean bits a layer loses, and their squares; infinite where something overflows."""
    total = 0.0
    for each in numbers:
        power = chosen[each.writes] - (0 if each.reads is None else chosen[each.reads])
        values = each.values * 2.0**power
        if (values > (65504 if power == 0 else 32752)).any():
            return float("inf")
        bits = float(missing_bits(values / each.levels).mean())
        total += bits + bits**2
    return total


@pytest.mark.parametrize("seed", range(12))
def test_a_short_chain_is_as_good_as_the_best(seed: int) -> None:
    """Against every combination of two free exponents, on random scales and activations."""
    random = np.random.default_rng(seed)
    middle = 2.0 ** random.uniform(-20, 6, 2)
    scales = [list(2.0 ** random.uniform(-22, -6, 3)) for _ in range(3)]
    groups, numbers = chain(scales, [4.0, *middle, 20.0])
    found = choose_exponents(groups, numbers)
    assert (found[0], found[-1]) == (0, 0)
    candidates = itertools.product(range(-25, 26), repeat=2)
    best = min(loss(numbers, (0, *inner, 0)) for inner in candidates)
    # Each move costs a little, and so does each step of the greedy search.
    assert loss(numbers, found) <= best + 0.1


def test_a_network_that_loses_nothing_is_not_moved() -> None:
    """Normal numbers throughout."""
    groups, numbers = chain([[0.01, 0.002], [0.03], [0.2]], [3.0, 5.0, 8.0, 20.0])
    assert choose_exponents(groups, numbers) == (0, 0, 0, 0)


@pytest.mark.parametrize("factor", [2.0**-22, 2.0**18])
def test_a_whole_network_is_moved_at_once(factor: float) -> None:
    """No single exponent helps: its weights on either side would lose what it gains."""
    count = 30
    scales = [[0.01 * factor], *[[0.01]] * (count - 2), [0.01 / factor]]
    groups, numbers = chain(scales, [3.0, *[3.0 * factor] * (count - 1), 20.0])
    found = choose_exponents(groups, numbers)
    assert loss(numbers, found) == 0
    assert all(exponent * np.log2(factor) < 0 for exponent in found[1:-1])


def test_a_deep_network_takes_other_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of groups not all runs are tried, and it is as good."""
    monkeypatch.setattr(exponents, "_ALL_RUNS", 4)
    test_a_whole_network_is_moved_at_once(2.0**-22)


def test_room_is_left_above_what_was_observed() -> None:
    """Moved up, a tensor keeps a power of two free; a smaller one can rise further."""
    groups, numbers = chain([[2.0**-30], [1.0]], [1.0, 2.0**3, 1.0])
    exponent = choose_exponents(groups, numbers)[1]
    assert 2.0**3 * 2.0**exponent <= 32752


@pytest.mark.parametrize("name", NAMES)
def test_what_an_addition_or_a_relu_joins_is_one_group(name: str) -> None:
    """And image and logits are fixed, in every kind of block."""
    graph = view(network(name))
    groups = tied_groups(graph)
    for node in graph.nodes:
        if node.op_type in {"Add", "Relu", "MaxPool", "GlobalAveragePool", "Flatten"}:
            tensors = [*node.input, *node.output]
            assert len({groups.of[t] for t in tensors if t in groups.of}) == 1
        elif node.op_type == "BatchNormalization":
            assert {groups.of[node.input[0]], groups.of[node.output[0]]} <= groups.fixed
    assert {groups.of[graph.input], groups.of[graph.output]} <= groups.fixed


SHARED = """
  entry = Conv<pads = [1, 1, 1, 1]>(image, stem_w, stem_b)
  first = Conv<pads = [1, 1, 1, 1]>(entry, main1_w, main1_b)
  second = Conv<pads = [1, 1, 1, 1]>(first, main1_w, main2_b)
  last = Clip(second)
  pooled = GlobalAveragePool(last)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc_w, fc_b)
"""


def test_a_weight_of_two_layers_is_not_scaled() -> None:
    """One file holds it once; what it reads and writes stays, and so does what a Clip limits."""
    graph = view(network_from_body(SHARED))
    groups = tied_groups(graph)
    tensors = ("entry", "first", "second", "last")
    assert {groups.of[name] for name in tensors} <= groups.fixed
