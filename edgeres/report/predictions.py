"""What an engine predicts, for people: a row for each class of each image."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from edgeres.core.predictions import PredictionRun
from edgeres.report.tables import plain, plain_table
from edgeres.report.words import percent


def render_predictions(run: PredictionRun) -> RenderableType:
    """Returns what a rich Console prints of predictions; images that failed are not in it."""
    has_logits = any(one.logit is not None for image in run.predictions for one in image.top)
    numbers = ("probability", "logit") if has_logits else ("probability",)
    rows = plain_table("image", "class", numbers=("index", *numbers))
    for image in run.predictions:
        name = image.image
        for one in image.top:
            logit = [] if one.logit is None else [Text(f"{one.logit:.3f}")]
            probability = plain(percent(one.probability))
            shown = Text(one.name or "-")
            rows.add_row(Text(name), shown, Text(str(one.index)), probability, *logit)
            # Named once, above its other classes.
            name = ""
    return rows
