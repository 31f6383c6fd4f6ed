"""Latency before there is a board: a model of each fused kernel, its constants and their errors."""
