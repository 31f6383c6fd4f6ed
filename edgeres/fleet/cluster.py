"""Machines behind a Dask scheduler: it places jobs by resources, and repeats one whose worker is lost.

A worker runs one job at a time, by its resource `board`; a tag is a resource `tag:NAME`. Whatever
a job ends with, an error or a signal of its process, is its result and is not run again.
Certificates, time-outs and how many lost workers are too many are Dask's own configuration.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from edgeres.errors import ArtifactError, ConfigError, MismatchError
from edgeres.fleet.inventory import TAG
from edgeres.fleet.job import CONTENT, Job, JobError, JobResult, check_version, sha256_of
from edgeres.fleet.scheduler import BOARD, Scheduler, check_installed
from edgeres.fleet.status import BoardStatus
from edgeres.fleet.store import Part
from edgeres.input_files import open_input
from edgeres.names import nearest
from edgeres.plurals import counted
from edgeres.progress import Progress
from edgeres.serialization import from_json, json_text, parse_json
from edgeres.version import __version__

if TYPE_CHECKING:
    from edgeres.fleet.worker import Reply

_BLOCK = 4 << 20
"""Bytes of a file that one task carries; Dask warns from 10 MB on."""
_BLOCKS_AT_ONCE = 4
_POLL_S = 2.0
_ALONE_S = 60.0
"""How long a job waits for a worker to come, or to come back."""
_ATTEMPTS = 8
"""Workers that a job may be offered to before its files are on one of them."""
_JOBS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SentJob:
    """A job, the files that it needs, and where its outputs go."""

    job: Job
    sources: Mapping[str, Path]
    """Files here, by SHA-256."""
    target: Path
    """Folder that the outputs are written to, by their names in the job."""


class Cluster:
    """An open connection to a scheduler."""

    def __init__(self, client: Any, scheduler: Scheduler) -> None:
        """Takes the connection of a `distributed.Client`."""
        self._client = client
        self._scheduler = scheduler
        on = scheduler.on
        self._resources = {BOARD: 1}
        if on is not None and on.startswith(TAG):
            self._resources[on] = 1

    def workers(self) -> dict[str, str]:
        """Returns the names of the workers that are meant, by address."""
        on = self._scheduler.on
        return {
            address: str(worker["name"])
            for address, worker in self._all().items()
            if all(worker["resources"].get(name, 0) >= 1 for name in self._resources)
            and (on is None or on.startswith(TAG) or on == str(worker["name"]))
        }

    def boards(self) -> Mapping[str, Cluster]:
        """Returns each worker that is meant, by its name, as a cluster of its own."""
        return {
            name: Cluster(self._client, replace(self._scheduler, on=name))
            for name in sorted(self.workers().values())
        }

    def status(self) -> BoardStatus:
        """Returns what the one worker that is meant is.

        Raises:
            ArtifactError: it was lost, or answers otherwise.
        """
        from edgeres.fleet.worker import facts

        lost = f"The worker {self._scheduler.on} was lost. Start it, and run the command again."
        if not (addresses := list(self.workers())):
            raise ArtifactError(lost)
        try:
            (answer,) = self._client.run(facts, workers=addresses).values()
        except (OSError, ValueError) as error:
            raise ArtifactError(lost) from error
        source, remedy = "The worker's answer is damaged", "Install the same edgeres there."
        return from_json(parse_json(answer), BoardStatus, source=source, remedy=remedy)

    def close(self) -> None:
        """Ends the connection, and with it the jobs that run."""
        self._client.close()

    def shared_folders(self) -> tuple[Path, ...]:
        """Returns the folders whose files all workers read by the same path."""
        from edgeres.fleet.worker import shares

        answers = self._client.run(shares, workers=list(self.workers()))
        folders = [set(parse_json(answer)) for answer in answers.values()]
        return tuple(Path(folder) for folder in sorted(set.intersection(*folders)))

    def check(self) -> None:
        """Checks that there are workers, and that they and this machine can work together.

        Raises:
            ConfigError: there is none, or none of that tag or name.
            MismatchError: one has another edgeres, or another minor version of Python.
        """
        meant, everyone = self.workers(), self._all()
        if not meant:
            self._refuse_no_worker(everyone)
        versions = self._client.get_versions(packages=["edgeres"])
        here = _minor(versions["client"]["host"]["python"])
        for address, name in meant.items():
            if address not in versions["workers"]:
                continue
            there = versions["workers"][address]
            other = there["packages"].get("edgeres")
            if not other:
                raise MismatchError(
                    f"Worker {name} has no edgeres; this is {__version__}. Install it there."
                )
            check_version(str(other))
            python = _minor(there["host"]["python"])
            if python != here and not self._scheduler.mixed_python:
                raise MismatchError(
                    f"Worker {name} runs Python {python}, this machine {here}. Use one minor version, "
                    "or pass --mixed-python: jobs are JSON, but Dask's own messages may not be."
                )

    def run(
        self, job: Job, sources: Mapping[str, Path], target: Path, progress: Progress
    ) -> JobResult:
        """Sends what is missing there, runs a job, and brings its outputs back.

        Raises:
            JobError: edgeres there refused the job, or every worker that took it was lost.
            ArtifactError: the scheduler or all workers are gone.
        """
        sent = SentJob(job=job, sources=sources, target=target)
        topic, worker = f"edgeres-{uuid.uuid4().hex}", None
        progress("Waiting for a worker", 0, 1)
        self._client.subscribe_topic(topic, lambda event: progress(*event[1]))
        try:
            for _ in range(_ATTEMPTS):
                # Of a worker that is lost meanwhile the next attempt is free again.
                keeper, worker = worker, None
                with suppress(_LostWorkerError):
                    reply, contents = self._perform(sent, topic, keeper)
                    if reply.error:
                        raise JobError(f"On {reply.name}: {reply.error}", reply.exit_code)
                    if reply.result is not None:
                        _write(reply.result, contents, target)
                        return reply.result
                    self._send(reply.worker, reply.missing, sources, progress)
                    worker = reply.worker
        finally:
            self._client.unsubscribe_topic(topic)
        raise ArtifactError(
            f"The job was sent to workers {_ATTEMPTS} times, and none kept its files. Are workers "
            "being replaced, or their disks full?"
        )

    def run_all(
        self, jobs: Sequence[SentJob], stage: str, progress: Progress
    ) -> tuple[JobResult, ...]:
        """Runs jobs side by side; the first error ends all of them.

        Raises:
            EdgeresError: as `run`.
        """

        def run(sent: SentJob) -> JobResult:
            # Their own progress would be that of all at once.
            return self.run(sent.job, sent.sources, sent.target, lambda *_: None)

        with ThreadPoolExecutor(min(len(jobs), _JOBS_AT_ONCE)) as pool:
            futures = [pool.submit(run, each) for each in jobs]
            try:
                results = []
                for done, future in enumerate(futures):
                    progress(stage, done, len(jobs))
                    results.append(future.result())
            except BaseException:
                for future in futures:
                    future.cancel()
                # Those that run see their tasks cancelled.
                self.close()
                raise
        progress(stage, len(jobs), len(jobs))
        return tuple(results)

    def _all(self) -> dict[str, Any]:
        workers: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return workers

    def _refuse_no_worker(self, everyone: Mapping[str, Any]) -> None:
        on = self._scheduler.on or "board"
        tags = {name for each in everyone.values() for name in each["resources"]}
        names = {str(each["name"]) for each in everyone.values()}
        known = sorted({tag for tag in tags if tag.startswith(TAG)} | names)
        raise ConfigError(
            f"No worker of {self._scheduler.address} has {on!r:.60}{nearest(on, known)} It has "
            f"{counted(len(everyone), 'worker')}: {', '.join(known[:12]) or 'none'}. Start one "
            f"with `edgeres boards worker {self._scheduler.address}`."
        )

    def _perform(
        self, sent: SentJob, topic: str, worker: str | None
    ) -> tuple[Reply, tuple[bytes, ...]]:
        from edgeres.fleet.worker import Reply, perform

        on = self._scheduler.on
        named = on is not None and not on.startswith(TAG)
        chosen = [worker] if worker else list(self.workers()) if named else None
        # Dask would take an empty list for any worker.
        if chosen == []:
            raise ArtifactError(f"The worker {on} was lost. Start it, and run the command again.")
        future = self._client.submit(
            perform,
            json_text(sent.job),
            topic,
            key=f"{topic}-{uuid.uuid4().hex}",
            resources=self._resources,
            # The one that has the files. If it is lost, the next attempt goes to another: a task
            # that may also run elsewhere is not always moved by the scheduler.
            workers=chosen,
            pure=False,
        )
        text, contents = self._answer(future, worker)
        source, remedy = "The worker's answer is damaged", "Install the same edgeres there."
        return from_json(parse_json(text), Reply, source=source, remedy=remedy), contents

    def _send(
        self, worker: str, parts: Sequence[Part], sources: Mapping[str, Path], progress: Progress
    ) -> None:
        from edgeres.fleet.worker import put

        if unknown := [part.sha256 for part in parts if part.sha256 not in sources]:
            raise ArtifactError(
                f"The worker {worker} requests a file that is not of this job ({unknown[0]:.12}). "
                "Install the same version of edgeres on both machines."
            )
        waiting: list[Any] = []
        for done, part in enumerate(parts):
            progress("Sending files", done, len(parts))
            with open_input(sources[part.sha256], CONTENT) as file:
                file.seek(part.present)
                offset = part.present
                # At least once: an empty file has to arrive as well.
                while (content := file.read(_BLOCK)) or offset == part.present == 0:
                    waiting.append(
                        self._client.submit(
                            put,
                            PurePath(part.path).name,
                            offset,
                            content,
                            # Not while the board measures: a transfer would be seen in its latency.
                            resources={BOARD: 1},
                            workers=[worker],
                            pure=False,
                        )
                    )
                    offset += len(content)
                    if len(waiting) >= _BLOCKS_AT_ONCE:
                        self._answer(waiting.pop(0), worker)
                    if not content:
                        break
        for future in waiting:
            self._answer(future, worker)
        progress("Sending files", len(parts), len(parts))

    def _answer(self, future: Any, worker: str | None) -> Any:
        """Returns a task's result.

        Args:
            future: of the task.
            worker: the only one that may run it; None: any that is meant.
        """
        import distributed

        alone = math.inf
        try:
            while not _is_done(future):
                addresses = self.workers()
                if worker is not None and worker not in addresses:
                    raise _LostWorkerError
                alone = math.inf if addresses else min(alone, time.monotonic())
                if time.monotonic() - alone > _ALONE_S:
                    raise ArtifactError(
                        f"{self._scheduler.address} has had no worker for it for {_ALONE_S:.0f} "
                        "seconds. Start one, and run the command again."
                    )
            return future.result()
        except distributed.scheduler.KilledWorker as error:
            raise JobError(
                f"Every worker that took the job was lost while it ran; the last was "
                f"{error.last_worker.address}. See its log; what ends a worker may be the job."
            ) from error
        except (distributed.client.FutureCancelledError, OSError) as error:
            raise ArtifactError(
                f"The scheduler {self._scheduler.address} was lost: {getattr(error, 'reason', error)}. "
                "Run the command again."
            ) from error
        finally:
            future.cancel()


class _LostWorkerError(Exception):
    """The only worker that may run a task has gone."""


@contextmanager
def open_cluster(scheduler: Scheduler) -> Iterator[Cluster]:
    """Yields a connection to a scheduler; its jobs end with the block.

    Raises:
        DependencyError: distributed is not installed.
        ArtifactError: the scheduler cannot be reached, or a certificate is refused.
        ConfigError: it has no worker that is meant.
        MismatchError: a worker cannot work with this edgeres.
    """
    client = _connected(scheduler)
    try:
        cluster = Cluster(client, scheduler)
        cluster.check()
        yield cluster
    finally:
        client.close(timeout=_POLL_S)


def _connected(scheduler: Scheduler) -> Any:
    check_installed("--scheduler")
    import distributed

    # Its messages of lost connections would stand beside the one that says what to do.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # Versions are compared by `check`.
            warnings.simplefilter("ignore")
            client: Any = distributed.Client
            return client(scheduler.address, timeout="15s", set_as_default=False)
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        cause = error.__cause__ or error
        raise ArtifactError(
            f"The scheduler {scheduler.address} cannot be reached: {cause}. Is it running, and do "
            "its certificates and this machine's come from one authority? Dask reads them from "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..__TLS__CLIENT__CERT and ..__TLS__CLIENT__KEY, "
            "or from ~/.config/dask."
        ) from error


def _is_done(future: Any) -> bool:
    """Waits a moment; returns whether a task has ended."""
    import distributed

    try:
        future.exception(timeout=_POLL_S)
    except distributed.TimeoutError:
        return False
    return True


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def _write(result: JobResult, contents: Sequence[bytes], target: Path) -> None:
    for file, content in zip(result.outputs, contents, strict=True):
        place = target / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        if sha256_of(place) != file.sha256:
            raise ArtifactError(f"{file.name} arrived damaged. Run the command again.")
