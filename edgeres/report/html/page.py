"""A verdict as one HTML file that needs nothing else: no script, no font, no request.

The template has the words and their order, the style sheet the looks, the modules beside this
one the drawings. Every value is escaped by the template's engine; drawings are trees of
elements. A policy in the page forbids whatever would leave it.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edgeres import __version__
from edgeres.core.bench_requests import Decision
from edgeres.core.blocks import locate
from edgeres.core.verdict import (
    ClassDifference,
    FlipKind,
    LatencyStats,
    PairedAccuracy,
    PairedLatency,
    Verdict,
)
from edgeres.errors import DependencyError
from edgeres.report import words
from edgeres.report.checks import check_words, reasons
from edgeres.report.html import facts
from edgeres.report.html.flips import FlipGroup, Picture, flip_groups
from edgeres.report.html.interval import Gate, draw_interval
from edgeres.report.html.latency import MARKED, Timed, draw_ecdf, draw_histogram, draw_time_line
from edgeres.report.html.network import StageLayers, stages
from edgeres.report.table import SIGNIFICANCE

if TYPE_CHECKING:
    from jinja2 import Template

CLASSES_SHOWN = 12
"""Most classes in the table; those that differ most stand first."""

SECTIONS = (
    ("accuracy", "Accuracy"),
    ("flips", "Changed labels"),
    ("classes", "Classes"),
    ("latency", "Latency"),
    ("earlier", "Earlier run"),
    ("network", "Network"),
    ("energy", "Energy"),
    ("environment", "Environment"),
    ("provenance", "Provenance"),
)
"""Anchors and names of what follows the verdict; the earlier run only where one was given."""


def render_html(
    comparison: Verdict,
    *,
    engine: str,
    reference: str,
    pictures: Mapping[int, Picture] | None = None,
    sensitivity: Mapping[str, float] | None = None,
) -> str:
    """Returns the page.

    Args:
        comparison: the verdict.
        engine: name of the engine and where it ran.
        reference: name of the reference and where it ran.
        pictures: thumbnails of the images in `shown_flips`, by position in the data set.
        sensitivity: dB that quantizing costs the logits by block or layer, where measured.

    Raises:
        DependencyError: jinja2 is not installed.
    """
    drawn = stages(comparison.layers, sensitivity)
    return _template(comparison.classes).render(
        verdict=comparison,
        engine=engine,
        reference=reference,
        accuracy=comparison.accuracy,
        latency=comparison.latency,
        pictures=pictures or {},
        sections=[s for s in SECTIONS if s[0] != "earlier" or comparison.regression],
        reasons=reasons(comparison),
        checks=[check_words(check) for check in comparison.checks],
        footer=f"Written by edgeres {__version__}.",
        **_accuracy_part(comparison),
        **_latency_part(comparison.latency),
        **_network_part(comparison, drawn),
        **_background(comparison),
    )


def check_html() -> None:
    """Checks that a page can be rendered here, before long work is done for it.

    Raises:
        DependencyError: jinja2 is not installed.
    """
    if find_spec("jinja2") is None:
        raise DependencyError(
            "The HTML report needs jinja2, which is not installed. Install it with "
            "pip install 'edgeres[report]', or use --markdown instead of --report."
        )


def _template(classes: tuple[str, ...]) -> Template:
    """Returns the compiled template, which knows the names of the classes."""
    check_html()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = Environment(
        loader=PackageLoader("edgeres.report", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page.filters.update(
        percent=words.percent,
        pp=words.points,
        ms=words.milliseconds,
        count=words.count,
        figure="{:.3g}".format,
        moment=words.moment,
        probability=words.probability,
        class_name=partial(words.class_name, classes=classes),
        short_name=lambda layer: locate(layer.name, layer.op_type).layer,
    )
    return page.get_template("report.html.j2")


def _safe(svg: str) -> str:
    """Marks a drawing as HTML: it is a tree of elements written out, so nothing in it is raw."""
    from markupsafe import Markup

    return Markup(svg)


def _accuracy_part(comparison: Verdict) -> dict[str, Any]:
    accuracy = comparison.accuracy
    gate = _gate(comparison)
    return {
        "accuracy_facts": facts.accuracy_facts(accuracy),
        "gate": gate,
        "interval_chart": _safe(draw_interval(accuracy.drop_pp, accuracy.ci95_pp, gate)),
        "flips": _flips(accuracy),
        "classes_shown": accuracy.by_class[:CLASSES_SHOWN],
        "classes_sentence": _classes_sentence(accuracy.by_class),
    }


def _gate(comparison: Verdict) -> Gate | None:
    for check in comparison.checks:
        if check.name == "accuracy_drop":
            by_bound = check.rule == Decision.BOUND.value
            return Gate(limit_pp=check.limit, bound_pp=check.value if by_bound else None)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flips:
    groups: tuple[FlipGroup, ...]
    others: int
    """Images that both label wrongly, but differently."""
    absent: str
    """Why there is no image to show."""


def _flips(accuracy: PairedAccuracy) -> _Flips:
    changed = accuracy.gained + accuracy.lost
    return _Flips(
        groups=flip_groups(accuracy),
        others=sum(flip.kind is FlipKind.OTHER for flip in accuracy.flips),
        absent=f"{changed} images changed sides; which ones was not recorded."
        if changed
        else "No image changed its label.",
    )


def _classes_sentence(by_class: tuple[ClassDifference, ...]) -> str:
    if not by_class:
        return "No class gained or lost an image."
    shown = min(len(by_class), CLASSES_SHOWN)
    which = f"The {shown} that differ most are shown. " if len(by_class) > shown else ""
    real = sum(one.q_value < SIGNIFICANCE for one in by_class)
    found = f"{real} of them significantly" if real else "none of them significantly"
    return (
        f"{len(by_class)} classes gained or lost an image, {found}. {which}The q value is the p "
        "value after the correction for looking at every class (Benjamini and Hochberg)."
    )


def _latency_part(latency: PairedLatency | None) -> dict[str, Any]:
    if latency is None:
        return {"latency_facts": (), "charts": None}
    pair = _timed("reference", latency.reference), _timed("engine", latency.engine)
    recorded = [one for one in pair if one.at_s]
    end_s = max((at for one in recorded for at in one.at_s), default=0.0)
    return {
        "latency_facts": facts.latency_facts(latency),
        "charts": {
            "histogram": _safe(draw_histogram(pair)),
            "ecdf": _safe(draw_ecdf(pair)),
            "time_lines": [(one.role, _safe(draw_time_line(one, end_s))) for one in recorded],
            "marked": {one.role: min(len(one.outliers), MARKED) for one in pair},
            "blocks": all(one.blocks for one in pair),
        },
    }


def _timed(role: str, stats: LatencyStats) -> Timed:
    far = stats.outliers
    return Timed(
        role=role,
        samples_ms=stats.samples_ms,
        at_s=tuple(at / 1000 for at in stats.started_ms),
        blocks=stats.blocks,
        outliers=()
        if far is None
        else tuple(i for i, value in enumerate(stats.samples_ms) if value > far.limit_ms),
    )


def _network_part(comparison: Verdict, drawn: tuple[StageLayers, ...]) -> dict[str, Any]:
    counts = Counter(layer.precision.value for layer in comparison.layers)
    costs = [b.sensitivity for stage in drawn for b in stage.blocks if b.sensitivity is not None]
    return {
        "stages": drawn,
        "precisions": counts.most_common(),
        "float_reasons": facts.float_reasons(comparison.layers),
        "most_sensitive": max(costs, default=0.0),
    }


def _background(comparison: Verdict) -> dict[str, Any]:
    provenance, stability = comparison.provenance, comparison.stability
    regression, loadgen = comparison.regression, comparison.loadgen
    return {
        "loadgen_facts": facts.loadgen_facts(loadgen) if loadgen else (),
        "regression_facts": facts.regression_facts(regression) if regression else (),
        "disturbances": facts.disturbances(stability),
        "environment_facts": facts.environment_facts(comparison),
        "stability_facts": facts.stability_facts(stability) if stability else (),
        "provenance_facts": facts.provenance_facts(provenance),
        "command": shlex.join(provenance.command),
    }
