"""What the runs say, as panels: one definition, shown by Weights & Biases or by a page on disk."""
