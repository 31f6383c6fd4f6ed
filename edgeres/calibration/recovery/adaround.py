"""AdaRound: whether each weight is rounded up or down, by the error of its layer's output.

The error is what the quantized layer, fed with the quantized network's activations, makes
against what the FP32 layer makes of the FP32 ones (asymmetric reconstruction), behind the Add
and the ReLU that follow it. Each weight's fraction is a rectified sigmoid h(v) in [0, 1]; a
penalty 1 - |2h - 1|^beta, with beta falling, drives it to one of both ends.

Source: Nagel et al. 2020, Up or Down? Adaptive Rounding for Post-Training Quantization,
equations 21 to 25. The error is taken in units of what rounding to the nearest alone adds to it,
and the penalty as a mean over the weights, so that one weight of the penalty serves every layer,
however much of its error comes from the layers before.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edgeres.calibration.recovery.layers import Fitted, Geometry, Samples, image_weights, powers_of
from edgeres.quantization.grids import INT8
from edgeres.quantization.parameters import Parameters
from edgeres.quantization.rounding import grid_scales, in_steps, on_grid

_STRETCH = (-0.1, 1.1)
"""Gamma and zeta of the rectified sigmoid. Source: Nagel et al. 2020, section 3.3."""

_BETA = (20.0, 2.0)
"""Exponent of the penalty, first and last. Source: Nagel et al. 2020, section 5."""

_WARMUP = 0.2
"""Fraction of the iterations before the penalty sets in. Source: Nagel et al. 2020, code."""

_PENALTY = 1.0
_RATE = 0.03
_BATCH = 8
"""Windows an iteration. Penalty, rate and batch were chosen by the logits' error on held-out
calibration images of two CIFAR-10 networks: 150 such iterations came as far as 300 of 32."""

_SIDE, _LARGE_SIDE = 7, 5
"""Rows and columns of a window that one iteration takes, and of a large layer's."""

_LARGE = 1 << 18
"""Weights above which a layer is large: what an iteration costs is then halved. On two CIFAR-10
networks, with one seed, whole windows of 8 x 8 gained no more than 7 x 7, and 5 x 5 half a decibel
less on one."""

_PART = 1 << 19
"""Weights that are fitted together: more of them leave the processor's cache between operators."""

_EDGE = 1e-3
"""Least distance of the first fraction from 0 and 1, where v would be infinite."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long a layer is fitted."""

    iterations: int
    seed: int


def fit_rounding(
    samples: Samples,
    held_out: Samples,
    geometry: Geometry,
    trained: Parameters,
    schedule: Schedule,
) -> Fitted:
    """Returns the rounding that leaves the least error on `samples`, with its error on `held_out`.

    The bias takes up what difference of the means is left. Same inputs, same seed, same number
    of threads: the same bits.
    """
    layer = _LayerError(samples, geometry, trained)
    up = layer.fitted_rounding(schedule)
    weight = on_grid(trained.weight, layer.scales, up)
    shift = layer.shift(weight)
    held_out_error = _LayerError(held_out, geometry, trained)
    nearest = on_grid(trained.weight, layer.scales)
    return Fitted(
        weight=weight,
        shift=shift,
        up=up,
        before=held_out_error.of(nearest, np.zeros_like(shift)),
        after=held_out_error.of(weight, shift),
    )


