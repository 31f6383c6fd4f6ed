"""The HTML report in a real browser: nothing complains, is fetched, sticks out or overlaps."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import BROWSER, sweep, verdicts, visit
from sample_verdict import (
    ACCURACY,
    METERED,
    REGRESSION,
    SHAKEN,
    named,
    picture,
)

from edgeres.networks.explain import explain_architecture
from edgeres.report import (
    Line,
    Plot,
    draw_network_svg,
    draw_plot_svg,
    render_html,
    shown_flips,
    sweep_page,
)

pytest.importorskip("jinja2", reason="jinja2, which renders the page, is not installed")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

SILENT = "<!doctype html><title>t</title><link rel=icon href='data:,'><p>words</p>"

MEASURE = """<!doctype html><meta charset=utf-8><pre id=result></pre>
<script>
function boxes(root, page) {
  const walk = page.createTreeWalker(root, NodeFilter.SHOW_TEXT), found = [];
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    if (!node.data.trim() || !node.parentElement.checkVisibility()) continue;
    const range = page.createRange();
    range.selectNodeContents(node);
    const words = node.data.trim().slice(0, 30);
    for (const r of range.getClientRects()) if (r.width && r.height) found.push({r, words});
  }
  return found;
}
function touching(root, page) {
  const all = boxes(root, page), pairs = [];
  all.forEach((a, i) => all.slice(i + 1).forEach(b => {
    const wide = Math.min(a.r.right, b.r.right) - Math.max(a.r.left, b.r.left);
    const high = Math.min(a.r.bottom, b.r.bottom) - Math.max(a.r.top, b.r.top);
    // Boxes of lines are higher than their letters, and a word may end where the next begins.
    if (wide > 1 && high > 3) pairs.push(a.words + " | " + b.words);
  }));
  return pairs;
}
function measured(frame) {
  const page = frame.contentDocument, width = page.documentElement.clientWidth;
  const out = e => e.getBoundingClientRect().right > width + 1 && !e.closest(".scroll, svg");
  const over = [...page.querySelectorAll("body *")].filter(out).map(e => e.outerHTML.slice(0, 80));
  const words = [...page.querySelectorAll("svg text")].map(e => {
    const m = e.getScreenCTM();
    return Math.hypot(m.a, m.b) * parseFloat(getComputedStyle(e).fontSize);
  });
  const scroll = page.documentElement.scrollWidth;
  const overlaps = [...page.querySelectorAll("section")].flatMap(s => touching(s, page));
  const cut = [...page.querySelectorAll("svg text")].filter(e => {
    const word = e.getBoundingClientRect(), sheet = e.ownerSVGElement.getBoundingClientRect();
    return word.right > sheet.right + 1 || word.left < sheet.left - 1;
  }).map(e => e.textContent);
  const name = frame.title;
  return {name, width, scroll, over, overlaps, cut, smallest: Math.min(99, ...words)};
}
function loaded(frame) { result.textContent += JSON.stringify(measured(frame)) + "\\n"; }
</script>
"""
"""Notes of each frame: widths, what is wider than it, words that touch, words that leave their
drawing, the smallest letters of drawings."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it, and with names that are long."""
    long = "a" * 150
    flips = tuple(replace(flip, name=f"{long}/{flip.name}") for flip in ACCURACY.flips)
    verdict = replace(
        METERED,
        stability=SHAKEN.stability,
        regression=REGRESSION,
        accuracy=replace(ACCURACY, flips=flips),
        classes=tuple(f"{name} {long}" for name in METERED.classes),
    )
    pictures = {flip.index: picture(flip.index) for flip in shown_flips(ACCURACY)}
    path = tmp_path_factory.mktemp("report") / "report.html"
    page = render_html(named(verdict, f"{long}.onnx"), pictures=pictures)
    path.write_text(page, encoding="utf-8")
    return path


