"""Why an accuracy is low: mistakes in preprocessing, labels and calibration, each with its proof.

Knows runners, labelled images and the contract, and no runtime.
"""

from edgeres.evaluation.mistakes.networks import OtherNetwork, diagnose_networks
from edgeres.evaluation.mistakes.ranges import RangeShift, range_shift
from edgeres.evaluation.mistakes.search import (
    constant_top1,
    diagnose,
    is_suspicious,
    overconfidence,
)
from edgeres.evaluation.mistakes.values import Candidate, Diagnosis, Finding, LabelMapping

__all__ = [
    "Candidate",
    "Diagnosis",
    "Finding",
    "LabelMapping",
    "OtherNetwork",
    "RangeShift",
    "constant_top1",
    "diagnose",
    "diagnose_networks",
    "is_suspicious",
    "overconfidence",
    "range_shift",
]
