"""Loggers: views of a run in addition to its own files."""
