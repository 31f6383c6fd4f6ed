"""What the detective suspects and what it found: frozen values, with the sentence that names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeres.core.contract import PRESETS, Contract
from edgeres.errors import ConfigError

LEVEL = 0.001
"""Chance, over everything that is tried, that a mistake is named where there is none."""

OVERCONFIDENT = 0.1
"""A network that is surer than it is right by more than this, on average, has been fed something
else or is judged by other labels. Source: Guo et al. 2017, On Calibration of Modern Neural
Networks, table 1: trained ResNets are between 0.02 and 0.06 on CIFAR-10 and ImageNet."""

HALF_RIGHT = 0.5
"""Below this top-1 accuracy the usual mistakes are tried without being asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOrder:
    """Another reading of the data's labels."""

    mistake: str
    """What is wrong with the labels as they are read now."""
    remedy: str
    """A sentence on what to do."""
    network_class: tuple[int, ...]
    """Class of the network for each label of the data, from 0; -1 where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A preprocessing, or an order of the labels, that may be the right one."""

    contract: Contract
    mistakes: tuple[str, ...] = ()
    """What is wrong with the present one if this is right; empty for the present one."""
    order: LabelOrder | None = None
    """None reads the labels as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one suspect comes to, on the very images of the present preprocessing."""

    json_keys = (
        "suspect.mistakes",
        "suspect.contract",
        "suspect.order.network_class",
        "correct",
        "flips",
        "gain_ci95_pp",
        "p_value",
        "options",
    )

    suspect: Suspect
    correct: int
    gained: int
    """Images that only the suspect has right."""
    lost: int
    """Images that only the present preprocessing has right."""
    confidence: float
    """Mean softmax probability of the network's answers, in (0, 1]."""
    p_value: float
    """One-sided exact McNemar test of no gain, times the number of suspects judged, at most 1."""
    gain_ci95_pp: tuple[float, float]
    """95 % interval of the gain in top-1 accuracy, in percentage points."""
    options: tuple[str, ...]
    """What repairs the preprocessing on the command line; empty where the labels are wrong."""

    @property
    def flips(self) -> Mapping[str, int]:
        """Images that change between correct and not."""
        return {"gained": self.gained, "lost": self.lost}

    @property
    def is_proven(self) -> bool:
        """Whether chance is ruled out as the reason of the gain."""
        return self.p_value < LEVEL

    @property
    def complexity(self) -> tuple[int, int]:
        """Number of mistakes, and of options that repair them."""
        return len(self.suspect.mistakes), len(self.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What trying the usual mistakes came to."""

    json_keys = (
        "samples",
        "correct",
        "confidence",
        "tried",
        "inferences",
        "findings",
        "named",
        "sentence",
    )

    contract: Contract
    """The preprocessing that was doubted."""
    samples: int
    """Images that the suspects were judged on, none of which had a part in choosing them."""
    correct: int
    """Of these, how many are right with the present preprocessing."""
    confidence: float
    """Mean softmax probability of the network's answers with it."""
    tried: int
    """Suspects, pairs of mistakes included."""
    inferences: int
    """Images that the network was run on for all of this."""
    findings: tuple[Finding, ...]
    """The suspects that were judged, the likeliest mistakes first."""
    named: Finding | None
    """The likeliest mistake; None where no gain is more than chance."""
    equals: tuple[Finding, ...] = ()
    """Others that these images do not tell apart from `named`."""
    carried: bool = True
    """Whether the contract came out of the model, not from the command line."""

    @property
    def sentence(self) -> str:
        """Says what is wrong, by what evidence, and which option repairs it."""
        return self._nothing() if self.named is None else self._named(self.named)

    def _named(self, found: Finding) -> str:
        low, high = found.gain_ci95_pp
        return (
            f"Likely mistake: {'; and '.join(found.suspect.mistakes)}. With that corrected "
            f"{_share(found.correct, self.samples)} of {self.samples} images are right instead of "
            f"{_share(self.correct, self.samples)}: a gain of {low:.1f} to {high:.1f} pp, "
            f"p {_p_value(found.p_value)} (exact McNemar, corrected for {len(self.findings)} tries)."
            f"{self._left_over(found)} {self._remedy(found)}{self._as_good()}"
        )

    def _nothing(self) -> str:
        return (
            f"None of {self.tried} usual mistakes in preprocessing or labels is found: "
            f"{_share(self.correct, self.samples)} of {self.samples} images are right as it is, "
            f"and no change gains more than chance."
        )

    def _left_over(self, found: Finding) -> str:
        if found.confidence - found.correct / self.samples <= OVERCONFIDENT:
            return ""
        return " That does not explain everything: the network is still surer than it is right."

    def _remedy(self, found: Finding) -> str:
        order, options = found.suspect.order, " ".join(found.options)
        steps = [order.remedy] if order else []
        if options and self.carried:
            steps.append(f"Export the model again with {options}, then calibrate and build again.")
        elif options:
            steps.append(f"Pass {options} to calibrate, build-engine and bench.")
        return " ".join(steps)

    def _as_good(self) -> str:
        others = [" ".join(found.options) for found in self.equals if found.options]
        return f" As good on these images: {' or '.join(others)}." if others else ""


def options_between(present: Contract, right: Contract) -> tuple[str, ...]:
    """Returns the options that turn one contract into the other: a preset, or value by value."""
    options = tuple(_options(present, right))
    named = (f"--preset {name}" for name, contract in PRESETS.items() if contract == right)
    return options if len(options) < 2 else tuple(named)[:1] or options


def _options(present: Contract, right: Contract) -> Iterator[str]:
    values: Mapping[str, tuple[Any, Any]] = {
        "color": (present.color, right.color),
        "scale": (present.scale, right.scale),
        "mean": (present.mean, right.mean),
        "std": (present.std, right.std),
        "resize": (present.resize, right.resize),
        "interpolation": (present.interpolation, right.interpolation),
    }
    if present.size != right.size:
        raise ConfigError(
            f"Contracts of {present.size} and {right.size} pixels are for different networks; "
            "compare two of one size."
        )
    for name, (before, after) in values.items():
        if before != after:
            yield f"--{name} {_value(after)}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{number:.6g}" for number in value)
    if isinstance(value, float):
        return f"1/{round(1 / value)}" if 0 < value < 1 and _is_whole(1 / value) else f"{value:.9g}"
    return "none" if value is None else str(value)


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-9 * value


def _share(correct: int, samples: int) -> str:
    return f"{correct} ({100 * correct / samples:.1f} %)"


def _p_value(value: float) -> str:
    return "< 1e-6" if value < 1e-6 else f"= {value:.1g}"
