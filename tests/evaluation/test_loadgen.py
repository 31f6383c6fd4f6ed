"""MLPerf's own LoadGen in front of an engine: what it requests, measures and reports."""

from __future__ import annotations

import importlib.util
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeres.core.bench_requests import LoadGenRequest, Scenario
from edgeres.errors import ConfigError, DependencyError, RunnerError
from edgeres.evaluation import loadgen
from edgeres.evaluation.loadgen import check_loadgen, run_loadgen
from edgeres.serialization import to_json
from edgeres.statistics import samples_needed
from edgeres.testing import FakeRunner

IMAGES = np.arange(12, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 2, 2), np.float32)
BRIEF = LoadGenRequest(scenario=Scenario.SINGLE_STREAM, seconds=0.5, batch_size=4)

installed = pytest.mark.skipif(
    importlib.util.find_spec("mlperf_loadgen") is None, reason="mlcommons-loadgen is not installed"
)


class Engine:
    """A runner that takes some time, and keeps which images it was requested to infer."""

    def __init__(self, seconds: float = 0.001) -> None:
        """Sets the time of an inference."""
        self.queries: list[list[int]] = []
        self.seconds = seconds
        self.runner = FakeRunner(logits=self._logits)

    def _logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.queries.append(images[:, 0, 0, 0].astype(int).tolist())
        time.sleep(self.seconds)
        return np.zeros((len(images), 10), np.float32)


@installed
@pytest.mark.parametrize(
    ("scenario", "sizes", "unit"),
    [
        (Scenario.SINGLE_STREAM, {1}, "ms"),
        (Scenario.MULTI_STREAM, {8}, "ms"),
        (Scenario.OFFLINE, {4}, "images/s"),
    ],
)
def test_each_scenario_asks_as_mlperf_does(scenario: Scenario, sizes: set[int], unit: str) -> None:
    """One image, eight at once, or a heap in batches; from all images, for as long as asked."""
    engine = Engine()
    result = run_loadgen(engine.runner, IMAGES, replace(BRIEF, scenario=scenario))
    assert (result.scenario, result.unit, result.logs) == (scenario.value, unit, None)
    full = {len(query) for query in engine.queries[:-1]}
    assert full == sizes
    assert {index for query in engine.queries for index in query} == set(range(12))
    assert result.value is None or result.value > 0


@installed
def test_a_long_enough_run_is_valid() -> None:
    """The latency is at least what the engine takes, and the queries are those that it answered."""
    engine, passed_s = Engine(), []
    result = run_loadgen(
        engine.runner,
        IMAGES,
        replace(BRIEF, seconds=1.2),
        progress=lambda stage, done, total, note="": passed_s.append((done, total)),
    )
    assert passed_s == sorted(passed_s)
    assert {total for _, total in passed_s} == {1.2}
    assert len(passed_s) >= 2
    assert (result.valid, result.result, result.reasons) == (True, "VALID", ())
    assert result.metric == "90th percentile latency, early stopping"
    assert result.value is not None
    assert result.value >= 1.0
    assert len(engine.queries) - result.queries == 5


@installed
def test_too_few_queries_are_invalid_and_the_count_is_ours() -> None:
    """LoadGen's own early stopping asks for as many as `samples_needed` says."""
    slow = replace(BRIEF, scenario=Scenario.MULTI_STREAM, seconds=0.2)
    result = run_loadgen(Engine(0.002).runner, IMAGES, slow)
    assert (result.valid, result.result, result.value) == (False, "INVALID", None)
    reported = " ".join(result.reasons)
    assert f"Need to process at least {samples_needed(99)} queries for early stopping." in reported
    assert to_json(result)["result"] == "INVALID"


@installed
def test_its_logs_are_kept_where_that_is_asked(tmp_path: Path) -> None:
    """In a folder that is made for them, and nothing on standard output."""
    result = run_loadgen(Engine().runner, IMAGES, BRIEF, tmp_path / "a" / "logs")
    assert result.logs == str(tmp_path / "a" / "logs")
    summary = (tmp_path / "a" / "logs" / "mlperf_log_summary.txt").read_text()
    assert "Result is : VALID" in summary
    assert f"({result.queries})" in summary


@installed
def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Not even by its C++ part: `--json` has standard output for itself."""
    run_loadgen(Engine().runner, IMAGES, BRIEF)
    assert capfd.readouterr() == ("", "")


@installed
@pytest.mark.parametrize("error", [RunnerError("it failed"), KeyboardInterrupt()])
def test_a_failure_under_load_is_raised(error: BaseException) -> None:
    """Once LoadGen has returned; it is answered until then, and the engine left alone."""
    calls = []

    def fail(images: NDArray[np.float32]) -> NDArray[np.float32]:
        calls.append(len(images))
        if len(calls) > 8:
            raise error
        return np.zeros((len(images), 10), np.float32)

    with pytest.raises(type(error)) as raised:
        run_loadgen(FakeRunner(logits=fail), IMAGES, replace(BRIEF, seconds=0.05))
    assert raised.value is error
    assert len(calls) == 9


@installed
def test_multi_stream_needs_eight_images() -> None:
    """Images are not repeated within a query."""
    with pytest.raises(ConfigError, match="has a batch size of 8, and there are 7 images"):
        run_loadgen(Engine().runner, IMAGES[:7], replace(BRIEF, scenario=Scenario.MULTI_STREAM))


@installed
def test_a_log_without_a_result_is_refused(tmp_path: Path) -> None:
    """As after a crash of LoadGen."""
    log = tmp_path / "mlperf_log_detail.txt"
    log.write_text('noise\n:::MLLOG {"key": "loadgen_version", "value": "5"}\n')
    with pytest.raises(RunnerError, match=r"LoadGen left no result: 1 keys in its log, none of"):
        loadgen._result(log, BRIEF, None)


def test_without_loadgen_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is measured."""
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(DependencyError) as refused:
        check_loadgen()
    assert str(refused.value) == (
        "MLPerf's LoadGen, which runs --scenario, is not installed. In edgeres' source folder: "
        "pip install '.[loadgen]'."
    )


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_duration_is_positive(seconds: float) -> None:
    """Anything else is a usage error."""
    with pytest.raises(ConfigError, match=r"--loadgen-seconds is .*; expected a positive number"):
        LoadGenRequest(scenario=Scenario.OFFLINE, seconds=seconds)
