"""AdaRound finds a rounding with less error than the nearest, on data that it has not seen."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sure_means import sure_means
from torch.nn import functional

from edgeres.calibration.recovery import adaround
from edgeres.calibration.recovery.adaround import Schedule, fit_rounding
from edgeres.calibration.recovery.layers import Geometry, Samples
from edgeres.quantization.parameters import Parameters
from edgeres.quantization.rounding import grid_scales, in_steps, on_grid

Array = NDArray[np.float32]
POINTWISE = Geometry((1, 1), (1, 1), (1, 1), (0, 0), 1)
SPATIAL = Geometry((3, 3), (1, 1), (1, 1), (0, 0), 1)
SCHEDULE = Schedule(iterations=150, seed=0)


def coarse(weight: Array) -> Parameters:
    """Returns parameters whose rounding matters: each channel has one weight 8 times the others'."""
    weight = weight.copy()
    weight.reshape(len(weight), -1)[:, 0] = 8 * np.abs(weight).max()
    return Parameters(weight, np.full(len(weight), 0.05, np.float32))


def problem(
    geometry: Geometry, *, relu: bool, shortcut: bool = False, seed: int = 0
) -> tuple[Samples, Samples, Parameters]:
    """Returns windows of correlated inputs, others of the same kind, and a layer's parameters."""
    generator = np.random.default_rng(seed)
    weight = generator.normal(0, 0.2, (4, 6, *geometry.extent)).astype(np.float32)
    parameters = coarse(weight)
    mixing = generator.normal(0, 1, (6, 2)).astype(np.float32)
    hidden = generator.normal(0, 1, (60, 2, 9, 9)).astype(np.float32)
    noise = generator.normal(0, 0.1, (60, 6, 9, 9)).astype(np.float32)
    x = np.einsum("ij,njhw->nihw", mixing, hidden).astype(np.float32) + noise
    made = functional.conv2d(
        torch.from_numpy(x), torch.from_numpy(parameters.weight), torch.from_numpy(parameters.bias)
    ).numpy()
    added = generator.normal(0, 1, made.shape).astype(np.float32) if shortcut else None
    target = made if added is None else made + added
    samples = Samples(x, target, added, relu)
    return samples.part(slice(48)), samples.part(slice(48, None)), parameters


@pytest.mark.parametrize("geometry", [POINTWISE, SPATIAL], ids=["1x1", "3x3"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shortcut", [False, True])
def test_held_out_error_falls(geometry: Geometry, relu: bool, shortcut: bool) -> None:
    """By a third at least, with and without Add and ReLU, on windows that were not fitted."""
    samples, held_out, parameters = problem(geometry, relu=relu, shortcut=shortcut)
    found = fit_rounding(samples, held_out, geometry, parameters, SCHEDULE)
    assert found.after < 0.67 * found.before


def test_bits_are_the_weight() -> None:
    """The weight that comes back is the trained one with those bits, floor or ceiling."""
    samples, held_out, parameters = problem(SPATIAL, relu=True)
    found = fit_rounding(samples, held_out, SPATIAL, parameters, SCHEDULE)
    scales = grid_scales(parameters.weight)
    assert found.up is not None
    assert np.array_equal(found.weight, on_grid(parameters.weight, scales, found.up))
    moved = in_steps(found.weight, scales) - in_steps(parameters.weight, scales)
    assert np.abs(moved).max() < 1
    nearest = on_grid(parameters.weight, scales)
    assert not np.array_equal(found.weight, nearest)


def shares(targets: Array) -> Array:
    """Returns how much of a mean each window makes, by its power or the median of all."""
    powers = np.square(targets.astype(np.float64)).mean(axis=(1, 2, 3))
    inverse = 1 / np.maximum(powers, np.median(powers))
    return np.asarray(inverse / inverse.sum())


def test_errors_are_measured_as_they_say() -> None:
    """Before and after are mean squares on the held-out windows, computed anew with numpy.

    Each window counts as its image does.
    """
    samples, held_out, parameters = problem(POINTWISE, relu=True)
    found = fit_rounding(samples, held_out, POINTWISE, parameters, SCHEDULE)

    def error(weight: Array, bias: Array) -> float:
        made = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], held_out.source) + bias[:, None, None]
        errors = np.square(np.maximum(made, 0) - np.maximum(held_out.target, 0))
        return float(errors.mean(axis=(1, 2, 3)) @ shares(held_out.target))

    nearest = on_grid(parameters.weight, grid_scales(parameters.weight))
    assert found.before == pytest.approx(error(nearest, parameters.bias), rel=1e-4)
    assert found.after == pytest.approx(
        error(found.weight, parameters.bias + found.shift), rel=1e-4
    )


