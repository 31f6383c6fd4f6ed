"""`bench --baseline` and `compare`, from the JSON that bench printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import passed, refusal, run
from digits import QUICK, Digits

from edgeres.core.methods import Method
from edgeres.core.requests import BuildRequest
from edgeres.core.table import load_table
from edgeres.core.verdict import load_run
from edgeres.targets import session_runner
from edgeres.workflows import BuildInputs, build_from_model

LINE = "bench {engine} --reference {model} --data {test} --json " + QUICK


@pytest.fixture(scope="module")
def old(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What bench said of the digits' engine."""
    path = tmp_path_factory.mktemp("verdicts") / "old.json"
    path.write_text(passed(*digits.words(LINE)))
    return path


@pytest.fixture(scope="module")
def other(digits: Digits, old: Path) -> Path:
    """What bench said of an engine by another method, beside it."""
    engine = old.parent / "max.onnx"
    table = load_table(digits.table)
    build_from_model(
        BuildInputs(model=digits.model, table=table, method=Method.MAX, output=engine),
        BuildRequest(),
    )
    path = old.parent / "max.json"
    path.write_text(passed(*digits.words(LINE.replace("{engine}", str(engine)))))
    return path


def test_a_verdict_comes_back_from_its_json(old: Path) -> None:
    """The figures that later runs are held against."""
    raw, found = json.loads(old.read_text()), load_run(old)
    assert (found.name, found.engine, found.samples) == ("old", "digits.int8.onnx", 100)
    assert found.top1 == raw["accuracy"]["engine"]["top1"]
    assert found.images.engine.count("1") == raw["accuracy"]["engine"]["correct"]
    assert found.latency is not None
    assert list(found.latency.engine.samples_ms) == raw["latency"]["engine"]["samples_ms"]
    assert found.latency.speedup == raw["latency"]["speedup"]


def test_the_same_engine_is_not_worse_than_itself(digits: Digits, old: Path) -> None:
    """Its accuracy is, image by image, the same; timings of two samples prove nothing."""
    line = [*digits.words(LINE), "--baseline", old, "--max-slowdown", "1000"]
    told = json.loads(passed(*line))
    assert [check["name"] for check in told["checks"]] == ["baseline_accuracy", "baseline_latency"]
    assert told["baseline"]["baseline"] == "old"
    assert told["baseline"]["accuracy"]["gained"] == told["baseline"]["accuracy"]["lost"] == 0
    assert told["baseline"]["latency"]["ci95"] is None


def test_other_images_are_refused_before_anything_is_timed(digits: Digits, old: Path) -> None:
    """A usage error that names the options."""
    line = [word.replace("100", "90") if word == "100" else word for word in digits.words(LINE)]
    said = refusal(*line, "--baseline", old, code=2)
    assert said.startswith("The baseline old was evaluated on 100 other images, or on these in")


def test_what_is_no_verdict_is_refused(digits: Digits, old: Path) -> None:
    """A table, and a verdict with a part cut out."""
    said = refusal(*digits.words(LINE), "--baseline", digits.table)
    assert "is no edgeres-verdict file" in said
    damaged = old.parent / "damaged.json"
    raw = json.loads(old.read_text())
    del raw["accuracy"]["images"]
    damaged.write_text(json.dumps(raw))
    said = refusal("compare", old, damaged)
    assert "damaged.json is a damaged edgeres-verdict file (accuracy.images: missing)" in said


def test_engines_are_set_side_by_side(old: Path, other: Path) -> None:
    """As a table and as one object."""
    shown = passed("compare", old, other)
    assert {"old", "max"} <= {line.split()[0] for line in shown.splitlines() if line.split()}
    assert "Pareto front, accuracy against latency: " in shown
    told = json.loads(passed("compare", old, other, "--json"))
    assert [engine["name"] for engine in told["engines"]] == ["old", "max"]
    assert told["front"]
    assert told["engines"][1]["against_first"]["ci95_pp"][0] <= 0


def test_one_verdict_is_not_enough(old: Path) -> None:
    """A usage error."""
    assert run("compare", old).exit_code == 2


