"""bench from files to verdict: what is fed, what is warned of, what is told of the environment."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from digits import CLASSES, Digits, sha256_of
from PIL import Image

from edgeres.core.artifacts import load_engine
from edgeres.core.bench_requests import BenchInputs, BenchRequest, LoadGenRequest, Scenario
from edgeres.core.contract import preset
from edgeres.core.contract_options import ContractOptions
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.core.table import load_table
from edgeres.core.verdict import FileRecord, Verdict
from edgeres.errors import DataError
from edgeres.images import embedded_digits, normalise, prepare
from edgeres.workflows import (
    BuildInputs,
    SelectionData,
    bench_engine,
    build_from_model,
    calibrate_model,
    export_stage,
)

QUICK = BenchRequest(iterations=2, warmup=0, energy=False)


def bench(
    digits: Digits, data: Path, *, simulate: bool = False, config: BenchRequest = QUICK
) -> Verdict:
    """Returns the verdict on the digits' engine, or on its table."""
    request = BenchInputs(
        engine=digits.table if simulate else digits.engine,
        reference=digits.model,
        data=data,
        simulate=simulate,
    )
    return bench_engine(request, config)


@pytest.fixture(scope="module")
def measured(digits: Digits) -> Verdict:
    """The verdict on the engine, on all test images."""
    return bench(digits, digits.test)


@pytest.fixture(scope="module")
def simulated(digits: Digits) -> Verdict:
    """The verdict on the table, on all test images."""
    return bench(digits, digits.test, simulate=True)


def test_the_reference_is_as_right_as_onnx_runtime_alone(digits: Digits, measured: Verdict) -> None:
    """Counted here image by image, without the pipeline."""
    _, test = embedded_digits()
    contract = preset("digits")
    ready = np.stack([prepare(test.image(i), contract, name=str(i)) for i in range(len(test))])
    session = onnxruntime.InferenceSession(digits.model, providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"input": normalise(ready, contract)})[0]
    expected = int((logits.argmax(axis=1) == test.labels).sum())
    found = measured.accuracy
    assert found.reference.correct == expected
    assert found.reference.samples == found.engine.samples == len(test) == 797


def test_images_of_the_calibration_are_found_again(digits: Digits, measured: Verdict) -> None:
    """All of the drawn ones are among the training images, and the verdict warns of it."""
    table = load_table(digits.table)
    seen = bench(digits, digits.train)
    assert seen.warnings == (
        f"{table.samples} of the 1000 images were also used for calibration: the accuracy of the "
        "engine on them is optimistically biased. Evaluate on images that were not used for "
        "calibration.",
    )
    assert measured.warnings == ()


def test_they_are_found_in_other_files_too(digits: Digits, tmp_path: Path) -> None:
    """The pixels count: a mixture under another name, and the simulation warns as well."""
    train, test = (np.load(path) for path in (digits.train, digits.test))
    images = np.concatenate([test["images"][:20], train["images"]])
    labels = np.concatenate([test["labels"][:20], train["labels"]])
    np.savez(tmp_path / "mixed.npz", images=images, labels=labels)
    (warning,) = bench(digits, tmp_path / "mixed.npz", simulate=True).warnings
    assert warning.startswith(f"{load_table(digits.table).samples} of the 1020 images were also")


def save_rows(source: Path, rows: list[int], output: Path) -> None:
    """Writes these rows of an .npz as another one."""
    with np.load(source) as arrays:
        np.savez(output, images=arrays["images"][rows], labels=arrays["labels"][rows])


def test_copies_change_no_statistic(digits: Digits, tmp_path: Path) -> None:
    """Each image 7 times, in two orders: accuracy, interval and fingerprint are those of one."""
    once = list(range(100))
    save_rows(digits.test, once, tmp_path / "once.npz")
    single = bench(digits, tmp_path / "once.npz", simulate=True)
    for name, rows in (
        ("sorted", [row for row in once for _ in range(7)]),
        ("behind", once * 7),
    ):
        save_rows(digits.test, rows, tmp_path / f"{name}.npz")
        found = bench(digits, tmp_path / f"{name}.npz", simulate=True)
        assert found.accuracy.engine == single.accuracy.engine
        assert found.accuracy.ci95_pp == single.accuracy.ci95_pp
        assert found.accuracy.images == single.accuracy.images
        assert found.provenance.data.samples == 100
        assert found.warnings == (
            "Of 700 images 100 are distinct: pixels that occur again, in copies or behind links, "
            "count once, and the figures rest on 100 images. Take the copies out of the data.",
        )
    assert single.warnings == ()


