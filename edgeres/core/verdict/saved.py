"""Verdicts read back from the JSON of `bench --json`, as far as a later run is compared with them.

A key that nothing here reads is no damage: a later edgeres may write more of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from edgeres.core.verdict.accuracy import ImageRecord
from edgeres.core.verdict.latency import Interval, LatencyStats, PairedLatency, Throughput
from edgeres.core.verdict.outcome import Outcome
from edgeres.core.verdict.past import PastRun, Platform, processors_of
from edgeres.core.verdict.provenance import Provenance
from edgeres.core.verdict.verdict import Energies, Verdict
from edgeres.input_files import HISTORY, read_bytes
from edgeres.machine import StabilityFinding, disturbing
from edgeres.machine.board_names import jetson_named
from edgeres.plurals import counted
from edgeres.serialization import SCHEMA_VERSION, load_document, read_document


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedTop1:
    """Top-1 accuracy of the engine."""

    top1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedAccuracy:
    """Accuracy of the engine and, image by image, of both networks."""

    samples: int
    engine: SavedTop1
    drop_pp: float
    ci95_pp: Interval
    images: ImageRecord

    def __post_init__(self) -> None:
        # Both networks' records are of one length already; see ImageRecord.
        if not 1 <= self.samples == len(self.images.engine):
            raise ValueError(
                f"{self.samples} samples and a record of {counted(len(self.images.engine), 'image')}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedMachine:
    """The machine that it was reached on."""

    cpu: str | None
    gpus: tuple[str, ...]
    board: str | None = None
    memory_mib: int | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSample:
    """The machine at one moment."""

    power_mode: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedStability:
    """What disturbed the measurement."""

    findings: tuple[StabilityFinding, ...]
    samples: tuple[SavedSample, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedVerdict:
    """Those parts of a verdict that a later one is compared with."""

    kind: ClassVar[str] = Verdict.kind
    schema_version: ClassVar[int] = SCHEMA_VERSION

    passed: bool
    accuracy: SavedAccuracy
    latency: PairedLatency | None
    energy: Energies | None
    environment: SavedMachine
    provenance: Provenance
    stability: SavedStability | None
    outcome: Outcome | None = None
    """None where it was written before there were outcomes."""
    throughput: Throughput | None = None

    def __post_init__(self) -> None:
        if self.latency is not None:
            _check_blocks("latency", self.latency.engine, self.latency.reference)
        if self.throughput is not None and (run := self.throughput.measured) is not None:
            _check_blocks("throughput", run.engine, run.reference)


def _check_blocks(name: str, engine: LatencyStats, reference: LatencyStats) -> None:
    """Checks that two networks were interleaved: a ratio needs both in each block that is drawn."""
    blocks, others = (len(set(stats.blocks)) for stats in (engine, reference))
    if not blocks or blocks != others:
        raise ValueError(
            f"{name} in {counted(blocks, 'block')} of the engine and {others} of the reference"
        )


_NO_ENGINE = frozenset({"edgeres", "numpy"})
"""Recorded versions of what neither writes nor runs an engine."""


def load_run(path: Path) -> PastRun:
    """Reads what `bench --json` printed into a file.

    Raises:
        ArtifactError: the file is unreadable, or no verdict of this version.
    """
    return _past_run(load_verdict(path), path.stem)


def load_history(path: Path) -> tuple[PastRun, ...]:
    """Reads the runs that `bench --history` wrote, in order; each is named by file and line.

    What a run that was killed left behind the last line is passed over.

    Raises:
        ArtifactError: the file is unreadable, or a line is no verdict of this version.
    """
    *lines, rest = read_bytes(path, HISTORY).split(b"\n")
    # A verdict that another tool put on one line may have no line break behind it.
    if rest.rstrip().endswith(b"}"):
        lines.append(rest)
    remedy = f"Remove that line, or pass another file than {path.name}."
    runs = []
    for number, line in enumerate(lines, 1):
        verdict = read_document(line, SavedVerdict, source=f"{path}, line {number}", remedy=remedy)
        runs.append(_past_run(verdict, f"{path.stem}:{number}"))
    return tuple(runs)


def load_baselines(path: Path) -> tuple[PastRun, ...]:
    """Reads the run of a verdict, or all of a history.

    Raises:
        ArtifactError: the file is unreadable, or holds no verdicts of this version.
    """
    # A verdict's own file has its JSON on many lines, so that the first one is only its bracket;
    # one that another tool put on a single line has no other.
    first, _, others = read_bytes(path, HISTORY).partition(b"\n")
    is_history = first.strip().startswith(b"{") and len(first.strip()) > 1 and others
    return load_history(path) if is_history else (load_run(path),)


def _past_run(verdict: SavedVerdict, name: str) -> PastRun:
    accuracy, provenance, energy = verdict.accuracy, verdict.provenance, verdict.energy
    findings = () if verdict.stability is None else verdict.stability.findings
    return PastRun(
        name=name,
        engine=Path(provenance.engine.path).name,
        target=provenance.target,
        precision=provenance.precision,
        passed=verdict.passed,
        outcome=verdict.outcome,
        samples=accuracy.samples,
        top1=accuracy.engine.top1,
        drop_pp=accuracy.drop_pp,
        ci95_pp=accuracy.ci95_pp,
        images=accuracy.images,
        reference_sha256=provenance.reference.sha256,
        machine=processors_of(verdict.environment.cpu, verdict.environment.gpus),
        platform=_platform(verdict),
        latency=verdict.latency,
        disturbances=tuple(one.sentence for one in disturbing(findings)),
        joules_per_image=None if energy is None else energy.engine.joules_per_image,
        started=provenance.started,
        engine_sha256=provenance.engine.sha256,
        model_sha256=provenance.model_sha256,
        emulated=None if provenance.emulated is None else str(provenance.emulated.destination),
        measured_throughput=None if verdict.throughput is None else verdict.throughput.measured,
    )


def _platform(verdict: SavedVerdict) -> Platform:
    machine = verdict.environment
    board = machine.board and (jetson_named(machine.board, machine.memory_mib) or machine.board)
    samples = () if verdict.stability is None else verdict.stability.samples
    versions = {**verdict.provenance.versions, **machine.versions}
    return Platform(
        kind=board or processors_of(machine.cpu, machine.gpus),
        power_mode=next((each.power_mode for each in samples if each.power_mode), None),
        versions={n: text for n, text in versions.items() if text and n not in _NO_ENGINE},
    )


def load_verdict(path: Path) -> SavedVerdict:
    """Reads a verdict, as far as later stages need it.

    Raises:
        ArtifactError: the file is unreadable, or no verdict of this version.
    """
    remedy = f"Run it again: edgeres bench ... --json > {path.name}"
    return load_document(path, SavedVerdict, remedy=remedy, partial=True)
