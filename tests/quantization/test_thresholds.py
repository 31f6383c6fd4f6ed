"""Each method's threshold against a slow, literal implementation of what its name says."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnxruntime
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from networks import images, network
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgeres.core.methods import Method
from edgeres.quantization.grids import INT8, UINT8, Grid
from edgeres.quantization.thresholds import (
    SEARCH_BINS,
    Distribution,
    entropy_amax,
    mse_amax,
    percentile_amax,
    rebinned,
    thresholds,
)

Values = NDArray[np.float32]
COUNT = 40_000


def _sparse(generator: np.random.Generator) -> NDArray[np.float64]:
    values = np.abs(generator.standard_normal(COUNT))
    values[generator.random(COUNT) < 0.6] = 0
    return values


def _spiky(generator: np.random.Generator) -> NDArray[np.float64]:
    values = generator.standard_normal(COUNT)
    values[:20] *= 60
    return values


SAMPLES: dict[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    "normal": lambda g: g.standard_normal(COUNT),
    "laplace": lambda g: g.laplace(size=COUNT),
    "half-normal with 60 % zeros": _sparse,
    "uniform": lambda g: g.uniform(-3, 3, COUNT),
    "spiky": _spiky,
}


def _activation(name: str) -> Values:
    """Returns an activation of a tiny network on 32 images, as ONNX Runtime computes it."""
    model = network("bottleneck", seed=1)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values: Values = session.run([name], {"image": images(32, seed=5)})[0].ravel()
    return values


@pytest.fixture(params=[*SAMPLES, "main", "hidden_relu"], scope="module")
def values(request: pytest.FixtureRequest) -> Values:
    """Random values of a known law, or a real activation: `main` has a sign, the other none."""
    if request.param not in SAMPLES:
        return _activation(request.param)
    return SAMPLES[request.param](np.random.default_rng(3)).astype(np.float32)


def distribution_of(values: Values, bins: int, limit: float) -> Distribution:
    """Returns numpy's histogram of the magnitudes over [0, limit], zeros apart."""
    magnitudes = np.abs(values.astype(np.float64))
    counts, _ = np.histogram(magnitudes[magnitudes > 0], bins, (0, limit))
    zeros = int((magnitudes == 0).sum())
    return Distribution(counts, limit / bins, zeros, float(magnitudes.max()))


def observed(values: Values) -> Distribution:
    """Returns the distribution as calibration keeps it: 8192 bins up to a power of two."""
    amax = float(np.abs(values).max())
    limit = 2.0 ** (np.floor(np.log2(amax)) + 1) if amax else 1.0
    return distribution_of(values, 8192, float(limit))


def aligned(values: Values) -> Distribution:
    """Returns the distribution in the very bins that the searches use."""
    return distribution_of(values, SEARCH_BINS, float(np.abs(values).max()))


def literal_divergence(counts: NDArray[np.float64], bins: int, groups: int) -> float:
    """Returns KL(P || Q) of one candidate, step by step. Source: Migacz 2017, slide 38."""
    p = counts[:bins].astype(float)
    p[-1] += counts[bins:].sum()
    edges = np.arange(groups + 1) * bins // groups
    q = np.zeros(bins)
    for start, end in pairwise(edges):
        filled = counts[start:end] > 0
        if filled.any():
            q[start:end][filled] = counts[start:end].sum() / filled.sum()
    return float(scipy.stats.entropy(p, q)) if q.any() else np.inf


def literal_divergences(counts: NDArray[np.float64], levels: int, step: int) -> dict[int, float]:
    """Returns the divergence of every `step`-th candidate by its number of bins."""
    candidates = range(len(counts), levels, -step)
    return {bins: literal_divergence(counts, bins, levels + 1) for bins in candidates}


def squared_error(values: Values, amax: float, levels: int) -> float:
    """Returns the summed squared error of rounding and clipping the values themselves."""
    magnitudes = np.abs(values.astype(np.float64))
    scale = amax / levels
    restored = np.clip(np.rint(magnitudes / scale), 0, levels) * scale
    return float(((magnitudes - restored) ** 2).sum())


