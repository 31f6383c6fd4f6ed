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

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edgeres.calibration.recovery.bias import mean_errors
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

_ADAM_BETAS = (0.9, 0.999)
_ADAM_EPSILON = 1e-8

_PENALTY = 1.0
_RATE = 0.03
_BATCH = 8
"""Windows an iteration. Penalty, rate and batch were chosen by the logits' error on held-out
calibration images of two CIFAR-10 networks: 150 such iterations came as far as 300 of 32."""

_SIDE, _LARGE_SIDE = 7, 5
"""Rows and columns of a window that one iteration takes, and of a large layer's."""

_LARGE = 1 << 18
"""Weights above which a layer is large: what an iteration costs is then halved, and there are two
for each three. On two CIFAR-10 networks, with one seed, whole windows of 8 x 8 gained no more than
7 x 7, and 5 x 5 half a decibel less on one. ResNet-50, most of whose weights are in large layers,
came to 27.80 dB by fewer iterations and 27.72 by all."""

_PART = 1 << 18
"""Weights that are fitted together: more of them leave the processor's cache between operators."""

_UNIT_EVERY, _SHIFT_EVERY = 8, 4
"""Of one in so many windows the unit of a layer's error is taken, and the mean for its bias."""

_EDGE = 1e-3
"""Least distance of the first fraction from 0 and 1, where v would be infinite."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long a layer is fitted."""

    iterations: int
    """Of a large layer two thirds."""
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


class _Adam:
    """Values that descend by gradients. torch's own takes seconds to load its compiler.

    Source: Kingma and Ba 2015, Adam, algorithm 1, with its beta and epsilon.
    """

    def __init__(self, values: torch.Tensor) -> None:
        """Starts at these values, which are changed in place."""
        self.values = values
        self._mean = torch.zeros_like(values)
        self._square = torch.zeros_like(values)
        self._steps = 0

    def step(self, gradient: torch.Tensor) -> None:
        """Takes one step."""
        first, second = _ADAM_BETAS
        self._steps += 1
        self._mean.lerp_(gradient, 1 - first)
        self._square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        unbiased = 1 - second**self._steps
        root = self._square.sqrt().mul_(unbiased**-0.5).add_(_ADAM_EPSILON)
        self.values.addcdiv_(self._mean, root, value=-_RATE / (1 - first**self._steps))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """What one iteration is fitted on: each position of some windows is a row."""

    inputs: torch.Tensor
    """(groups, rows, weights of a channel)."""
    wanted: torch.Tensor
    """(groups, rows, channels): what the FP32 network makes, behind the ReLU."""
    added: torch.Tensor | None
    """The same shape: what the quantized network adds."""
    weights: torch.Tensor
    """(1, rows, 1): how much its image counts."""


