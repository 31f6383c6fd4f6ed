"""The HTML report: complete, self-contained, escaped, bounded in size, readable in both schemes."""

from __future__ import annotations

import os
import random
import re
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from xml.etree import ElementTree

import pytest
from page_parts import Page
from rich.console import Console
from sample_verdict import (
    ACCURACY,
    BARE,
    CLASSES,
    DROP,
    FAILED,
    LATENCY,
    LOADGEN,
    LOST,
    METERED,
    PASSED,
    REGRESSION,
    SHAKEN,
    VERDICT,
    flips,
    named,
    picture,
    stats,
)
from verdict_parts import ENVIRONMENT, MACHINE

from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.tuning import ErrorSource, Sensitivity, UnitSensitivity
from edgeres.core.verdict import EXIT_UNSTABLE, Check, ClassDifference, Outcome, Verdict
from edgeres.errors import DependencyError
from edgeres.report import Picture, render_html, sensitivity_tables, shown_flips
from edgeres.report.html.flips import SHOWN

pytest.importorskip("jinja2", reason="jinja2, which renders the page, is not installed")

STYLES = Path(__file__).parents[2] / "edgeres" / "report" / "html" / "report.css"
SECTIONS = [
    "Verdict",
    "Accuracy",
    "Images whose label changed",
    "Classes",
    "Latency",
    "Network by precision",
    "Energy",
    "Environment and stability",
    "Provenance",
]
HOSTILE = "<script>alert(1)</script>\"'&"


def rendered(comparison: Verdict, sensitivity: Sensitivity | None = None) -> str:
    """Returns the page of a verdict with a picture for every image that it shows."""
    pictures = {flip.index: picture(flip.index) for flip in shown_flips(comparison.accuracy)}
    return render_html(named(comparison), pictures=pictures, sensitivity=sensitivity)


@pytest.fixture(scope="module")
def page() -> Page:
    """The page of a verdict with everything in it."""
    return Page(rendered(METERED))


def test_every_section_stands_in_order(page: Page) -> None:
    """The verdict first; the page is well nested, and each section has a heading that names it."""
    assert page.unbalanced == []
    assert page.source.startswith("<!doctype html>")
    titles = re.findall(r"<h2 [^>]*>([^<]+)</h2>", page.source)
    assert titles == SECTIONS
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {section["aria-labelledby"] for section in page.of("section")} <= ids
    assert {link["href"].removeprefix("#") for link in page.of("a")} <= ids


def test_nothing_leaves_the_page(page: Page) -> None:
    """No script, no address but pictures in the page and its own anchors, and a policy to match."""
    assert page.leaving == []
    assert page.of("script") == []
    policy = [m["content"] for m in page.of("meta") if "http-equiv" in m]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ('<img src="http://a/b.png">', "http://a/b.png"),
        ('<link href="style.css">', "style.css"),
        ("<style>@import 'c.css';</style>", "c.css"),
        ("<style>a { background: url(d.png) }</style>", "d.png"),
        ("<p style=\"background: url('//e/f')\"></p>", "//e/f"),
    ],
)
def test_an_address_that_leaves_would_be_found(source: str, address: str) -> None:
    """In an attribute, a style sheet or a style of one element."""
    assert Page(source).leaving == [address]


def test_names_are_written_as_they_are_and_never_run() -> None:
    """A script in the name of a file, a class, a layer, the engine, a warning and the command."""
    flip = replace(flips(1, 0, 0)[0], name=f"{HOSTILE}.jpg")
    hostile = replace(
        VERDICT,
        accuracy=replace(ACCURACY, flips=(flip,)),
        classes=tuple(f"{name} {HOSTILE}" for name in CLASSES),
        layers=tuple(replace(layer, name=f"/{HOSTILE}/x") for layer in VERDICT.layers),
        warnings=(HOSTILE,),
        environment=replace(ENVIRONMENT, machine=replace(MACHINE, cpu=HOSTILE)),
        checks=(replace(VERDICT.checks[0], name=HOSTILE, reason=HOSTILE),),
        provenance=replace(VERDICT.provenance, command=(HOSTILE,)),
    )
    page = Page(render_html(named(hostile, HOSTILE, HOSTILE)))
    assert page.of("script") == []
    assert page.unbalanced == []
    assert page.text.count("<script>alert(1)</script>") >= 10
    assert f"{HOSTILE}.jpg" in page.text


def test_each_outcome_has_its_word_and_its_colour() -> None:
    """In the title, in the badge and on the card; green is only where a limit was kept."""
    cases = {
        "PASS": (PASSED, True),
        "FAIL": (replace(VERDICT, checks=(LOST,)), False),
        "INCONCLUSIVE": (replace(VERDICT, checks=(DROP,)), False),
        "MEASURED": (replace(VERDICT, checks=()), False),
    }
    for word, (verdict, green) in cases.items():
        page = Page(rendered(verdict))
        assert f"<title>{word}: " in page.source
        assert f'<div class="badge">{word}</div>' in page.source
        assert len(page.with_class(word.lower())) == 1
        assert bool(page.with_class("mark-pass")) is green


