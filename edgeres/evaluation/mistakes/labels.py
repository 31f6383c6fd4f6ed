"""Other readings of the labels: one too high or low, sorted as text, numbered in another order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from edgeres.evaluation.mistakes.values import LabelMapping

_PER_CLASS = 4
"""Images that each class needs on average for a label mapping to be read off the predictions."""


def label_mappings(
    network_classes: int, data_classes: Sequence[str], names: Sequence[str]
) -> tuple[LabelMapping, ...]:
    """Returns the other readings of the labels that are known without looking at an image.

    Args:
        network_classes: length of the logits.
        data_classes: names of the data's classes in order of label; empty where not known.
        names: names of the network's classes in order; empty where not known.
    """
    mappings = []
    for shift, mistake in (
        (1, "low, as if the network's first class is none of the data's"),
        (-1, "high, as if they count from 1"),
    ):
        shifted = (label + shift for label in range(network_classes))
        mappings.append(
            LabelMapping(
                mistake=f"the labels are one too {mistake}",
                remedy=f"Write a labels.csv, or an .npz, with every class index {shift:+d}.",
                network_class=tuple(new if 0 <= new < network_classes else -1 for new in shifted),
            )
        )
    present, own = list(data_classes), list(names)
    # torchvision's ImageFolder sorts folders as text; many a network's classes are numbered.
    by_number = sorted(present, key=int) if all(map(str.isdecimal, present)) else present
    if by_number != present:
        mappings.append(
            LabelMapping(
                mistake="the class folders are sorted as text (1, 10, 2), the network's classes "
                "by number",
                remedy="Name the folders with leading zeros (01, 02, 10).",
                network_class=tuple(by_number.index(name) for name in present),
            )
        )
    if sorted(present) == sorted(own) and present != own:
        mappings.append(
            LabelMapping(
                mistake="the class folders are in the order of their names, the network's classes "
                "are not",
                remedy="Write a labels.csv with the class indices of the network.",
                network_class=tuple(own.index(name) for name in present),
            )
        )
    return tuple(mappings)


def assigned_mappings(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    network_classes: int,
    data_classes: Sequence[str] = (),
    names: Sequence[str] = (),
) -> tuple[LabelMapping, ...]:
    """Returns the one-to-one mapping with which most images would be correct; none for too few.

    Args:
        labels: (N,), of the data.
        predicted: (N,), classes of the network.
        network_classes: number of these.
        data_classes: names of the data's classes in order of label; empty where not known.
        names: names of the network's classes in order; empty where not known.

    Source: Kuhn 1955, the Hungarian method, on the table of label and prediction.
    """
    if len(labels) < _PER_CLASS * network_classes:
        return ()
    table = np.zeros((network_classes, network_classes), np.int64)
    np.add.at(table, (labels, predicted), 1)
    matched = scipy.optimize.linear_sum_assignment(table, maximize=True)[1].tolist()

    def shown(number: int, known: Sequence[str]) -> str:
        return f"{number} ({known[number]})" if number < len(known) else str(number)

    arrows = ", ".join(
        f"{shown(label, data_classes)} is {shown(own, names)}"
        for label, own in enumerate(matched)
        if label != own
    )
    return (
        LabelMapping(
            mistake="the labels number the classes in another order than the network",
            remedy=f"Number the classes as the network does: {arrows}.",
            network_class=tuple(matched),
        ),
    )
