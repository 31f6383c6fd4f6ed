"""Frozen values that every stage shares: requests, the preprocessing contract, artifacts, tables, verdicts."""
