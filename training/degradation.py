"""Trains plain and residual networks of growing depth, and wide ones against deep ones.

    python -m pip install -e '.[export]'
    python -m training.degradation -o docs

He et al. 2016a, figure 1: a deeper plain network ends with more *training* error, a residual one
does not. Writes degradation.json, degradation.md and degradation.svg into the folder; each network
is added to the JSON when it is trained, and one that stands there is not trained again.

With CIFAR-10 and a GPU:

    python -m training.degradation --data train.npz --test test.npz --recipe he --epochs 164 \
        --input-size 32 --device cuda --amp --seeds 1 \
        --networks plain20 resnet20 plain56 resnet56 resnet110 wrn_16_4 -o cifar10
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from edgeres.core.contract import preset
from edgeres.core.resize import shortest
from edgeres.errors import ConfigError, EdgeresError
from edgeres.files import atomic_write, make_folder
from edgeres.networks import find_spec
from edgeres.networks.explain import network_from_spec
from edgeres.networks.specification import ModelSpec
from edgeres.report import Line, Plot, draw_plot_svg
from edgeres.serialization import load_json, save_json
from training.loop import RECIPES, Labelled, Settings, Training, correct, make_deterministic, train
from training.train import data_from, progress

KIND = "degradation"
DEPTHS = (20, 32, 44, 56, 110)
WIDE_AND_DEEP = ("wrn_16_2", "wrn_52_1")
"""Of about as many parameters and multiply-accumulates."""

NETWORKS = tuple(f"{kind}{d}" for d in DEPTHS for kind in ("plain", "resnet")) + WIDE_AND_DEEP


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One network after its training."""

    network: str
    seed: int
    depth: int
    parameters: int
    macs: int
    """Multiply-accumulates of one image."""
    losses: tuple[float, ...]
    """Mean training loss of each epoch."""
    training_error: float
    """Share of the training images, as they are, that get another label."""
    test_error: float | None
    epoch_s: float
    """Seconds of one epoch: the processor's on a CPU, the clock's on a GPU."""


def main() -> None:
    """Trains what is not trained yet, then writes table and figure."""
    options = parsed(sys.argv[1:])
    try:
        run(options)
    except EdgeresError as error:
        raise SystemExit(f"Error: {error}") from error


def parsed(words: list[str]) -> argparse.Namespace:
    """Returns the options of a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.degradation", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, help="folder")
    add("--data", default="digits", help="images to train on; default: %(default)s")
    add("--test", type=Path, help="images to test on; 'digits' brings its own")
    add("--recipe", choices=list(RECIPES), default="digits", help="default: %(default)s")
    add("--epochs", type=int, default=20, help="default: %(default)s")
    add("--input-size", type=int, default=16, help="pixels; default: %(default)s")
    add("--seeds", type=int, default=1, help="trainings of each; default: %(default)s")
    add("--networks", nargs="+", default=list(NETWORKS), help="default: %(default)s")
    add("--threads", type=int, default=1, help="of the CPU; default: %(default)s")
    add("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    add("--amp", action="store_true", help="mixed precision, on a GPU")
    return parser.parse_args(words)


def run(options: argparse.Namespace) -> None:
    """Carries out a command line.

    Raises:
        EdgeresError: the data, a name or a file cannot be used.
    """
    make_deterministic(options.threads)
    make_folder(options.output)
    specs = {name: spec_of(name) for name in options.networks}
    settings = settings_from(options)
    data, test = data_from(options, settings.contract)
    path = options.output / "degradation.json"
    conditions = conditions_of(options, data)
    known = kept(path, conditions)
    for seed in range(options.seeds):
        for name, spec in specs.items():
            if not any((each.network, each.seed) == (name, seed) for each in known):
                print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
                known.append(trained(spec, data, test, replace(settings, seed=seed)))
                save_json(path, json_form(conditions, known))
    write_report(options.output, conditions, known)
    print(table(known))


def spec_of(name: str) -> ModelSpec:
    """Returns a registered network, or WRN-d-k of any depth 6n + 4 and width by `wrn_d_k`.

    Source: Zagoruyko and Komodakis 2016, table 1.
    """
    match = re.fullmatch(r"wrn_(\d+)_(\d+)", name)
    if match is None:
        return find_spec(name, factories=False)
    depth, width = map(int, match.groups())
    blocks = (depth - 4) // 6
    return replace(find_spec("wrn_16_4"), name=name, layers=(blocks,) * 3, widen_factor=width)


def depth_of(name: str) -> int:
    """Returns the layers that the papers name a network by: 56 of `resnet56`, 16 of `wrn_16_4`."""
    return int(re.findall(r"\d+", name)[0])


def settings_from(options: argparse.Namespace) -> Settings:
    """Returns the recipe's settings at the requested input size, shifts in proportion."""
    recipe = RECIPES[options.recipe]
    contract = preset(recipe.preset)
    size = options.input_size
    shift = round(recipe.shift * size / contract.height)
    return Settings(
        recipe=replace(recipe, shift=shift),
        contract=replace(contract, height=size, width=size, resize=shortest(size)),
        epochs=options.epochs,
        device=options.device,
        amp=options.amp,
    )