@pytest.mark.parametrize("grid", [INT8, UINT8])
def test_entropy_is_the_least_of_the_literal_loop(values: Values, grid: Grid) -> None:
    """No candidate of the literal loop loses less information than the one chosen."""
    distribution = aligned(values)
    chosen = round(entropy_amax(distribution, grid) / distribution.bin_width)
    loop = literal_divergences(distribution.counts.astype(float), grid.qmax, step=29)
    own = literal_divergence(distribution.counts.astype(float), chosen, grid.qmax + 1)
    assert own <= min(loop.values()) * (1 + 1e-9) + 1e-12


def test_entropy_finds_the_literal_loops_own_candidate() -> None:
    """Over every candidate the argmin is the literal loop's, bin for bin."""
    values = SAMPLES["laplace"](np.random.default_rng(11))[:4000].astype(np.float32)
    distribution = aligned(values)
    loop = literal_divergences(distribution.counts.astype(float), INT8.qmax, step=1)
    best = min(sorted(loop), key=lambda bins: loop[bins])
    assert round(entropy_amax(distribution, INT8) / distribution.bin_width) == best


def test_entropy_from_calibrations_bins_is_as_good(values: Values) -> None:
    """Bins of another width cost less than two hundredths of the information lost anyway."""
    exact, kept = aligned(values), observed(values)
    counts = exact.counts.astype(float)
    best = round(entropy_amax(exact, INT8) / exact.bin_width)
    near = round(entropy_amax(kept, INT8) / exact.bin_width)
    # A candidate whose own last bin is empty counts as infinitely bad; its neighbour does not.
    around = [i for i in range(near - 3, near + 4) if counts[i - 1 : i].any()]
    at_kept = min(literal_divergence(counts, bins, INT8.qmax + 1) for bins in around)
    assert at_kept <= 1.02 * literal_divergence(counts, best, INT8.qmax + 1)


@pytest.mark.parametrize("grid", [INT8, UINT8])
def test_mse_is_the_least_of_a_brute_force_search(values: Values, grid: Grid) -> None:
    """On the raw values no threshold of a fine search has an error two per cent smaller."""
    distribution = observed(values)
    searched = [
        squared_error(values, distribution.amax * i / 400, grid.qmax) for i in range(1, 401)
    ]
    assert squared_error(values, mse_amax(distribution, grid), grid.qmax) <= 1.02 * min(searched)


@pytest.mark.parametrize("percentile", [50, 61, 90, 99, 99.9, 99.99])
def test_percentile_is_numpys(values: Values, percentile: float) -> None:
    """Within one bin of `numpy.percentile` of the magnitudes, zeros counted like the rest."""
    distribution = observed(values)
    # Between two values far apart any threshold leaves the same share unclipped.
    below, above = (
        np.percentile(np.abs(values), percentile, method=side) for side in ("lower", "higher")
    )
    found = percentile_amax(distribution, percentile)
    if above == 0:
        assert found == distribution.amax
    else:
        assert below - distribution.bin_width <= found <= above + distribution.bin_width


def test_outliers_are_cut_off_by_percentile_and_entropy() -> None:
    """Twenty outliers in 40000 values decide max, weigh on mse and are left out by the others."""
    distribution = observed(SAMPLES["spiky"](np.random.default_rng(3)).astype(np.float32))
    found = {m: t.s8 for m, t in thresholds(distribution, signed=True, percentile=99.9).items()}
    assert found[Method.MAX] == distribution.amax
    assert (
        max(found[Method.PERCENTILE], found[Method.ENTROPY])
        < distribution.amax / 10
        < found[Method.MSE]
    )


def test_a_share_of_zeros_beyond_the_percentile_clips_nothing() -> None:
    """A tensor that is zero in more than 99.99 % of its values keeps its few others."""
    distribution = observed(np.array([0.0] * 19_999 + [2.5], np.float32))
    assert percentile_amax(distribution, 99.99) == 2.5


def test_a_dead_tensor_has_threshold_zero_and_a_positive_scale() -> None:
    """Nothing but zeros gives 0 by every method, and a scale that a parser accepts."""
    distribution = Distribution(np.zeros(8192, np.int64), 0.0, 100, 0.0)
    found = thresholds(distribution, signed=False, percentile=99.99)
    assert {(t.s8, t.u8) for t in found.values()} == {(0.0, 0.0)}
    assert INT8.scale_from_amax(0.0) == np.float32(1 / 127)


