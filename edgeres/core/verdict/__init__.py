"""Results of evaluation, timing and comparison: frozen values with the JSON of `bench --json`."""

from edgeres.core.verdict.accuracy import (
    Accuracy,
    Answer,
    ClassDifference,
    Confidence,
    Flip,
    FlipKind,
    ImageRecord,
    LogitError,
    PairedAccuracy,
)
from edgeres.core.verdict.latency import (
    Drift,
    Interval,
    LatencyIntervals,
    LatencyStats,
    MeasuredThroughput,
    Outliers,
    PairedLatency,
    TailCount,
    Throughput,
)
from edgeres.core.verdict.loadgen import LoadGenResult
from edgeres.core.verdict.outcome import (
    EXIT_ACCURACY,
    EXIT_COVERAGE,
    EXIT_MISMATCH,
    EXIT_PASS,
    EXIT_SPEED,
    EXIT_UNSTABLE,
    Check,
    Conclusion,
    Outcome,
    conclude,
)
from edgeres.core.verdict.past import PastRun, processors_of
from edgeres.core.verdict.profile import KernelTime, ProfileRow
from edgeres.core.verdict.provenance import DataRecord, Environment, FileRecord, Provenance
from edgeres.core.verdict.regression import (
    AccuracyChange,
    LatencyChange,
    Ranking,
    Regression,
    Standing,
)
from edgeres.core.verdict.saved import evaluated_engine, load_run
from edgeres.core.verdict.verdict import Energies, Verdict

__all__ = [
    "EXIT_ACCURACY",
    "EXIT_COVERAGE",
    "EXIT_MISMATCH",
    "EXIT_PASS",
    "EXIT_SPEED",
    "EXIT_UNSTABLE",
    "Accuracy",
    "AccuracyChange",
    "Answer",
    "Check",
    "ClassDifference",
    "Conclusion",
    "Confidence",
    "DataRecord",
    "Drift",
    "Energies",
    "Environment",
    "FileRecord",
    "Flip",
    "FlipKind",
    "ImageRecord",
    "Interval",
    "KernelTime",
    "LatencyChange",
    "LatencyIntervals",
    "LatencyStats",
    "LoadGenResult",
    "LogitError",
    "MeasuredThroughput",
    "Outcome",
    "Outliers",
    "PairedAccuracy",
    "PairedLatency",
    "PastRun",
    "ProfileRow",
    "Provenance",
    "Ranking",
    "Regression",
    "Standing",
    "TailCount",
    "Throughput",
    "Verdict",
    "conclude",
    "evaluated_engine",
    "load_run",
    "processors_of",
]
