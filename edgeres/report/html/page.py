"""A verdict as one HTML file that needs nothing else: no script, no font, no request.

The template has the words and their order, `facts` the sentences, the style sheet the looks, the
modules beside this one the drawings. Every value is escaped by the template's engine, every word
in a drawing where it is drawn. A policy in the page forbids whatever would leave it.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from edgeres.core.bench_requests import Decision
from edgeres.core.blocks import locate
from edgeres.core.tuning import Sensitivity
from edgeres.core.verdict import LatencyStats, PairedAccuracy, PairedLatency, Verdict
from edgeres.errors import DependencyError
from edgeres.installation import install_hint, is_installed
from edgeres.plurals import counted, plural
from edgeres.printable import printable
from edgeres.report import facts, outcomes, words
from edgeres.report.html.flips import Picture, flip_groups
from edgeres.report.html.interval import Gate, draw_interval
from edgeres.report.html.latency import MARKED, Timed, draw_ecdf, draw_histogram, draw_time_lines
from edgeres.report.html.network import stages
from edgeres.report.tuning import source_quality
from edgeres.version import __version__

CLASSES_SHOWN = 12
"""Most classes in the table; those that differ most stand first."""

SECTIONS = (
    ("accuracy", "Accuracy"),
    ("flips", "Changed labels"),
    ("classes", "Classes"),
    ("latency", "Latency"),
    ("baseline", "Baseline"),
    ("network", "Network"),
    ("energy", "Energy"),
    ("environment", "Environment"),
    ("provenance", "Provenance"),
)
"""Anchors and names of what follows the verdict; the baseline only where one was given."""


def render_html(
    verdict: Verdict,
    *,
    pictures: Mapping[int, Picture] | None = None,
    sensitivity: Sensitivity | None = None,
) -> str:
    """Returns the page.

    Args:
        verdict: with the names of engine and reference in its environment.
        pictures: thumbnails of the images in `shown_flips`, by position in the data set.
        sensitivity: what quantizing costs the logits, where measured.

    Raises:
        DependencyError: jinja2 is not installed.
    """
    check_html()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("edgeres.report", "html")
    # A name that the template misspells raises; by default it would leave an empty cell.
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_printable,
    )
    environment.globals.update(facts=facts, outcomes=outcomes)
    environment.filters.update(
        sentence=words.as_sentence,
        percent=words.percent,
        change=words.change,
        ms=words.milliseconds,
        count=words.count,
        plural=plural,
        figure="{:.3g}".format,
        source_quality=source_quality,
        moment=words.moment,
        probability=words.probability,
        class_name=partial(words.class_name, classes=verdict.classes),
        short_name=lambda layer: locate(layer.name, layer.op_type).layer,
    )
    accuracy, latency, gate = verdict.accuracy, verdict.latency, _gate(verdict)
    gains = None if sensitivity is None else sensitivity.gains_db
    grouped = stages(verdict.layers, gains)
    costs = [b.sensitivity for stage in grouped for b in stage.blocks if b.sensitivity is not None]
    return environment.get_template("report.html.j2").render(
        verdict=verdict,
        accuracy=accuracy,
        latency=latency,
        pictures=pictures or {},
        sections=[s for s in SECTIONS if s[0] != "baseline" or verdict.regression],
        change=facts.top1_change(accuracy.drop_pp, accuracy.ci95_pp),
        gate=gate,
        interval_chart=_markup(draw_interval(accuracy.drop_pp, accuracy.ci95_pp, gate)),
        flip_groups=flip_groups(accuracy),
        classes_shown=accuracy.by_class[:CLASSES_SHOWN],
        classes_sentence=_classes_sentence(accuracy),
        charts=None if latency is None else _charts(latency),
        stages=grouped,
        precisions=Counter(layer.precision.value for layer in verdict.layers).most_common(),
        most_sensitive=max(costs, default=0.0),
        sensitivity=sensitivity,
        command=shlex.join(verdict.provenance.command),
        footer=f"Written by edgeres {__version__}.",
    )


def check_html() -> None:
    """Checks that a page can be rendered here, before long work is done for it.

    Raises:
        DependencyError: jinja2 is not installed.
    """
    if not is_installed("jinja2"):
        raise DependencyError(
            f"The HTML report needs jinja2, which is not installed. {install_hint('jinja2')} "
            "Or use --markdown instead of --report."
        )


def _printable(value: object) -> object:
    """Returns what a template writes: text without characters that a page would obey."""
    # Drawings are markup, and their words were escaped when they were drawn.
    return printable(value, keep="\n\t") if type(value) is str else value


def _markup(svg: str) -> str:
    """Marks a drawing as HTML: its words were escaped when they were drawn."""
    from markupsafe import Markup

    return Markup(svg)


def _gate(verdict: Verdict) -> Gate | None:
    """Returns the limit of the drop, and the bound where the check compares the bound with it."""
    for check in verdict.checks:
        if check.name == "accuracy_drop":
            by_bound = check.rule == Decision.BOUND.value
            return Gate(limit_pp=check.limit, bound_pp=check.value if by_bound else None)
    return None


def _classes_sentence(accuracy: PairedAccuracy) -> str:
    by_class, significant = accuracy.by_class, len(facts.different_classes(accuracy))
    if not by_class:
        return "No class has a newly wrong or newly correct image."
    shown = min(len(by_class), CLASSES_SHOWN)
    which = f"The {shown} that differ most are shown. " if len(by_class) > shown else ""
    return (
        f"Newly wrong or newly correct images in {counted(len(by_class), 'class')}, "
        f"{significant or 'none'} of them significantly. {which}The q value is the p value "
        "corrected for the number of classes (Benjamini and Hochberg)."
    )


def _charts(latency: PairedLatency) -> dict[str, Any]:
    """Returns the drawings of latency, and what their captions depend on."""
    pair = _timed("reference", latency.reference), _timed("engine", latency.engine)
    recorded = [one for one in pair if one.at_s]
    lines = draw_time_lines(recorded) if recorded else []
    return {
        "histogram": _markup(draw_histogram(pair)),
        "ecdf": _markup(draw_ecdf(pair)),
        "time_lines": [(one.role, _markup(svg)) for one, svg in zip(recorded, lines, strict=True)],
        "marked": {one.role: min(len(one.outliers), MARKED) for one in pair},
        "blocks": all(one.blocks for one in pair),
    }


def _timed(role: str, stats: LatencyStats) -> Timed:
    limit_ms = float("inf") if stats.outliers is None else stats.outliers.limit_ms
    return Timed(
        role=role,
        samples_ms=stats.samples_ms,
        at_s=tuple(at / 1000 for at in stats.started_ms),
        blocks=stats.blocks,
        outliers=tuple(i for i, value in enumerate(stats.samples_ms) if value > limit_ms),
    )
