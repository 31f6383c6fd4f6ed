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

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edgeres.calibration.recovery.layers import Fitted, Geometry, Samples, image_weights, powers_of
from edgeres.quantization.grids import INT8
from edgeres.quantization.recovered import Parameters
from edgeres.quantization.rounding import grid_scales, in_steps, on_grid

_STRETCH = (-0.1, 1.1)
"""Gamma and zeta of the rectified sigmoid. Source: Nagel et al. 2020, section 3.3."""

_BETA = (20.0, 2.0)
"""Exponent of the penalty, first and last. Source: Nagel et al. 2020, section 5."""

_WARMUP = 0.2
"""Share of the iterations before the penalty sets in. Source: Nagel et al. 2020, code."""

_PENALTY = 1.0
_RATE = 0.03
_BATCH = 8
"""Windows an iteration. Penalty, rate and batch were chosen by the logits' error on held-out
calibration images of two CIFAR-10 networks: 150 such iterations came as far as 300 of 32."""

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
    """Returns the rounding that leaves the least error on `samples`, judged on `held_out`.

    The bias takes up what difference of the means is left. Same inputs, same seed, same number
    of threads: the same bits.
    """
    layer = _Layer(samples, geometry, trained)
    up = layer.fitted(schedule)
    weight = on_grid(trained.weight, layer.scales, up)
    shift = layer.shift(weight)
    judge = _Layer(held_out, geometry, trained)
    nearest = on_grid(trained.weight, layer.scales)
    return Fitted(
        weight=weight,
        shift=shift,
        up=up,
        before=judge.error(nearest, np.zeros_like(shift)),
        after=judge.error(weight, shift),
    )


class _Layer:
    """A convolution on its samples."""

    def __init__(self, samples: Samples, geometry: Geometry, trained: Parameters) -> None:
        self.scales = grid_scales(trained.weight)
        self._geometry = geometry
        self._trained = trained
        self._relu = samples.relu
        self._source = torch.from_numpy(samples.source)
        self._wanted = torch.from_numpy(samples.target)
        self._added = None if samples.shortcut is None else torch.from_numpy(samples.shortcut)
        self._bias = torch.from_numpy(trained.bias.copy())
        self._weights = torch.from_numpy(image_weights(powers_of(samples.target)))

    def fitted(self, schedule: Schedule) -> NDArray[np.bool_]:
        """Returns which weights to round up."""
        steps = torch.from_numpy(in_steps(self._trained.weight, self.scales))
        floor = steps.clamp(INT8.qmin, INT8.qmax).floor()
        scales = torch.from_numpy(self.scales).reshape(-1, 1, 1, 1)
        v = _logit((steps - floor).clamp(_EDGE, 1 - _EDGE)).requires_grad_()
        optimizer = torch.optim.Adam([v], lr=_RATE)
        unit = max(self._nearest_error(), _tiny())
        for step, which in enumerate(self._batches(schedule)):
            fraction = _rectified(v)
            made = self._seen(self._summed((floor + fraction) * scales, which))
            loss = self._squared(made - self._seen(self._wanted[which]), which) / unit
            loss = loss / len(which) + _penalty(fraction, step / schedule.iterations)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return np.asarray((_rectified(v.detach()) >= 0.5).numpy())

    def shift(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the mean by which each output channel falls short where it is not cut, (O,)."""
        missing = torch.zeros(len(self._bias), dtype=torch.float64)
        active = torch.zeros_like(missing)
        with torch.no_grad():
            for which in self._parts():
                made = self._summed(torch.from_numpy(weight), which)
                counts = self._weights[which].reshape(-1, 1, 1, 1) * (self._seen(made) == made)
                short = (self._seen(self._wanted[which]) - made) * counts
                missing += short.double().sum((0, 2, 3))
                active += counts.double().sum((0, 2, 3))
        return (missing / active.clamp(min=1)).float().numpy()

    def error(self, weight: NDArray[np.float32], shift: NDArray[np.float32]) -> float:
        """Returns the mean squared error of the output behind the ReLU."""
        extra = torch.from_numpy(shift).reshape(-1, 1, 1)
        total = 0.0
        with torch.no_grad():
            for which in self._parts():
                made = self._seen(self._summed(torch.from_numpy(weight), which) + extra)
                total += float(self._squared(made - self._seen(self._wanted[which]), which))
        return total / len(self._wanted)

    def _nearest_error(self) -> float:
        """Returns the mean square by which rounding to the nearest alone moves the output."""
        moved = torch.from_numpy(on_grid(self._trained.weight, self.scales) - self._trained.weight)
        total = 0.0
        with torch.no_grad():
            for which in self._parts():
                changed = self._convolved(moved, which)
                total += float(self._squared(changed, which))
        return total / len(self._wanted)

    def _squared(self, errors: torch.Tensor, which: torch.Tensor | slice) -> torch.Tensor:
        """Returns the sum over windows of their mean squares, each as much as its image counts."""
        return (errors.square().mean((1, 2, 3)) * self._weights[which]).sum()

    def _seen(self, summed: torch.Tensor) -> torch.Tensor:
        return summed.relu() if self._relu else summed

    def _summed(self, weight: torch.Tensor, which: torch.Tensor | slice) -> torch.Tensor:
        made = self._convolved(weight, which) + self._bias.reshape(-1, 1, 1)
        return made if self._added is None else made + self._added[which]

    def _convolved(self, weight: torch.Tensor, which: torch.Tensor | slice) -> torch.Tensor:
        geometry = self._geometry
        source = self._source[which]
        strides, dilations = geometry.strides, geometry.dilations
        return functional.conv2d(source, weight, None, strides, 0, dilations, geometry.groups)

    def _batches(self, schedule: Schedule) -> list[torch.Tensor]:
        """Returns the windows of each iteration: epoch after epoch, each in another order."""
        generator = torch.Generator().manual_seed(schedule.seed)
        count = len(self._source)
        epochs = -(-schedule.iterations * _BATCH // count)
        order = torch.cat([torch.randperm(count, generator=generator) for _ in range(epochs)])
        return [order[i * _BATCH : (i + 1) * _BATCH] for i in range(schedule.iterations)]

    def _parts(self) -> list[slice]:
        count = len(self._source)
        return [slice(start, start + 4 * _BATCH) for start in range(0, count, 4 * _BATCH)]


def _rectified(v: torch.Tensor) -> torch.Tensor:
    low, high = _STRETCH
    return (torch.sigmoid(v) * (high - low) + low).clamp(0, 1)


def _logit(fraction: torch.Tensor) -> torch.Tensor:
    """Returns the v whose rectified sigmoid is `fraction`."""
    low, high = _STRETCH
    return -torch.log((high - low) / (fraction - low) - 1)


def _penalty(fraction: torch.Tensor, progress: float) -> torch.Tensor:
    """Returns the penalty at a share of the iterations; none during the warm-up."""
    if progress < _WARMUP:
        return torch.zeros(())
    first, last = _BETA
    beta = last + (first - last) * (1 - progress) / (1 - _WARMUP)
    return _PENALTY * (1 - (2 * fraction - 1).abs().pow(beta)).mean()


def _tiny() -> float:
    return float(np.finfo(np.float32).tiny)
