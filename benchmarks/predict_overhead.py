"""What `predict` adds to decoding, preparing and inferring: CPU time per image, paired.

    taskset -c 0 python -m benchmarks.predict_overhead ENGINE... --images FOLDER

Each image is classified by `predict`, and by the same steps one after the other: the decoder, the
contract's preparation and the runner. Which of the two comes first alternates; the median of the
pairs' differences is printed, beside the median of the steps. On one core, since threads that wait
for each other take CPU time too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import edgeres
from edgeres.errors import ConfigError
from edgeres.files import IMAGE_SUFFIXES
from edgeres.images import fed, frame_pixels, prepare
from edgeres.targets.base import engine_runner
from edgeres.targets.loading import load_any_engine


def cpu_ms(action: Callable[[], object]) -> float:
    """Returns the CPU time of this process that a call takes."""
    start = time.process_time()
    action()
    return 1000 * (time.process_time() - start)


def paired_ms(engine: Path, images: list[Path]) -> tuple[list[float], list[float]]:
    """Returns the CPU time of `predict` and of its steps for each image."""
    artifact = load_any_engine(engine)
    contract, totals = artifact.manifest.contract, (list[float](), list[float]())
    with edgeres.load(engine) as classifier, engine_runner(artifact) as runner:

        def steps(path: Path) -> None:
            library = contract.resize.library
            pixels = frame_pixels(path, None, name=path.name, library=library)
            runner.infer(fed(prepare(pixels, contract, name=path.name)[None], contract))

        for number, path in enumerate([images[0], *images]):
            actions = [lambda p=path: classifier.predict(p), lambda p=path: steps(p)]
            order = (0, 1) if number % 2 else (1, 0)
            times = {which: cpu_ms(actions[which]) for which in order}
            # The first image warms up.
            for which, total in enumerate(totals if number else ()):
                total.append(times[which])
    return totals


def main() -> None:
    """Prints a line for each engine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engines", type=Path, nargs="+")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=60)
    options = parser.parse_args()
    images = sorted(p for p in options.images.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise ConfigError(f"{options.images} has no images.")
    print(f"{'engine':<32}{'steps, ms':>12}{'predict adds, ms':>18}{'of the steps':>14}")
    for engine in options.engines:
        predicted, steps = paired_ms(engine, images[: options.samples])
        added = statistics.median(a - b for a, b in zip(predicted, steps, strict=True))
        middle = statistics.median(steps)
        print(f"{engine.name:<32}{middle:>12.2f}{added:>18.3f}{100 * added / middle:>11.2f} %")


if __name__ == "__main__":
    main()
