"""What a Dask worker runs: functions of JSON and bytes, found by their names on both sides.

A job runs as over ssh, by `edgeres boards run` in a process of its own: a runtime that crashes
takes no worker with it, and what ends the worker ends the job, since its stdin closes.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from distributed import Status, get_worker

from edgeres.errors import EdgeresError
from edgeres.fleet.job import CONTENT, JobResult, read_job, shared_folders
from edgeres.fleet.order import run_order
from edgeres.fleet.status import board_status
from edgeres.fleet.store import Part, Store, default_root
from edgeres.input_files import read_bytes
from edgeres.serialization import SCHEMA_VERSION, from_json, json_text, parse_json

_CLOSED = frozenset({Status.closing, Status.closed, Status.failed})
_STEP_S = 0.5
"""Least time between two steps of progress that are sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a worker answers to a job: what it lacks, the result, or why there is none."""

    kind: ClassVar[str] = "job-reply"
    schema_version: ClassVar[int] = SCHEMA_VERSION
    json_keys: ClassVar[tuple[str, ...]] = ("kind", "schema_version", "*")

    worker: str
    """Address of the worker."""
    name: str
    """As the worker was named."""
    missing: tuple[Part, ...] = ()
    result: JobResult | None = None
    error: str = ""
    exit_code: int = 0
    """Of the error."""


def perform(text: str, topic: str) -> tuple[str, tuple[bytes, ...]]:
    """Runs a job; returns a `Reply` as JSON, and the contents of the result's outputs.

    Args:
        text: the job's JSON.
        topic: of the events that report progress.
    """
    worker = get_worker()
    key = worker.get_current_task()

    def reply(**fields: object) -> str:
        return json_text(Reply(worker=worker.address, name=str(worker.name), **fields))  # type: ignore[arg-type]

    def is_cancelled() -> bool:
        # A worker whose scheduler is gone closes, and its tasks keep their states.
        if worker.status in _CLOSED:
            return True
        # Ctrl-C there, or a client that is gone.
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled"

    last = 0.0

    def progress(stage: str, done: float, total: float, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last > _STEP_S or done == total:
            last = time.monotonic()
            worker.log_event(topic, [stage, done, total, note])

    try:
        job = read_job(text)
        receipt = Store(default_root()).receive(job, text.encode())
        if receipt.missing:
            return reply(missing=receipt.missing), ()
        answer = run_order(
            [sys.executable, "-m", "edgeres", "boards", "run", receipt.job],
            progress=progress,
            cancelled=is_cancelled,
        )
        if answer.exit_code:
            message = answer.messages.removeprefix("Error: ")
            return reply(error=message or "the job was ended", exit_code=answer.exit_code), ()
        source, remedy = "The job's answer is damaged", "Run the command again."
        result = from_json(parse_json(answer.printed), JobResult, source=source, remedy=remedy)
        folder = Path(result.folder)
        contents = tuple(read_bytes(folder / file.name, CONTENT) for file in result.outputs)
    except EdgeresError as error:
        return reply(error=str(error), exit_code=error.exit_code), ()
    return reply(result=result), contents


def put(name: str, offset: int, content: bytes) -> None:
    """Writes a block of a file that `perform` reported as missing.

    Args:
        name: of the part.
        offset: of the block, in bytes.
        content: the block.
    """
    Store(default_root()).write(name, offset, content)


def facts() -> str:
    """Returns this machine's `BoardStatus` as JSON."""
    return json_text(board_status())


def shares() -> str:
    """Returns the folders of this worker's `SHARED`, as JSON."""
    return json_text([str(folder) for folder in shared_folders()])
