"""What a byte input saves on the CPU: images per second from files to logits, floats and bytes.

    python -m benchmarks.byte_input FLOATS.onnx BYTES.onnx --data IMAGES

Both are engines of one network, exported with `--input float` and `--input uint8`. They run in one
process, interleaved, with one decoding thread; the median of the rounds' ratios is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import closing
from pathlib import Path

import edgeres
from edgeres.images import batches, load_dataset, select
from edgeres.runtime import Classifier


def seconds(classifier: Classifier, data: Path, samples: int, batch: int) -> float:
    """Returns how long a data set takes from decoding to logits."""
    dataset = select(load_dataset(data, labelled=False), samples, 0)
    start = time.perf_counter()
    with closing(batches(dataset, classifier.contract, batch_size=batch, threads=1)) as stream:
        for images in stream:
            classifier.infer(images.images)
    return time.perf_counter() - start


def main() -> None:
    """Prints throughput of both and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("floats", type=Path)
    parser.add_argument("bytes", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with edgeres.load(options.floats) as floats, edgeres.load(options.bytes) as on_bytes:
        pairs = [
            [
                seconds(each, options.data, options.samples, options.batch)
                for each in (floats, on_bytes)
            ]
            for _ in range(options.rounds)
        ]
    for name, times in zip(("floats", "bytes"), zip(*pairs, strict=True), strict=True):
        print(f"{name}: {options.samples / statistics.median(times):.1f} images/s")
    ratio = statistics.median(before / after for before, after in pairs)
    print(f"bytes take {ratio:.3f} times as many images per second")


if __name__ == "__main__":
    main()
