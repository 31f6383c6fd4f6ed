"""Which runner an engine, a model or a network in memory gets, and who gets none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from digits import Digits, gpu_plan
from numpy.typing import NDArray

from edgeres.core.artifacts import load_engine
from edgeres.core.table import load_table
from edgeres.errors import MismatchError
from edgeres.machine.cuda import NoCudaDevice
from edgeres.onnx_file import load_onnx
from edgeres.session import open_session, run_session
from edgeres.targets.base import engine_runner
from edgeres.targets.onnxruntime.quantize import quantize_for_cpu
from edgeres.targets.runner import Runner
from edgeres.targets.session_runner import model_runner, network_runner
from edgeres.targets.tensorrt import preflight

IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32)


def logits(runner: Runner) -> NDArray[np.float32]:
    """Returns what a runner infers for the same four images."""
    with runner:
        return runner.infer(IMAGES)


def test_an_engine_for_the_cpu(digits: Digits) -> None:
    """Named after its file, with the manifest's input and output."""
    artifact = load_engine(digits.engine)
    runner = engine_runner(artifact)
    assert runner.name == "digits.int8.onnx on onnxruntime-cpu"
    assert (runner.input, runner.output) == (artifact.manifest.input, artifact.manifest.output)
    assert logits(runner).shape == (4, 10)


def test_a_network_in_memory_is_the_engine_that_is_built_from_it(digits: Digits) -> None:
    """What was simulated is what ships, bit for bit: graph, weights and logits on integer kernels.

    Simulated in float32, a sum that lies on a tie may round the other way, by one step.
    """
    network = quantize_for_cpu(load_onnx(digits.model), load_table(digits.table))
    shipped = onnx.load(digits.engine).graph
    assert list(shipped.node) == list(network.model.graph.node)
    assert list(shipped.initializer) == list(network.model.graph.initializer)
    session = open_session(network.model.SerializeToString(), integer=True)
    (again,) = run_session(
        session, [network.source.output.name], {network.source.input.name: IMAGES}
    )
    simulated = logits(network_runner(network, "simulated"))
    integer = logits(engine_runner(load_engine(digits.engine)))
    np.testing.assert_array_equal(again, integer)
    plain = logits(model_runner(load_onnx(digits.model)))
    assert np.abs(simulated - integer).max() < 0.2 * np.abs(plain - integer).max()


def test_the_engine_is_close_to_its_model(digits: Digits) -> None:
    """INT8 moves the logits a little, which shows that neither is the other."""
    plain = logits(model_runner(load_onnx(digits.model)))
    integer = logits(engine_runner(load_engine(digits.engine)))
    assert 0 < np.abs(plain - integer).max() < 0.5 * np.abs(plain).max()


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_a_plan_without_a_gpu_is_refused(
    target: str, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what this machine lacks, and how the plan's accuracy can be judged all the same."""
    plan = gpu_plan(digits, tmp_path / "a.plan", target)
    lack = NoCudaDevice(reason="it has no NVIDIA driver")
    monkeypatch.setattr(preflight, "find_cuda_device", lambda: lack)
    with pytest.raises(MismatchError) as refused:
        engine_runner(load_engine(plan))
    assert str(refused.value) == (
        f"{plan} is a plan for {target} in int8, compute capability 8.7, and this machine cannot run "
        "it: it has no NVIDIA driver. Its accuracy can be evaluated on the CPU, from its calibration "
        "table: edgeres bench TABLE.json --simulate --reference MODEL.onnx --data PATH."
    )
    assert refused.value.exit_code == 6
