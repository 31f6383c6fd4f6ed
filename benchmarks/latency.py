#!/usr/bin/env python3
"""Fits the latency model's constants to published rows, and measures how well they predict.

Every row of `published_latency.csv` that names a board, a network and a defined timing becomes a
residual log(estimate / published), under a robust loss; rows of one board, timing and precision
share one weight, so that a table of 27 rows counts little more than a single run. Errors are of
boards left out: their rows, under any name of the same card, are not fitted. Beside it stands a
simple roofline fitted to the same rows in the same way.

Example:
  python -m benchmarks.latency --write
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from benchmarks.published import Row, published_rows
from edgeres.estimation.fitted import (
    FITTED_FILE,
    FitError,
    FittedModel,
    PublishedKind,
    Regime,
    RegimeError,
    regime_of,
)
from edgeres.estimation.model import Constants, EstimatedTiming, latency
from edgeres.plurals import percent
from edgeres.serialization import save_json

COMMAND = "python -m benchmarks.latency --write"
TABLE = Path(__file__).parents[1] / "docs" / "latency_model.md"

START = Constants(
    math_efficiency=0.65,
    l2_bytes=48.0,
    memory_efficiency=0.75,
    l2_share=0.7,
    streams_gain=1.25,
    energy_pj=1.2,
    floor_cycles=5000.0,
    early_floor=1.5,
    host_soc_ms=0.08,
    host_pcie_ms=0.12,
    pcie_gbps=16.0,
    launch_us=4.0,
)
"""Where the fit starts, and what a weak prior draws it to: figures of NVIDIA's own guides."""

FIRST_START = {
    "efficiency": 0.79,
    "memory": 0.67,
    "cache": 3.6,
    "least_use": 0.46,
    "cycles": 8000.0,
    "loop_cycles": 18400.0,
    "host_pcie": 0.10,
    "host_soc": 0.06,
}
"""The first model's eight constants."""

_PRIOR = 0.1
_LOSS_SCALE = 0.15
_EARLY_WEIGHT = 0.4
"""Of rows by TensorRT before 8.2, which alone know Xavier."""

_INTERVAL = 0.83
"""Fraction of a regime's left-out rows that its interval is made to hold."""
_FAR = 0.95

Array = NDArray[np.float64]
Values = Mapping[str, float]


def estimated_ms(row: Row, values: Values) -> float:
    """Returns the model's latency of a row."""
    return latency(row.workload, Constants(**values)).total


def first_model_ms(row: Row, values: Values) -> float:
    """Returns the latency of the first model: a roofline, tiles of 128 x 128, a floor a kernel."""
    work, board = row.workload, row.workload.board
    clock, cache = board.gpu_mhz * 1e3, board.l2_mib * 2**20
    # Index 4 is the tile of 128 x 128 whose K is not split; a wave's clocks are those of its tile.
    waves = work.waves[4]
    tiles = row.tiles
    use = np.maximum(tiles / (np.maximum(waves, 1) * board.sms), values["least_use"])
    peak = board.sms * clock * values["efficiency"] * use
    compute = row.operations / row.rates / peak
    moved = work.activations + work.weights
    bandwidth = board.memory_gbps * 1e6 * values["memory"]
    memory = moved / (bandwidth * np.where(moved < cache / 2, values["cache"], 1.0))
    loop = work.load.timing is EstimatedTiming.LOOP
    floor = values["loop_cycles" if loop else "cycles"] / clock
    host = 0.0
    if work.load.timing is EstimatedTiming.SINGLE_STREAM:
        host = values["host_soc" if board.is_jetson else "host_pcie"]
    return float((np.maximum(compute, memory) + floor).sum()) + host


def fit(rows: Sequence[Row], start: Values, model: Callable[[Row, Values], float]) -> Values:
    """Returns the constants that fit rows best."""
    names = list(start)
    origin = np.log([start[name] for name in names])
    groups = Counter(row.group for row in rows)
    weights = np.array(
        [(1.0 if row.is_recent else _EARLY_WEIGHT) / groups[row.group] ** 0.5 for row in rows]
    )

    def residuals(logs: Array) -> Array:
        values = dict(zip(names, np.exp(logs), strict=True))
        errors = np.array([np.log(model(row, values) / row.latency_ms) for row in rows])
        return np.concatenate([weights * errors, _PRIOR * (logs - origin)])

    solved = least_squares(
        residuals, origin, loss="soft_l1", f_scale=_LOSS_SCALE, diff_step=1e-3, max_nfev=25
    )
    return dict(zip(names, map(float, np.exp(solved.x)), strict=True))


def left_out(
    fitted: Sequence[Row],
    evaluated: Sequence[Row],
    start: Values,
    model: Callable[[Row, Values], float],
) -> dict[int, float]:
    """Returns log(estimate / published) by the row's number, each of a fit without its board."""
    errors: dict[int, float] = {}
    for board in dict.fromkeys(row.card for row in evaluated):
        values = fit([row for row in fitted if row.card != board], start, model)
        for row in (each for each in evaluated if each.card == board):
            errors[row.number] = float(np.log(model(row, values) / row.latency_ms))
    return errors


def summary(errors: Mapping[int, float]) -> FitError:
    """Returns mean, median and 90th percentile of absolute errors."""
    size = np.abs(np.exp(list(errors.values())) - 1)
    return FitError(
        mean=round(float(size.mean()), 4),
        median=round(float(np.median(size)), 4),
        p90=round(float(np.quantile(size, 0.9)), 4),
    )