@pytest.mark.parametrize("relu", [False, True])
def test_the_bias_takes_up_the_mean(relu: bool) -> None:
    """What the rounding leaves of the mean where the ReLU lets it through, the bias adds."""
    samples, held_out, parameters = problem(POINTWISE, relu=relu)
    # What earlier layers left, beside which chance is small.
    left = np.array([0.1, -0.05, 0.02, 0.2], np.float32)[:, None, None]
    samples = dataclasses.replace(samples, target=samples.target + left)
    found = fit_rounding(samples, held_out, POINTWISE, parameters, SCHEDULE)
    # Of every fourth window.
    weights = shares(samples.target)[::4]
    samples = samples.part(slice(None, None, 4))
    made = np.einsum("oc,nchw->nohw", found.weight[:, :, 0, 0], samples.source)
    made += parameters.bias[:, None, None]
    expected = sure_means(samples.target, made, weights, relu=relu)
    np.testing.assert_allclose(found.shift, expected, atol=1e-5)
    assert np.abs(found.shift).max() > 0.05


def test_it_lies_between_the_nearest_and_the_best_rounding() -> None:
    """The best is found by trying all 32 roundings of each channel's five small weights."""
    samples, _, parameters = problem(POINTWISE, relu=False)
    found = fit_rounding(samples, samples, POINTWISE, parameters, Schedule(400, 0))
    scales = grid_scales(parameters.weight)
    x = samples.source.transpose(1, 0, 2, 3).reshape(6, -1)

    def errors(weight: Array) -> Array:
        missing = (parameters.weight - weight)[:, :, 0, 0] @ x
        return np.asarray(missing.var(axis=1))

    up = np.zeros((32, *parameters.weight.shape), bool)
    up[:, :, 1:, 0, 0] = np.array([*itertools.product([False, True], repeat=5)])[:, None]
    best = np.min([errors(on_grid(parameters.weight, scales, bits)) for bits in up], axis=0)
    nearest = errors(on_grid(parameters.weight, scales))
    assert (best <= errors(found.weight) + 1e-9).all()
    assert errors(found.weight).sum() < nearest.sum() / 2


def test_the_same_seed_gives_the_same_bits() -> None:
    """Bit for bit; another seed draws other windows."""
    samples, held_out, parameters = problem(SPATIAL, relu=True)

    def run(seed: int) -> Array:
        return fit_rounding(samples, held_out, SPATIAL, parameters, Schedule(20, seed)).weight

    assert np.array_equal(run(5), run(5))


def test_the_fit_starts_at_the_trained_weight() -> None:
    """The rectified sigmoid of the first v is the fraction that rounding down leaves."""
    fraction = torch.tensor([0.001, 0.25, 0.5, 0.999])
    torch.testing.assert_close(adaround._rectified(adaround._logit(fraction))[0], fraction)


@pytest.mark.parametrize("progress", [0.1, 0.2, 0.5, 0.9])
def test_the_penalty_is_that_of_the_paper(progress: float) -> None:
    """Autograd's slope of 1 - |2h - 1|^beta on average, beta from 20 to 2 behind a warm-up of a fifth."""
    fraction = torch.tensor([0.0, 0.1, 0.25, 0.6, 0.99, 1.0], requires_grad=True)
    beta = 20 - 18 * (progress - 0.2) / 0.8
    (1 - (2 * fraction - 1).abs() ** beta).mean().backward()  # type: ignore[no-untyped-call]
    expected = torch.zeros(6) if progress < 0.2 else fraction.grad
    found = adaround._penalty_gradient(fraction.detach(), progress, 6).expand(6)
    torch.testing.assert_close(found, expected)


def test_the_slope_is_that_of_the_rectified_sigmoid() -> None:
    """As autograd has it, and nothing behind the clamp."""
    v = torch.tensor([-9.0, -3.0, 0.0, 0.7, 2.9, 9.0], requires_grad=True)
    (torch.sigmoid(v) * 1.2 - 0.1).clamp(0, 1).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(adaround._rectified(v.detach())[1], v.grad)


