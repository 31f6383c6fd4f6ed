"""Layers gathered into residual blocks, by their names alone."""

from __future__ import annotations
