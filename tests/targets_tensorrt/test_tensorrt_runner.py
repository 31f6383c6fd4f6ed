"""The TensorRT runner on pycuda itself, a pretend driver and a runtime that ONNX Runtime stands for."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
from fake_runtime import (
    LARGEST,
    FakeEngine,
    FakeExecution,
    FakeRtxExecution,
    FakeRuntime,
    FakeRuntimeModule,
    TensorIOMode,
    put_in_place,
)
from networks import CLASSES, SIZE, images
from numpy.typing import NDArray
from pretend_cuda import OUT_OF_MEMORY, PretendCuda
from tiny_plans import write_plan

from edgeres.core.artifacts import EngineArtifact
from edgeres.core.bench_requests import Timing
from edgeres.errors import MismatchError, RunnerError
from edgeres.targets.runner import DeviceTimed, HostMemory
from edgeres.targets.tensorrt.runner import TensorRTRunner

pytestmark = pytest.mark.cuda

BATCHES = range(1, LARGEST + 1)
MODEL = networks.network("identity")

MODES = {
    "copied": {},
    "mapped": {"memory": HostMemory.MAPPED},
    "copied, graph": {"graph": True},
    "mapped, graph": {"memory": HostMemory.MAPPED, "graph": True},
    "four streams": {"streams": 4},
}


@pytest.fixture
def trt(cuda: PretendCuda, monkeypatch: pytest.MonkeyPatch) -> FakeRuntimeModule:
    """The double of TensorRT 10.3."""
    return put_in_place(monkeypatch)


@pytest.fixture
def plan(tmp_path: Path) -> EngineArtifact:
    """The tiny identity network."""
    return write_plan(tmp_path)


def expected(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns what ONNX Runtime computes on the CPU."""
    return networks.logits_of(MODEL, batch)


def assert_equal(logits: NDArray[np.float32], batch: NDArray[np.float32]) -> None:
    """Asserts that the logits are the CPU's; one thread and several may add in another order."""
    np.testing.assert_allclose(logits, expected(batch), rtol=1e-5, atol=1e-6)


