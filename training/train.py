"""Trains any network of the family on small images, by the recipes of the papers.

    python -m pip install -e '.[export]'
    python -m training.train resnet56 --data train.npz --test test.npz -o resnet56.safetensors
    python -m training.train resnet20 --data digits --recipe digits --store fp16 \
        -o calibration/digits_resnet20.safetensors

`--data` takes what every command of edgeres takes, an `.npz` or a folder of images, or `digits`:
the first 1,000 images of calibration/digits.npz, tested on its last 797. All images are held in
memory. Progress goes to stderr, the result to stdout.

The same seed, threads, torch and processor give the same weights bit for bit. After each epoch
OUTPUT.state is written, whole or not at all; run again after a kill, the same command goes on
from there and ends in the same bits. The finished network removes it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from edgeres.core.contract import Contract, preset
from edgeres.errors import ConfigError, EdgeresError
from edgeres.files import atomic_write, check_outputs
from edgeres.images import embedded_digits, load_dataset
from edgeres.networks import find_spec
from edgeres.networks.checkpoint import load_checkpoint, model_from_checkpoint
from edgeres.networks.specification import ModelSpec
from training.loop import (
    RECIPES,
    Labelled,
    Settings,
    Training,
    correct,
    labelled,
    make_deterministic,
    resume,
    train,
)

_DIGITS = "digits"
_DIGITS_ORIGIN = (
    "the first 1000 images of calibration/digits.npz (UCI handwritten digits, CC BY 4.0)"
)


def save_weights(path: Path, model: nn.Module, facts: dict[str, object], *, half: bool) -> None:
    """Writes the weights, with `facts` on their origin in the file's metadata."""
    floats = {k: v.cpu() for k, v in model.state_dict().items() if v.is_floating_point()}
    weights = {key: value.half() if half else value for key, value in floats.items()}
    # One key: safetensors writes several in an order that changes from run to run.
    metadata = {"edgeres": json.dumps(facts)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(weights, metadata))


def progress() -> Callable[[Training, int], None]:
    """Returns a report that writes on stderr: a line an epoch, with the time left."""
    started, first = time.perf_counter(), -1
    back = "\r" if sys.stderr.isatty() else ""

    def report(training: Training, step: int) -> None:
        nonlocal first
        done, epochs = len(training.losses), training.settings.epochs
        first = done if first < 0 else first
        steps_done = (done - first) * training.steps + step
        left = (time.perf_counter() - started) / max(steps_done, 1)
        left *= (epochs - first) * training.steps - steps_done
        ahead = timedelta(seconds=round(left))
        if step == 0:
            rate = training.optimiser.param_groups[0]["lr"]
            line = f"epoch {done}/{epochs}  loss {training.losses[-1]:.4f}  rate {rate:.5f}"
            print(f"{back}{line}  left {ahead}", file=sys.stderr, flush=True)
        elif back:
            line = f"{back}epoch {done + 1}/{epochs}  step {step}/{training.steps}  left {ahead} "
            print(line, end="", file=sys.stderr, flush=True)

    return report


def main() -> None:
    """Trains, writes the file and tests what the file holds."""
    options = parsed(sys.argv[1:])
    try:
        run(options)
    except EdgeresError as error:
        raise SystemExit(f"Error: {error}") from error


