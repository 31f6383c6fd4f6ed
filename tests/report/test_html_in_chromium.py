"""The HTML report in a real browser: nothing complains, nothing is fetched, nothing sticks out."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sample_verdict import ACCURACY, METERED, REGRESSION, SHAKEN, named, picture

from edgeres.report import render_html, shown_flips

pytest.importorskip("jinja2", reason="jinja2, which renders the page, is not installed")

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in _BROWSERS if (path := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

SILENT = "<!doctype html><title>t</title><link rel=icon href='data:,'><p>words</p>"

MEASURE = """<!doctype html><meta charset=utf-8><pre id=result></pre>
<script>
function measured(frame) {
  const page = frame.contentDocument, width = page.documentElement.clientWidth;
  const out = e => e.getBoundingClientRect().right > width + 1 && !e.closest(".scroll, svg");
  const over = [...page.querySelectorAll("body *")].filter(out).map(e => e.outerHTML.slice(0, 80));
  const words = [...page.querySelectorAll("svg text")].map(e => {
    const m = e.getScreenCTM();
    return Math.hypot(m.a, m.b) * parseFloat(getComputedStyle(e).fontSize);
  });
  const scroll = page.documentElement.scrollWidth;
  return {width, scroll, over, smallest: Math.min(...words)};
}
function loaded(frame) { result.textContent += JSON.stringify(measured(frame)) + "\\n"; }
</script>
"""
"""Notes of each frame: widths, what is wider than it, and the smallest letters of drawings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What a browser did with a page."""

    dom: str
    complaints: tuple[str, ...]
    """Lines that the page wrote to the console, errors of its policy included."""
    requests: tuple[str, ...]
    """Addresses outside the file that the page requested."""


def visit(page: Path, *options: str) -> Visit:
    """Opens a page without a window."""
    assert BROWSER is not None
    log = page.parent / "network.json"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    flags += [f"--user-data-dir={page.parent / 'profile'}", "--enable-logging=stderr"]
    command = [BROWSER, *flags, f"--log-net-log={log}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Visit(
        dom=done.stdout,
        complaints=tuple(re.findall(r"CONSOLE.*", done.stderr)),
        requests=requested_by(log),
    )


def requested_by(log: Path) -> tuple[str, ...]:
    """Returns the addresses that a page, not the browser itself, requested."""
    events = json.loads(log.read_text(encoding="utf-8"))
    start = events["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = (event.get("params", {}) for event in events["events"] if event["type"] == start)
    own = "not an origin"
    return tuple(job["url"] for job in jobs if job.get("initiator", own) != own)


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


def test_it_fits_a_phone_and_a_desk(report: Path) -> None:
    """At 390 and 1280 pixels nothing sticks out, and letters in drawings stay legible."""
    frames = "".join(
        f'<iframe onload="loaded(this)" src="{report.name}" '
        f'style="border:0;width:{width}px;height:700px"></iframe>'
        for width in (390, 1280)
    )
    wrapper = report.parent / "wrapper.html"
    wrapper.write_text(MEASURE + frames, encoding="utf-8")
    # Scripts of one file may look into another only where the browser is started so.
    visited = visit(wrapper, "--disable-web-security", "--allow-file-access-from-files")
    output = re.search(r'<pre id="result">(.*?)</pre>', visited.dom, flags=re.DOTALL)
    assert output is not None
    sizes = [json.loads(html.unescape(line)) for line in output[1].split("\n") if line]
    assert len(sizes) == 2
    for one in sizes:
        assert one["over"] == []
        assert one["scroll"] <= one["width"]
        assert one["smallest"] >= 9.5
