"""Loaded quantized networks, and their latencies interleaved.

An ONNX file runs in this process; what needs another runtime runs in a child process behind a
pipe, so that both alternate in one run.
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
"""Batch size where only classes are needed."""

LIMIT_S = 3600
"""A child that takes longer has hung."""

_REASON_LENGTH = 300


class PeerError(Exception):
    """A peer could not be installed, or failed; the message is its own last words."""


class PeerNetwork(Protocol):
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
        return np.concatenate([self._infer(p).argmax(axis=1) for p in parts(stored, BATCH)])

    def take(self, count: int) -> list[float]:
        """Returns the milliseconds of each inference."""
        return [timed_ms(self._infer, self._first) for _ in range(count)]

    def close(self) -> None:
        """Leaves the session to the garbage collector."""

    def _infer(self, images: Images) -> NDArray[np.float32]:
        return run_session(self._session, [self._output], {self._input: images})[0]


class Served:
    """A network in a child process that answers one request per line."""

    def __init__(self, command: Sequence[str]) -> None:
        """Starts the child and waits until it reports that it is ready.

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
        self._requests, self._replies = self._child.stdin, self._child.stdout
        self._reply()

    def classes(self, images: Path) -> NDArray[np.int64]:
        """Requests the class of every image of the file."""
        return np.asarray(self._request(f"classes {images}"), np.int64)

    def take(self, count: int) -> list[float]:
        """Requests the milliseconds of inferences, measured by the child itself."""
        return [float(ms) for ms in self._request(f"go {count}")]

    def close(self) -> None:
        """Ends the requests and waits for the child."""
        with suppress(BrokenPipeError):
            self._requests.close()
        self._replies.close()
        self._errors.close()
        self._child.wait(LIMIT_S)

    def _request(self, request: str) -> list[Any]:
        try:
            print(request, file=self._requests, flush=True)
        except BrokenPipeError as error:
            raise self._failure() from error
        reply: list[Any] = self._reply()
        return reply

    def _reply(self) -> Any:
        line = self._replies.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> PeerError:
        code = self._child.wait(LIMIT_S)
        self._errors.seek(0)
        printed = self._errors.read()
        self.close()
        return PeerError(f"ended with {code}: {last_words(printed)}")


def interleaved(
    networks: Mapping[str, PeerNetwork], turns: int = TURNS
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Returns the milliseconds of every network, and why any failed.

    In each turn every network has a block of `BLOCK` inferences after `SETTLING` that do not
    count, and each turn begins with another network.
    """
    samples: dict[str, list[float]] = {name: [] for name in networks}
    failures: dict[str, str] = {}
    for turn in range(turns):
        names = list(samples)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            try:
                networks[name].take(SETTLING)
                samples[name] += networks[name].take(BLOCK)
            except (PeerError, RunnerError) as error:  # noqa: PERF203 the others go on
                failures[name] = str(error)
                del samples[name]
    return samples, failures


def last_words(printed: str) -> str:
    """Returns the last line that a failed program printed, cut to fit a table's cell."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return (lines[-1] if lines else "no output").replace("|", "/")[-_REASON_LENGTH:]