def test_a_sample_of_zeros_alone_keeps_the_exact_maximum() -> None:
    """A tensor whose few values the sampled grid missed is not taken for dead."""
    distribution = Distribution(np.zeros(8192, np.int64), 4.0 / 8192, 100, 3.0)
    found = thresholds(distribution, signed=True, percentile=99.99)
    assert {t.s8 for t in found.values()} == {3.0}


def test_only_a_tensor_without_a_sign_has_the_unsigned_grid() -> None:
    """255 levels are searched where they can be used, and nowhere else."""
    distribution = observed(np.abs(SAMPLES["normal"](np.random.default_rng(0))).astype(np.float32))
    assert all(t.u8 is None for t in thresholds(distribution, signed=True, percentile=99).values())
    unsigned = thresholds(distribution, signed=False, percentile=99)
    assert unsigned[Method.MSE].u8 == mse_amax(distribution, UINT8)
    assert unsigned[Method.ENTROPY].u8 == entropy_amax(distribution, UINT8)


@pytest.mark.parametrize("amax", [1e-45, 1e-38, 1e-20, 1.0, 3e38])
def test_a_scale_is_a_positive_normal_number(amax: float) -> None:
    """No scale underflows, whatever was observed."""
    scale = UINT8.scale_from_amax(amax)
    assert scale.dtype == np.float32
    assert np.finfo(np.float32).tiny <= scale < np.inf


_MAGNITUDES = hnp.arrays(
    np.float32, st.integers(1, 300), elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
)


@settings(max_examples=25, deadline=None)
@given(_MAGNITUDES, st.floats(50, 100))
def test_every_threshold_lies_above_zero_and_not_above_the_maximum(
    values: Values, percentile: float
) -> None:
    """0 < amax <= max for every method and grid of a tensor that is not dead."""
    distribution = observed(values)
    found = thresholds(distribution, signed=False, percentile=percentile)
    limits = [level for t in found.values() for level in (t.s8, t.u8) if level is not None]
    assert all(0 < limit <= distribution.amax or distribution.amax == 0 for limit in limits)


@settings(max_examples=15, deadline=None)
@given(_MAGNITUDES, st.integers(-20, 20))
def test_thresholds_scale_with_the_tensor(values: Values, exponent: int) -> None:
    """Twice the values, twice the threshold: exactly, since a power of two rounds nothing."""
    factor = 2.0**exponent
    distribution = observed(values)
    scaled = Distribution(
        distribution.counts,
        distribution.bin_width * factor,
        distribution.zeros,
        float(distribution.amax * factor),
    )
    before = thresholds(distribution, signed=True, percentile=99.9)
    after = thresholds(scaled, signed=True, percentile=99.9)
    assert {m: t.s8 for m, t in after.items()} == {m: t.s8 * factor for m, t in before.items()}


@settings(deadline=None)
@given(_MAGNITUDES)
def test_percentile_100_is_the_maximum(values: Values) -> None:
    """Nothing is clipped when all is to be kept."""
    distribution = observed(values)
    assert percentile_amax(distribution, 100) == distribution.amax


@settings(deadline=None)
@given(_MAGNITUDES, st.integers(1, 3000))
def test_rebinning_keeps_every_count(values: Values, bins: int) -> None:
    """The new bins span [0, amax] and hold as many values below any edge, within one old bin."""
    distribution = observed(values)
    counts, width = rebinned(distribution, bins)
    if distribution.amax == 0:
        assert (counts.sum(), width) == (0, 0)
        return
    magnitudes = np.abs(values[values != 0])
    below = np.concatenate([[0], np.cumsum(counts)])
    edges = np.arange(bins + 1) * width
    least = np.searchsorted(np.sort(magnitudes), edges - distribution.bin_width)
    most = np.searchsorted(np.sort(magnitudes), edges + distribution.bin_width)
    assert (counts >= 0).all()
    assert (least - 1e-6 <= below).all()
    assert (below <= most + 1e-6).all()
    assert below[-1] == pytest.approx(len(magnitudes))
