"""What chance can do to a figure: intervals, tests and counts. Knows numbers and nothing else."""

from edgeres.statistics.changes import FALSE_ALARMS, FEWEST_RUNS, LevelChange, level_changes
from edgeres.statistics.paired import (
    GATE_CONFIDENCE,
    Z95,
    class_q_values,
    drop_bound,
    drop_interval,
    expected_calibration_error,
    images_needed,
    mcnemar_p,
)
from edgeres.statistics.timing import (
    FEWEST_BLOCKS,
    BlockBootstrap,
    draw_blocks,
    far_from_others,
    interval95,
    outer_fence,
    percentiles,
    samples_needed,
    trend,
)

__all__ = [
    "FALSE_ALARMS",
    "FEWEST_BLOCKS",
    "FEWEST_RUNS",
    "GATE_CONFIDENCE",
    "Z95",
    "BlockBootstrap",
    "LevelChange",
    "class_q_values",
    "draw_blocks",
    "drop_bound",
    "drop_interval",
    "expected_calibration_error",
    "far_from_others",
    "images_needed",
    "interval95",
    "level_changes",
    "mcnemar_p",
    "outer_fence",
    "percentiles",
    "samples_needed",
    "trend",
]
