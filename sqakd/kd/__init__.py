"""What the student learns from, one loss per file."""
