"""A target joins by its folder alone: nothing outside `edgeres.targets` knows its name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import passed, refusal
from digits import QUICK, Digits

import edgeres.targets
from edgeres.core.artifacts import load_engine
from edgeres.targets.base import cpu_target, simulated_target, targets

TOY = '''
"""A runtime of its own: ONNX Runtime, on files that are no ONNX files."""

from edgeres.core.bench_requests import Timing
from edgeres.core.precision import Precision
from edgeres.errors import ConfigError
from edgeres.session import open_session, run_session
from edgeres.targets.base import Target, cpu_target
from edgeres.targets.engine_files import Built, save_engine

MAGIC = b"toy engine"


class ToyRunner:
    def __init__(self, engine):
        self.name = f"{engine.path.name} on toy"
        self.input, self.output = engine.manifest.input, engine.manifest.output
        self._model = engine.content.removeprefix(MAGIC)

    def infer(self, images):
        (logits,) = run_session(self._session, [self.output.name], {self.input.name: images})
        return logits

    def __enter__(self):
        self._session = open_session(self._model)
        return self

    def __exit__(self, *error):
        del self._session


class ToyTarget(Target):
    def is_installed(self):
        return True

    def check_request(self, request):
        if request.precision not in self.precisions:
            raise ConfigError(f"toy has no {request.precision}. Use int8 or fp32.")

    def lowering(self):
        return cpu_target().lowering()

    def lower(self, model, request, table, method, mix):
        return cpu_target().lower(model, request, table, method, mix)

    def build(self, network, request, contract, *, output, progress=None):
        engine = MAGIC + network.model.SerializeToString()
        built = Built(engine=engine, versions={"toy": "1.0"})
        return save_engine(built, network, request, contract, output)

    def audit(self, engine):
        return None

    def open(self, engine):
        return ToyRunner(engine)

    def timed_reference(self, model, contract, *, batch, progress):
        return None

    def recognizes(self, engine):
        return engine.startswith(MAGIC)

    def portable_request(self):
        return None


TARGETS = (
    ToyTarget(
        name="toy",
        suffix=".toy",
        precisions=(Precision.FP32, Precision.INT8),
        timings=(Timing.END_TO_END,),
        uses_gpu=False,
        takes_profile=False,
    ),
)
'''
"""The folder's `__init__.py`."""


@pytest.fixture(params=["first", "last"])
def _toy(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Lets the folder join, before the others in their order or behind them."""
    folder = tmp_path / "targets"
    (folder / "toy").mkdir(parents=True)
    (folder / "toy" / "__init__.py").write_text(TOY, encoding="utf-8")
    path = list(edgeres.targets.__path__)
    path.insert(0 if request.param == "first" else len(path), str(folder))
    monkeypatch.setattr(edgeres.targets, "__path__", path)
    targets.cache_clear()
    yield
    sys.modules.pop("edgeres.targets.toy", None)
    targets.cache_clear()


@pytest.mark.usefixtures("_toy")
@pytest.mark.parametrize("options", ["--calibration {table}", "--precision fp32"])
def test_a_folder_is_a_target(options: str, digits: Digits, tmp_path: Path) -> None:
    """It is built for, inspected, benched and named by the commands like any other."""
    engine, report = tmp_path / "digits.toy", tmp_path / "report.html"
    build = "build-engine {model} --target toy -o {engine} --json " + options
    bench = "bench {engine} --reference {model} --data {test} --report {report} --json " + QUICK
    assert json.loads(passed(*digits.words(build, engine=engine)))["target"] == "toy"
    assert load_engine(engine).manifest.target == "toy"
    assert engine.read_bytes().startswith(b"toy engine")
    assert json.loads(passed("inspect", engine, "--json"))["target"] == "toy"
    assert "toy" in passed("inspect", engine)

    verdict = json.loads(passed(*digits.words(bench, engine=engine, report=report)))
    assert verdict["provenance"]["target"] == "toy"
    assert verdict["environment"]["engine"] == "digits.toy on toy"
    assert verdict["latency"]["engine"]["p50_ms"] > 0
    assert "toy" in report.read_text(encoding="utf-8")


@pytest.mark.usefixtures("_toy")
def test_its_name_is_known_and_its_refusals_are_its_own(digits: Digits, tmp_path: Path) -> None:
    """In the help, in a suggestion, and with the sentence of its own `check_request`."""
    assert "|toy]" in passed("build-engine", "--help") or "[toy|" in passed(
        "build-engine", "--help"
    )
    line = "build-engine {model} --precision fp16 -o {at}/never --target "
    assert refusal(*digits.words(line + "toy", at=tmp_path), code=2) == (
        "toy has no fp16. Use int8 or fp32."
    )
    assert "Did you mean 'toy'?" in refusal(*digits.words(line + "tyo", at=tmp_path), code=2)


@pytest.mark.usefixtures("_toy")
def test_it_takes_no_other_targets_part(digits: Digits) -> None:
    """References are evaluated on the CPU's target, and simulations are TensorRT's, as before."""
    assert (cpu_target().name, simulated_target().name) == ("onnxruntime", "tensorrt")
    line = "bench {table} --simulate --reference {model} --data {test} --json " + QUICK
    assert json.loads(passed(*digits.words(line)))["provenance"]["target"] == "tensorrt"


def test_without_its_folder_it_is_unknown(digits: Digits, tmp_path: Path) -> None:
    """The tests above leave nothing behind."""
    line = "build-engine {model} --calibration {table} -o {at}/never --target toy"
    assert "'toy' is not one of" in refusal(*digits.words(line, at=tmp_path), code=2)
