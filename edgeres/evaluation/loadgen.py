"""An engine under MLPerf's own load generator, with its logs and its VALID or INVALID.

LoadGen decides when which image is requested, and measures; here its queries are answered from
images in memory, and its log is read. Knows runners by their interface alone.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeres.core.bench_requests import LoadGenRequest, Scenario
from edgeres.core.verdict import LoadGenResult
from edgeres.errors import ConfigError, DependencyError, RunnerError
from edgeres.files import atomic_write, make_folder
from edgeres.input_files import JSON, read_text
from edgeres.installation import install_hint
from edgeres.plurals import counted
from edgeres.progress import Progress, silent
from edgeres.serialization import parse_json
from edgeres.targets.runner import Runner

STREAMS = 8
"""Images of one query of the multi-stream scenario. Source: MLPerf inference rules, table 2."""

_REPORTED_EVERY_S = 0.5
_TRIALS = 5
_PLANNED = 2.0
"""LoadGen plans its queries from an expected latency; half of the measured one leaves enough of
them for an engine that becomes twice as fast under load."""

_METRICS: Mapping[Scenario, tuple[str, str]] = {
    Scenario.SINGLE_STREAM: (
        "early_stopping_latency_ss",
        "90th percentile latency, early stopping",
    ),
    Scenario.MULTI_STREAM: (
        "early_stopping_latency_ms",
        "99th percentile latency of 8 images, early stopping",
    ),
    Scenario.OFFLINE: ("result_samples_per_second", "throughput"),
}
"""Key in LoadGen's log and name. Source: MLPerf inference rules, table 2."""


def check_loadgen() -> None:
    """Checks that LoadGen can be imported.

    Raises:
        DependencyError: it is not installed.
    """
    _load()


def run_loadgen(
    runner: Runner,
    images: NDArray[np.float32],
    config: LoadGenRequest,
    logs: Path | None = None,
    progress: Progress = silent,
) -> LoadGenResult:
    """Returns what LoadGen measures of an engine that is open.

    Args:
        runner: the engine.
        images: (N, 3, H, W) float32, preprocessed, which LoadGen draws from; at least
            `STREAMS` for the multi-stream scenario.
        config: scenario and duration.
        logs: folder that LoadGen's own logs are kept in, made if missing.
        progress: receives how many of the requested seconds have passed, twice a second.

    Raises:
        DependencyError: LoadGen is not installed.
        ConfigError: there are too few images.
        RunnerError: inference failed, or LoadGen left no result.
        ArtifactError: the folder cannot be made.
    """
    loadgen = _load()
    if config.scenario is Scenario.MULTI_STREAM and len(images) < STREAMS:
        raise ConfigError(
            f"The multi-stream scenario has a batch size of {STREAMS}, and there are "
            f"{counted(len(images), 'image')}. Pass --data with more."
        )
    batch = {Scenario.SINGLE_STREAM: 1, Scenario.MULTI_STREAM: STREAMS}.get(
        config.scenario, config.batch_size
    )
    system = _System(loadgen=loadgen, runner=runner, images=images, batch=batch)
    system.progress, system.seconds = progress, config.seconds
    settings = _settings(system, config)
    output = loadgen.LogSettings()
    # With --json stdout has one object and nothing else.
    output.log_output.copy_summary_to_stdout = False
    output.enable_trace = False
    if logs is not None:
        make_folder(logs)
    # LoadGen does not notice a disk that is full or a folder that it may not write.
    with tempfile.TemporaryDirectory() as name:
        output.log_output.outdir = name
        under_test = loadgen.ConstructSUT(system.answer, _nothing)
        library = loadgen.ConstructQSL(len(images), len(images), _nothing, _nothing)
        try:
            loadgen.StartTestWithLogSettings(under_test, library, settings, output)
        finally:
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(under_test)
        if logs is not None:
            for path in Path(name).iterdir():
                with atomic_write(logs / path.name) as temporary:
                    shutil.copyfile(path, temporary)
        # LoadGen may call a run VALID whose inferences failed.
        if system.failure:
            raise system.failure[0]
        return _result(Path(name) / "mlperf_log_detail.txt", config, logs)


def _load() -> Any:
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise DependencyError(
            "MLPerf's LoadGen, which runs --scenario, is not installed. "
            + install_hint("mlperf_loadgen")
        ) from error
    return mlperf_loadgen


