"""The dashboard: panels over all runs, shown in Weights & Biases or as a page on disk from one definition."""
