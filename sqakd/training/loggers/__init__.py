"""Views of a run beside its own files."""
