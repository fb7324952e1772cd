"""Hydra finds launchers in packages under hydra_plugins, and nowhere else."""
