"""Images without labels to what an engine predicts for them."""

from __future__ import annotations

import csv
import glob
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeres.core.artifacts import manifest_path
from edgeres.core.predictions import FailedImage, ImagePrediction, PredictInputs, PredictionRun
from edgeres.errors import DataError
from edgeres.files import check_outputs, write_report
from edgeres.images import image_files
from edgeres.input_files import IMAGE, exists, is_folder
from edgeres.progress import Progress, silent
from edgeres.runtime import BATCH, Classifier, load

_AHEAD = 3 * BATCH
"""Images that are decoded or being decoded while the engine works on others."""

_MAX_THREADS = 8

_COLUMNS = ("image", "rank", "index", "name", "probability", "logit", "error")


def predict_images(
    inputs: PredictInputs,
    *,
    progress: Progress = silent,
    receive: Callable[[Sequence[ImagePrediction]], None] | None = None,
) -> PredictionRun:
    """Returns what an engine predicts for images, those that cannot be read among them by name.

    Args:
        inputs: engine and images.
        progress: receives how many images are done.
        receive: gets the predictions of each batch as soon as they are there.

    Raises:
        ConfigError: the preprocessing is not known, or the CSV would replace what is read.
        ArtifactError: the engine cannot be read, or the CSV cannot be written.
        MismatchError: this machine cannot run the engine.
        RunnerError: inference failed.
    """
    files, failed = _listed(inputs.images)
    if inputs.csv is not None:
        read = [inputs.engine, manifest_path(inputs.engine), *map(Path, inputs.images)]
        if inputs.reference is not None:
            read.append(inputs.reference)
        check_outputs([], read, reports=[inputs.csv])
    predictions: list[ImagePrediction] = []
    with load(
        inputs.engine,
        reference=inputs.reference,
        preprocessing=inputs.contract,
        trust=inputs.trust,
        warmup=0,
    ) as classifier:
        names: list[str] = []
        ready: list[NDArray[np.float32]] = []
        for done, (path, image) in enumerate(_prepared(classifier, files), 1):
            if isinstance(image, DataError):
                failed.append(FailedImage(image=str(path), error=str(image)))
            else:
                names.append(str(path))
                ready.append(image)
            if ready and (len(ready) == BATCH or done == len(files)):
                ranked = classifier.rank(np.concatenate(ready), top=inputs.top)
                batch = [
                    ImagePrediction(image=name, top=top)
                    for name, top in zip(names, ranked, strict=True)
                ]
                predictions += batch
                names, ready = [], []
                if receive is not None:
                    receive(batch)
            progress("Predicting", done, len(files))
    run = PredictionRun(
        engine=str(inputs.engine), predictions=tuple(predictions), failed=tuple(failed)
    )
    if inputs.csv is not None:
        write_report(inputs.csv, _as_csv(run))
    return run


def _listed(images: Sequence[str]) -> tuple[list[Path], list[FailedImage]]:
    """Returns the files that were named, and the names that stand for none."""
    files: list[Path] = []
    failed: list[FailedImage] = []
    for name in images:
        path = Path(name)
        # A file may have the characters of a pattern in its name. `Path.glob` takes no absolute one.
        try:
            known = exists(path, IMAGE)
        except DataError as refused:
            failed.append(FailedImage(image=name, error=str(refused)))
            continue
        matches = [path] if known else sorted(map(Path, glob.glob(name, recursive=True)))  # noqa: PTH207
        if not matches:
            error = f"{name} does not exist, and no file matches it as a pattern. Check the path."
            failed.append(FailedImage(image=name, error=error))
        for match in matches:
            inside = _images_of(match)
            if isinstance(inside, DataError):
                failed.append(FailedImage(image=str(match), error=str(inside)))
            else:
                files += inside
    return files, failed


def _images_of(path: Path) -> tuple[Path, ...] | DataError:
    """Returns a file itself, the images of a folder, or why there are none."""
    try:
        return image_files(path) if is_folder(path, IMAGE) else (path,)
    except DataError as error:
        return error


def _prepared(
    classifier: Classifier, files: Sequence[Path]
) -> Iterator[tuple[Path, NDArray[np.float32] | DataError]]:
    """Yields each file with its image as the network takes it, or with why there is none."""

    def prepare(path: Path) -> NDArray[np.float32] | DataError:
        try:
            return classifier.prepare([path])
        except DataError as error:
            return error

    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="edgeres-decode")
    try:
        waiting = deque((path, pool.submit(prepare, path)) for path in files[:_AHEAD])
        for following in (*files[_AHEAD:], *[None] * min(_AHEAD, len(files))):
            path, image = waiting.popleft()
            if following is not None:
                waiting.append((following, pool.submit(prepare, following)))
            yield path, image.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _as_csv(run: PredictionRun) -> str:
    """Returns a row for each class of each image, and one with the error for each that failed."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for prediction in run.predictions:
        for rank, one in enumerate(prediction.top, 1):
            name, logit = one.name or "", "" if one.logit is None else one.logit
            rows.writerow((prediction.image, rank, one.index, name, one.probability, logit, ""))
    for failed in run.failed:
        rows.writerow((failed.image, "", "", "", "", "", failed.error))
    return text.getvalue()
