"""Every combination of targets, precisions, calibrations, timings and outputs, from end to end.

The values come from the registries and enumerations themselves, so a new member joins by itself.
The full product has millions of combinations; those here have every pair of values. Each of them
either goes from calibration to verdict, or is refused with a sentence of `REFUSALS`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pytest
from click.testing import Result
from commands import run
from digits import Digits, write_npz
from pairwise import covering, pairs

from edgeres.cli.bench import bench
from edgeres.core.bench_requests import Decision, ReportFiles, Scenario, Timing
from edgeres.core.methods import Method, Recover, WeightMethod
from edgeres.core.precision import Precision
from edgeres.images import embedded_digits, take
from edgeres.installation import is_installed
from edgeres.machine import has_nvidia_gpu
from edgeres.targets.base import Target, cpu_target, simulated_target, targets

T = TypeVar("T")

HAS_GPU = has_nvidia_gpu()
HAS_LOADGEN = is_installed("mlperf_loadgen")
INSTALLED = frozenset(name for name, target in targets().items() if target.is_installed())
PORTABLE = {
    name: request.compute_capability
    for name, target in targets().items()
    if target.uses_gpu and (request := target.portable_request()) is not None
}
"""GPU that a target's engine can be built for on a machine without one."""
REPORTS = tuple(report.name for report in fields(ReportFiles))
JSON = "json"
TIGHT, GENEROUS = 0.5, 90.0
"""Limits of the drop in percentage points: no 48 images prove the one, all keep the other."""


class Calibration(NamedTuple):
    """How a table is made."""

    method: Method
    weights: WeightMethod | None
    recover: Recover


class Combination(NamedTuple):
    """One way along the whole path."""

    target: str
    precision: Precision
    calibration: Calibration | None
    """None: the build is given no table."""
    thresholds: Method | None
    """That the build names."""
    simulate: bool
    """Whether bench takes the table, instead of the engine."""
    timing: Timing
    scenario: Scenario | None
    decide: Decision
    max_drop: float | None
    outputs: frozenset[str]

    @property
    def values(self) -> tuple[Hashable, ...]:
        """What every pair is wanted of: all fields, and those of the calibration."""
        of_table = (None, None, None) if self.calibration is None else self.calibration
        return (*self[:2], *of_table, *self[3:])

    @property
    def of(self) -> Target:
        """The target itself."""
        return targets()[self.target]

    @property
    def runs_here(self) -> bool:
        """Whether this machine can run the engine."""
        return HAS_GPU or not self.of.uses_gpu

    @property
    def keeps_blocks(self) -> bool:
        """Whether a mixed engine gets a budget that no search meets; it takes seconds."""
        table = self.calibration
        return self.precision is Precision.MIXED and table is not None and table.weights is None

    def __str__(self) -> str:
        """Returns the values, for a test's name."""
        table = () if self.calibration is None else self.calibration
        words = (*self[:2], *table, *self[3:-1], *sorted(self.outputs))
        return "-".join(str(word) for word in words if word not in (None, False))


def _calibrations() -> tuple[Calibration, ...]:
    rows = [Calibration(*row) for row in product(Method, (None, *WeightMethod), Recover)]
    return tuple(rows[position] for position in covering(rows))


CALIBRATIONS = _calibrations()
"""Every pair of their values; combinations share them, since a table takes the longest to make."""

