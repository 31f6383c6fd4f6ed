"""Recovering accuracy after calibration, without training."""
