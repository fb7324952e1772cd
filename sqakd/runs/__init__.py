"""Runs on disk: what a run is, where it lies, and what it leaves behind."""
