"""An engine, its reference and labelled images to a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import datetime, timezone

import numpy as np

from edgeres.batch_independence import IMAGES, check_batch_independence
from edgeres.core.bench_requests import BenchInputs, BenchRequest
from edgeres.core.verdict import (
    Environment,
    PastRun,
    RunGroup,
    Verdict,
    load_baselines,
)
from edgeres.evaluation.compare import paired_accuracy
from edgeres.evaluation.evaluate import Outcomes, evaluate_pair, take_outcomes
from edgeres.evaluation.fed_tensor import compare_fed_tensor
from edgeres.evaluation.history import last_matching
from edgeres.evaluation.regression import check_same_images
from edgeres.evaluation.saved_outcomes import join_outcomes
from edgeres.evaluation.verdict import concluded
from edgeres.images import (
    Dataset,
    batches,
    check_labels,
    class_order_note,
    distinct_images,
    frame_pixels,
    load_dataset,
    load_tensor,
    noting_turned,
    order_classes,
    select,
    take,
    turned_note,
)
from edgeres.machine import NoEnergy, describe_machine, several_kinds_note
from edgeres.progress import Progress, silent, tracked_batches
from edgeres.targets.runner import AnyBatch
from edgeres.workflows.bench_pair import BenchPair, load_pair
from edgeres.workflows.board_estimate import beside_estimate
from edgeres.workflows.measure import check_measurable, drive, measure, profile
from edgeres.workflows.report import check_reports, write_reports
from edgeres.workflows.validity import check_validity


def bench_engine(
    inputs: BenchInputs, config: BenchRequest, *, progress: Progress = silent
) -> Verdict:
    """Returns the verdict on an engine: accuracy and latency against the reference.

    Args:
        inputs: engine, reference, images, and the reports to write.
        config: limits, and how is measured.
        progress: receives how far each pass over the images is.

    Raises:
        MismatchError: the engine does not belong to the reference, the images or this machine.
        DataError: the images or labels cannot be used.
        RunnerError: inference failed or gave NaN, or logits of the reference, or of an engine that
            another tool made, depend on the batch.
        ConfigError: a limit that nothing will be measured for, or a report in the place of a file
            that is read.
        ArtifactError: files cannot be read or written.
        DependencyError: LoadGen or the HTML report is requested, and its package is missing.
    """
    check_measurable(inputs, config)
    check_reports(inputs)
    # In UTC, so that runs of machines in several time zones can be put in order.
    started = datetime.now(timezone.utc)
    # Read before anything is run, so that a damaged baseline costs no minutes.
    baselines = () if inputs.baseline is None else load_baselines(inputs.baseline)
    pair = load_pair(inputs, config)
    as_stored = load_dataset(inputs.data)
    labelled = order_classes(as_stored, pair.engine.classes)
    order_notes = [] if labelled is as_stored else [class_order_note(labelled)]
    notes = [
        *pair.engine.notes,
        *_reference_notes(pair),
        *order_notes,
        *_fed_tensor_notes(inputs, pair),
        *_emulation_notes(pair),
    ]
    # All labels, not only those that are sampled: whether bench accepts data depends on no seed.
    check_labels(labelled, pair.engine.num_classes, pair.engine.classes)
    dataset = select(labelled, config.samples, config.seed)
    batch_size, latency_batch = pair.batches(config)
    machine = describe_machine()
    with pair.reference.runner as reference, pair.engine.runner as engine:
        _check_batches(pair, dataset)
        outcomes = _evaluate(inputs, pair, dataset, batch_size, notes, progress)
        # Before minutes of timing: a baseline on other images ends the run here.
        group = pair.group(config, outcomes.fingerprint, machine)
        baseline = _baseline(baselines, group, inputs)
        measured = measure(pair, dataset, config, latency_batch, progress)
        rows = profile(pair, dataset, config, latency_batch, progress)
        loadgen = drive(pair, dataset, config.loadgen, inputs.loadgen_logs, progress)
        validity = check_validity(pair, labelled, outcomes, config, tuple(notes), progress)
    verdict = Verdict(
        accuracy=paired_accuracy(outcomes, dataset.image_name),
        environment=Environment(
            machine=machine, engine_name=engine.name, reference_name=reference.name
        ),
        provenance=pair.provenance(inputs, outcomes, seed=config.seed, started=started),
        latency=measured.latency,
        measured_throughput=measured.throughput,
        stability=measured.stability,
        energy=None if isinstance(measured.energy, NoEnergy) else measured.energy,
        energy_reason=measured.energy.reason if isinstance(measured.energy, NoEnergy) else None,
        loadgen=loadgen,
        layers=pair.engine.layers,
        classes=pair.engine.classes,
        profile=rows,
        estimate=beside_estimate(pair, config.timing, measured, machine),
    )
    verdict = concluded(
        verdict, config, coverage=pair.engine.checks, validity=validity, baseline=baseline
    )
    write_reports(verdict, inputs, dataset, pair.engine.sensitivity)
    return verdict


def _baseline(runs: Sequence[PastRun], group: RunGroup, inputs: BenchInputs) -> PastRun | None:
    """Returns the run of a verdict, or the last one of a history that this run compares with."""
    if not runs:
        return None
    run = runs[0] if len(runs) == 1 else last_matching(runs, group, str(inputs.baseline))
    check_same_images(group.images, run)
    return run


def _evaluate(
    inputs: BenchInputs,
    pair: BenchPair,
    dataset: Dataset,
    batch_size: int,
    notes: list[str],
    progress: Progress,
) -> Outcomes:
    """Returns the predictions of both on distinct images, and notes what was turned or left out."""
    if inputs.outcomes:
        outcomes, turned = _joined(inputs, pair, dataset, notes)
    else:
        outcomes, turned = evaluate_images(pair, dataset, batch_size, progress)
    if turned:
        notes.append(turned_note(dataset, turned, pair.contract))
    distinct = distinct_images(outcomes.hashes, outcomes.labels)
    if distinct.all_used:
        return outcomes
    notes.append(distinct.sentence(dataset.image_name))
    return take_outcomes(outcomes, distinct.rows)


def evaluate_images(
    pair: BenchPair, dataset: Dataset, batch_size: int, progress: Progress
) -> tuple[Outcomes, Sequence[int]]:
    """Returns what an open pair predicts, and the positions of images that EXIF turns."""
    turned: list[int] = []
    emulated = pair.engine.emulated
    with ExitStack() as streams:
        stream, own = (
            None
            if contract is None
            else streams.enter_context(closing(batches(dataset, contract, batch_size=batch_size)))
            for contract in (pair.contract, None if emulated is None else emulated.contract)
        )
        noted = noting_turned(stream or (), turned)
        outcomes = evaluate_pair(
            AnyBatch(pair.reference.runner, pair.reference.batch),
            AnyBatch(pair.engine.runner, pair.engine.batch),
            tracked_batches(noted, len(dataset), "Evaluating", progress),
            engine_batches=own,
            probabilities=pair.reference.gives_probabilities,
        )
    return outcomes, turned


def _reference_notes(pair: BenchPair) -> Iterator[str]:
    """Yields what a drop is measured against, where that is not the FP32 model."""
    if lowered := pair.reference.lowered:
        yield (
            f"The reference is {lowered}: the drop is against it, and not what was lost since FP32."
        )


def _emulation_notes(pair: BenchPair) -> Iterator[str]:
    """Yields what a verdict on emulated preprocessing measured."""
    if (emulated := pair.engine.emulated) is not None:
        same = emulated.contract == pair.contract
        yield (
            f"The engine's images were prepared as {emulated.destination} does, emulated on the "
            f"CPU: {emulated.contract}. "
            + (
                "That is its contract, so the drop is of the engine alone."
                if same
                else f"The reference's were prepared by the contract: {pair.contract}. The drop is "
                "of the engine and of this approximation together."
            )
        )


def _joined(
    inputs: BenchInputs, pair: BenchPair, dataset: Dataset, notes: list[str]
) -> tuple[Outcomes, Sequence[int]]:
    """Returns the outcomes of parts, evaluated before; adds to `notes` if machines differed."""
    assert dataset.labels is not None
    joined = join_outcomes(
        inputs.outcomes,
        engine_sha256=pair.engine.sha256,
        reference_sha256=pair.reference.sha256,
        labels=dataset.labels,
    )
    if len(joined.machines) > 1:
        notes.append(several_kinds_note(joined.machines))
    return joined.outcomes, joined.turned


def _check_batches(pair: BenchPair, dataset: Dataset) -> None:
    """Checks that models and engines of other tools, open, give an image one row of logits."""
    few = take(dataset, np.arange(min(IMAGES, len(dataset))))
    with closing(batches(few, pair.contract, batch_size=IMAGES)) as stream:
        images = np.concatenate([batch.images for batch in stream])
    for each in (pair.reference, pair.engine):
        if each.batch_tolerance is not None:
            check_batch_independence(
                AnyBatch(each.runner, each.batch).infer,
                images,
                name=each.runner.name,
                tolerance=each.batch_tolerance,
            )


def _fed_tensor_notes(inputs: BenchInputs, pair: BenchPair) -> Iterator[str]:
    """Yields how what another program fed to its engine differs from the contract."""
    if inputs.dump is not None and inputs.image is not None:
        library = pair.contract.resize.library
        pixels = frame_pixels(inputs.image, None, name=str(inputs.image), library=library)
        tensor = load_tensor(inputs.dump)
        yield compare_fed_tensor(tensor, pixels, pair.contract, name=str(inputs.dump))
