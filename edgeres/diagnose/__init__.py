"""Why an accuracy is low: the usual mistakes in preprocessing and labels, tried and tested.

Knows runners, labelled images and the contract, and no runtime.
"""

from edgeres.diagnose.search import diagnose, is_suspicious
from edgeres.diagnose.values import Diagnosis, Finding, LabelOrder, Suspect

__all__ = ["Diagnosis", "Finding", "LabelOrder", "Suspect", "diagnose", "is_suspicious"]
