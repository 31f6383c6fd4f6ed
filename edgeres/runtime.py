"""An engine that classifies images: runner, preprocessing contract and class names in one object.

Preprocessing is the code that calibration and bench use, so its labels are theirs. Knows no
labels, verdict or clock.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from edgeres.batch_independence import IMAGES, check_batch_independence
from edgeres.core.artifacts import PROBABILITIES, EngineArtifact, is_engine, load_engine
from edgeres.core.contract import Color, Contract, OutputType
from edgeres.core.contract_options import NO_OPTIONS, ContractOptions
from edgeres.core.predictions import Prediction
from edgeres.errors import ConfigError, RunnerError
from edgeres.images import Frame, fed, frame_pixels, prepare, states_color
from edgeres.names import nearest
from edgeres.onnx_file import load_onnx
from edgeres.targets.base import target_of
from edgeres.targets.loading import batch_tolerance, load_any_engine
from edgeres.targets.runner import AnyBatch, BatchLimited, Runner

if TYPE_CHECKING:
    from typing_extensions import Self

BATCH = 16
"""Images per inference of a longer list; bench's own default, so that its logits are met."""

_MAX_THREADS = 8


class Classifier:
    """An open engine with its preprocessing and class names; see `load`.

    Any number of threads may call it; how many inferences run at a time is the runtime's matter.
    `close`, or leaving its `with` block, frees it: a call after that is refused.
    """

    def __init__(
        self, engine: EngineArtifact, runner: Runner, *, gives_probabilities: bool = False
    ) -> None:
        """Opens the runner.

        Args:
            engine: what the runner runs.
            runner: of the engine, not yet open; this object closes it.
            gives_probabilities: whether the network ends in probabilities and not in logits.

        Raises:
            RunnerError: the runtime refused the engine.
            MismatchError: this machine cannot run it.
        """
        manifest = engine.manifest
        self.path = engine.path
        self.contract: Contract = manifest.contract
        self.classes = manifest.classes
        self.gives_probabilities = gives_probabilities
        self._resources = ExitStack()
        self._runner = self._resources.enter_context(runner)
        limits = None if manifest.batch is None else (manifest.batch[0], manifest.batch[2])
        if limits is None and isinstance(runner, BatchLimited):
            limits = runner.batch_limits
        self._any_batch = AnyBatch(runner, limits)
        self._batch_tolerance = batch_tolerance(manifest)
        # A fixed batch is filled as far as there are images.
        self._step = BATCH if limits is None else max(BATCH, limits[0])
        # Pillow and numpy release the interpreter lock.
        threads = min(_MAX_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="edgeres-prepare")
        self._resources.callback(self._pool.shutdown, cancel_futures=True)
        self._is_open = True

    @property
    def name(self) -> str:
        """What runs where, such as `resnet50.int8.onnx on onnxruntime-cpu`."""
        return self._runner.name

    # A path is a sequence of texts, which are paths themselves: mypy sees an overlap in that alone.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, frames: Frame, *, color: Color | str | None = None, top: int = 5
    ) -> tuple[Prediction, ...]: ...

    @overload
    def predict(
        self, frames: Sequence[Frame], *, color: Color | str | None = None, top: int = 5
    ) -> tuple[tuple[Prediction, ...], ...]: ...

    def predict(
        self,
        frames: Frame | Sequence[Frame],
        *,
        color: Color | str | None = None,
        top: int = 5,
    ) -> tuple[Prediction, ...] | tuple[tuple[Prediction, ...], ...]:
        """Returns the classes that are ranked highest, the highest first.

        Args:
            frames: one image or a list: NumPy arrays, (H, W, 3) or gray (H, W) uint8; images of
                Pillow; paths of image files, or their bytes.
            color: `rgb` or `bgr`, the order of the channels of the arrays; for nothing else.
            top: classes for each image, or as many as there are.

        Returns:
            The predictions of the image; for a list, those of each of its images.

        Raises:
            ConfigError: `color` is missing, unknown or without effect, or `top` is below 1.
            DataError: an image cannot be decoded, or is of another type or shape.
            RunnerError: inference failed, an output is NaN, or the engine was closed.
        """
        if isinstance(frames, list | tuple):
            return self.rank(self.prepare(frames, color=color), top=top) if frames else ()
        return self.rank(self.prepare([cast("Frame", frames)], color=color), top=top)[0]

    def prepare(self, frames: Sequence[Frame], *, color: Color | str | None = None) -> NDArray[Any]:
        """Returns what runners take for images, floats or bytes by the contract; see `predict`."""
        order = None if color is None else _color(color)
        if order is not None and all(map(states_color, frames)):
            raise ConfigError(
                f"color='{order}' is the order of the channels of NumPy arrays, and there is no "
                "array of three channels here. Leave it out."
            )
        self._check_open()

        def ready(position: int) -> NDArray[np.uint8]:
            name = f"Frame {position}" if len(frames) > 1 else "The frame"
            library = self.contract.resize.library
            pixels = frame_pixels(frames[position], order, name=name, library=library)
            return prepare(pixels, self.contract, name=name)

        places = range(len(frames))
        # A single frame has nothing to overlap, and another thread costs it time.
        pixels = map(ready, places) if len(frames) == 1 else self._pool.map(ready, places)
        return fed(np.stack(list(pixels)), self.contract)

    def rank(self, images: NDArray[Any], *, top: int = 5) -> tuple[tuple[Prediction, ...], ...]:
        """Returns the classes that are ranked highest for images that are prepared.

        Args:
            images: of `prepare`.
            top: classes for each image, or as many as there are.

        Raises:
            ConfigError: `top` is below 1.
            MismatchError: the images' shape is not one that the engine takes.
            RunnerError: inference failed, an output is NaN, or the engine was closed.
        """
        if top < 1:
            raise ConfigError(f"top is {top}; expected at least 1 class.")
        outputs = self.infer(images)
        # A stable sort: among equal outputs the lowest class index comes first, as in bench.
        order = np.argsort(-outputs, axis=1, kind="stable")[:, :top]
        probabilities = outputs if self.gives_probabilities else _softmax(outputs)
        return tuple(
            tuple(
                Prediction(
                    index=int(index),
                    name=self.classes[index] if self.classes else None,
                    probability=float(probabilities[row, index]),
                    logit=None if self.gives_probabilities else float(outputs[row, index]),
                )
                for index in order[row]
            )
            for row in range(len(outputs))
        )

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the network's outputs, (N, classes), in batches that the engine takes.

        Args:
            images: of `prepare`.

        Raises:
            MismatchError: the images' shape is not one that the engine takes.
            RunnerError: inference failed, an output is NaN, the engine was closed, or is another
                tool's and mixes the images of a batch.
        """
        self._check_open()
        if self._batch_tolerance is not None and len(images) > 1:
            # At the first list, on its own images: a single frame has none to mix with.
            check_batch_independence(
                self._any_batch.infer,
                images[:IMAGES],
                name=self.name,
                tolerance=self._batch_tolerance,
            )
            self._batch_tolerance = None
        starts = range(0, len(images), self._step)
        outputs = np.concatenate(
            [self._any_batch.infer(images[start : start + self._step]) for start in starts]
        )
        if not np.isfinite(outputs).all():
            row = int((~np.isfinite(outputs).all(axis=1)).argmax())
            raise RunnerError(
                f"{self.name} returned NaN or infinite outputs (first: image {row} of "
                f"{len(images)}). Check the weights, or build in a precision of wider range."
            )
        return outputs

    def warm_up(self, inferences: int = 1) -> None:
        """Infers a few times on an empty image, so that the first frame is not slower than others.

        Raises:
            RunnerError: inference failed.
        """
        image = np.zeros((1, *self.contract.fed_shape), self.contract.input.value)
        for _ in range(inferences):
            self._any_batch.infer(image)

    def close(self) -> None:
        """Frees the engine, after inferences under way; a second call does nothing."""
        self._is_open = False
        self._resources.close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise RunnerError(f"{self.path} was closed. Load it again with edgeres.load.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def load(
    engine: str | Path,
    *,
    reference: str | Path | None = None,
    preprocessing: ContractOptions = NO_OPTIONS,
    trust: bool = False,
    warmup: int = 1,
) -> Classifier:
    """Returns an engine, open, with its preprocessing and class names, whatever its target.

    Args:
        engine: an engine with its manifest, an ONNX file of any tool, or a plan.
        reference: ONNX model or engine that lends its preprocessing and class names to an engine
            that carries none.
        preprocessing: of an engine that carries none.
        trust: run a plan that has no manifest; a plan is code.
        warmup: inferences on an empty image before the first frame.

    Raises:
        EdgeresError: the engine cannot be read, its preprocessing is not known, or this machine
            does not run it.
    """
    lender = None
    if reference is not None:
        path = Path(reference)
        lender = load_engine(path).manifest if is_engine(path) else load_onnx(path).artifact
    artifact = load_any_engine(Path(engine), reference=lender, options=preprocessing, trust=trust)
    return open_classifier(artifact, warmup=warmup)


def open_classifier(engine: EngineArtifact, *, warmup: int = 1) -> Classifier:
    """Returns an engine that was read, open; see `load`."""
    runner = target_of(engine.manifest).open(engine)
    classifier = Classifier(engine, runner, gives_probabilities=gives_probabilities(engine))
    try:
        classifier.warm_up(warmup)
    except BaseException:
        classifier.close()
        raise
    return classifier


def gives_probabilities(engine: EngineArtifact) -> bool:
    """Returns whether an engine ends in probabilities and not in logits."""
    manifest = engine.manifest
    # The contract is of our own exports; what another tool's model ends in, its graph showed.
    return (
        manifest.contract.output is OutputType.PROBABILITIES or manifest.activation in PROBABILITIES
    )


def _color(name: Color | str) -> Color:
    """Returns the order of channels of that name."""
    names = (Color.RGB.value, Color.BGR.value)
    if str(name) not in names:
        raise ConfigError(
            f"color is {name!r}.{nearest(str(name), names)} Available: {', '.join(names)}."
        )
    return Color(str(name))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the probabilities of logits, (N, classes), in float64."""
    # Taking the highest off first, so that it never overflows.
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
