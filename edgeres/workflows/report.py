"""A verdict to the files that people and CI read."""

from __future__ import annotations

from edgeres.core.artifacts import manifest_path
from edgeres.core.bench_requests import BenchInputs
from edgeres.core.tuning import Sensitivity
from edgeres.core.verdict import Verdict, load_history
from edgeres.files import append_line, check_outputs, write_report
from edgeres.images import Dataset, thumbnail
from edgeres.input_files import HISTORY, is_file
from edgeres.report import (
    Picture,
    check_html,
    render_html,
    render_junit,
    render_markdown,
    shown_flips,
)
from edgeres.serialization import json_line


def check_reports(inputs: BenchInputs) -> None:
    """Checks that the reports can be written, before anything is measured for them.

    Raises:
        ConfigError: a report would replace what is read, or another report.
        ArtifactError: a file cannot be written there.
        DependencyError: the HTML report's package is missing.
    """
    read = [inputs.engine, inputs.reference, inputs.data]
    read += [manifest_path(engine) for engine in (inputs.engine, inputs.reference)]
    read += [path for path in (inputs.baseline, inputs.dump, inputs.image) if path is not None]
    added = [] if inputs.history is None else [inputs.history]
    if is_read := inputs.history is not None and is_file(inputs.history, HISTORY):
        read += added
    check_outputs([] if is_read else added, read, reports=inputs.reports.wanted)
    if inputs.history is not None and is_read:
        # Before anything is measured: a line of something else is no history to add to.
        load_history(inputs.history)
    if inputs.reports.html is not None:
        check_html()


def write_reports(
    verdict: Verdict, inputs: BenchInputs, dataset: Dataset, sensitivity: Sensitivity | None
) -> None:
    """Writes the reports; the page gets pictures of the images whose label changed.

    Args:
        verdict: of the run.
        inputs: which reports are wanted, and where.
        dataset: the images that were evaluated.
        sensitivity: of the engine's blocks, where calibration measured it.

    Raises:
        ArtifactError: a file cannot be written.
        DataError: an image can no longer be read.
        DependencyError: the HTML report's package is missing.
    """
    files = inputs.reports
    if files.html is not None:
        # Only the images that the page shows are decoded once more, at their full size.
        images = {f.index: dataset.image(f.index) for f in shown_flips(verdict.accuracy)}
        page = render_html(
            verdict,
            pictures={
                index: Picture(jpeg=thumbnail(image), side=max(image.shape[:2]))
                for index, image in images.items()
            },
            sensitivity=sensitivity,
        )
        write_report(files.html, page)
    if files.markdown is not None:
        write_report(files.markdown, render_markdown(verdict))
    if files.junit is not None:
        write_report(files.junit, render_junit(verdict))
    if inputs.history is not None:
        append_line(inputs.history, json_line(verdict))