def trained(spec: ModelSpec, data: Labelled, test: Labelled | None, settings: Settings) -> Trained:
    """Trains a network and returns its errors and time."""
    shaped = replace(spec, num_classes=data.classes, input_size=settings.contract.height)
    network = network_from_spec(shaped)
    training = Training(shaped, data, settings)
    clock = time.process_time if settings.device == "cpu" else time.perf_counter
    started = clock()
    model = train(training, None, progress())
    seconds = clock() - started
    parts = [data] if test is None else [data, test]
    errors = [1 - correct(model, part, settings.contract) / len(part.labels) for part in parts]
    return Trained(
        network=spec.name,
        seed=settings.seed,
        depth=depth_of(spec.name),
        parameters=network.cost.parameters,
        macs=network.cost.macs,
        losses=tuple(training.losses),
        training_error=errors[0],
        test_error=errors[1] if test is not None else None,
        epoch_s=seconds / settings.epochs,
    )


def conditions_of(options: argparse.Namespace, data: Labelled) -> dict[str, Any]:
    """Returns what all networks of one file share, JSON's kinds only."""
    return {
        "trained_on": f"{len(data.labels)} images: {data.origin}",
        "recipe": options.recipe,
        "epochs": options.epochs,
        "input_size": options.input_size,
        "device": options.device,
        "amp": options.amp,
        "threads": options.threads,
        "torch": torch.__version__,
    }


def json_form(conditions: dict[str, Any], known: list[Trained]) -> dict[str, Any]:
    """Returns the file's object."""
    networks = [asdict(each) for each in known]
    return {"kind": KIND, "schema_version": 1, "conditions": conditions, "networks": networks}


def kept(path: Path, conditions: dict[str, Any]) -> list[Trained]:
    """Returns the networks that an earlier run under the same conditions trained.

    Raises:
        ConfigError: the conditions were others.
    """
    if not path.exists():
        return []
    raw = load_json(path, KIND)
    if raw["conditions"] != conditions:
        raise ConfigError(
            f"{path} holds networks trained otherwise: {raw['conditions']}, now {conditions}. "
            "Pass another -o, or move the file away."
        )
    return [Trained(**{**each, "losses": tuple(each["losses"])}) for each in raw["networks"]]


def write_report(folder: Path, conditions: dict[str, Any], known: list[Trained]) -> None:
    """Writes the table and the figure."""
    text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in conditions.items())
    texts = {"degradation.md": f"# Degradation\n\n{table(known)}\n\nConditions: {text}.\n"}
    if (plot := figure(known)) is not None:
        texts["degradation.svg"] = draw_plot_svg(plot)
    for name, text in texts.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def figure(known: list[Trained]) -> Plot | None:
    """Returns the mean error by depth of plain and residual networks; None without any."""
    kinds = {"plain": "plain", "resnet": "residual"}
    lines = [
        Line(label=f"{label}, {part}", points=points, dashed=part == "test", group=label)
        for kind, label in kinds.items()
        for part in ("training", "test")
        if (points := _error_by_depth(known, kind, part))
    ]
    if not lines:
        return None
    return Plot(
        title="Error after training, plain against residual",
        x_label="depth in layers",
        y_label="error in percent, mean over seeds",
        lines=tuple(lines),
    )


def _error_by_depth(known: list[Trained], kind: str, part: str) -> tuple[tuple[float, float], ...]:
    networks = [each for each in known if re.fullmatch(rf"{kind}\d+", each.network)]
    if part == "test" and any(each.test_error is None for each in networks):
        return ()
    depth_of_run = attrgetter("depth")
    by_depth = groupby(sorted(networks, key=depth_of_run), key=depth_of_run)
    name = f"{part}_error"
    return tuple(
        (depth, 100 * statistics.fmean(getattr(each, name) for each in group))
        for depth, group in by_depth
    )


def table(known: list[Trained]) -> str:
    """Returns a Markdown table, a line a network, errors as mean and range over the seeds."""
    head = (
        "| network | layers | parameters | MACs | runs | training error | test error | epoch, s |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    names = dict.fromkeys(each.network for each in known)
    return "\n".join([head, *(_row([e for e in known if e.network == name]) for name in names)])


def _row(runs: list[Trained]) -> str:
    first = runs[0]
    tests = [each.test_error for each in runs if each.test_error is not None]
    cells = (
        first.network,
        str(first.depth),
        f"{first.parameters:,}",
        f"{first.macs / 1e6:.1f} M",
        str(len(runs)),
        _percent([each.training_error for each in runs]),
        _percent(tests) if tests else "",
        f"{statistics.median(each.epoch_s for each in runs):.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _percent(errors: list[float]) -> str:
    low, high = (100 * edge for edge in (min(errors), max(errors)))
    several = f" ({low:.1f} to {high:.1f})" if len(errors) > 1 else ""
    return f"{100 * statistics.fmean(errors):.1f} %{several}"


if __name__ == "__main__":
    main()
