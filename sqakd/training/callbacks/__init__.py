"""Callbacks of a training: records, checks, and optional training techniques (add-ons)."""