VALUES = (
    tuple(targets()),
    tuple(Precision),
    # As often without: most combinations are refused for a table or a method that they cannot use.
    (*[None] * len(CALIBRATIONS), *CALIBRATIONS),
    (*[None] * len(Method), *Method),
    (False, True),
    tuple(Timing),
    (None, *Scenario),
    tuple(Decision),
    (None, TIGHT, GENEROUS),
    (
        frozenset[str](),
        *(frozenset([name]) for name in (JSON, *REPORTS)),
        frozenset((JSON, *REPORTS)),
    ),
)
"""What each field of a combination can be."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Refusal:
    """A sentence that some combinations are refused with, and what it leads to."""

    command: str
    when: Callable[[Combination], bool]
    begins: str
    """With `{engine}` and `{table}` for the files."""
    code: int
    instead: Callable[[Combination], Combination]
    """Does what the sentence advises."""
    here: bool = field(default=True)
    """Whether this machine can show it."""


REFUSALS = (
    # In the order in which the commands check.
    Refusal(
        command="build-engine",
        when=lambda c: c.precision not in c.of.precisions,
        begins="ONNX Runtime's CPU has no FP",
        code=2,
        instead=lambda c: c._replace(precision=Precision.FP32),
    ),
    Refusal(
        command="build-engine",
        when=lambda c: c.precision is Precision.FP8 and not c.runs_here and c.target in PORTABLE,
        begins="--precision fp8 needs compute capability 8.9, 9.0 or later",
        code=2,
        instead=lambda c: c._replace(precision=Precision.INT8),
        here=not HAS_GPU and bool(PORTABLE),
    ),
    Refusal(
        command="build-engine",
        when=lambda c: c.precision.quantizes and c.calibration is None,
        begins="--precision {precision} needs ranges.",
        code=2,
        instead=lambda c: c._replace(calibration=CALIBRATIONS[0]),
    ),
    Refusal(
        command="build-engine",
        when=lambda c: (
            c.precision is Precision.FP32
            and (c.calibration is not None or c.thresholds is not None)
        ),
        begins="--precision fp32 has no use for calibration.",
        code=2,
        instead=lambda c: c._replace(calibration=None, thresholds=None),
    ),
    Refusal(
        command="build-engine",
        when=lambda c: c.precision is Precision.FP16 and c.thresholds is not None,
        begins="--precision fp16 has no use for --method",
        code=2,
        instead=lambda c: c._replace(thresholds=None),
    ),
    Refusal(
        command="build-engine",
        when=lambda c: c.target not in INSTALLED,
        begins="--target {target} needs the Python module",
        code=1,
        instead=lambda c: c._replace(target=_another_target()),
        here=len(INSTALLED) < len(targets()),
    ),
    Refusal(
        command="build-engine",
        when=lambda c: (
            c.thresholds is Method.AUTO
            and c.calibration is not None
            and c.calibration.method is not Method.AUTO
        ),
        begins="The calibration table has no auto threshold of",
        code=1,
        instead=lambda c: c._replace(thresholds=None),
    ),
    Refusal(
        command="build-engine",
        when=lambda c: not c.runs_here and c.target not in PORTABLE,
        begins="TensorRT builds on the GPU that the engine is for, and this machine has none.",
        code=1,
        instead=lambda c: c._replace(target=_another_target()),
        here=not HAS_GPU
        and any(
            target.uses_gpu and name in INSTALLED and name not in PORTABLE
            for name, target in targets().items()
        ),
    ),
    Refusal(
        command="bench",
        when=lambda c: c.simulate and c.scenario is not None,
        begins="--scenario times an engine, and --simulate has none.",
        code=2,
        instead=lambda c: c._replace(scenario=None),
    ),
    Refusal(
        command="bench",
        when=lambda c: c.scenario is not None and not HAS_LOADGEN,
        begins="MLPerf's LoadGen, which runs --scenario, is not installed",
        code=1,
        instead=lambda c: c._replace(scenario=None),
        here=not HAS_LOADGEN,
    ),
    Refusal(
        command="bench",
        when=lambda c: c.simulate and c.calibration is None,
        begins="--simulate evaluates a calibration table before there is an engine, and {engine} is",
        code=2,
        instead=lambda c: c._replace(simulate=False),
    ),
    Refusal(
        command="bench",
        when=lambda c: not c.simulate and not c.runs_here,
        begins="{engine} is a plan for {target} in {precision}, compute capability 8.6, and this machine",
        code=6,
        instead=lambda c: (
            c._replace(target=cpu_target().name)
            if c.calibration is None
            else c._replace(simulate=True)
        ),
        here=not HAS_GPU,
    ),
    Refusal(
        command="bench",
        when=lambda c: not c.simulate and c.timing not in c.of.timings,
        begins="--timing {timing} needs a GPU, and",
        code=2,
        instead=lambda c: c._replace(timing=Timing.END_TO_END),
    ),
    Refusal(
        command="bench",
        when=lambda c: not c.simulate and not c.of.is_timed and c.scenario is not None,
        begins="--scenario times an engine, and {engine} is the file that one is built from.",
        code=2,
        instead=lambda c: c._replace(scenario=None),
    ),
)


def _another_target() -> str:
    """Returns a target that can be built for here; the CPU's where there is no other."""
    return next(iter(PORTABLE), cpu_target().name)


def refusal_of(combination: Combination) -> Refusal | None:
    """Returns the refusal that a combination meets first; None where it succeeds."""
    return next((refusal for refusal in REFUSALS if refusal.when(combination)), None)


