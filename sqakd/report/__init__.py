"""Finished runs and the paper's numbers, as tables, pictures and one page: python -m sqakd.report."""