def parsed(words: list[str]) -> argparse.Namespace:
    """Returns the options of a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("architecture", metavar="ARCH", help="registered name, such as resnet20 or wrn_16_4")
    add("--data", required=True, help="images to train on; 'digits': those of the demo")
    add("--test", type=Path, help="images to test on; 'digits' brings its own")
    add("-o", "--output", type=Path, required=True, help="the .safetensors file")
    add("--recipe", choices=list(RECIPES), default="he", help="default: %(default)s")
    add("--epochs", type=int, help="default: the recipe's")
    add("--batch-size", type=int, help="default: the recipe's")
    add("--preset", help="preprocessing; default: the recipe's")
    add("--warmup-steps", type=int, default=0, help="first steps at a tenth of the rate")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--threads", type=int, default=1, help="of the CPU; default: %(default)s")
    add("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    add("--amp", action="store_true", help="mixed precision, on a GPU")
    add("--store", choices=["fp32", "fp16"], default="fp32", help="default: %(default)s")
    return parser.parse_args(words)


def run(options: argparse.Namespace) -> None:
    """Carries out a command line.

    Raises:
        EdgeresError: the data, the options or a file cannot be used.
    """
    base, settings = find_spec(options.architecture, factories=False), settings_from(options)
    make_deterministic(options.threads)
    check_outputs([options.output])
    training_data, test_data = data_from(options, settings.contract)
    spec = replace(base, num_classes=training_data.classes)
    training = Training(spec, training_data, settings)
    state_file = options.output.with_name(f"{options.output.name}.state")
    resume(training, state_file)
    model = train(training, state_file, progress())
    facts = facts_from(options, settings, training_data)
    save_weights(options.output, model, facts, half=options.store == "fp16")
    state_file.unlink(missing_ok=True)
    print_result(options, spec, model, {"training": training_data, "test": test_data})


def settings_from(options: argparse.Namespace) -> Settings:
    """Returns the recipe with the options that override it.

    Raises:
        ConfigError: a number below 1, or a device that is not there.
    """
    overrides = {"batch_size": options.batch_size, "preset": options.preset}
    given = {name: value for name, value in overrides.items() if value is not None}
    recipe = replace(RECIPES[options.recipe], **given)
    epochs = recipe.epochs if options.epochs is None else options.epochs
    if min(epochs, recipe.batch_size, options.threads) < 1:
        raise ConfigError("--epochs, --batch-size and --threads must be at least 1.")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch finds no GPU. Leave it out to train on the CPU.")
    if options.amp and options.device == "cpu":
        raise ConfigError("--amp needs --device cuda: mixed precision is for a GPU here.")
    return Settings(
        recipe=recipe,
        contract=preset(recipe.preset),
        epochs=epochs,
        seed=options.seed,
        warmup_steps=options.warmup_steps,
        device=options.device,
        amp=options.amp,
    )


def data_from(options: argparse.Namespace, contract: Contract) -> tuple[Labelled, Labelled | None]:
    """Returns the images to train on, and those to test on where there are any.

    Raises:
        DataError: they cannot be used.
    """
    if options.data == _DIGITS:
        first, last = embedded_digits()
        return labelled(first, contract, _DIGITS_ORIGIN), labelled(last, contract, last.name)
    data = labelled(load_dataset(Path(options.data)), contract, Path(options.data).name)
    if options.test is None:
        return data, None
    return data, labelled(load_dataset(options.test), contract, options.test.name)


def facts_from(
    options: argparse.Namespace, settings: Settings, data: Labelled
) -> dict[str, object]:
    """Returns the origin that the file records; a recipe named like its preset is left out."""
    recipe = {} if options.recipe == settings.recipe.preset else {"recipe": options.recipe}
    return {
        "architecture": options.architecture,
        "preset": settings.recipe.preset,
        "trained_on": data.origin,
        "seed": settings.seed,
        "epochs": settings.epochs,
        "torch": torch.__version__,
        **recipe,
    }


def print_result(
    options: argparse.Namespace,
    spec: ModelSpec,
    model: nn.Module,
    parts: dict[str, Labelled | None],
) -> None:
    """Prints how many images the network classifies correctly, as trained and as stored."""
    stored = model_from_checkpoint(spec, load_checkpoint(options.output)).to(options.device)
    contract = preset(options.preset or RECIPES[options.recipe].preset)
    print(f"images         FP32  as stored ({options.store.upper()})")
    for name, part in parts.items():
        if part is not None:
            counts = [f"{correct(m, part, contract)}/{len(part.labels)}" for m in (model, stored)]
            print(f"{name:<8} {counts[0]:>10}  {counts[1]:>10}")
    print(f"{options.output}: {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