def equal_hardware(rows: Sequence[Row]) -> float:
    """Returns the log ratio that 80 % of the pairs of equal hardware and TensorRT do not exceed."""
    gathered: dict[tuple[object, ...], list[float]] = {}
    for row in rows:
        # Another TensorRT is another program: what differs between two of one is the machine's.
        key = (*row.group, row.workload.load.batch, row.tensorrt)
        gathered.setdefault(key, []).append(row.latency_ms)
    ratios = [
        abs(float(np.log(a / b)))
        for latencies in gathered.values()
        for a, b in combinations(latencies, 2)
    ]
    return float(np.quantile(ratios, 0.8)) if ratios else 0.0


def regime_errors(
    rows: Sequence[Row], errors: Mapping[int, float]
) -> tuple[dict[Regime, RegimeError], float, float]:
    """Returns the intervals by regime, their coverage in all, and an extrapolation's half-width."""
    by_regime: dict[Regime, RegimeError] = {}
    covered = 0
    for regime in Regime:
        own = [row for row in rows if regime_of(row.workload.load.batch) is regime]
        size = np.abs([errors[row.number] for row in own])
        spread = equal_hardware(own)
        # Half of what two runs differ by lies on either side of what is typical of them.
        width = max(float(np.quantile(size, _INTERVAL)), spread / 2)
        covered += int((size <= width).sum())
        by_regime[regime] = RegimeError(
            rows=len(own),
            half_width=round(width, 4),
            coverage=round(float((size <= round(width, 4)).mean()), 4),
            equal_hardware=round(spread, 4),
        )
    far = float(np.quantile(np.abs(list(errors.values())), _FAR))
    return by_regime, covered / len(rows), far


def dla_gain(rows: Sequence[Row]) -> dict[str, float]:
    """Returns throughput with both DLAs over the GPU's alone, by board in its highest mode."""
    best: dict[tuple[str, bool], float] = {}
    for row in (each for each in rows if not each.is_custom and each.offline_per_s):
        key = (row.workload.board.name, row.uses_dla)
        best[key] = max(best.get(key, 0.0), row.offline_per_s)
    names = {name for name, uses_dla in best if uses_dla and (name, False) in best}
    return {name: round(best[name, True] / best[name, False], 3) for name in sorted(names)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A fit with its errors."""

    model: FittedModel
    rows: Sequence[Row]
    errors: Mapping[int, float]
    first_errors: Mapping[int, float]


def run() -> Result:
    """Fits the model and the first one, and leaves out each board in turn."""
    every = published_rows()
    gpu = [row for row in every if not row.uses_dla and row.latency_ms > 0]
    usual = [row for row in gpu if row.architecture == "resnet50" and row.is_comparable]
    evaluated = [row for row in usual if row.is_recent]
    fitted = [row for row in usual if row.is_recent or row.is_xavier]
    start = asdict(START)
    values = fit(fitted, start, estimated_ms)
    errors = left_out(fitted, evaluated, start, estimated_ms)
    first_errors = left_out(fitted, evaluated, FIRST_START, first_model_ms)
    regimes, coverage, far = regime_errors(evaluated, errors)
    kinds = {
        (row.workload.board.name, row.architecture, row.precision) for row in gpu if row.is_tensorrt
    }
    model = FittedModel(
        command=COMMAND,
        constants=Constants(**{name: float(f"{value:.4g}") for name, value in values.items()}),
        fitted_rows=tuple(row.number for row in fitted),
        evaluated_rows=tuple(row.number for row in evaluated),
        error=summary(errors),
        first_model=summary(first_errors),
        regimes=regimes,
        far_half_width=round(far, 4),
        coverage=round(coverage, 4),
        published=tuple(
            PublishedKind(board=board, architecture=architecture, precision=precision)
            for board, architecture, precision in sorted(kinds)
        ),
        dla_gain=dla_gain(every),
    )
    return Result(model=model, rows=evaluated, errors=errors, first_errors=first_errors)


def table(result: Result) -> str:
    """Returns the errors as Markdown."""
    model = result.model
    lines = [
        "# The latency model's errors",
        "",
        f"Written by `{model.command}` from `benchmarks/published_latency.csv`. Each error is of a "
        "fit without any row of that board; negative: estimated faster than published.",
        "",
        "| | mean absolute | median | 90th percentile |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {percent(error.mean)} | {percent(error.median)} | {percent(error.p90)} |"
            for name, error in (("this model", model.error), ("first model", model.first_model))
        ),
        "",
        "| interval | rows | half-width | holds | equal hardware differs by |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {regime} | {one.rows} | {percent(np.expm1(one.half_width))} | {percent(one.coverage)} | "
            f"{percent(np.expm1(one.equal_hardware))} |"
            for regime, one in model.regimes.items()
        ),
        f"| all | {len(result.rows)} | | {percent(model.coverage)} | |",
        "",
        "| board | timing | precision | rows of the file | errors by batch |",
        "| --- | --- | --- | --- | --- |",
    ]
    for group in dict.fromkeys(row.group for row in result.rows):
        own = [row for row in result.rows if row.group == group]
        errors = ", ".join(
            f"{row.workload.load.batch}: {100 * np.expm1(result.errors[row.number]):+.0f} %"
            for row in own
        )
        numbers = ", ".join(str(row.number) for row in own)
        lines.append(f"| {' | '.join(map(str, group))} | {numbers} | {errors} |")
    lines += ["", "| constant | value |", "| --- | --- |"]
    lines += [f"| {name} | {value:g} |" for name, value in asdict(model.constants).items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the errors, and with `--write` keeps constants and table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="Write constants and table.")
    arguments = parser.parse_args()
    result = run()
    print(table(result))
    if arguments.write:
        save_json(FITTED_FILE, result.model)
        TABLE.write_text(table(result), encoding="utf-8")


if __name__ == "__main__":
    main()
