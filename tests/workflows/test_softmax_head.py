"""A file that ends in probabilities: the network's own answers, and its logits' calibration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import passed, refusal, run
from digits import QUICK, Digits
from numpy.typing import NDArray
from onnx import helper

from edgeres.calibration.logits import ending_in_logits
from edgeres.core.artifacts import contract_of, load_engine
from edgeres.core.contract import OutputType
from edgeres.core.contract_options import ContractOptions
from edgeres.core.table import load_table
from edgeres.images import batches, load_dataset, select
from edgeres.onnx_file import load_onnx
from edgeres.session import open_session, run_session


@pytest.fixture(scope="module")
def softmax(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' network with a softmax head."""
    path = tmp_path_factory.mktemp("head") / "softmax.onnx"
    line = "export resnet20 --weights {weights} --preset digits --head softmax -o {output}"
    passed(*digits.words(line, output=path))
    return path


def outputs(model: Path, data: Path) -> NDArray[np.float32]:
    """Returns what a file gives for 100 images."""
    loaded = load_onnx(model).artifact
    assert loaded.contract is not None
    stream = batches(select(load_dataset(data), 100, 0), loaded.contract, batch_size=100)
    images = next(iter(stream)).images
    return run_session(open_session(model), [loaded.output.name], {"input": images})[0]


def test_it_gives_the_softmax_of_the_logits(digits: Digits, softmax: Path) -> None:
    """By NumPy in float64; its layers have the names that the file of logits has."""
    logits = outputs(digits.model, digits.test).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs(softmax, digits.test), expected, atol=1e-6)
    own, other = (onnx.load(path).graph for path in (digits.model, softmax))
    assert [node.name for node in other.node] == [*(node.name for node in own.node), "/Softmax"]
    artifact = load_onnx(softmax).artifact
    assert artifact.contract is not None
    assert (artifact.contract.output, artifact.activation) == ("probabilities", "Softmax")
    assert str(artifact.contract).endswith(", probabilities out")


def test_it_is_calibrated_as_its_logits_are(digits: Digits, softmax: Path, tmp_path: Path) -> None:
    """What is chosen, corrected and ranked by logits is the same for both files."""
    tables, options = [], "--method auto --recover bias --sensitivity"
    for model in (digits.model, softmax):
        path = tmp_path / f"{model.stem}.json"
        passed(
            "calibrate",
            model,
            "--data",
            digits.train,
            "--samples",
            64,
            *options.split(),
            "-o",
            path,
        )
        tables.append(load_table(path))
    own, other = tables
    shared = {name: other.tensors[name] for name in own.tensors}
    assert shared == own.tensors
    assert (other.recovery, other.sensitivity) == (own.recovery, own.sensitivity)
    assert replace(other, tensors=own.tensors, model_sha256="", contract=own.contract) == replace(
        own, model_sha256=""
    )


def test_a_bench_reads_its_answers_as_probabilities(
    digits: Digits, softmax: Path, tmp_path: Path
) -> None:
    """Accuracy and confidence are those of the file of logits, in INT8 too."""
    engine = tmp_path / "a.int8.onnx"
    passed("build-engine", softmax, "--calib-data", digits.train, "-o", engine)
    assert load_engine(engine).manifest.contract.output is OutputType.PROBABILITIES
    found = []
    for made, model in ((digits.engine, digits.model), (engine, softmax)):
        words = ("bench", made, "--reference", model, "--data", digits.test, *QUICK.split())
        result = run(*words, "--diagnose", "--json")
        assert result.exit_code == 0, result.output
        found.append(json.loads(result.stdout))
    first, second = (verdict["accuracy"]["engine"] for verdict in found)
    assert first == second
    first, second = (verdict["diagnosis"]["confidence"] for verdict in found)
    assert first == pytest.approx(second, abs=1e-5)


def test_another_tools_softmax_is_known_by_the_contract(digits: Digits, tmp_path: Path) -> None:
    """Whatever the options say of the preprocessing, the graph shows how it ends."""
    model = onnx.load(digits.model)
    del model.metadata_props[:]
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["p"], axis=1))
    model.graph.output[0].name = "p"
    onnx.save(model, tmp_path / "foreign.onnx")
    loaded = load_onnx(tmp_path / "foreign.onnx")
    contract = contract_of(loaded.artifact, ContractOptions(preset="digits"))
    assert contract.output is OutputType.PROBABILITIES
    assert ending_in_logits(loaded).artifact.output.name == "logits"
    plain = load_onnx(digits.model)
    assert ending_in_logits(plain) is plain


def test_a_network_that_ends_in_softmax_gets_no_second_one(digits: Digits, tmp_path: Path) -> None:
    """Nor is a head of logits invented for it."""
    for head in ("softmax", "logits"):
        said = refusal(
            "export", "softmax_networks:ending_in_softmax", "--weights", digits.weights,
            "--preset", "digits", "--head", head, "-o", tmp_path / "a.onnx",
        )  # fmt: skip
        assert said.startswith(f"The network itself ends in Softmax, and --head is {head}.")