def test_a_sound_machine_is_not_green() -> None:
    """It keeps no limit of the engine's: neither its check nor its section has the colour."""
    stable = Check(
        name="stability", limit=0, value=0, outcome=Outcome.PASS, exit_code=EXIT_UNSTABLE
    )
    page = Page(rendered(replace(VERDICT, checks=(stable,))))
    assert "stability at most 0 disturbances 0 disturbances ✓ pass" in page.text
    assert page.with_class("mark-pass") == page.with_class("pass") == []


def test_a_failed_verdict_says_why_first() -> None:
    """The word, then the sentence of the check that failed."""
    page = Page(rendered(FAILED))
    words = page.text
    start = words.index("FAIL", words.index("Verdict"))
    assert words[start:].startswith(
        "FAIL Accuracy drop misses its limit. Accuracy drop 0.231 pp, at least 0.12 pp (one-sided"
    )
    assert "accuracy drop bound below 0.1 pp 0.91 pp ✗ FAIL" in words
    assert "speedup at least 2 x 2.97 x ✓ pass" in words


def test_an_undecided_verdict_says_what_would_decide(page: Page) -> None:
    """The number of further images stands by itself, beside the reason."""
    words = page.text
    start = words.index("INCONCLUSIVE", words.index("Verdict"))
    assert words[start:].startswith(
        "INCONCLUSIVE The images cannot decide on accuracy drop. 1300 images cannot decide: accuracy drop 0.231 pp, -0.42 to 0.91 pp"
    )
    needed = "8,500 more images, about 9,800 in all, would show that the drop is below the limit."
    assert len(page.with_class("next-step")) == 1
    assert f"To decide: {needed}" in words
    assert "accuracy drop bound below 0.5 pp 0.91 pp ? INCONCLUSIVE" in words
    assert "Warning: 12 of the 1300 images were also used for calibration." in words


def test_a_passed_verdict_says_what_passed() -> None:
    """All checks are listed, and nothing is marked as failed."""
    page = Page(rendered(PASSED))
    assert (
        "PASS Speedup keeps its limit. 2.97 times as fast, at least the 2 requested." in page.text
    )
    assert page.with_class("fail") == page.with_class("mark-fail") == []


def test_what_is_missing_is_stated() -> None:
    """A simulated engine without limits: every section stands, with the reason why it is empty."""
    page = Page(rendered(BARE))
    for sentence in (
        "MEASURED No limit was set. simulated",
        "21 images changed sides; which ones was not recorded.",
        "No class has a newly wrong or newly correct image.",
        "Not measured: the engine was not run on its target, its accuracy was simulated",
        "The layers of this engine were not recorded.",
        "Energy Not measured.",
        "Not monitored: nothing was timed.",
    ):
        assert sentence in page.text
    assert page.unbalanced == []


def test_energy_or_its_reason_is_shown(page: Page) -> None:
    """The meter's figures of both networks, or the reason why there are none."""
    assert "No meter: neither a power rail nor NVML is here." in Page(rendered(VERDICT)).text
    assert "reference 0.026 38.5 7.6 5 100 1.0 engine 0.009 111 5.9 5 100 1.0" in page.text
    assert "J per image above idle, the reference 0.026 J; ina3221: VDD_IN." in page.text
    assert "No meter" not in page.text


def test_an_unstable_measurement_is_shown_beside_the_verdict(page: Page) -> None:
    """With the sentence of what disturbed; a mere warning stays among the environment."""
    assert page.with_class("warning") == [{"class": "warning"}]
    page = Page(rendered(SHAKEN))
    verdict, rest = page.text.split("Accuracy network", 1)
    assert "Unstable: The clocks fell." in verdict
    assert "✗ unstable" in rest


def test_flips_show_what_became_what(page: Page) -> None:
    """File, true class, both answers and how confident each was; the correct one is marked."""
    assert len(page.with_class("flip")) == 26
    assert [len(page.with_class(kind)) for kind in ("lost", "gained", "other")] == [12, 9, 5]
    card = page.source[page.source.index('class="flip lost"') :].split("</li>")[0]
    words = Page(card.replace('class="flip lost">', "")).text
    assert "animal 3 (3) val/animal 3/image_00011.jpg" in words
    assert "reference animal 3 (3) ✓ 79" in words
    assert "engine animal 5 (5) 51" in words
    assert 'alt="val/animal 3/image_00011.jpg"' in card


