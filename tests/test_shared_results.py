"""Real trained networks on real images, with the defaults: what the FP32 model and INT8 reach.

Bounds on the decisions and the logits that INT8 changes see more than a count of correct answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from edgeres.core.artifacts import OnnxArtifact
from edgeres.core.bench_requests import BenchInputs, BenchRequest, Decision
from edgeres.core.contract_options import ContractOptions
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.core.table import CalibrationTable
from edgeres.core.verdict import Accuracy, Verdict
from edgeres.evaluation.evaluate import evaluate
from edgeres.images import batches, load_dataset
from edgeres.onnx_file import load_onnx
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.targets.session_runner import network_runner
from edgeres.workflows import (
    BuildInputs,
    bench_engine,
    build_from_model,
    calibrate_model,
    export_stage,
)

pytestmark = pytest.mark.shared

MAX_DROP_PP = 0.3
MAX_CHANGED = 0.03
"""Fraction of the images that INT8 may decide otherwise, right or wrong."""
MAX_LOGIT_ERROR = 0.07
"""Of INT8's logits, relative to their norm."""


@dataclass(frozen=True)
class Case:
    """A trained network, its images, and how many of them it has right in PyTorch."""

    architecture: str
    weights: str
    calibration: str
    test: str
    samples: int
    correct: int
    contract: ContractOptions
    tolerance: int = 0
    """Images that may be decided otherwise, where two logits are as good as equal."""
    bn_eps: float | None = None


CIFAR = ContractOptions(preset="cifar-imagenet-norm")
CASES = {
    "resnet20": Case(
        architecture="resnet20",
        weights="cifar10-resnets/resnet20-12fca82f.th",
        calibration="cifar10/calib1000.npz",
        test="cifar10/test.npz",
        samples=10_000,
        correct=9173,
        contract=CIFAR,
    ),
    "resnet32": Case(
        architecture="resnet32",
        weights="cifar10-resnets/resnet32-d509ac18.th",
        calibration="cifar10/calib1000.npz",
        test="cifar10/test.npz",
        samples=10_000,
        correct=9263,
        contract=CIFAR,
    ),
    "resnet50_v1": Case(
        architecture="resnet50_v1",
        weights="resnet50-imagenet/resnet50_v1_keras_fp16.pt",
        calibration="imagenet/calib500",
        test="imagenet/val1300",
        samples=1300,
        correct=1054,
        contract=ContractOptions(preset="imagenet-caffe", resize="none"),
        tolerance=1,
        bn_eps=1e-3,
    ),
}


class Network:
    """One network through the pipeline; each pass over its images is made once."""

    def __init__(self, case: Case, data: Path, folder: Path) -> None:
        """Exports nothing yet."""
        self.case = case
        self._data = data
        self.folder = folder

    @cached_property
    def model(self) -> OnnxArtifact:
        """The exported FP32 model."""
        stage = export_stage()
        request = stage.ExportRequest(
            architecture=self.case.architecture,
            weights=self._data / self.case.weights,
            contract=self.case.contract,
            bn_eps=self.case.bn_eps,
        )
        exported: OnnxArtifact = stage.export_model(request, output=self.folder / "model.onnx")
        return exported

    @cached_property
    def table(self) -> CalibrationTable:
        """Its table, by the default method."""
        images = self._data / self.case.calibration
        return calibrate_model(self.model.path, images, CalibrationRequest())

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict on its INT8 engine for the CPU."""
        engine = self.folder / "int8.onnx"
        build_from_model(
            BuildInputs(model=self.model.path, table=self.table, output=engine), BuildRequest()
        )
        data = self._data / self.case.test
        request = BenchRequest(
            max_drop_pp=MAX_DROP_PP,
            decide=Decision.POINT,
            iterations=1,
            warmup=0,
            energy=False,
        )
        inputs = BenchInputs(engine=engine, reference=self.model.path, data=data)
        return bench_engine(inputs, request)

    def simulated(self) -> Accuracy:
        """Returns the accuracy of TensorRT's placement, run on the CPU."""
        network = quantize_for_tensorrt(load_onnx(self.model.path), self.table)
        dataset = load_dataset(self._data / self.case.test)
        assert self.model.contract is not None
        with (
            network_runner(network, "simulated") as runner,
            closing(batches(dataset, self.model.contract, batch_size=16)) as stream,
        ):
            return evaluate(runner, stream).accuracy


@pytest.fixture(scope="module")
def networks(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Network]:
    """Every case's network."""
    return {
        name: Network(case, shared / "data", tmp_path_factory.mktemp(name))
        for name, case in CASES.items()
    }


@pytest.fixture(params=CASES)
def network(request: pytest.FixtureRequest, networks: Mapping[str, Network]) -> Network:
    """One network after the other."""
    return networks[request.param]


def test_fp32_is_as_right_as_pytorch(network: Network) -> None:
    """The count that PyTorch reaches on the same images; published figures confirm it."""
    case, reference = network.case, network.verdict.accuracy.reference
    assert reference.samples == case.samples
    assert abs(reference.correct - case.correct) <= case.tolerance


def test_the_cpu_engine_keeps_the_accuracy(network: Network) -> None:
    """INT8 with the default method, within 0.3 percentage points."""
    verdict = network.verdict
    assert verdict.passed, verdict.accuracy
    assert verdict.warnings == ()
    assert verdict.accuracy.agreement >= 1 - MAX_CHANGED
    relative_error = verdict.accuracy.logits.relative_l2
    assert relative_error is not None
    assert relative_error < MAX_LOGIT_ERROR


def test_the_tensorrt_placement_keeps_the_accuracy(network: Network) -> None:
    """The same table in TensorRT's placement, simulated."""
    reference, found = network.verdict.accuracy.reference, network.simulated()
    assert found.samples == reference.samples
    assert 100 * (reference.top1 - found.top1) <= MAX_DROP_PP


@pytest.mark.rtx
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_a_plan_of_every_precision(network: Network, precision: Precision) -> None:
    """NVIDIA's parser and builder take the network for 8.6 without a GPU."""
    table = network.table if precision is Precision.INT8 else None
    config = BuildRequest(target="tensorrt-rtx", precision=precision, compute_capability="8.6")
    plan = build_from_model(
        BuildInputs(
            model=network.model.path, table=table, output=network.folder / f"{precision}.plan"
        ),
        config,
    )
    kinds = Counter(layer.precision for layer in plan.manifest.layers if layer.op_type == "Conv")
    assert set(kinds) == {precision}
    assert plan.path.stat().st_size > 0
