"""Tables, pictures and one page of finished runs next to published numbers: python -m sqakd.report."""