def accepted(combination: Combination) -> Combination:
    """Returns what a user comes to who does what each refusal advises."""
    for _ in VALUES:
        if (refusal := refusal_of(combination)) is None:
            return combination
        combination = refusal.instead(combination)
    raise AssertionError(f"the advice of the refusals goes round in circles: {combination}")


def _drawn(seed: int, count: int = 30_000) -> Iterator[Combination]:
    draw = random.Random(seed)
    for _ in range(count):
        yield Combination(*map(draw.choice, VALUES))


def _covering(drawn: list[Combination]) -> list[Combination]:
    return [drawn[position] for position in covering(c.values for c in drawn)]


REQUESTED = _covering(list(_drawn(0)))


def _accepted() -> list[Combination]:
    """Returns combinations with every pair, and for each target a mixed engine that keeps blocks."""
    drawn = [accepted(c) for c in _drawn(1)]
    rows = _covering(drawn)
    mixed = {c.target: c for c in drawn if c.keeps_blocks}
    kept = {c.target for c in rows if c.keeps_blocks}
    return [*rows, *(c for target, c in mixed.items() if target not in kept)]


ACCEPTED = _accepted()


def _refused() -> list[Combination]:
    """Returns the requested combinations that are refused, and one for every other refusal."""
    found = [(refusal_of(c), c) for c in (*REQUESTED, *_drawn(0))]
    first = {refusal: c for refusal, c in reversed(found) if refusal is not None}
    return list(dict.fromkeys([*filter(refusal_of, REQUESTED), *first.values()]))


REFUSED = _refused()


def _cases(combinations: Sequence[Combination]) -> list[object]:
    """Returns them as parameters; those for TensorRT for RTX are skipped without its package."""
    return [
        pytest.param(c, id=str(c), marks=[pytest.mark.rtx] if c.target == "tensorrt-rtx" else [])
        for c in combinations
    ]


class Files:
    """Tables and engines of the digits, each made once for all combinations that share it."""

    def __init__(self, digits: Digits, folder: Path) -> None:
        """Takes few images: 16 to calibrate on, 48 to evaluate on."""
        self.model, self.folder = digits.model, folder
        self.train, self.test = folder / "train.npz", folder / "test.npz"
        train, test = embedded_digits()
        write_npz(self.train, take(train, np.arange(16)))
        write_npz(self.test, take(test, np.arange(48)))
        self._tables: dict[Calibration, Path] = {}
        self._engines: dict[tuple[object, ...], tuple[Result, Path]] = {}

    def table(self, calibration: Calibration) -> Path:
        """Returns the calibration table."""
        if calibration not in self._tables:
            path = self.folder / f"{len(self._tables)}.table.json"
            words = ["calibrate", self.model, "--data", self.train, "-o", path, "-q"]
            words += ["--method", calibration.method, "--recover", calibration.recover]
            words += ["--recover-iterations", 2]
            if calibration.weights is not None:
                words += ["--weight-method", calibration.weights]
            result = run(*words)
            assert result.exit_code == 0, result.output
            self._tables[calibration] = path
        return self._tables[calibration]

    def build(self, c: Combination) -> tuple[Result, Path]:
        """Returns what build-engine answers, and the engine's path."""
        key = c[:4]
        if key not in self._engines:
            path = self.folder / f"{len(self._engines)}{c.of.suffix}"
            words = ["build-engine", self.model, "-o", path, "-q", "--target", c.target]
            words += ["--precision", c.precision]
            if c.calibration is not None:
                words += ["--calibration", self.table(c.calibration)]
            if c.thresholds is not None:
                words += ["--method", c.thresholds]
            if c.precision is Precision.MIXED:
                words += ["--judge-data", self.train, "--max-drop", -1 if c.keeps_blocks else 100]
            if not c.runs_here and c.target in PORTABLE:
                words += ["--compute-capability", PORTABLE[c.target]]
            self._engines[key] = run(*words), path
        return self._engines[key]

    def bench(self, c: Combination, reports: Path) -> Result:
        """Returns what bench answers; its reports are written into a folder."""
        table = c.simulate and c.calibration
        judged = self.table(table) if table else self.build(c)[1]
        words = ["bench", judged, "--reference", self.model, "--data", self.test]
        words += ["-q", "--no-energy", "--timing", c.timing, "--decide", c.decide]
        if not c.timing.trtexec:
            words += ["--iterations", 2, "--warmup", 0]
        if c.simulate:
            words.append("--simulate")
        if c.scenario is not None:
            words += ["--scenario", c.scenario, "--loadgen-seconds", 0.05]
        if c.max_drop is not None:
            words += ["--max-drop", c.max_drop]
        if JSON in c.outputs:
            words.append("--json")
        options = {option.name: option.opts[0] for option in bench.params}
        for name in c.outputs - {JSON}:
            words += [options[name], reports / name]
        return run(*words)


