"""A verdict to the files that people and CI read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeres.core.artifacts import is_engine, load_engine
from edgeres.core.bench_requests import BenchConfig
from edgeres.core.table import load_table
from edgeres.core.tuning import Sensitivity
from edgeres.core.verdict import Verdict
from edgeres.errors import ConfigError
from edgeres.files import check_writable, whole_file
from edgeres.images import load_dataset, select, thumbnail
from edgeres.report import (
    Picture,
    check_html,
    render_html,
    render_junit,
    render_markdown,
    shown_flips,
)
from edgeres.workflows.bench_pair import BenchRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """Which reports are wanted, and where; None: not wanted."""

    html: Path | None = None
    markdown: Path | None = None
    junit: Path | None = None

    @property
    def wanted(self) -> tuple[Path, ...]:
        """The files to write."""
        return tuple(path for path in (self.html, self.markdown, self.junit) if path is not None)


def check_reports(files: ReportFiles, request: BenchRequest) -> None:
    """Checks that the reports can be written, before anything is measured for them.

    Raises:
        ConfigError: a report would replace what is read, or another report.
        ArtifactError: a file cannot be written there.
        DependencyError: the HTML report's package is missing.
    """
    if len({path.absolute() for path in files.wanted}) < len(files.wanted):
        raise ConfigError(
            f"Two reports would be written to {files.wanted[0]}. Give each a path of its own."
        )
    for path in files.wanted:
        check_writable(path, request.engine, request.reference, request.data)
    if files.html is not None:
        check_html()


def write_reports(
    verdict: Verdict, files: ReportFiles, request: BenchRequest, config: BenchConfig
) -> None:
    """Writes the reports; the page gets pictures of the images whose label changed.

    Args:
        verdict: what `bench_engine` returned for `request` and `config`.
        files: where to.
        request: says where the images are.
        config: says which of them were drawn.

    Raises:
        ArtifactError: a file cannot be written.
        DataError: an image can no longer be read.
        DependencyError: the HTML report's package is missing.
    """
    if files.html is not None:
        pictures = _pictures(verdict, request, config)
        found = _sensitivity(request)
        page = render_html(
            verdict,
            pictures=pictures,
            sensitivity=None if found is None else found.gains_db,
        )
        _save(files.html, page)
    if files.markdown is not None:
        _save(files.markdown, render_markdown(verdict))
    if files.junit is not None:
        _save(files.junit, render_junit(verdict))


def _sensitivity(request: BenchRequest) -> Sensitivity | None:
    """Returns what calibration measured of the engine's blocks; None where it did not."""
    if request.simulate:
        return load_table(request.engine).sensitivity
    if not is_engine(request.engine):
        return None
    return load_engine(request.engine).manifest.sensitivity


def _pictures(verdict: Verdict, request: BenchRequest, config: BenchConfig) -> dict[int, Picture]:
    flips = shown_flips(verdict.accuracy)
    if not flips:
        return {}
    dataset = select(load_dataset(request.data), config.samples, config.seed)
    images = ((flip.index, dataset.image(flip.index)) for flip in flips)
    return {
        index: Picture(jpeg=thumbnail(image), side=max(image.shape[:2])) for index, image in images
    }


def _save(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        # A file name that is no Unicode text is written with its bytes in \udc.. form.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
