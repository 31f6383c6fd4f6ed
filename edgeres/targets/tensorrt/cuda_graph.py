"""CUDA graphs through the driver's own functions: pycuda has none.

A graph is what was enqueued on a stream while it captured; a launch replays it with one call in
place of one for each kernel. Shapes and addresses are those of the capture.
Source: CUDA driver API, "Graph Management".
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from edgeres.errors import RunnerError
from edgeres.machine.cuda import error_name, load_driver

_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating. Source: cuda.h."""

_NO_FLAGS = ctypes.c_ulonglong(0)


class CudaGraph:
    """An executable graph; whoever captured it frees it, with the context current."""

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        """Captures what `enqueue` puts on a stream.

        Args:
            stream: its handle; nothing may be pending on it.
            enqueue: called once, and must wait for nothing.

        Raises:
            RunnerError: the work cannot be captured.
        """
        driver = load_driver()
        if driver is None:
            raise RunnerError("CUDA graphs need NVIDIA's driver, which is not installed.")
        self._driver = driver
        self._executable = ctypes.c_void_p()
        handle, template = ctypes.c_void_p(stream), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", handle, _THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            # A stream that is left capturing could not even be synchronised.
            driver.cuStreamEndCapture(handle, ctypes.byref(template))
            if template:
                driver.cuGraphDestroy(template)
            raise
        self._call("cuStreamEndCapture", handle, ctypes.byref(template))
        try:
            self._call(
                "cuGraphInstantiateWithFlags", ctypes.byref(self._executable), template, _NO_FLAGS
            )
        finally:
            # The executable graph is a copy: the template has served.
            self._call("cuGraphDestroy", template)

    def launch(self, stream: int) -> None:
        """Enqueues a replay.

        Raises:
            RunnerError: the driver refused.
        """
        self._call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream))

    def free(self) -> None:
        """Destroys the graph; no replay may be pending."""
        self._call("cuGraphExecDestroy", self._executable)

    def _call(self, function: str, *arguments: object) -> None:
        code = getattr(self._driver, function)(*arguments)
        if code:
            raise RunnerError(
                f"CUDA graphs: {function.removesuffix('_v2')} answered "
                f"{error_name(self._driver, code)}. Run without a graph: leave `-graph` out of "
                "--timing."
            )
