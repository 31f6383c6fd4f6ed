"""The throughput of evaluation, on the embedded digits."""

from __future__ import annotations

import pytest
from digits import Digits

from benchmarks.evaluation import as_text, measure
from edgeres.core.artifacts import load_engine
from edgeres.images import load_dataset, select


def test_rates_and_limits_belong_together(digits: Digits) -> None:
    """Each limit by hand from the two rates that it follows from."""
    dataset = select(load_dataset(digits.test), 32, 0)
    rates = measure(load_engine(digits.engine), dataset, batch_size=8, passes=1)
    memory, decoding = rates["in_memory"], rates["decoding"]
    assert min(rates.values()) > 0
    assert rates["ratio"] == rates["evaluation"] / memory
    assert rates["limit_side_by_side"] == min(memory, decoding)
    together = memory * decoding / (memory + decoding)
    assert rates["limit_one_after_the_other"] == pytest.approx(together)
    assert f"evaluation {rates['evaluation']:.1f} images/s" in as_text(rates)