def test_a_picture_that_is_not_there_leaves_its_place() -> None:
    """The card stands without it."""
    page = Page(render_html(VERDICT))
    assert page.of("img") == []
    assert page.text.count("no picture") == 26


def test_many_flips_are_cut_with_a_word() -> None:
    """The worst are kept, and their number is stated."""
    many = replace(VERDICT, accuracy=replace(ACCURACY, flips=flips(200, 3, 0)))
    page = Page(rendered(many))
    assert len(page.with_class("lost")) == SHOWN
    assert f"The {SHOWN} of which the engine is most confident are shown, of 200" in page.text
    assert len(page.with_class("gained")) == 3
    sureness = [flip.engine.probability for flip in shown_flips(many.accuracy)[:SHOWN]]
    assert sureness == sorted(sureness, reverse=True)


def heavy() -> Verdict:
    """A verdict on 10,000 images that went as badly as can be: all changed, in 1,000 classes."""
    classes = tuple(f"a class with a rather long name, number {n}" for n in range(1000))
    by_class = tuple(
        ClassDifference(label=n, samples=10, gained=3, lost=4, p_value=1.0, q_value=1.0)
        for n in range(1000)
    )
    slow = stats(50.0, seed=3, start_ms=0.0, count=20_000)
    return replace(
        VERDICT,
        accuracy=replace(ACCURACY, flips=flips(4000, 3000, 3000), by_class=by_class),
        latency=replace(LATENCY, engine=slow, reference=slow),
        classes=classes,
        layers=VERDICT.layers * 20,
    )


def test_a_page_of_10000_images_stays_below_2_mb() -> None:
    """Every label changed, pictures as large as thumbnails of noise are, 20,000 samples each."""
    noise = os.urandom(6000)
    verdict = heavy()
    pictures = {flip.index: Picture(jpeg=noise, side=96) for flip in shown_flips(verdict.accuracy)}
    page = render_html(verdict, pictures=pictures)
    assert len(pictures) == 3 * SHOWN
    assert len(page.encode()) < 2_000_000


def test_every_drawing_is_well_formed_and_described(page: Page) -> None:
    """Interval, histogram, distribution and two time lines, each with a label of its figures."""
    drawings = [
        ElementTree.fromstring(drawing)
        for drawing in re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL)
    ]
    labels = [drawing.get("aria-label", "") for drawing in drawings]
    assert [drawing.get("role") for drawing in drawings] == ["img"] * 5
    assert labels[0].startswith("Drop of top-1 0.23 percentage points, 95 % interval -0.48 to 0.98")
    assert all(f"median {LATENCY.engine.p50_ms:.2f}"[:9] in label for label in labels[1:3])


