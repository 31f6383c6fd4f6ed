"""The version, where every module can read it without loading another."""

__version__ = "0.1.0"
