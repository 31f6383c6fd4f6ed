"""Commands whose images are spread over the workers of a cluster, before one of them ends the job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeres.cli.remote import WRITTEN, LocalJob, RemoteCommand, local_job
from edgeres.fleet.cluster import Cluster, SentJob
from edgeres.fleet.inputs import job_file
from edgeres.fleet.job import INPUTS, OUTPUTS
from edgeres.fleet.outcome import check_result
from edgeres.progress import Progress
from edgeres.serialization import save_json

if TYPE_CHECKING:
    from edgeres.images import Dataset

_PARTS_PER_WORKER = 2
"""So that a slower machine, or one that is lost, delays the others by half of its share."""
_RESULT = f"{OUTPUTS}/output/part.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How the images of a command are spread."""

    dataset: Dataset
    """Those that it uses, in their order."""
    unit: int
    """A part is a multiple of so many."""
    joined: str
    """Option that takes the results of the parts."""
    left_out: frozenset[str]
    """Parameters that the parts do not need."""


class SpreadCommand(RemoteCommand):
    """A command that spreads its images over a cluster."""

    def __init__(
        self, *args: Any, spread: Callable[[Mapping[str, Any]], Spread | None], **options: Any
    ) -> None:
        """Takes what reads a spread from the parameters; None: there is nothing to spread."""
        super().__init__(*args, **options)
        self._spread = spread

    def job_for(
        self, ctx: click.Context, cluster: Cluster, folder: Path, progress: Progress
    ) -> LocalJob:
        """Runs the parts, and returns the job that joins them."""
        workers, spread = len(cluster.workers()), self._spread(ctx.params)
        if spread is None:
            return local_job(self, ctx)
        data = Path(ctx.params["data"])
        by_path = any(data.resolve().is_relative_to(shared) for shared in cluster.shared_folders())
        final = local_job(self, ctx, by_path=frozenset({"data"} if by_path else ()))
        if workers < 2 or len(spread.dataset) < 2 * spread.unit:
            return final
        left_out = spread.left_out | WRITTEN | {"data"}
        base = local_job(self, ctx, left_out=left_out)
        jobs = tuple(_parts(spread, base, data, folder, by_path=by_path, workers=workers))
        for result in cluster.run_all(jobs, "Running parts", progress):
            check_result(result, "a worker")
        return _joined(final, spread, [job.target / _RESULT for job in jobs])


def _parts(
    spread: Spread, base: LocalJob, data: Path, folder: Path, *, by_path: bool, workers: int
) -> Iterator[SentJob]:
    """Yields the job of each part."""
    import numpy as np

    from edgeres.images import take
    from edgeres.images.part import save_rows, split

    for number, part in enumerate(
        split(spread.dataset, unit=spread.unit, parts=_PARTS_PER_WORKER * workers)
    ):
        own = folder / f"part{number}"
        own.mkdir()
        sent: dict[str, Path] = {}
        where = str(data.resolve())
        if not by_path and part.rows:
            where = f"{INPUTS}/data/{data.name}"
            sent[where] = own / data.name
            rows = np.arange(part.first, part.first + len(part.rows))
            save_rows(take(spread.dataset, rows), own / data.name)
            part = replace(part, rows=tuple(range(len(part.rows))))
        elif not by_path:
            where = f"{INPUTS}/data/{data.name}"
            sent = {f"{where}/{file}": data / file for file in part.files}
        save_json(own / "part.json", part)
        sent[f"{INPUTS}/part/part.json"] = own / "part.json"
        files = {name: job_file(path, name) for name, path in sent.items()}
        words = (f"--data={where}", f"--part={INPUTS}/part/part.json", f"--output={_RESULT}")
        yield SentJob(
            job=replace(
                base.job,
                words=(*base.job.words, *words),
                files=(*base.job.files, *files.values()),
                outputs=(_RESULT,),
            ),
            sources=base.sources | {files[name].sha256: sent[name].absolute() for name in sent},
            target=own,
        )


def _joined(final: LocalJob, spread: Spread, results: Sequence[Path]) -> LocalJob:
    """Returns the job with the results of the parts among its files."""
    names = [f"{INPUTS}/joined/{number}.json" for number in range(len(results))]
    files = [job_file(path, name) for path, name in zip(results, names, strict=True)]
    paths = {file.sha256: path for file, path in zip(files, results, strict=True)}
    words = (*final.job.words, *(f"{spread.joined}={name}" for name in names))
    job = replace(final.job, words=words, files=(*final.job.files, *files))
    return replace(final, job=job, sources=final.sources | paths)
