"""NVIDIA's one logger a process, and who hears it."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from edgeres.targets.tensorrt.logger import captured_log


@pytest.fixture
def trt() -> Any:
    """A module with a logger of NVIDIA's shape."""

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

        def __init__(self) -> None:
            self.initialized = True

    module: Any = ModuleType("tensorrt")
    module.ILogger = ILogger
    return module


def test_a_runtime_has_the_logger_of_the_builder_before_it(trt: Any) -> None:
    """NVIDIA would ignore another one, and a plan's errors would go unheard."""
    with captured_log(trt) as build:
        build.logger.log(1, "of the build")
    with captured_log(trt) as plan:
        plan.logger.log(1, "of the plan")
    assert build.logger is plan.logger
    assert (build.errors, plan.errors) == (["of the build"], ["of the plan"])


def test_two_plans_end_in_any_order(trt: Any) -> None:
    """The last to come hears; when the first goes, the other still does."""
    first, second = ExitStack(), ExitStack()
    early = first.enter_context(captured_log(trt))
    late = second.enter_context(captured_log(trt))
    early.logger.log(1, "to the last")
    first.close()
    early.logger.log(1, "to it again")
    second.close()
    early.logger.log(1, "to nobody")
    assert (early.errors, late.errors) == ([], ["to the last", "to it again"])


def test_an_exception_does_not_cross_nvidia_s_frames(
    trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while a message is taken is kept, to be raised afterwards."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with captured_log(trt) as log:
        monkeypatch.setattr(log, "add", interrupted)
        log.logger.log(2, "a warning")
    assert isinstance(log.callback_error, KeyboardInterrupt)


@pytest.mark.parametrize(
    ("message", "level"),
    [
        (" (foreignNode) Converting conv activation scales to fp32.", logging.INFO),
        (" (foreignNode) Converting conv weight scales to fp32.", logging.INFO),
        ("Converting weights to fp16 loses precision.", logging.WARNING),
    ],
)
def test_what_comes_with_every_build_is_no_warning(
    trt: Any, message: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It is shown with -v; any other warning stays one, and errors are never taken for it."""
    caplog.set_level(logging.INFO, "edgeres.tensorrt")
    with captured_log(trt) as log:
        log.logger.log(2, message)
        log.logger.log(1, message)
    assert [record.levelno for record in caplog.records] == [level]
    assert log.errors == [message]
