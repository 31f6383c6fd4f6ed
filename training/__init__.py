"""What trains small networks for this project; no part of what it installs.

`train` makes one checkpoint, `degradation` the experiment of docs/degradation.md; both share the
recipes and the training loop of `loop`. Each is run from the repository: `python -m training.train`.
"""
