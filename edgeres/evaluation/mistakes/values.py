"""Candidate contracts and what evaluating them gave: frozen values, with the sentence that reports it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeres.core.contract import PRESETS, Color, Contract
from edgeres.core.resize import Resize, ResizeMode
from edgeres.errors import ConfigError
from edgeres.plurals import counted, percent

LEVEL = 0.001
"""Chance, over everything that is tried, that a mistake is named where there is none."""

OVERCONFIDENT = 0.1
"""A network whose mean confidence is above its accuracy by more than this has been fed something
else, or is evaluated with other labels. Source: Guo et al. 2017, On Calibration of Modern Neural
Networks, table 1: trained ResNets are between 0.02 and 0.06 on CIFAR-10 and ImageNet."""

LOW_ACCURACY = 0.5
"""Top-1 accuracy below which the usual mistakes are tried by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMapping:
    """Another reading of the data's labels."""

    mistake: str
    """What is wrong with the labels as they are read now."""
    remedy: str
    """A sentence on what to do."""
    network_class: tuple[int, ...]
    """Class of the network for each label of the data, from 0; -1 where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A preprocessing contract, or a reading of the labels, that may be the network's own."""

    contract: Contract
    mistakes: tuple[str, ...] = ()
    """What is wrong with the present one if this is correct; empty for the present one."""
    labels: LabelMapping | None = None
    """None reads the labels as they are."""
    network_remedy: str = ""
    """What to do where another network of these weights is the candidate; else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one candidate gives, on the very images of the present preprocessing."""

    json_keys = (
        "candidate.mistakes",
        "candidate.contract",
        "candidate.labels.network_class",
        "correct",
        "flips",
        "gain_ci95_pp",
        "p_value",
        "options",
    )

    candidate: Candidate
    correct: int
    newly_correct: int
    """Images that are correct with the candidate only."""
    newly_wrong: int
    """Images that are correct with the present preprocessing only."""
    confidence: float
    """Mean softmax probability of the predicted classes, in (0, 1]."""
    p_value: float
    """One-sided exact McNemar test of no gain, times the number of candidates confirmed, at most
    1."""
    gain_ci95_pp: tuple[float, float]
    """95 % interval of the gain in top-1 accuracy, in percentage points."""
    options: tuple[str, ...]
    """What repairs the preprocessing on the command line; empty where the labels are wrong."""
    tries: int = 0
    """Candidates that the p value is corrected for; 0: all findings of the diagnosis."""
    level: float = LEVEL
    """p value below which it is proven."""

    @property
    def flips(self) -> Mapping[str, int]:
        """Images that change between correct and wrong."""
        return {"gained": self.newly_correct, "lost": self.newly_wrong}

    @property
    def is_proven(self) -> bool:
        """Whether chance is ruled out as the reason of the gain."""
        return self.p_value < self.level

    @property
    def complexity(self) -> tuple[int, int]:
        """Number of mistakes, and of options that repair them."""
        return len(self.candidate.mistakes), len(self.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What trying the usual mistakes gave."""

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

    samples: int
    """Images of the confirmation set, none of which had a part in choosing the candidates."""
    correct: int
    """Of these, how many are correct with the present preprocessing."""
    confidence: float
    """Mean softmax probability of the predicted classes with it."""
    tried: int
    """Candidates, pairs of mistakes included."""
    inferences: int
    """Images that the network was run on for all of this."""
    findings: tuple[Finding, ...]
    """The candidates of the confirmation set, the likeliest mistakes first."""
    named: Finding | None
    """The likeliest mistake; None where no gain is more than chance."""
    equals: tuple[Finding, ...] = ()
    """Others that do not differ significantly from `named` on these images."""
    carried: bool = True
    """Whether the contract came out of the model, not from the command line."""

    @property
    def sentence(self) -> str:
        """States what is wrong, by what evidence, and which option repairs it."""
        present = f"{self.correct} ({percent(self.correct / self.samples)})"
        named = self.named
        if named is None:
            return (
                f"None of {counted(self.tried, 'usual mistake')} in preprocessing or labels is "
                f"found: {present} of {counted(self.samples, 'image')} are correct as it is, and "
                "no change gains more than chance."
            )
        accuracy, (low, high) = named.correct / self.samples, named.gain_ci95_pp
        tries = named.tries or len(self.findings)
        p_value = "< 1e-6" if named.p_value < 1e-6 else f"= {named.p_value:.1g}"
        sentences = [
            f"Likely mistake: {'; and '.join(named.candidate.mistakes)}.",
            f"With that corrected {named.correct} ({percent(accuracy)}) of "
            f"{counted(self.samples, 'image')} are correct instead of {present}: a gain of "
            f"{low:.1f} to {high:.1f} pp, p {p_value} (exact McNemar, corrected for "
            f"{counted(tries, 'try')}).",
        ]
        if named.confidence - accuracy > OVERCONFIDENT:
            sentences.append(
                "That does not explain everything: the network is still more confident than it is "
                "accurate."
            )
        if named.candidate.labels:
            sentences.append(named.candidate.labels.remedy)
        if named.candidate.network_remedy:
            sentences.append(named.candidate.network_remedy)
        if options := " ".join(named.options):
            # A contract that the model carries overrides the command line, so it is exported anew.
            sentences.append(
                f"Export the model again with {options}, then calibrate and build again."
                if self.carried
                else f"Pass {options} to calibrate, build-engine and bench."
            )
        if others := [" ".join(finding.options) for finding in self.equals if finding.options]:
            sentences.append(f"As good on these images: {' or '.join(others)}.")
        return " ".join(sentences)


def options_between(present: Contract, target: Contract) -> tuple[str, ...]:
    """Returns the options that turn one contract into the other: a preset, or value by value.

    Raises:
        ConfigError: they have different numbers of channels.
    """
    if present.channels != target.channels:
        raise ConfigError(
            f"Contracts of {present.shape} and {target.shape} are for different networks; compare "
            "two of as many channels."
        )
    options = []
    if present.shape != target.shape:
        options.append(f"--input-size {target.height}x{target.width}")
    for name in ("color", "scale", "mean", "std"):
        value = getattr(target, name)
        if value == getattr(present, name):
            continue
        text = str(value)
        if isinstance(value, tuple):
            text = ",".join(f"{number:.6g}" for number in value)
        elif isinstance(value, float):
            # As it is typed and known: 1/255, not 0.00392156863.
            inverse = 1 / value if 0 < value < 1 else 0.0
            is_fraction = inverse and abs(inverse - round(inverse)) < 1e-9 * inverse
            text = f"1/{round(inverse)}" if is_fraction else f"{value:.9g}"
        options.append(f"--{name} {text}")
    # By itself gray is of one channel.
    if target.color is Color.GRAY is not present.color and target.channels == 3:
        options.append("--channels 3")
    options += _resize_options(present.resize, target)
    presets = [f"--preset {name}" for name, contract in PRESETS.items() if contract == target]
    return tuple(presets[:1] if len(options) > 1 and presets else options)


def _resize_options(present: Resize, target: Contract) -> list[str]:
    """Returns the options that give a contract's resize instead of the present one."""
    wanted, options = target.resize, []
    if (wanted.mode, wanted.lengths) != (present.mode, present.lengths):
        framed = wanted.mode in {ResizeMode.SQUASH, ResizeMode.LETTERBOX}
        if framed:
            options.append(f"--resize-mode {wanted.mode}")
        # To the size of the input is what such a mode does without a length.
        if not framed or (wanted.height, wanted.width) != target.shape[1:]:
            options.append(f"--resize {wanted.lengths}")
    if wanted.library is not present.library:
        options.append(f"--resize-library {wanted.library}")
    if wanted.interpolation is not present.interpolation:
        options.append(f"--interpolation {wanted.interpolation}")
    if wanted.pad != present.pad and wanted.mode is ResizeMode.LETTERBOX:
        options.append(f"--pad-value {wanted.pad}")
    return options
