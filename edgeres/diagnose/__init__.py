"""Why an accuracy is low: mistakes in preprocessing, labels and calibration, each with its proof.

Knows runners, labelled images and the contract, and no runtime.
"""

from edgeres.diagnose.ranges import RangeShift, range_shift
from edgeres.diagnose.search import diagnose, is_suspicious
from edgeres.diagnose.values import Diagnosis, Finding, LabelOrder, Suspect

__all__ = [
    "Diagnosis",
    "Finding",
    "LabelOrder",
    "RangeShift",
    "Suspect",
    "diagnose",
    "is_suspicious",
    "range_shift",
]