def test_a_browser_has_nothing_to_complain_of(report: Path) -> None:
    """No line on the console, no request, and the last section is there."""
    visited = visit(report)
    assert visited.complaints == ()
    assert visited.requests == ()
    assert "The command that repeats it" in visited.dom


def test_a_complaint_and_a_request_would_be_noticed(tmp_path: Path) -> None:
    """A page that does both, against one that does neither."""
    bad, good = tmp_path / "bad.html", tmp_path / "good.html"
    bad.write_text(
        SILENT + '<img src="http://127.0.0.1:9/x.png"><script>console.error("seeded")</script>',
        encoding="utf-8",
    )
    good.write_text(SILENT, encoding="utf-8")
    visited = visit(bad)
    assert [("seeded" in line) for line in visited.complaints] == [True]
    assert visited.requests == ("http://127.0.0.1:9/x.png",)
    quiet = visit(good)
    assert (quiet.complaints, quiet.requests) == ((), ())


def measures(folder: Path, pages: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns the notes of pages at 390 and 1280 pixels."""
    frames = ""
    for number, (name, page) in enumerate(pages.items()):
        (folder / f"{number}.html").write_text(page, encoding="utf-8")
        frames += "".join(
            f'<iframe title="{name}" onload="loaded(this)" src="{number}.html" '
            f'style="border:0;width:{width}px;height:700px"></iframe>'
            for width in (390, 1280)
        )
    wrapper = folder / "wrapper.html"
    wrapper.write_text(MEASURE + frames, encoding="utf-8")
    # Scripts of one file may look into another only where the browser is started so.
    visited = visit(wrapper, "--disable-web-security", "--allow-file-access-from-files")
    output = re.search(r'<pre id="result">(.*?)</pre>', visited.dom, flags=re.DOTALL)
    assert output is not None
    sizes = [json.loads(html.unescape(line)) for line in output[1].split("\n") if line]
    assert len(sizes) == 2 * len(pages)
    return sizes


def test_every_verdict_fits_a_phone_and_a_desk(report: Path) -> None:
    """At 390 and 1280 pixels nothing sticks out, no words touch, and drawings stay legible."""
    pages = {name: render_html(named(one)) for name, one in verdicts().items()}
    pages["long names"] = report.read_text(encoding="utf-8")
    pages["sweep"] = sweep_page(sweep())
    for one in measures(report.parent, pages):
        assert one["over"] == [], one
        assert one["overlaps"] == [], one
        assert one["scroll"] <= one["width"]
        assert one["smallest"] >= 9.5


def test_words_of_drawings_do_not_touch(tmp_path: Path) -> None:
    """Networks of every kind of block, and a plot whose lines have long names."""
    names = ("resnet18", "resnet152", "wide_resnet50_2", "resnext101_32x8d", "plain20")
    drawings = {name: draw_network_svg(explain_architecture(name)) for name in names}
    lines = tuple(
        Line(label=f"onnxruntime.int8.percentile-99.99.{number}", points=((0, 1), (1, number + 2)))
        for number in range(6)
    )
    drawings["plot"] = draw_plot_svg(Plot(title="t", x_label="x", y_label="y", lines=lines))
    pages = {
        name: f"<!doctype html><title>t</title><section>{svg[svg.index('<svg') :]}</section>"
        for name, svg in drawings.items()
    }
    for one in measures(tmp_path, pages):
        assert one["overlaps"] == [], one
        assert one["cut"] == [], one


def test_words_that_touch_would_be_noticed(tmp_path: Path) -> None:
    """One pair, and none where they stand apart."""
    lines = "<section><p>first</p><p style='margin-top:{}px'>second</p></section>"
    style = "<title>t</title><style>p { margin: 0; line-height: 20px }</style>"
    pages = {str(gap): "<!doctype html>" + style + lines.format(gap) for gap in (-12, 4)}
    found = {one["name"]: one["overlaps"] for one in measures(tmp_path, pages)}
    assert found == {"-12": ["first | second"], "4": []}
