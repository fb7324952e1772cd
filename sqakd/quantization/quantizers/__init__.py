"""Ranges and rounding rules: one method per file."""
