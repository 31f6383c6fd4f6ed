"""ONNX Runtime in tests: one thread, and what an evaluation asked once is not computed again.

Dozens of verdicts rest on the same batches of the digits in the same networks. What a session
answers follows from its graph, its options and its input alone, which a test of its own holds.
Only what asks for accuracy is answered from here: whatever has a clock computes, and so does what
observes ranges.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

MAX_BYTES = 8 << 20
"""Of a model; the larger ones are evaluated once anyway."""
_SETTINGS = ("session.x64quantprecision", "session.disable_quant_qdq")

answers: dict[bytes, list[NDArray[Any]]] = {}
"""By what was asked."""

_asks_for_accuracy: ContextVar[bool] = ContextVar("_asks_for_accuracy", default=False)


def install() -> None:
    """Takes effect for every session that this process opens from now on."""
    import onnxruntime

    from edgeres.calibration import quality
    from edgeres.evaluation import evaluate

    for module in (evaluate, quality):
        module._logits = _asking(module._logits)  # type: ignore[attr-defined]
    session = onnxruntime.InferenceSession
    session.__init__ = _opening(session.__init__)
    session.run = _answering(session.run)


def _asking(logits: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(logits)
    def asking(*arguments: Any, **named: Any) -> Any:
        token = _asks_for_accuracy.set(True)
        try:
            return logits(*arguments, **named)
        finally:
            _asks_for_accuracy.reset(token)

    return asking


def _opening(opened: Callable[..., None]) -> Callable[..., None]:
    """Where a session leaves its number of threads to ONNX Runtime, it gets one."""
    import onnxruntime

    # No variable of the environment sets it.
    def open_with_one(
        session: Any, model: Any, sess_options: Any = None, *more: object, **named: object
    ) -> None:
        options = sess_options or onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.intra_op_num_threads or 1
        opened(session, model, options, *more, **named)
        session.graph_digest = functools.cache(functools.partial(_digest, _content(model), options))

    return open_with_one


def _content(model: Any) -> bytes | None:
    """Returns the serialised model as it is now; None where it is too large to be worth it."""
    if isinstance(model, bytes):
        return model if len(model) <= MAX_BYTES else None
    path = Path(model)
    return path.read_bytes() if path.stat().st_size <= MAX_BYTES else None


def _digest(content: bytes | None, options: Any) -> bytes | None:
    """Returns a hash of what a session computes, whatever its metadata say."""
    if content is None:
        return None
    model = onnx.load_model_from_string(content)
    if any(tensor.external_data for tensor in model.graph.initializer):
        return None
    del model.metadata_props[:]
    found = hashlib.sha256(model.SerializeToString(deterministic=True))
    settings = [_entry(options, name) for name in _SETTINGS]
    found.update(f"{options.graph_optimization_level} {settings}".encode())
    return found.digest()


def _entry(options: Any, name: str) -> str | None:
    """Returns a setting of a session; None where it has none, at which ONNX Runtime raises."""
    try:
        return str(options.get_session_config_entry(name))
    except RuntimeError:
        return None


def _answering(run: Callable[..., Any]) -> Callable[..., Any]:
    def answer(
        session: Any, outputs: Any, feed: Mapping[str, NDArray[Any]], options: Any = None
    ) -> Any:
        graph = session.graph_digest() if _asks_for_accuracy.get() else None
        if graph is None:
            return run(session, outputs, feed, options)
        asked = hashlib.sha256(graph + repr(outputs).encode())
        for name, value in feed.items():
            asked.update(f"{name} {value.dtype} {value.shape}".encode())
            asked.update(value.tobytes())
        key = asked.digest()
        if key not in answers:
            answers[key] = run(session, outputs, feed, options)
        # Fresh arrays of the caller's, as ONNX Runtime's are.
        return [value.copy() for value in answers[key]]

    return answer