class _LayerError:
    """The error of a convolution's output on its samples, and the rounding that lowers it."""

    def __init__(self, samples: Samples, geometry: Geometry, trained: Parameters) -> None:
        self.scales = grid_scales(trained.weight)
        self._geometry = geometry
        self._trained = trained
        self._relu = samples.relu
        self._source = torch.from_numpy(samples.source)
        self._exact = torch.from_numpy(samples.target)
        self._added = None if samples.shortcut is None else torch.from_numpy(samples.shortcut)
        self._bias = torch.from_numpy(trained.bias.copy())
        self._weights = torch.from_numpy(image_weights(powers_of(samples.target)))

    def fitted_rounding(self, schedule: Schedule) -> NDArray[np.bool_]:
        """Returns which weights to round up."""
        channels = len(self._trained.weight) // self._geometry.groups
        workers = torch.get_num_threads()
        # The unit of the error: by how much rounding to the nearest alone moves the output.
        moved = torch.from_numpy(on_grid(self._trained.weight, self.scales) - self._trained.weight)
        unit = self._mean_square(lambda windows: self._convolved(moved, windows))
        unit = max(unit, float(np.finfo(np.float32).tiny))
        # Channels do not depend on each other, so each thread fits its own: threads that share
        # one small operator after the other wait for each other longer than they compute.
        size = min(-(-channels // workers), max(1, channels * _PART // moved.numel()))
        parts = [slice(start, start + size) for start in range(0, channels, size)]
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(workers) as pool:
                fitted = pool.map(lambda part: self._fitted_channels(part, unit, schedule), parts)
                up = torch.cat(list(fitted), dim=1)
        finally:
            torch.set_num_threads(workers)
        return np.asarray(up.reshape(self._trained.weight.shape).numpy())

    def _fitted_channels(self, part: slice, unit: float, schedule: Schedule) -> torch.Tensor:
        """Returns the bits of some output channels of each group, (groups, channels, weights)."""
        steps = torch.from_numpy(in_steps(self._trained.weight, self.scales))
        grouped = steps.reshape(self._geometry.groups, -1, steps[0].numel())
        floor = grouped[:, part].clamp(INT8.qmin, INT8.qmax).floor()
        # Starts at the trained weight: h(v) is the fraction that rounding down leaves.
        v = _logit((grouped[:, part] - floor).clamp(_EDGE, 1 - _EDGE)).requires_grad_()
        optimizer = torch.optim.Adam([v], lr=_RATE, fused=True)
        # Epoch after epoch, each in another order.
        generator = torch.Generator().manual_seed(schedule.seed)
        count = len(self._source)
        epochs = -(-schedule.iterations * _BATCH // count)
        order = torch.cat([torch.randperm(count, generator=generator) for _ in range(epochs)])
        with torch.no_grad():
            for step in range(schedule.iterations):
                windows = order[step * _BATCH : (step + 1) * _BATCH]
                fraction, slope = _rectified(v)
                # Autograd would keep a dozen copies of the weight; the chain rule needs these.
                gradient = self._gradient(floor + fraction, part, windows, generator, unit)
                gradient += _penalty_gradient(fraction, step / schedule.iterations, steps.numel())
                v.grad = gradient.mul_(slope)
                optimizer.step()
            return _rectified(v)[0] >= 0.5

    def _gradient(
        self,
        steps: torch.Tensor,
        part: slice,
        windows: torch.Tensor,
        generator: torch.Generator,
        unit: float,
    ) -> torch.Tensor:
        """Returns how the mean squared error, equation 25, changes with each soft weight.

        Of a few rows and columns of each window, at a place drawn anew, and each position a row
        of one matrix: what an iteration costs depends on the weights alone.

        Args:
            steps: (groups, channels, weights), the soft weight of equation 22 in steps.
            part: which channels of each group they are.
            windows: which samples to take.
            generator: draws the place.
            unit: of the error.
        """
        geometry, groups = self._geometry, self._geometry.groups
        most = _LARGE_SIDE if self._trained.weight.size > _LARGE else _SIDE
        pixels, outputs = [slice(None)] * 2, [slice(None)] * 2
        for axis, size in enumerate(self._exact.shape[2:]):
            side, stride = min(most, size), geometry.strides[axis]
            start = int(torch.randint(size - side + 1, (), generator=generator))
            outputs.append(slice(start, start + side))
            first = start * stride
            pixels.append(slice(first, first + (side - 1) * stride + geometry.extent[axis]))
        taps = self._trained.weight.shape[2:]
        read = functional.unfold(
            self._source[windows][tuple(pixels)], taps, geometry.dilations, 0, geometry.strides
        )

        def rows(values: torch.Tensor) -> torch.Tensor:
            """Returns (images, channels, positions) as (groups, rows, channels of a group)."""
            images, channels, positions = values.shape
            grouped = values.reshape(images, groups, channels // groups, positions)
            return grouped.permute(1, 0, 3, 2).reshape(groups, -1, channels // groups)

        def outputs_of(tensor: torch.Tensor) -> torch.Tensor:
            return rows(tensor[windows][tuple(outputs)].flatten(2))[:, :, part]

        inputs = rows(read)
        scales = torch.from_numpy(self.scales).reshape(groups, 1, -1)[:, :, part]
        summed = torch.bmm(inputs, steps.transpose(1, 2)).mul_(scales)
        summed += self._bias.reshape(groups, 1, -1)[:, :, part]
        if self._added is not None:
            summed += outputs_of(self._added)
        errors = self._output(summed) - self._output(outputs_of(self._exact))
        if self._relu:
            errors *= summed > 0
        errors *= self._weights[windows].repeat_interleave(read.shape[2]).reshape(1, -1, 1)
        errors *= scales * (2 / (inputs.shape[1] * len(self._bias) * unit))
        return torch.bmm(errors.transpose(1, 2), inputs)

    def shift(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the mean by which each output channel falls short where it is not cut, (O,)."""
        missing = torch.zeros(len(self._bias), dtype=torch.float64)
        active = torch.zeros_like(missing)
        with torch.no_grad():
            for windows in self._parts():
                summed = self._summed(torch.from_numpy(weight), windows)
                # 1 where the ReLU lets the output through, times what the image counts.
                counts = self._weights[windows].reshape(-1, 1, 1, 1) * (
                    self._output(summed) == summed
                )
                short = (self._output(self._exact[windows]) - summed) * counts
                missing += short.double().sum((0, 2, 3))
                active += counts.double().sum((0, 2, 3))
        return (missing / active.clamp(min=1)).float().numpy()

    def of(self, weight: NDArray[np.float32], shift: NDArray[np.float32]) -> float:
        """Returns the mean squared error of the output behind the ReLU."""
        quantized, extra = torch.from_numpy(weight), torch.from_numpy(shift).reshape(-1, 1, 1)
        return self._mean_square(
            lambda windows: (
                self._output(self._summed(quantized, windows) + extra)
                - self._output(self._exact[windows])
            )
        )

    def _mean_square(self, errors: Callable[[slice], torch.Tensor]) -> float:
        """Returns the mean square of errors that are computed a few windows at a time."""
        total = 0.0
        with torch.no_grad():
            for windows in self._parts():
                total += float(self._squared(errors(windows), windows))
        return total / len(self._exact)

    def _squared(self, errors: torch.Tensor, windows: torch.Tensor | slice) -> torch.Tensor:
        """Returns the sum over windows of their mean squares, each as much as its image counts."""
        return (errors.square().mean((1, 2, 3)) * self._weights[windows]).sum()

    def _output(self, summed: torch.Tensor) -> torch.Tensor:
        return summed.relu() if self._relu else summed

    def _summed(self, weight: torch.Tensor, windows: torch.Tensor | slice) -> torch.Tensor:
        """Returns the convolution with its bias and the Add, before the ReLU."""
        summed = self._convolved(weight, windows) + self._bias.reshape(-1, 1, 1)
        return summed if self._added is None else summed + self._added[windows]

    def _convolved(self, weight: torch.Tensor, windows: torch.Tensor | slice) -> torch.Tensor:
        # No padding: the samples have it already, as their windows lie at all places.
        geometry, source = self._geometry, self._source[windows]
        strides, dilations = geometry.strides, geometry.dilations
        return functional.conv2d(source, weight, None, strides, 0, dilations, geometry.groups)

    def _parts(self) -> list[slice]:
        count = len(self._source)
        return [slice(start, start + 4 * _BATCH) for start in range(0, count, 4 * _BATCH)]


def _rectified(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the fractions h(v) in [0, 1], equation 23, and how each changes with its v."""
    low, high = _STRETCH
    sigmoid = torch.sigmoid(v)
    fraction = (sigmoid * (high - low)).add_(low)
    slope = (1 - sigmoid).mul_(sigmoid).mul_(high - low)
    # Behind the clamp nothing changes any more.
    slope *= (fraction > 0) & (fraction < 1)
    return fraction.clamp_(0, 1), slope


def _logit(fraction: torch.Tensor) -> torch.Tensor:
    """Returns the v whose rectified sigmoid is `fraction`."""
    low, high = _STRETCH
    return -torch.log((high - low) / (fraction - low) - 1)


def _penalty_gradient(fraction: torch.Tensor, progress: float, count: int) -> torch.Tensor:
    """Returns how the mean of equation 24 changes with each fraction; not at all in the warm-up.

    Args:
        fraction: h(v).
        progress: fraction of the iterations that are done.
        count: number of weights that the mean is of.
    """
    if progress < _WARMUP:
        return torch.zeros(())
    first, last = _BETA
    # Linear from the end of the warm-up to the last iteration.
    beta = last + (first - last) * (1 - progress) / (1 - _WARMUP)
    signed = 2 * fraction - 1
    steepness = signed.abs().pow_(beta - 1).mul_(2 * beta * _PENALTY / count)
    # Negative towards the nearer end, so that a step downhill ends there.
    return steepness.copysign_(signed).neg_()
