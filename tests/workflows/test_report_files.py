"""From a verdict to its reports: checked before work, written whole, with the right pictures."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from commands import run
from digits import QUICK, Digits
from PIL import Image

from edgeres.core.bench_requests import BenchInputs, BenchRequest, ReportFiles
from edgeres.core.verdict import Answer, Flip, Verdict
from edgeres.errors import ArtifactError, ConfigError, DependencyError
from edgeres.images import load_dataset, select
from edgeres.workflows import bench_engine
from edgeres.workflows.report import check_reports, write_reports

pytest.importorskip("jinja2", reason="jinja2, which renders the page, is not installed")

QUICK_CONFIG = BenchRequest(samples=50, seed=3, iterations=2, warmup=0, energy=False)


def inputs_of(digits: Digits, **reports: Path) -> BenchInputs:
    """Returns the files of a bench of the digits' engine, with the reports that are wanted."""
    return BenchInputs(
        engine=digits.engine,
        reference=digits.model,
        data=digits.test,
        reports=ReportFiles(**reports),
    )


@pytest.fixture(scope="module")
def verdict(digits: Digits) -> Verdict:
    """A verdict on 50 images drawn from the digits."""
    return bench_engine(inputs_of(digits), QUICK_CONFIG)


def test_bench_writes_every_report_asked_for(digits: Digits, tmp_path: Path) -> None:
    """Beside the JSON on standard output; the exit code is the verdict's."""
    line = "bench {engine} --reference {model} --data {test} --max-drop -9 --json " + QUICK
    reports = "--report {folder}/a.html --markdown {folder}/a.md --junit {folder}/a.xml"
    done = run(*digits.words(f"{line} {reports}", folder=tmp_path))
    assert done.exit_code == 3
    assert json.loads(done.stdout)["passed"] is False
    assert (tmp_path / "a.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (tmp_path / "a.md").read_text(encoding="utf-8").startswith("### ❌ FAIL")
    (suite,) = ElementTree.parse(tmp_path / "a.xml").getroot()
    assert suite.get("failures") == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.md", "a.xml"]


def test_the_command_in_the_page_is_the_one_that_ran(digits: Digits, tmp_path: Path) -> None:
    """Word for word, so that it repeats the run."""
    words = digits.words(
        "bench {engine} --reference {model} --data {test} --report {out} " + QUICK,
        out=tmp_path / "a.html",
    )
    run(*words)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert f"<pre>edgeres {' '.join(words)}</pre>" in page


def test_pictures_are_those_of_the_images_that_changed(
    digits: Digits, verdict: Verdict, tmp_path: Path
) -> None:
    """Of the draw that was judged, not of the whole data set."""
    drawn = select(load_dataset(digits.test), QUICK_CONFIG.samples, QUICK_CONFIG.seed)
    flips = tuple(
        Flip(
            index=index,
            name=drawn.image_name(index),
            label=1,
            reference=Answer(label=1, probability=0.9),
            engine=Answer(label=2, probability=sure),
        )
        for index, sure in ((41, 0.9), (7, 0.5))
    )
    changed = replace(verdict, accuracy=replace(verdict.accuracy, flips=flips))
    write_reports(changed, inputs_of(digits, html=tmp_path / "a.html"), drawn, None)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    found = [
        base64.b64decode(text) for text in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    ]
    pixels = [np.asarray(Image.open(io.BytesIO(jpeg))).astype(int) for jpeg in found]
    assert len(pixels) == 2
    for seen, index in zip(pixels, (41, 7), strict=True):
        assert np.abs(seen - drawn.image(index)).mean() < 8


def test_nothing_is_measured_for_a_report_that_cannot_be_written(
    digits: Digits, tmp_path: Path
) -> None:
    """A missing folder, a report over another, and one over what is read, said before any work."""
    with pytest.raises(ArtifactError, match=r"the folder .* does not exist"):
        check_reports(inputs_of(digits, junit=tmp_path / "no" / "a.xml"))
    with pytest.raises(ConfigError, match="Two outputs would be the same file"):
        check_reports(inputs_of(digits, html=tmp_path / "a", markdown=tmp_path / "a"))
    with pytest.raises(ConfigError, match="would be lost"):
        check_reports(inputs_of(digits, html=digits.engine))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_said_before_work(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where the page is requested."""
    monkeypatch.setattr("edgeres.report.html.page.is_installed", lambda name: False)
    check_reports(inputs_of(digits, markdown=tmp_path / "a.md"))
    with pytest.raises(DependencyError, match=r"pip install '\.\[report\]'"):
        check_reports(inputs_of(digits, html=tmp_path / "a.html"))


def test_a_name_that_is_no_text_is_written(
    digits: Digits, verdict: Verdict, tmp_path: Path
) -> None:
    """A file name with a byte that is not UTF-8 reaches every report."""
    odd = replace(verdict, environment=replace(verdict.environment, engine_name="a\udcff.onnx"))
    inputs = inputs_of(
        digits, html=tmp_path / "a.html", markdown=tmp_path / "a.md", junit=tmp_path / "a.xml"
    )
    write_reports(odd, inputs, load_dataset(digits.test), None)
    assert r"a\udcff.onnx" in (tmp_path / "a.html").read_text(encoding="utf-8")
    # Markdown would read a backslash as a sign.
    assert r"a&#92;udcff.onnx" in (tmp_path / "a.md").read_text(encoding="utf-8")
    ElementTree.parse(tmp_path / "a.xml")
