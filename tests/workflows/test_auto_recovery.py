"""Method auto, and FP8, correct biases by themselves, where that is cheap and the logits gain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from digits import Digits
from networks import network

from edgeres.core.contract_options import ContractOptions
from edgeres.core.methods import Method, Recover
from edgeres.core.precision import Precision
from edgeres.core.recovery import Corrected, Recovery
from edgeres.core.requests import CalibrationRequest
from edgeres.core.table import CalibrationTable, load_table
from edgeres.errors import QuantizationError
from edgeres.workflows import calibrate as stage

Calibrate = Callable[..., CalibrationTable]


@pytest.fixture
def calibrated(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> Calibrate:
    """Calibrates the digits without a search, and with a recovery that one lowering gains by, or none."""

    def run(config: CalibrationRequest, *, gains: bool, few_classes: bool) -> CalibrationTable:
        table = replace(load_table(digits.table), method=config.method)

        def recover(
            _: object,
            table: CalibrationTable,
            images: Any,
            config: CalibrationRequest,
            **__: object,
        ) -> CalibrationTable:
            lowering = Corrected(before_db=30.0, after_db=31.0, biases={}, applied=gains)
            assert config.recover is not None
            recovery = Recovery(
                kind=config.recover,
                method=table.method,
                seed=0,
                samples=len(images),
                held_out=1,
                lowerings={"tensorrt": lowering, "onnxruntime": replace(lowering, applied=False)},
                equalization={},
                rounding={},
            )
            return replace(table, recovery=recovery)

        monkeypatch.setattr(stage, "calibrate", lambda *_, **__: table)
        monkeypatch.setattr(stage, "recover", recover)
        monkeypatch.setattr(stage, "has_few_classes", lambda _: few_classes)
        return stage.calibrate_model(digits.model, digits.train, config)

    return run


AUTO = CalibrationRequest(method=Method.AUTO, samples=40)
FP8 = CalibrationRequest(precision=Precision.FP8, samples=40)


@pytest.mark.parametrize(
    ("config", "gains", "few_classes", "kind"),
    [
        (AUTO, True, True, Recover.BIAS),
        (AUTO, False, True, None),
        (AUTO, True, False, None),
        (replace(AUTO, samples=9), True, True, None),
        (replace(AUTO, recover=Recover.NONE), True, True, None),
        (replace(AUTO, recover=Recover.ADAROUND), False, False, Recover.ADAROUND),
        (replace(AUTO, method=Method.MSE), True, True, None),
        (FP8, True, True, Recover.BIAS),
        (FP8, False, True, None),
        (FP8, True, False, Recover.BIAS),
        (replace(FP8, samples=9), True, True, None),
        (replace(FP8, recover=Recover.NONE), True, True, None),
        (replace(FP8, recover=Recover.BIAS), False, False, Recover.BIAS),
    ],
)
def test_method_auto_and_fp8_take_the_corrections_that_pay(
    calibrated: Calibrate,
    config: CalibrationRequest,
    gains: bool,
    few_classes: bool,
    kind: Recover | None,
) -> None:
    """With few classes and images enough, and never in the place of what was requested."""
    table = calibrated(config, gains=gains, few_classes=few_classes)
    assert (None if table.recovery is None else table.recovery.kind) is kind


def test_a_grouped_network_has_no_fp8_to_calibrate(tmp_path: Path) -> None:
    """Refused before any image is read."""
    onnx.save(network("grouped"), tmp_path / "m.onnx")
    options = ContractOptions(preset="cifar", input_size=16)
    with pytest.raises(QuantizationError, match=r"1 of 3 convolutions are grouped"):
        stage.calibrate_model(tmp_path / "m.onnx", tmp_path / "no images", FP8, options)
