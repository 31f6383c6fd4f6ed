"""A Chromium without a window, and the pages that it is shown."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sample_verdict import (
    ACCURACY,
    BARE,
    DROP,
    LATENCY,
    LOADGEN,
    LOST,
    METERED,
    REGRESSION,
    SHAKEN,
    SPEEDUP,
    VERDICT,
    stats,
)

from edgeres.core.precision import Precision
from edgeres.core.sweep import Sweep, SweepRun
from edgeres.core.verdict import Outcome, Verdict

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in _BROWSERS if (path := shutil.which(name))), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What a browser did with a page."""

    dom: str
    complaints: tuple[str, ...]
    """Lines that the page wrote to the console, errors of its policy included."""
    requests: tuple[str, ...]
    """Addresses outside the file that the page requested."""


def visit(page: Path, *options: str) -> Visit:
    """Opens a page without a window."""
    assert BROWSER is not None
    log = page.parent / "network.json"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    flags += [f"--user-data-dir={page.parent / 'profile'}", "--enable-logging=stderr"]
    command = [BROWSER, *flags, f"--log-net-log={log}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Visit(
        dom=done.stdout,
        complaints=tuple(re.findall(r"CONSOLE.*", done.stderr)),
        requests=requested_by(log),
    )


def requested_by(log: Path) -> tuple[str, ...]:
    """Returns the addresses that a page, not the browser itself, requested."""
    events = json.loads(log.read_text(encoding="utf-8"))
    start = events["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = (event.get("params", {}) for event in events["events"] if event["type"] == start)
    own = "not an origin"
    return tuple(job["url"] for job in jobs if job.get("initiator", own) != own)


def verdicts() -> dict[str, Verdict]:
    """Twelve kinds of verdict, by what is special about each."""
    few = replace(ACCURACY, flips=ACCURACY.flips[:3])
    plain = replace(VERDICT, accuracy=few)
    near = replace(LATENCY, engine=stats(16.9, seed=3, start_ms=1100.0), speedup_ci95=None)
    steady = replace(LATENCY.engine, outliers=None)
    gain = replace(few, drop_pp=-0.23, ci95_pp=(-0.98, 0.48), gained=12, lost=9)
    beyond = replace(LOST, limit=-4.0)
    return {
        "pass": replace(plain, checks=(SPEEDUP,)),
        "fail": replace(plain, checks=(LOST, SPEEDUP)),
        "fail twice": replace(plain, checks=(LOST, replace(SPEEDUP, outcome=Outcome.FAIL))),
        "undecided": replace(plain, checks=(DROP,)),
        "measured": replace(plain, checks=()),
        "simulated": BARE,
        "unstable": replace(METERED, accuracy=few, stability=SHAKEN.stability),
        "metered": replace(METERED, accuracy=few),
        "baseline and LoadGen": replace(plain, regression=REGRESSION, loadgen=LOADGEN),
        "equally fast": replace(plain, latency=near),
        "a gain, no outlier": replace(
            plain, accuracy=gain, latency=replace(LATENCY, engine=steady)
        ),
        "a limit far away": replace(plain, checks=(beyond,)),
    }


def sweep() -> Sweep:
    """A sweep of two batches with an estimate, a run that failed, and a long name."""

    def run(name: str, batch: int, top1: float, p50_ms: float, **others: Any) -> SweepRun:
        rest: dict[str, Any] = {"streams": 4, "estimated": False, "dominated_by": (), "reason": ""}
        return SweepRun(
            name=f"{name}.b{batch}",
            precision=Precision.INT8,
            method=None,
            batch=batch,
            target=name.split(".")[0],
            verdict=None,
            outcome=None,
            top1=top1,
            p50_ms=p50_ms,
            images_per_s=1000 * batch / p50_ms,
            **{"board": None, "on_front": True, "on_latency_front": True}
            | {"on_throughput_front": batch > 1}
            | rest
            | others,
        )

    fast, exact = "onnxruntime.int8.percentile-99.99", "onnxruntime.fp32"
    runs = [run(fast, batch, 0.8085, 5.9 * batch**0.8) for batch in (1, 8)]
    runs += [run(exact, batch, 0.8108, 17.5 * batch**0.9) for batch in (1, 8)]
    slow = run(
        "onnxruntime.int8.entropy",
        1,
        0.79,
        6.4,
        on_latency_front=False,
        dominated_by=(f"{fast}.b1",),
    )
    away = replace(
        run(
            "tensorrt.int8",
            1,
            0.0,
            1.1,
            estimated=True,
            board="agx-orin-64",
            reason="TensorRT is not installed",
        ),
        top1=None,
        on_latency_front=False,
    )
    return Sweep(model_sha256="4d" * 32, runs=(*runs, slow, away))