@dataclass(slots=True, kw_only=True)
class _System:
    """Answers LoadGen's queries. An exception must not reach its C++ code: it is kept."""

    loadgen: Any
    runner: Runner
    images: NDArray[np.float32]
    batch: int
    """Images per inference."""
    progress: Progress = silent
    seconds: float = 0.0
    """Requested duration."""
    started_s: float = field(default_factory=time.monotonic)
    shown_s: float = 0.0
    """Seconds that had passed when the progress was reported last."""
    failure: list[BaseException] = field(default_factory=list)

    def answer(self, samples: Sequence[Any]) -> None:
        """Infers the images of a query, and completes each part as it is done."""
        for start in range(0, len(samples), self.batch):
            part = samples[start : start + self.batch]
            if not self.failure:
                try:
                    self.runner.infer(self.images[[sample.index for sample in part]])
                # Whatever it is, Ctrl-C too: raised again when LoadGen has returned.
                except BaseException as error:
                    self.failure.append(error)
            # Completed after a failure as well: LoadGen waits for every sample it requested.
            done = [self.loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in part]
            self.loadgen.QuerySamplesComplete(done)
            # After the answer, so that it is in no latency.
            passed_s = time.monotonic() - self.started_s
            if passed_s >= self.shown_s + _REPORTED_EVERY_S and not self.failure:
                self.shown_s = passed_s
                try:
                    self.progress("LoadGen", min(passed_s, self.seconds), self.seconds)
                except BaseException as error:
                    self.failure.append(error)


def _settings(system: _System, config: LoadGenRequest) -> Any:
    """Returns LoadGen's settings, planned by the shortest time of a few inferences."""
    # A batch may be larger than the images in memory, which then repeat.
    indices = [number % len(system.images) for number in range(system.batch)]
    trials = []
    for _ in range(_TRIALS):
        start = time.perf_counter()
        system.runner.infer(system.images[indices])
        trials.append(time.perf_counter() - start)
    seconds = min(trials)
    loadgen = system.loadgen
    settings = loadgen.TestSettings()
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(1000 * config.seconds)
    expected_ns = max(1, round(1e9 * seconds / _PLANNED))
    if config.scenario is Scenario.SINGLE_STREAM:
        settings.scenario = loadgen.TestScenario.SingleStream
        settings.single_stream_expected_latency_ns = expected_ns
    elif config.scenario is Scenario.MULTI_STREAM:
        settings.scenario = loadgen.TestScenario.MultiStream
        settings.multi_stream_samples_per_query = STREAMS
        settings.multi_stream_expected_latency_ns = expected_ns
    else:
        settings.scenario = loadgen.TestScenario.Offline
        settings.offline_expected_qps = _PLANNED * config.batch_size / seconds
    return settings


def _nothing(indices: Sequence[int] = ()) -> None:
    """Loads, unloads or flushes: the images are in memory, and answers are complete at once."""


def _result(log: Path, config: LoadGenRequest, logs: Path | None) -> LoadGenResult:
    """Returns the outcome of a run from LoadGen's detailed log, a JSON object a line."""
    values: dict[str, list[Any]] = {}
    for line in read_text(log, JSON).splitlines():
        # Lines of other libraries may stand between those of the log.
        marker, _, text = line.partition(":::MLLOG ")
        if not marker and text:
            entry = parse_json(text)
            values.setdefault(entry["key"], []).append(entry["value"])
    if "result_validity" not in values:
        raise RunnerError(
            f"LoadGen left no result: {len(values)} keys in its log, none of them result_validity. "
            "Keep its logs with --loadgen-logs and see mlperf_log_detail.txt."
        )
    key, metric = _METRICS[config.scenario]
    # The log has latencies in nanoseconds.
    unit, factor = ("images/s", 1.0) if config.scenario is Scenario.OFFLINE else ("ms", 1e-6)
    # Early stopping writes 0 where the queries were too few for the percentile.
    value = float(values.get(key, [0])[-1])
    reasons = [*values.get("result_invalid_reason", ()), *values.get("error_runtime", ())]
    if not values.get("early_stopping_met", [True])[-1]:
        reasons += values["early_stopping_result"]
    valid = values["result_validity"][-1] == "VALID"
    return LoadGenResult(
        scenario=config.scenario.value,
        valid=valid,
        metric=metric,
        value=value * factor if value > 0 else None,
        unit=unit,
        queries=int(values["result_query_count"][-1]),
        seconds=config.seconds,
        reasons=() if valid else tuple(" ".join(text.split()) for text in reasons),
        logs=None if logs is None else str(logs),
    )
