"""Values as a page writes them: percent, points, milliseconds, names of facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from edgeres import plurals

_UNITS = {"mib": "MiB", "ms": "ms", "w": "W", "j": "J", "mj": "mJ", "c": "°C", "s": "s", "pp": "pp"}
_NAMES = {"cpu": "CPU", "gpu": "GPU", "gpus": "GPUs", "os": "OS", "simd": "SIMD"}


def as_sentence(words: str) -> str:
    """Returns words with a capital at the beginning and one full stop at the end."""
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def percent(fraction: float, digits: int = 2) -> str:
    """Returns a fraction in percent, with a space that does not break before the sign."""
    return plurals.percent(fraction, digits).replace(" ", "\N{NO-BREAK SPACE}")


def points(value: float, *, unit: bool = True) -> str:
    """Returns percentage points to two decimals, without a minus sign on a zero."""
    # Adding zero makes a negative zero, which rounding leaves of -0.001, positive.
    return f"{round(value, 2) + 0.0:.2f}" + ("\N{NO-BREAK SPACE}pp" if unit else "")


def change(drop_pp: float, *, unit: bool = True) -> str:
    """Returns a drop as the change of the accuracy that it is: a gain is positive."""
    # A zero has no sign.
    value = f"{-drop_pp:+.2f}" if round(drop_pp, 2) else "0.00"
    return value + ("\N{NO-BREAK SPACE}pp" if unit else "")


def milliseconds(value: float) -> str:
    """Returns milliseconds to two decimals, small ones to four; the unit stands elsewhere."""
    return f"{value:.{2 if value >= 1 else 4}f}"


def count(number: int) -> str:
    """Returns a number with its thousands apart."""
    return f"{number:,}"


def probability(value: float) -> str:
    """Returns a p value to three digits, or a bound for what is smaller than anyone needs."""
    return "< 0.0001" if value < 0.0001 else f"{value:.3g}"


def class_name(label: int, classes: tuple[str, ...]) -> str:
    """Returns a class's name with its index, or the index alone where it has none."""
    return f"{classes[label]} ({label})" if label < len(classes) else f"class {label}"


def moment(iso: str) -> str:
    """Returns an ISO 8601 time to the minute, in UTC."""
    # Python 3.10 reads no Z for UTC.
    at = datetime.fromisoformat(iso.replace("Z", "+00:00")).astimezone(timezone.utc)
    return f"{at:%Y-%m-%d %H:%M} UTC"


def fact_name(key: str) -> str:
    """Returns a JSON key as words: `memory_available_mib` as `memory available, MiB`."""
    *words, last = key.split("_")
    if words and last in _UNITS:
        return f"{' '.join(_NAMES.get(w, w) for w in words)}, {_UNITS[last]}"
    return " ".join(_NAMES.get(word, word) for word in (*words, last))


def fact_pairs(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields names and values of a JSON object as words, one level deep; empty ones are left out."""
    for key, value in facts.items():
        # 0 and False are facts too.
        if value not in (None, "", [], {}, ()):
            yield fact_name(key), fact_value(value)


def fact_value(value: object) -> str:
    """Returns a JSON value as words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(
            f"{fact_name(str(k))} {fact_value(v)}" for k, v in value.items() if v is not None
        )
    if isinstance(value, list | tuple):
        return ", ".join(map(fact_value, value))
    return str(value)