class _LayerError:
    """The error of a convolution's output on its samples, and the rounding that lowers it."""

    def __init__(self, samples: Samples, geometry: Geometry, trained: Parameters) -> None:
        self.scales = grid_scales(trained.weight)
        self._geometry = geometry
        self._trained = trained
        self._relu = samples.relu
        self._source = _channels_last(samples.source)
        self._exact = _channels_last(samples.target)
        self._added = None if samples.shortcut is None else _channels_last(samples.shortcut)
        self._bias = torch.from_numpy(trained.bias.copy())
        self._weights = torch.from_numpy(image_weights(powers_of(samples.target)))

    def fitted_rounding(self, schedule: Schedule) -> NDArray[np.bool_]:
        """Returns which weights to round up."""
        workers = torch.get_num_threads()
        channels = len(self._trained.weight) // self._geometry.groups
        size = max(1, channels * _PART // self._trained.weight.size)
        # Each thread has its share, however small the layer.
        size = min(size, -(-channels // workers))
        parts = [slice(first, first + size) for first in range(0, channels, size)]
        shares = [parts[worker::workers] for worker in range(min(workers, len(parts)))]
        if self._is_large:
            schedule = Schedule(-(-schedule.iterations * 2 // 3), schedule.seed)
        unit = self._unit()
        # Channels do not depend on each other, so each thread fits its own: threads that share
        # one small operator after the other wait for each other longer than they compute.
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(workers) as pool:
                fitted = list(pool.map(lambda own: self._fitted(own, unit, schedule), shares))
        finally:
            torch.set_num_threads(workers)
        in_order = [fitted[i % len(shares)][i // len(shares)] for i in range(len(parts))]
        outputs, inputs, *taps = self._trained.weight.shape
        up = torch.cat(in_order, dim=1).reshape(outputs, *taps, inputs).permute(0, 3, 1, 2)
        return np.ascontiguousarray(up.numpy())

    @property
    def _is_large(self) -> bool:
        return self._trained.weight.size > _LARGE

    def _unit(self) -> float:
        """Returns the unit of the error: by how much rounding to the nearest alone moves the output.

        Of a few of the windows, since a part in ten of it moves no weight.
        """
        moved = torch.from_numpy(on_grid(self._trained.weight, self.scales) - self._trained.weight)
        few = slice(None, None, _UNIT_EVERY)
        with torch.no_grad():
            squared = float(self._squared(self._convolved(moved, few), few))
        return max(squared / float(self._weights[few].sum()), float(np.finfo(np.float32).tiny))

    def _fitted(
        self, parts: Sequence[slice], unit: float, schedule: Schedule
    ) -> list[torch.Tensor]:
        """Returns the bits of some output channels of each group, (groups, channels, weights).

        Args:
            parts: which channels of each group, fitted side by side on the same windows.
            unit: of the error.
            schedule: how long.
        """
        steps = self._by_group(torch.from_numpy(in_steps(self._trained.weight, self.scales)))
        count = self._trained.weight.size
        clamped = [steps[:, part].clamp(INT8.qmin, INT8.qmax) for part in parts]
        floors = [values.floor() for values in clamped]
        # Starts at the trained weight: h(v) is the fraction that rounding down leaves.
        soft = [
            _Adam(_logit((values - floor).clamp(_EDGE, 1 - _EDGE)))
            for values, floor in zip(clamped, floors, strict=True)
        ]
        generator = torch.Generator().manual_seed(schedule.seed)
        with torch.no_grad():
            for step, windows in enumerate(self._draws(schedule, generator)):
                rows = self._rows(windows, generator)
                progress = step / schedule.iterations
                for part, floor, adam in zip(parts, floors, soft, strict=True):
                    fraction, slope = _rectified(adam.values)
                    # Autograd would keep a dozen copies of the weight; the chain rule needs these.
                    gradient = self._gradient(floor + fraction, part, rows, unit)
                    gradient += _penalty_gradient(fraction, progress, count)
                    adam.step(gradient.mul_(slope))
            return [_rectified(adam.values)[0] >= 0.5 for adam in soft]

    def _draws(self, schedule: Schedule, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Yields which windows each iteration takes: epoch after epoch, each in another order."""
        count = len(self._source)
        epochs = -(-schedule.iterations * _BATCH // count)
        order = torch.cat([torch.randperm(count, generator=generator) for _ in range(epochs)])
        for start in range(0, schedule.iterations * _BATCH, _BATCH):
            yield order[start : start + _BATCH]

    def _rows(self, windows: torch.Tensor, generator: torch.Generator) -> _Rows:
        """Returns a few rows and columns of each window, at a place drawn anew.

        Each position is a row of one matrix: what an iteration costs depends on the weights alone.
        """
        geometry, groups = self._geometry, self._geometry.groups
        most = _LARGE_SIDE if self._is_large else _SIDE
        pixels, outputs, sides = [], [], []
        for axis, size in enumerate(self._exact.shape[2:]):
            side, stride = min(most, size), geometry.strides[axis]
            start = int(torch.randint(size - side + 1, (), generator=generator))
            sides.append(side)
            outputs.append(slice(start, start + side))
            first = start * stride
            pixels.append(slice(first, first + (side - 1) * stride + geometry.extent[axis]))
        pixel_rows = self._source.permute(0, 2, 3, 1)
        read = pixel_rows[:, pixels[0], pixels[1]][windows].contiguous()
        images, row, column, channel = read.stride()
        steps = [row * geometry.strides[0], column * geometry.strides[1]]
        taps = [row * geometry.dilations[0], column * geometry.dilations[1]]
        # All that one row of a window's taps reads lies side by side, so that whole runs are copied.
        patches = read.as_strided(
            (len(windows), *sides, *self._trained.weight.shape[2:], read.shape[3]),
            (images, *steps, *taps, channel),
        )
        by_group = patches.reshape(*patches.shape[:5], groups, -1).permute(5, 0, 1, 2, 3, 4, 6)

        def outputs_of(tensor: torch.Tensor) -> torch.Tensor:
            values = tensor.permute(0, 2, 3, 1)[:, outputs[0], outputs[1]][windows]
            return values.reshape(-1, groups, values.shape[3] // groups).transpose(0, 1)

        return _Rows(
            inputs=by_group.reshape(groups, len(windows) * sides[0] * sides[1], -1),
            wanted=self._output(outputs_of(self._exact)),
            added=None if self._added is None else outputs_of(self._added),
            weights=self._weights[windows].repeat_interleave(sides[0] * sides[1]).reshape(1, -1, 1),
        )

    def _gradient(self, steps: torch.Tensor, part: slice, rows: _Rows, unit: float) -> torch.Tensor:
        """Returns how the mean squared error, equation 25, changes with each soft weight.

        Args:
            steps: (groups, channels, weights), the soft weight of equation 22 in steps.
            part: which channels of each group they are.
            rows: what is read and wanted.
            unit: of the error.
        """
        groups = self._geometry.groups
        scales = torch.from_numpy(self.scales).reshape(groups, 1, -1)[:, :, part]
        summed = torch.bmm(rows.inputs, steps.transpose(1, 2)).mul_(scales)
        summed += self._bias.reshape(groups, 1, -1)[:, :, part]
        if rows.added is not None:
            summed += rows.added[:, :, part]
        errors = self._output(summed) - rows.wanted[:, :, part]
        if self._relu:
            errors *= summed > 0
        errors *= rows.weights
        errors *= scales * (2 / (rows.inputs.shape[1] * len(self._bias) * unit))
        return torch.bmm(errors.transpose(1, 2), rows.inputs)

    def _by_group(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns a weight, (O, C / groups, kh, kw), as (groups, channels, kh * kw * C / groups)."""
        return weight.permute(0, 2, 3, 1).reshape(self._geometry.groups, -1, weight[0].numel())

    def shift(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns by how much each output channel falls short where it is not cut, (O,)."""
        missing, active = [], []
        with torch.no_grad():
            for windows in self._parts(_SHIFT_EVERY):
                summed = self._summed(torch.from_numpy(weight), windows)
                through = self._output(summed) == summed
                short = (self._output(self._exact[windows]) - summed) * through
                missing.append(short.double().sum((2, 3)).numpy())
                active.append(through.sum((2, 3)).numpy())
        counts = self._weights[::_SHIFT_EVERY].numpy()
        return mean_errors(counts, np.concatenate(missing), np.concatenate(active))

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

    def _parts(self, every: int = 1) -> list[slice]:
        """Returns one in so many windows, a few at a time."""
        count, size = len(self._source), 4 * _BATCH * every
        return [slice(start, start + size, every) for start in range(0, count, size)]


def _channels_last(values: NDArray[np.float32]) -> torch.Tensor:
    """Returns values, (N, C, h, w), whose channels lie side by side: a row is read at once."""
    return torch.from_numpy(values).contiguous(memory_format=torch.channels_last)


def _rectified(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the fractions h(v) in [0, 1], equation 23, and how each changes with its v."""
    low, high = _STRETCH
    sigmoid = torch.sigmoid(v)
    slope = torch.addcmul(sigmoid, sigmoid, sigmoid, value=-1).mul_(high - low)
    stretched = sigmoid.mul_(high - low).add_(low)
    # Behind the clamp nothing changes any more: its own derivative, in one pass over the weights.
    slope = torch.ops.aten.hardtanh_backward(slope, stretched, 0.0, 1.0)
    return stretched.clamp_(0, 1), slope


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
    # A power by logarithms, which takes a third of the time of `pow`.
    steepness = signed.abs().log_().mul_(beta - 1).exp_().mul_(2 * beta * _PENALTY / count)
    # Negative towards the nearer end, so that a step downhill ends there.
    return steepness.copysign_(signed).neg_()