def test_equal_images_of_two_labels_are_left_out(digits: Digits, tmp_path: Path) -> None:
    """One with another label is named and not counted; when all are, nothing can be measured."""
    with np.load(digits.test) as arrays:
        images, labels = arrays["images"][:50], arrays["labels"][:50]
    wrong = (labels + 1) % CLASSES
    np.savez(
        tmp_path / "some.npz",
        images=np.concatenate([images, images[7:8]]),
        labels=np.concatenate([labels, wrong[7:8]]),
    )
    found = bench(digits, tmp_path / "some.npz", simulate=True)
    assert found.accuracy.engine.samples == 49
    assert "(first: some.npz[7] and some.npz[50])" in found.warnings[0]
    np.savez(
        tmp_path / "all.npz",
        images=np.concatenate([images, images]),
        labels=np.concatenate([labels, wrong]),
    )
    with pytest.raises(DataError, match="Each of the 50 distinct images"):
        bench(digits, tmp_path / "all.npz", simulate=True)


def test_class_folders_are_matched_by_the_names_in_the_model(
    digits: Digits, tmp_path: Path
) -> None:
    """Digits by their English names, whose sorted order is another; the names have a BOM."""
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    (tmp_path / "names.txt").write_text("\ufeff" + "\n".join(names), encoding="utf-8")
    model, stage = tmp_path / "named.onnx", export_stage()
    request = stage.ExportRequest(
        architecture="resnet20",
        weights=digits.weights,
        contract=ContractOptions(preset="digits"),
        labels=tmp_path / "names.txt",
    )
    assert stage.export_model(request, output=model).classes == tuple(names)
    engine = tmp_path / "named.fp32.onnx"
    build_from_model(
        BuildInputs(model=model, output=engine), BuildRequest(precision=Precision.FP32)
    )
    _, test = embedded_digits()
    assert test.labels is not None
    for row in range(100):
        path = tmp_path / "folders" / names[test.labels[row]] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(test.image(row)).save(path)
    save_rows(digits.test, list(range(100)), tmp_path / "rows.npz")
    by_name, by_index = (
        bench_engine(BenchInputs(engine=engine, reference=model, data=tmp_path / data), QUICK)
        for data in ("folders", "rows.npz")
    )
    assert by_name.accuracy.engine == by_index.accuracy.engine
    assert by_index.warnings == ()
    assert by_name.warnings == (
        f"The class folders of {tmp_path / 'folders'} have the names of the network's classes, "
        "which are in another order: each was matched by its name, not by its place.",
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (list(range(8)), ["Calibration used 8 distinct images, fewer than 64"]),
        (list(range(64)), []),
        (
            list(range(40)) * 2,
            ["Of 80 calibration images 40 are distinct", "Calibration used 40 distinct images"],
        ),
        ([*range(64), 0], ["Of 65 calibration images 64 are distinct"]),
    ],
    ids=["few", "enough", "copies", "one-copy"],
)
def test_few_or_equal_calibration_images_are_logged(
    digits: Digits,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    rows: list[int],
    expected: list[str],
) -> None:
    """Distinct images are counted; 64 are enough."""
    save_rows(digits.train, rows, tmp_path / "few.npz")
    with caplog.at_level(logging.WARNING, logger="edgeres"):
        calibrate_model(digits.model, tmp_path / "few.npz", CalibrationRequest())
    assert len(caplog.messages) == len(expected)
    for message, start in zip(caplog.messages, expected, strict=True):
        assert message.startswith(start)


def test_a_simulation_has_no_latency(digits: Digits, simulated: Verdict) -> None:
    """Accuracy alone, and its name says what was simulated."""
    assert simulated.latency is None
    method = load_table(digits.table).method
    named = f"TensorRT's placement, {method}, fp16 floats, simulated on onnxruntime-cpu"
    assert simulated.environment.engine_name == named
    assert abs(simulated.accuracy.drop_pp) < 1


def test_the_environment_is_in_the_verdict(measured: Verdict) -> None:
    """Who was judged, against whom, with which versions."""
    environment = measured.environment
    assert environment.engine_name == "digits.int8.onnx on onnxruntime-cpu"
    assert environment.reference_name == "digits.onnx on onnxruntime-cpu"
    assert environment.machine.versions["onnxruntime"] == onnxruntime.__version__


def test_a_latency_batch_larger_than_the_data_is_refused(digits: Digits) -> None:
    """Images are never repeated to fill it."""
    config = BenchRequest(samples=3, latency_batch=4, iterations=1, warmup=0, energy=False)
    with pytest.raises(DataError, match=r"A latency batch of 4 needs as many images; the data has"):
        bench(digits, digits.test, config=config)


def test_the_draw_is_by_class_and_by_seed(digits: Digits) -> None:
    """A tenth of the images has a tenth of each class, and the same seed draws the same."""
    config = BenchRequest(samples=10 * CLASSES, iterations=1, warmup=0, energy=False, seed=3)
    first, second = (bench(digits, digits.test, config=config).accuracy for _ in range(2))
    assert first == second
    assert first.reference.samples == 100