@pytest.fixture(scope="module")
def files(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Shared by all combinations."""
    return Files(digits, tmp_path_factory.mktemp("matrix"))


def sentence(result: Result) -> str:
    """Returns what a command was refused with."""
    return result.stderr.partition("Error: ")[2]


def exit_codes(c: Combination) -> set[int]:
    """Returns the exit codes that bench may end with, from what the limits are."""
    if c.max_drop != TIGHT:
        return {0}
    # Without one newly wrong image, 48 still leave a drop of several percentage points possible.
    return {3} if c.decide is Decision.BOUND else {0, 3}


@pytest.mark.parametrize("c", _cases(ACCEPTED))
def test_a_combination_goes_from_calibration_to_verdict(
    c: Combination, files: Files, tmp_path: Path
) -> None:
    """Each file is what was requested, and each report is written."""
    built, engine = files.build(c)
    assert built.exit_code == 0, built.output
    inspected = json.loads(run("inspect", engine, "--json").stdout)
    assert (inspected["target"], inspected["precision"]) == (c.target, c.precision)
    kept = any(layer["reason"].startswith("kept from INT8 for") for layer in inspected["layers"])
    assert kept is c.keeps_blocks

    result = files.bench(c, tmp_path)
    assert result.exit_code in exit_codes(c), result.output
    assert {path.name for path in tmp_path.iterdir() if path.stat().st_size} == c.outputs - {JSON}
    assert result.stdout
    if JSON in c.outputs:
        verdict = json.loads(result.stdout)
        ran = (simulated_target().name, Precision.INT8) if c.simulate else (c.target, c.precision)
        assert (verdict["provenance"]["target"], verdict["provenance"]["precision"]) == ran
        untimed = c.simulate or not c.of.is_timed
        assert (verdict["exit_code"], verdict["latency"] is None) == (result.exit_code, untimed)
        assert (verdict["loadgen"] is None) is (c.scenario is None)


@pytest.mark.parametrize("c", _cases(REFUSED))
def test_another_combination_is_refused_with_its_sentence(
    c: Combination, files: Files, tmp_path: Path
) -> None:
    """Nothing is printed or written, and nothing that was requested is dropped."""
    refusal = refusal_of(c)
    assert refusal is not None
    result, engine = files.build(c)
    if refusal.command == "bench":
        assert result.exit_code == 0, result.output
        result = files.bench(c, tmp_path)
    else:
        assert not engine.exists()
    begins = refusal.begins.format(engine=engine, **c._asdict())
    assert sentence(result).startswith(begins)
    assert (result.exit_code, result.stdout) == (refusal.code, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.begins)
def test_no_refusal_is_stale(refusal: Refusal) -> None:
    """Each that this machine can show is met by a combination."""
    assert any(refusal_of(c) is refusal for c in REFUSED) is refusal.here


def test_mixed_engines_that_keep_blocks_are_benched() -> None:
    """On every target; a CPU's is run, and not only simulated."""
    mixed = [c for c in ACCEPTED if c.keeps_blocks]
    assert any(c.runs_here and not c.simulate for c in mixed)
    assert {c.target for c in mixed} == {c.target for c in ACCEPTED}


def test_every_pair_of_values_is_requested() -> None:
    """Of all fields, and of the calibration's own."""
    row = REQUESTED[0]
    every = {
        pair
        for (i, first), (j, second) in combinations(enumerate(VALUES), 2)
        for a, b in product(first, second)
        for pair in pairs(row._replace(**{row._fields[i]: a, row._fields[j]: b}).values)
    }
    assert {pair for c in REQUESTED for pair in pairs(c.values)} == every


def test_every_pair_that_is_not_refused_is_walked() -> None:
    """Other combinations, drawn by another seed, have no pair that none of `ACCEPTED` has."""
    walked = {pair for c in ACCEPTED for pair in pairs(c.values)}
    assert {pair for c in _drawn(2) for pair in pairs(accepted(c).values)} <= walked


def test_covering_takes_few_rows() -> None:
    """Three values at each of four positions: nine rows have all pairs, the product 81."""
    rows = list(product(range(3), repeat=4))
    chosen = [rows[position] for position in covering(rows)]
    assert {pair for row in chosen for pair in pairs(row)} == {
        pair for row in rows for pair in pairs(row)
    }
    assert len(chosen) <= 12
