"""Accuracy and latency of an engine beside its reference, and the verdict."""
