"""The sweeper of tables; Hydra finds sweepers in packages under hydra_plugins, and nowhere else."""