@pytest.mark.parametrize(
    "geometry",
    [
        POINTWISE,
        SPATIAL,
        Geometry((3, 3), (2, 1), (1, 1), (0, 0), 1),
        Geometry((5, 3), (1, 1), (2, 1), (0, 0), 2),
    ],
    ids=["1x1", "3x3", "strided", "dilated, grouped"],
)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shortcut", [False, True])
def test_the_gradient_is_autograd_s(geometry: Geometry, relu: bool, shortcut: bool) -> None:
    """Of the mean square behind the ReLU, each image as much as it counts, by torch's convolution."""
    random = np.random.default_rng(0)
    taps = [(e - 1) // d + 1 for e, d in zip(geometry.extent, geometry.dilations, strict=True)]
    weight = random.normal(0, 0.2, (4, 6 // geometry.groups, *taps)).astype(np.float32)
    x = torch.from_numpy(random.normal(0, 1, (8, 6, 9, 9)).astype(np.float32))
    steps = torch.from_numpy(random.normal(0, 40, weight.shape).astype(np.float32))
    steps.requires_grad_()
    layer_scales = torch.from_numpy(grid_scales(weight)).reshape(-1, 1, 1, 1)
    bias = torch.full((4,), 0.05)
    summed = functional.conv2d(
        x, steps * layer_scales, bias, geometry.strides, 0, geometry.dilations, geometry.groups
    )
    target = torch.from_numpy(random.normal(0, 1, summed.shape).astype(np.float32))
    added = torch.from_numpy(random.normal(0, 1, summed.shape).astype(np.float32))
    made = summed + added if shortcut else summed
    errors = made.relu() - target.relu() if relu else made - target
    counted = torch.from_numpy(shares(target.numpy()).astype(np.float32))
    (errors.square().mean((1, 2, 3)) @ counted).backward()  # type: ignore[no-untyped-call]
    samples = Samples(x.numpy(), target.numpy(), added.numpy() if shortcut else None, relu)
    layer = adaround._LayerError(samples, geometry, Parameters(weight, bias.numpy()))
    grouped = layer._by_group(steps.detach())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaround, "_SIDE", 9)
        rows = layer._rows(torch.arange(8), torch.Generator())
        found = torch.cat(
            [
                layer._gradient(grouped[:, part], part, rows, 0.5)
                for part in (slice(0, 1), slice(1, 4))
            ],
            dim=1,
        )
    assert steps.grad is not None
    expected = layer._by_group(steps.grad)
    torch.testing.assert_close(found / 2, expected, rtol=1e-4, atol=1e-6)


def test_channels_are_fitted_alike_by_any_number_of_threads() -> None:
    """A channel's bits follow from its own weights: parts of one channel give the same as all."""
    samples, held_out, parameters = problem(SPATIAL, relu=True)

    def bits(part: int) -> NDArray[np.bool_]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(adaround, "_PART", part)
            found = fit_rounding(samples, held_out, SPATIAL, parameters, SCHEDULE).up
        assert found is not None
        return found

    assert np.mean(bits(1) == bits(1 << 19)) > 0.95


def test_a_thread_s_parts_are_put_together_in_order() -> None:
    """By two threads, whose parts take turns, each channel is fitted as by one."""
    samples, held_out, parameters = problem(SPATIAL, relu=True)
    bits = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(adaround, "_PART", 1)
                found = fit_rounding(samples, held_out, SPATIAL, parameters, SCHEDULE)
            assert found.after < 0.67 * found.before
            bits.append(found.weight)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(bits[0], bits[1])
    assert np.array_equal(bits[0], bits[2])


def test_adam_is_torch_s() -> None:
    """Step for step, from the same values by the same gradients."""
    random = torch.Generator().manual_seed(0)
    start = torch.randn(50, generator=random)
    expected = start.clone().requires_grad_()
    reference = torch.optim.Adam([expected], lr=adaround._RATE)
    found = adaround._Adam(start.clone())
    for scale in (1.0, 1e-3, 10.0, 1e-6, 0.5):
        gradient = scale * torch.randn(50, generator=random)
        expected.grad = gradient.clone()
        reference.step()
        found.step(gradient)
        torch.testing.assert_close(found.values, expected.detach())


def test_a_large_layer_takes_two_thirds_of_the_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them once for all of a thread's channels."""
    samples, held_out, parameters = problem(SPATIAL, relu=True)
    rows = adaround._LayerError._rows
    taken = []

    def counted(self: adaround._LayerError, *of: torch.Tensor) -> object:
        taken.append(len(of[0]))
        return rows(self, *of)  # type: ignore[arg-type]

    monkeypatch.setattr(adaround._LayerError, "_rows", counted)
    for large, expected in ((1 << 18, 30), (1, 20)):
        monkeypatch.setattr(adaround, "_LARGE", large)
        taken.clear()
        fit_rounding(samples, held_out, SPATIAL, parameters, Schedule(30, 0))
        assert len(taken) == expected * torch.get_num_threads()