def infer_some(runner: TensorRTRunner) -> None:
    """Opens the runner for five inferences."""
    with runner:
        for _ in range(5):
            runner.infer(images(2))


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_the_logits_are_the_cpu_s(
    mode: dict[str, Any], trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """For every batch of the profile, up and down again."""
    with TensorRTRunner(plan, **mode) as runner:
        for size in (*BATCHES, *reversed(BATCHES)):
            assert_equal(runner.infer(images(size, seed=size)), images(size, seed=size))


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_nothing_is_allocated_per_inference(
    mode: dict[str, Any], cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """Over 1,000 inferences of all batch sizes; each binding was allocated once."""
    batches = [images(size) for size in BATCHES]
    with TensorRTRunner(plan, **mode) as runner:
        for batch in batches:
            runner.infer(batch)
        before, depth = cuda.counts, cuda.depth
        for turn in range(1000):
            runner.infer(batches[turn % LARGEST])
        after = cuda.counts
    for kind in ("allocations", "streams", "events", "graphs", "executables", "contexts"):
        assert after[kind] == before[kind], kind
    streams = mode.get("streams", 1)
    mapped = mode.get("memory") is HostMemory.MAPPED
    assert (after["host_blocks"], after["device_blocks"]) == (
        2 * streams,
        0 if mapped else 2 * streams,
    )
    assert (depth, cuda.depth) == (0, 0)


def test_a_graph_replays_copies_and_network(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """After its capture TensorRT is not called again, and the copies are in the graph."""
    with TensorRTRunner(plan, graph=True) as runner:
        runner.infer(images(3))
        called, launched = trt.enqueued, cuda.counts["launches"]
        for seed in range(5):
            assert_equal(runner.infer(images(3, seed)), images(3, seed))
        assert (trt.enqueued, cuda.counts["launches"]) == (called, launched + 5)
        assert called == 2
        runner.infer(images(4))
        assert trt.enqueued == called + 2
        assert_equal(runner.infer(images(3)), images(3))
        assert (trt.enqueued, cuda.counts["executables"]) == (called + 4, 1)


def test_mapped_memory_is_not_copied(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """On a GPU that shares the host's memory that is the default; elsewhere two copies are made."""
    for integrated, copies in ((True, 0), (False, 2)):
        cuda.set_device(integrated=integrated)
        with TensorRTRunner(plan) as runner:
            before = cuda.counts["copies"]
            assert_equal(runner.infer(images(2)), images(2))
            assert cuda.counts["copies"] - before == copies
            assert runner.name == (
                "tiny.plan on tensorrt 10.3.0, Pretend GPU, "
                f"{'mapped' if integrated else 'copied'} memory"
            )


def test_a_runner_of_more_streams_is_of_the_same_plan(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """As many streams and contexts as requested, and a graph in each where one is replayed."""
    with (
        TensorRTRunner(plan).with_streams(3, graph=True) as runner,
        ThreadPoolExecutor(3) as threads,
    ):
        assert cuda.counts["streams"] == 3
        for logits in threads.map(runner.infer, [images(2)] * 12):
            assert_equal(logits, images(2))
        assert cuda.counts["executables"] >= 1
    assert cuda.living == {}


def test_four_threads_use_four_streams(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """Each answer is its own images', and no thread keeps a context."""
    with TensorRTRunner(plan, streams=4) as runner, ThreadPoolExecutor(8) as threads:
        assert cuda.counts["streams"] == 4
        answers = threads.map(lambda seed: (seed, runner.infer(images(5, seed))), range(200))
        for seed, answer in answers:
            assert_equal(answer, images(5, seed))
        assert set(threads.map(lambda _: cuda.depth, range(8))) == {0}


def test_results_belong_to_the_caller(trt: FakeRuntimeModule, plan: EngineArtifact) -> None:
    """The next inference does not touch them, nor does what the caller does reach it."""
    batch = images(2)
    batch.flags.writeable = False
    with TensorRTRunner(plan) as runner:
        first = runner.infer(batch)
        kept = first.copy()
        runner.infer(images(2, seed=1))
        np.testing.assert_array_equal(first, kept)
        first.fill(np.nan)
        assert_equal(runner.infer(batch), batch)
    np.testing.assert_array_equal(kept, kept)


def test_images_of_any_layout_are_taken(trt: FakeRuntimeModule, plan: EngineArtifact) -> None:
    """A view that is not contiguous is what its values are."""
    channels_last = np.ascontiguousarray(images(3).transpose(0, 2, 3, 1))
    with TensorRTRunner(plan) as runner:
        assert_equal(runner.infer(channels_last.transpose(0, 3, 1, 2)), images(3))


def test_everything_ends_in_order(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """Execution contexts before the engine, the engine before the runtime, CUDA's context last."""
    with TensorRTRunner(plan, streams=2) as runner:
        runner.infer(images(1))
        assert trt.alive == {"runtime": 1, "engine": 1, "context": 2}
    assert trt.ended == ["context", "context", "engine", "runtime"]
    assert cuda.living == {}


def test_it_can_be_reopened(trt: FakeRuntimeModule, plan: EngineArtifact) -> None:
    """And must be open: before, between and after it refuses."""
    runner = TensorRTRunner(plan)
    for _ in range(2):
        with pytest.raises(RunnerError, match=r"is not open\. Use it in a with statement\."):
            runner.infer(images(1))
        with runner:
            assert_equal(runner.infer(images(1)), images(1))


class InTheMiddleError(Exception):
    """What a caller's own code may raise."""


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_an_exception_midway_frees_everything(
    mode: dict[str, Any], cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """And reaches the caller as it was."""

    def fail(runner: TensorRTRunner) -> None:
        with runner:
            runner.infer(images(4))
            raise InTheMiddleError

    with pytest.raises(InTheMiddleError):
        fail(TensorRTRunner(plan, **mode))
    assert (cuda.living, cuda.depth) == ({}, 0)
    assert trt.ended[-2:] == ["engine", "runtime"]


def test_what_tensorrt_refuses_midway_is_reported(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """The copy that was already enqueued is waited for before its memory is given back."""
    trt.refuse_at = 3
    message = r"TensorRT could not enqueue a batch of 2; its log has the reason"
    with pytest.raises(RunnerError, match=message):
        infer_some(TensorRTRunner(plan))
    assert (cuda.living, cuda.depth) == ({}, 0)


CALLS = {
    "cuDevicePrimaryCtxRetain": (0,),
    "cuCtxPushCurrent": (0, 1, 2),
    "cuMemHostAlloc": (0, 1, 3),
    "cuMemAlloc": (0, 1, 3),
    "cuStreamCreate": (0, 1),
    "cuMemcpyHtoDAsync": (0, 3),
    "cuLaunchHostFunc": (0, 3),
    "cuMemcpyDtoHAsync": (0, 3),
    "cuStreamSynchronize": (0, 3),
}
"""How often each works before it fails."""


@pytest.mark.parametrize(
    ("call", "after"), [(call, after) for call, afters in CALLS.items() for after in afters]
)
def test_whichever_call_fails_everything_is_freed(
    call: str, after: int, cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """While it opens or infers; the error is explained, and the next run works."""
    cuda.fail(call, after=after)
    with pytest.raises(RunnerError):
        infer_some(TensorRTRunner(plan, streams=2))
    assert (cuda.living, cuda.depth) == ({}, 0)
    with TensorRTRunner(plan) as runner:
        assert_equal(runner.infer(images(2)), images(2))


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_too_little_memory_is_reported(
    mode: dict[str, Any], cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """With the binding that did not fit; what did is given back."""
    cuda.set_device(memory=1000)
    cuda.fail("cuMemHostAlloc", after=1, code=OUT_OF_MEMORY)
    with pytest.raises(RunnerError) as refused, TensorRTRunner(plan, **mode):
        pass
    message = str(refused.value)
    assert message.startswith("There is no memory for a binding of shape (16, ")
    assert "out of memory" in message
    assert cuda.living == {}


GRAPH_CALLS = (
    "cuStreamBeginCapture",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
)


@pytest.mark.parametrize("call", GRAPH_CALLS)
def test_a_graph_that_fails_is_reported(
    call: str, cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """With the driver's name for it; the stream is left usable."""
    cuda.fail(call)
    with TensorRTRunner(plan, graph=True) as runner:
        with pytest.raises(RunnerError) as refused:
            runner.infer(images(2))
        assert str(refused.value) == (
            f"CUDA graphs: {call} answered CUDA_ERROR_LAUNCH_FAILED. Run without a graph: leave "
            "`-graph` out of --timing."
        )
        assert_equal(runner.infer(images(2)), images(2))


def test_an_engine_that_cannot_be_captured_is_reported(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """TensorRT refuses within the capture, which is ended; without a graph it goes on."""
    trt.refuse_at = 1
    with TensorRTRunner(plan, graph=True) as runner:
        with pytest.raises(RunnerError, match="TensorRT could not enqueue a batch of 2"):
            runner.infer(images(2))
        trt.refuse_at = None
        assert_equal(runner.infer(images(2)), images(2))


def test_a_plan_that_reports_that_it_cannot_be_captured_is_refused(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """TensorRT for RTX knows it; nothing is captured."""
    trt.execution = FakeRtxExecution
    with TensorRTRunner(plan, graph=True) as runner:
        with pytest.raises(RunnerError, match="cannot be captured as a CUDA graph: it takes mem"):
            runner.infer(images(2))
        assert cuda.counts["graphs"] == 0


def test_a_failing_thread_leaves_the_others_alone(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """Its execution context is lent again, and the runner ends although a thread died in it."""
    with TensorRTRunner(plan, streams=2) as runner, ThreadPoolExecutor(4) as threads:
        cuda.fail("cuStreamSynchronize", after=5)
        answers = [threads.submit(runner.infer, images(2, seed)) for seed in range(40)]
        failed = [answer for answer in answers if answer.exception()]
        assert [type(answer.exception()) for answer in failed] == [RunnerError]


def test_the_end_waits_for_inferences_under_way(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """A thread that is still in one gets its answer, and one that comes too late is told so."""
    inside, go_on = threading.Event(), threading.Event()
    runner = TensorRTRunner(plan)
    with ThreadPoolExecutor(2) as threads:
        with runner:
            (context,) = runner._opened().contexts
            wait = context.stop_timer

            def hold() -> None:
                inside.set()
                assert go_on.wait(10)
                wait()

            context.stop_timer = hold  # type: ignore[method-assign]
            answer = threads.submit(runner.infer, images(1))
            assert inside.wait(10)
            late = threads.submit(runner.infer, images(1))
            threading.Timer(0.1, go_on.set).start()
        assert_equal(answer.result(10), images(1))
        assert late.exception(10) is None or "is not open" in str(late.exception())


def test_it_may_be_closed_by_another_thread(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """Which pycuda allows only while the context is current there."""
    runner = TensorRTRunner(plan).__enter__()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(runner.__exit__, None, None, None).result(10)
        assert threads.submit(lambda: cuda.depth).result(10) == 0
    assert (cuda.living, cuda.depth) == ({}, 0)


def test_a_context_of_the_caller_s_stays_current(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """As `pycuda.autoinit` makes it, or one that torch made current."""
    import pycuda.driver

    pycuda.driver.init()
    mine = pycuda.driver.Device(0).retain_primary_context()
    mine.push()
    with TensorRTRunner(plan) as runner:
        runner.infer(images(1))
        assert pycuda.driver.Context.get_current().handle == mine.handle
        assert cuda.depth == 1
    assert pycuda.driver.Context.get_current().handle == mine.handle
    assert cuda.depth == 1
    mine.detach()
    cuda.library.cuCtxPopCurrent_v2(None)


@pytest.mark.parametrize("shape", [(2, 3, SIZE, SIZE - 1), (2, 1, SIZE, SIZE), (3, SIZE, SIZE)])
def test_a_wrong_shape_is_refused(
    shape: tuple[int, ...], trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """Both shapes are in the sentence; TensorRT is not asked."""
    with TensorRTRunner(plan) as runner, pytest.raises(MismatchError) as refused:
        runner.infer(np.zeros(shape, np.float32))
    assert str(refused.value) == (
        "tiny.plan on tensorrt 10.3.0, Pretend GPU, copied memory takes images of shape "
        f"('N', 3, {SIZE}, {SIZE}), not {shape}. Check that data and engine belong to the same "
        "model."
    )
    assert trt.calls == []


@pytest.mark.parametrize(("size", "profile"), [(17, "1:16:17"), (0, "1:16:16")])
def test_a_batch_outside_the_profile_is_refused(
    size: int, profile: str, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """With the batches that it takes, and what to build for more."""
    with TensorRTRunner(plan) as runner, pytest.raises(MismatchError) as refused:
        runner.infer(images(size))
    assert str(refused.value).endswith(
        f"takes batches of 1 to 16 images, not {size}. Pass another batch size, or build the "
        f"engine with --batch {profile}."
    )


def test_what_the_runtime_cannot_load_is_reported(
    cuda: PretendCuda, trt: FakeRuntimeModule, tmp_path: Path
) -> None:
    """With the reason from TensorRT's log, and everything freed."""
    plan = write_plan(tmp_path, b"plan")
    with pytest.raises(RunnerError) as refused, TensorRTRunner(plan):
        pass
    assert str(refused.value) == (
        f"tensorrt 10.3.0 could not load {plan.path}: Magic tag does not match. Build the engine "
        "again on this machine."
    )
    assert (cuda.living, trt.ended) == ({}, ["runtime"])


def test_a_second_stream_without_memory_is_reported(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """The first one's is given back."""
    trt.contexts_left = 1
    with pytest.raises(RunnerError) as refused, TensorRTRunner(plan, streams=2):
        pass
    assert str(refused.value) == (
        "TensorRT could not make an execution context: Cuda error: out of memory. Free memory on "
        "the GPU, or use fewer streams."
    )
    assert cuda.living == {}


def test_an_engine_of_other_types_is_refused(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """float32 goes in and comes out."""
    trt.dtypes["logits"] = "float16"
    message = r"takes \['image'\] and gives \['logits'\], float32: False; edgeres runs classifiers"
    with pytest.raises(RunnerError, match=message), TensorRTRunner(plan):
        pass


@pytest.mark.parametrize("allowed", [True, False])
def test_only_a_version_compatible_plan_may_bring_code(
    allowed: bool, trt: FakeRuntimeModule, tmp_path: Path
) -> None:
    """Its own runtime is in it; TensorRT asks for leave."""
    flags = ("VERSION_COMPATIBLE",) if allowed else ()
    with TensorRTRunner(write_plan(tmp_path, flags=flags)):
        assert trt.host_code_allowed is allowed


def test_the_same_code_serves_tensorrt_for_rtx(
    cuda: PretendCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its own module's name."""
    put_in_place(monkeypatch, name="tensorrt_rtx", version="1.7.1")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    plan = write_plan(tmp_path, target="tensorrt-rtx", versions={"tensorrt_rtx": "1.7.1"})
    with TensorRTRunner(plan) as runner:
        assert runner.name.startswith("tiny.plan on tensorrt_rtx 1.7.1, ")
        assert_equal(runner.infer(images(2)), images(2))


def ticking() -> Callable[[], int]:
    """Returns a clock that moves 1,000 ns at each look."""
    ticks = count(0, 1000)
    return lambda: next(ticks)


def test_it_is_timed_by_its_device(trt: FakeRuntimeModule, plan: EngineArtifact) -> None:
    """The protocol that benchmarks look for."""
    assert isinstance(TensorRTRunner(plan), DeviceTimed)


@pytest.mark.parametrize("timing", Timing)
@pytest.mark.parametrize("memory", HostMemory)
def test_every_timing_mode_measures(
    timing: Timing,
    memory: HostMemory,
    cuda: PretendCuda,
    trt: FakeRuntimeModule,
    plan: EngineArtifact,
) -> None:
    """A positive time for each inference; afterwards an inference is right."""
    with TensorRTRunner(plan, memory=memory) as runner:
        measure = runner.stopwatch(images(3), timing, ticking())
        samples = [measure() for _ in range(5)]
        assert all(isinstance(sample, int) and sample > 0 for sample in samples)
        if timing in {Timing.END_TO_END, Timing.END_TO_END_GRAPH}:
            assert samples == [1000] * 5
        assert_equal(runner.infer(images(4)), images(4))


def test_a_mode_makes_the_copies_that_it_names(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """Per inference, once it is under way; what trtexec has enqueued ahead runs later."""
    copies = {Timing.END_TO_END: 2, Timing.END_TO_END_GRAPH: 2, Timing.TRTEXEC_10: 2}
    with TensorRTRunner(plan) as runner:
        for timing in Timing:
            measure = runner.stopwatch(images(3), timing, ticking())
            for _ in range(3):
                measure()
            before = cuda.counts["copies"]
            for _ in range(10):
                measure()
            copied = cuda.counts["copies"] - before
            assert copied == 10 * copies.get(timing, 0), timing


def test_a_mode_replays_the_graph_that_it_names(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """And TensorRT is called for none of its inferences; without one, for each."""
    with TensorRTRunner(plan) as runner:
        for timing in Timing:
            measure = runner.stopwatch(images(3), timing, ticking())
            for _ in range(3):
                measure()
            called, launched = trt.enqueued, cuda.counts["launches"]
            for _ in range(10):
                measure()
            calls = (trt.enqueued - called, cuda.counts["launches"] - launched)
            assert calls == ((0, 10) if timing.graph else (10, 0)), timing


@pytest.mark.parametrize("timing", [Timing.TRTEXEC_10, Timing.TRTEXEC_11])
def test_trtexec_is_one_batch_ahead(
    timing: Timing, trt: FakeRuntimeModule, plan: EngineArtifact, cuda: PretendCuda
) -> None:
    """The first sample enqueues two, each later one one."""
    with TensorRTRunner(plan) as runner:
        measure = runner.stopwatch(images(1), timing, ticking())
        enqueued = []
        for _ in range(3):
            measure()
            enqueued.append(trt.enqueued)
        if timing is Timing.TRTEXEC_10:
            assert enqueued == [2, 3, 4]
        else:
            assert cuda.counts["launches"] >= 3


def test_the_device_s_time_is_the_network_s(
    cuda: PretendCuda, trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """A network that sleeps 20 ms takes as long, and the copies are outside."""
    trt.sleep_s = 0.02
    with TensorRTRunner(plan) as runner:
        for timing in (Timing.COMPUTE, Timing.COMPUTE_GRAPH, Timing.TRTEXEC_10, Timing.TRTEXEC_11):
            sample = runner.stopwatch(images(1), timing, ticking())()
            assert 20e6 <= sample < 200e6, timing


def test_a_stopwatch_ends_with_the_next_inference(
    trt: FakeRuntimeModule, plan: EngineArtifact
) -> None:
    """It would time other images; a new one has to be asked for."""
    with TensorRTRunner(plan) as runner:
        measure = runner.stopwatch(images(3), Timing.TRTEXEC_10, ticking())
        measure()
        assert_equal(runner.infer(images(3, seed=7)), images(3, seed=7))
        with pytest.raises(RunnerError, match="The stopwatch ended with the inference"):
            measure()
        again = runner.stopwatch(images(3), Timing.COMPUTE, ticking())
        again()
    with pytest.raises(RunnerError, match="is not open"):
        again()


def test_its_images_are_copied(trt: FakeRuntimeModule, plan: EngineArtifact) -> None:
    """The caller may reuse them at once."""
    batch = images(2)
    with TensorRTRunner(plan) as runner:
        measure = runner.stopwatch(batch, Timing.END_TO_END, ticking())
        batch.fill(np.nan)
        measure()
        (context,) = runner._opened().contexts
        assert np.isfinite(context.logits.host[:2]).all()


def test_logits_have_the_classes(trt: FakeRuntimeModule, plan: EngineArtifact) -> None:
    """(N, classes) float32."""
    with TensorRTRunner(plan) as runner:
        logits = runner.infer(images(2))
    assert (logits.shape, str(logits.dtype)) == ((2, CLASSES), "float32")


@pytest.mark.shared
@pytest.mark.parametrize("version", ["10.3.0", "10.16.1", "11.4.0", "rtx-1.7.1"])
def test_what_is_called_exists_in_every_version(version: str, shared: Path) -> None:
    """The double has no name that NVIDIA's own bindings lack, and the runner has only the double."""
    lines = (shared / f"tensorrt/api-{version}.txt").read_text().splitlines()
    real = dict(line.split(" ", 1) for line in lines if " " in line)
    doubles = {
        "IExecutionContext": FakeExecution,
        "ICudaEngine": FakeEngine,
        "Runtime": FakeRuntime,
    }
    for kind, double in doubles.items():
        names = {name for name in dir(double) if not name.startswith("_")} - FakeEngine.OWN
        assert names <= set(ast.literal_eval(real[kind])), kind
    rtx = "is_stream_capturable" in ast.literal_eval(real["IExecutionContext"])
    assert rtx is version.startswith("rtx")


@pytest.mark.rtx
def test_the_module_s_own_names_are_nvidia_s() -> None:
    """In a process of its own: NVIDIA's libraries must not meet the pretend driver."""
    script = (
        "import tensorrt_rtx as t; print([m.name for m in (t.TensorIOMode.NONE, "
        "t.TensorIOMode.INPUT, t.TensorIOMode.OUTPUT)], t.float32.name, t.Runtime.__name__, "
        "sorted(t.ILogger.Severity.__members__))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    severities = sorted(FakeRuntimeModule.ILogger.Severity.__members__)
    modes = [member.name for member in TensorIOMode]
    assert done.stdout.strip() == f"{modes} FLOAT Runtime {severities}", done.stderr