def test_tables_and_pictures_can_be_read_aloud(page: Page) -> None:
    """Every header cell names what it heads, and every picture has a text."""
    assert {cell.get("scope") for cell in page.of("th")} == {"col", "row"}
    assert all(image["alt"] for image in page.of("img"))
    assert page.of("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def sensitivity_of(*units: tuple[str, float], sources: tuple[ErrorSource, ...] = ()) -> Sensitivity:
    """Returns a sensitivity of blocks, each with its name and the quality without it."""
    return Sensitivity(
        images=8,
        method=Method.MSE,
        all_db=20.0,
        units=tuple(
            UnitSensitivity(unit=u, kind="block", nodes=(), alone_db=30.0, without_db=db)
            for u, db in units
        ),
        sources=sources,
    )


def test_sensitivity_is_drawn_where_it_is_known() -> None:
    """The longest bar is the most sensitive block's; without any, that is stated."""
    measured = sensitivity_of(("layer1.0", 20.2), ("/layer2/layer2.1/Add", 20.8))
    page = Page(rendered(VERDICT, sensitivity=measured))
    widths = [a["style"] for _, a in page.elements if a.get("style", "").startswith("width")]
    assert widths[-2:] == ["width:25%", "width:100%"]
    assert "gain +0.80 dB" in page.text
    assert "Sensitivity of the blocks: not measured" in Page(rendered(VERDICT)).text


def test_sensitivity_has_the_figures_of_the_terminal() -> None:
    """A gain below zero too, which noise makes, with a bar of no length."""
    sources = (
        ErrorSource(name="image", tensors=0, alone_db=150.0),
        ErrorSource(name="residual stream", tensors=27, alone_db=29.38),
    )
    sensitivity = sensitivity_of(("layer1.0", 20.61), ("layer1.1", 19.97), sources=sources)
    console = Console(width=80)
    with console.capture() as printed:
        console.print(sensitivity_tables(sensitivity))
    page = Page(rendered(VERDICT, sensitivity=sensitivity))
    for gain in ("+0.61", "-0.03"):
        assert gain in printed.get()
        assert f"gain {gain} dB" in page.text
    widths = [a["style"] for _, a in page.elements if a.get("style", "").startswith("width")]
    assert widths[-2:] == ["width:100%", "width:0%"]
    for row in ("image 0 exact", "residual stream 27 29.4"):
        assert row in " ".join(printed.get().split())
        assert row in " ".join(page.text.split())


def test_a_stage_of_one_precision_is_folded() -> None:
    """With how much is in it; the head, in float, is one layer."""
    page = Page(rendered(VERDICT))
    assert page.of("details") == [{}] * 5
    assert "layer1 3 blocks: 9 int8 layers" in page.text
    assert "head 1 fp32 layer" in page.text
    layers = tuple(
        replace(one, precision=Precision.FP32) if one.name.startswith("/layer2/layer2.1") else one
        for one in VERDICT.layers
    )
    mixed = Page(rendered(replace(VERDICT, layers=layers)))
    assert [("open" in details) for details in mixed.of("details")] == [False] * 2 + [True] + [
        False
    ] * 2
    assert "layer2 3 blocks: 6 int8 layers, 3 fp32 layers" in mixed.text


def test_times_of_an_unstable_machine_are_grey() -> None:
    """Speed-up, latency and energy, with the word; accuracy is none of these."""
    tiles = Page(rendered(replace(METERED, stability=SHAKEN.stability))).with_class("unsure")
    assert len(tiles) == 3
    assert Page(rendered(METERED)).with_class("unsure") == []


def test_an_earlier_run_has_a_section_of_its_own() -> None:
    """With images, drop and latency since, or why latencies are not compared; else no section."""
    page = Page(rendered(replace(VERDICT, regression=REGRESSION)))
    assert (
        "baseline last_week flips since 6 newly wrong, 2 newly correct top-1 since drop 0.31"
        in page.text
    )
    assert "latency since 1.020 times, 95 % interval 0.990 to 1.050" in page.text
    apart = replace(REGRESSION, latency=None, latency_reason="Other machines.")
    other = Page(rendered(replace(VERDICT, regression=apart)))
    assert "not compared: Other machines." in other.text
    assert "Baseline" not in Page(rendered(VERDICT)).text


def test_loadgens_word_is_passed_on() -> None:
    """Its result with the reason; without a scenario there is no word of it."""
    words = Page(rendered(replace(VERDICT, loadgen=LOADGEN))).text
    assert "result INVALID: Too few queries. 90th percentile latency 6.14 ms" in words
    assert "LoadGen" not in Page(rendered(VERDICT)).text


def test_the_command_can_be_pasted(page: Page) -> None:
    """Words with spaces are quoted as a shell needs them."""
    assert "edgeres bench 'a b.onnx' --reference resnet20.onnx --data val" in page.text


def test_a_missing_package_is_reported_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jinja2 there is no page, and what to do about it."""
    monkeypatch.setattr("edgeres.report.html.page.is_installed", lambda name: False)
    with pytest.raises(DependencyError, match=r"pip install '\.\[report\]'"):
        rendered(VERDICT)


def colours(scheme: int) -> dict[str, str]:
    """Returns the style sheet's colours by name; scheme 0 is light, 1 is dark."""
    roots = re.findall(r":root \{(.*?)\}", STYLES.read_text(encoding="utf-8"), flags=re.DOTALL)
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", roots[scheme]))


def luminance(colour: str) -> float:
    """Returns the relative luminance. Source: WCAG 2.2, definition of relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """Returns the contrast ratio. Source: WCAG 2.2, definition of contrast ratio."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_measured_correctly() -> None:
    """Black on white is 21, and the grey that just passes on white is 4.54."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)


PAIRS = [
    *product(("ink", "faint", "engine", "reference", "pass", "fail"), ("card",)),
    *product(("ink", "faint", "engine"), ("page", "wash")),
    ("pass", "pass-wash"),
    ("fail", "fail-wash"),
    ("ink", "warn-wash"),
    ("warn", "warn-wash"),
    *((f"{name}-ink", name) for name in ("int8", "fp16", "fp32")),
]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_stand_out_from_their_ground(scheme: int) -> None:
    """Every pair of text and background has the 4.5 of WCAG's level AA, in both schemes."""
    known = colours(scheme)
    assert {pair: ratio for pair in PAIRS if (ratio := contrast(*map(known.get, pair))) < 4.5} == {}  # type: ignore[arg-type]


def test_every_colour_has_both_schemes() -> None:
    """A colour that only one scheme knew would show the other's."""
    assert set(colours(0)) == set(colours(1))


def test_the_same_verdict_gives_the_same_page() -> None:
    """To the byte, so that two reports can be compared."""
    random.seed()
    assert rendered(METERED) == rendered(METERED)