def test_the_provenance_names_what_took_part(digits: Digits, measured: Verdict) -> None:
    """Files by their hashes, images by their fingerprint, layers by their precision."""
    told, manifest = measured.provenance, load_engine(digits.engine).manifest
    assert told.engine == FileRecord(path=str(digits.engine), sha256=sha256_of(digits.engine))
    assert told.reference == FileRecord(path=str(digits.model), sha256=sha256_of(digits.model))
    assert (told.model_sha256, told.table_sha256) == (
        sha256_of(digits.model),
        sha256_of(digits.table),
    )
    assert (told.data.samples, told.data.path) == (797, str(digits.test))
    assert (told.target, told.precision) == ("onnxruntime", "int8")
    assert measured.layers == manifest.layers
    assert measured.classes == manifest.classes


def test_a_flip_names_its_image(digits: Digits, measured: Verdict) -> None:
    """The row of the file, and its label there."""
    labels = np.load(digits.test)["labels"]
    for flip in measured.accuracy.flips:
        assert flip.name == f"test.npz[{flip.index}]"
        assert flip.label == labels[flip.index]
        assert flip.reference.label != flip.engine.label
    assert len(measured.accuracy.flips) == round(797 * (1 - measured.accuracy.agreement))


def test_the_machine_is_watched_and_energy_explained(measured: Verdict, simulated: Verdict) -> None:
    """A measurement has its stability, a simulation has none; a missing energy has its reason."""
    assert measured.stability is not None
    assert measured.energy_reason == "It was not requested (--no-energy)."
    assert simulated.stability is None
    assert simulated.energy_reason == "The engine was not run on its target."


def test_loadgen_drives_the_engine(digits: Digits, tmp_path: Path) -> None:
    """Its logs are kept and its word is in the verdict."""
    pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is not installed")
    scenario = LoadGenRequest(scenario=Scenario.MULTI_STREAM, seconds=0.2)
    request = BenchInputs(
        engine=digits.engine, reference=digits.model, data=digits.test, loadgen_logs=tmp_path
    )
    found = bench_engine(request, replace(QUICK, samples=100, loadgen=scenario)).loadgen
    assert found is not None
    assert (found.scenario, found.seconds, found.logs) == ("multi-stream", 0.2, str(tmp_path))
    assert f"Result is : {found.result}" in (tmp_path / "mlperf_log_summary.txt").read_text()


def test_a_mixed_engine_is_judged_like_any_other(digits: Digits, tmp_path: Path) -> None:
    """What was built with a budget has none to keep in bench; its audit finds every layer."""
    engine, chosen = tmp_path / "mixed.onnx", tmp_path / "chosen.npz"
    save_rows(digits.test, list(range(64)), chosen)
    build_from_model(
        BuildInputs(
            model=digits.model,
            table=load_table(digits.table),
            selection=SelectionData(data=chosen, labelled=True),
            output=engine,
        ),
        BuildRequest(precision=Precision.MIXED, max_drop_pp=-1.0),
    )
    kept = [la for la in load_engine(engine).manifest.layers if la.precision is Precision.FP32]
    found = bench_engine(
        BenchInputs(engine=engine, reference=digits.model, data=digits.test), QUICK
    )
    assert any(layer.reason.startswith("kept from INT8 for the accuracy") for layer in kept)
    assert found.provenance.precision == "mixed"
    assert found.checks == ()
    # It was made to keep its accuracy on the images that its precision was chosen on.
    limited = replace(QUICK, max_drop_pp=50.0)
    for data, outcome in ((chosen, "INCONCLUSIVE"), (digits.test, "PASS")):
        inputs = BenchInputs(engine=engine, reference=digits.model, data=data)
        found = bench_engine(inputs, limited)
        assert found.outcome == outcome
        assert found.warnings[0].startswith("64 of the ")
        assert "used for calibration or mixed precision: " in found.warnings[0]


def test_copies_among_the_selection_images_count_once(digits: Digits, tmp_path: Path) -> None:
    """The drop and the noise of the all-integer engine are those of the distinct images."""
    searches = []
    for name, rows in (("once", list(range(48))), ("copied", [*range(48), *range(24)] * 2)):
        save_rows(digits.test, rows, tmp_path / f"{name}.npz")
        engine = tmp_path / f"{name}.onnx"
        build_from_model(
            BuildInputs(
                model=digits.model,
                table=load_table(digits.table),
                selection=SelectionData(data=tmp_path / f"{name}.npz", labelled=True),
                output=engine,
            ),
            BuildRequest(precision=Precision.MIXED, max_drop_pp=100.0),
        )
        search = load_engine(engine).manifest.search
        assert search is not None
        searches.append((search.images, search.points[0].drop_pp, search.points[0].sqnr_db))
    assert searches[0] == searches[1]
    assert searches[0][0] == 48
