"""Quantized networks that are loaded, and their latency in turns.

An ONNX file runs in this process; what needs another runtime runs in a child and is asked
through a pipe, so that both alternate in one run.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.peer_quantizers import Images, parts, timed_ms
from edgeres.errors import RunnerError
from edgeres.evaluation.benchmark import BLOCK, SETTLING
from edgeres.session import open_session, run_session

THREADS = 2
"""Of every network that is timed."""

TURNS = 10
"""Blocks that each network is timed for."""

BATCH = 8
"""Images at once where only their classes matter."""

LIMIT_S = 3600
"""A child that takes longer has hung."""

_REASON_LENGTH = 300


class PeerError(Exception):
    """A peer could not be installed, or failed; the message is its own last words."""


class Network(Protocol):
    """A quantized network that is loaded."""

    def classes(self, images: Path) -> NDArray[np.int64]:
        """Returns the class of every image of an `.npy`, (N,)."""
        ...

    def take(self, count: int) -> list[float]:
        """Returns the milliseconds of inferences of one image, one after the other."""
        ...

    def close(self) -> None:
        """Ends what was started."""
        ...


class SessionNetwork:
    """An ONNX file on ONNX Runtime's CPU kernels, in this process."""

    def __init__(self, model: Path, first: Images) -> None:
        """Loads a model; `first` is the image that is timed, (1, 3, H, W)."""
        self._session = open_session(model, threads=THREADS)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self._first = first

    def classes(self, images: Path) -> NDArray[np.int64]:
        """Returns the index of each image's highest logit."""
        stored = np.load(images, mmap_mode="r")
        found = [self._infer(part).argmax(axis=1) for part in parts(stored, BATCH)]
        return np.concatenate(found)

    def take(self, count: int) -> list[float]:
        """Returns the milliseconds of each inference."""
        return [timed_ms(self._infer, self._first) for _ in range(count)]

    def close(self) -> None:
        """Leaves the session to the garbage collector."""

    def _infer(self, images: Images) -> NDArray[np.float32]:
        return run_session(self._session, [self._output], {self._input: images})[0]


class Served:
    """A network in a child that answers one question a line, so that turns can alternate."""

    def __init__(self, command: Sequence[str]) -> None:
        """Starts the child and waits until it says that it is ready.

        Raises:
            PeerError: it ended instead.
        """
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed with the child
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._questions, self._answers = self._child.stdin, self._child.stdout
        self._answer()

    def classes(self, images: Path) -> NDArray[np.int64]:
        """Asks for the class of every image of the file."""
        return np.asarray(self._asked(f"classes {images}"), np.int64)

    def take(self, count: int) -> list[float]:
        """Asks for the milliseconds of inferences, measured by the child itself."""
        return [float(ms) for ms in self._asked(f"go {count}")]

    def close(self) -> None:
        """Ends the questions and waits for the child."""
        with suppress(BrokenPipeError):
            self._questions.close()
        self._answers.close()
        self._errors.close()
        self._child.wait(LIMIT_S)

    def _asked(self, question: str) -> list[Any]:
        try:
            print(question, file=self._questions, flush=True)
        except BrokenPipeError as error:
            raise self._failure() from error
        answer: list[Any] = self._answer()
        return answer

    def _answer(self) -> Any:
        line = self._answers.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> PeerError:
        code = self._child.wait(LIMIT_S)
        self._errors.seek(0)
        printed = self._errors.read()
        self.close()
        return PeerError(f"ended with {code}: {last_words(printed)}")


def in_turns(
    networks: Mapping[str, Network], turns: int = TURNS
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Returns the milliseconds of every network, and why any dropped out.

    In each turn every network has a block of `BLOCK` inferences after `SETTLING` that do not
    count, and each turn begins with another network.
    """
    samples: dict[str, list[float]] = {name: [] for name in networks}
    lost: dict[str, str] = {}
    for turn in range(turns):
        names = list(samples)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            block = _block(networks[name])
            if isinstance(block, PeerError):
                lost[name] = str(block)
                del samples[name]
            else:
                samples[name] += block
    return samples, lost


def _block(network: Network) -> list[float] | PeerError:
    """Returns the milliseconds of one block, or why there are none."""
    try:
        network.take(SETTLING)
        return network.take(BLOCK)
    except (PeerError, RunnerError) as error:
        return PeerError(str(error))


def last_words(printed: str) -> str:
    """Returns the end of what a failed program printed, as one line that fits a table's cell."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return (lines[-1] if lines else "it said nothing").replace("|", "/")[-_REASON_LENGTH:]
