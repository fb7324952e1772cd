"""Sweeps: the state and the log of each concurrent run, and what the terminal shows of them."""