def test_throughput_is_measured_and_survives_its_json(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU with two sessions: in JSON, table, Markdown, page, compare and a later baseline."""
    monkeypatch.setattr(session_runner, "usable_cores", lambda: 2)
    line = digits.words(LINE.replace("--json ", "").replace("--iterations 2", "--iterations 120"))
    files = ("--markdown", tmp_path / "v.md", "--report", tmp_path / "v.html")
    old = tmp_path / "streams.json"
    old.write_text(passed(*line, "--streams", 2, *files, "--json"))
    raw, found = json.loads(old.read_text()), load_run(old)
    streamed = raw["throughput"]["measured"]
    assert raw["throughput"]["streams"] == streamed["streams"] == 2
    mean_ms = streamed["engine"]["mean_ms"]
    assert raw["throughput"]["engine_images_per_s"] == pytest.approx(1000 / mean_ms)
    # Six blocks of 20 inferences, in ten rounds of two.
    assert streamed["engine"]["blocks"] == [number // 10 for number in range(60)]
    low, high = streamed["engine_ci95"]
    assert low < raw["throughput"]["engine_images_per_s"] < high
    assert found.measured_throughput is not None
    assert found.measured_throughput.ratio == streamed["ratio"]
    figure = f"{raw['throughput']['engine_images_per_s']:.1f}"
    for name in ("v.md", "v.html"):
        assert figure in (tmp_path / name).read_text()
    assert "latency was measured alone" in (tmp_path / "v.html").read_text()
    # On a busy machine that is INCONCLUSIVE, as it has to be.
    again = run(*line, "--streams", 2, "--baseline", old, "--max-slowdown", 99)
    told = " ".join(again.stdout.split())
    assert "measured with 2 streams: engine" in told
    assert "latency was measured alone, one inference at a time" in told
    assert "baseline throughput" in told
    said = passed("compare", old, other_name(old))
    assert figure in said
    assert "images/s measured with 2 streams" in " ".join(said.split())
    assert "--streams 3 needs as many cores" in refusal(*line, "--streams", 3, code=2)


def other_name(verdict: Path) -> Path:
    """Returns the verdict without its measured throughput, beside it."""
    path = verdict.with_name("without.json")
    raw = json.loads(verdict.read_text())
    raw["throughput"] |= {"measured": None, "streams": None}
    path.write_text(json.dumps(raw))
    return path


def test_a_verdict_on_one_line_is_a_baseline_and_a_history(
    digits: Digits, old: Path, tmp_path: Path
) -> None:
    """As `jq -c` writes it, without a line break: it is compared with, and nothing takes its place."""
    path, line = tmp_path / "compact.json", digits.words(LINE)
    path.write_text(json.dumps(json.loads(old.read_text())))
    for options in (("--baseline", path), ("--baseline", path, "--history", path)):
        told = json.loads(run(*line, *options, "--max-slowdown", 1000).stdout)
        assert told["baseline"]["baseline"] == "compact"
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == json.loads(old.read_text())
    assert second["kind"] == "edgeres-verdict"


def test_a_history_grows_by_complete_lines(digits: Digits, old: Path, tmp_path: Path) -> None:
    """Made by the first run, kept by the next, and the baseline of the third."""
    path, line = tmp_path / "runs.jsonl", digits.words(LINE)
    for _ in range(2):
        passed(*line, "--history", path)
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["kind"] == second["kind"] == "edgeres-verdict"
    more = ("--history", path, "--baseline", path, "--max-slowdown", 1000)
    told = json.loads(run(*line, *more).stdout)
    assert told["baseline"]["baseline"] == "runs:2"
    assert len(path.read_text().splitlines()) == 3
    # A verdict of its own file is a baseline as before, and one that was killed left half a line.
    path.write_text(path.read_text() + '{"kind": "edgeres-verd')
    said = passed("compare", "--history", path, "--report", tmp_path / "runs.html")
    assert "<h1>3 runs</h1>" in (tmp_path / "runs.html").read_text()
    assert "3 runs; changes are looked for from 10 on" in said
    (course,) = json.loads(passed("compare", "--history", path, "--json"))["courses"]
    assert [row["name"] for row in course["runs"]] == ["runs:1", "runs:2", "runs:3"]
    assert course["runs"][0]["engine_sha256"] == first["provenance"]["engine"]["sha256"]
    passed(*line, "--history", path)
    assert [json.loads(row)["kind"] for row in path.read_text().splitlines()] == [
        "edgeres-verdict"
    ] * 4
    # Other images than any run's.
    fewer = ["90" if word == "100" else word for word in line]
    assert "None of the 4 runs" in refusal(*fewer, "--baseline", path, code=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}\n", "line 1 is no edgeres-verdict"),
        ("not JSON\n", "line 1 is not JSON"),
        ('{"kind": "edgeres-verdict", "schema_version": 0}\n', "line 1 has schema version 0"),
        ('{"kind": "edgeres-verdict", "schema_version": 1}\n', "line 1 is a damaged"),
    ],
)
def test_a_file_of_something_else_is_no_history(
    text: str, said: str, digits: Digits, tmp_path: Path
) -> None:
    """Refused with the line's number before anything is measured, and left as it is."""
    path = tmp_path / "runs.jsonl"
    path.write_text(text)
    assert said in refusal(*digits.words(LINE), "--history", path)
    assert said in refusal("compare", "--history", path)
    assert path.read_text() == text


def test_verdicts_or_a_history(old: Path) -> None:
    """Both, and neither, are usage errors."""
    for words in ((old, "--history", old), ()):
        assert "Pass VERDICTS..., or --history FILE" in run("compare", *words).output
