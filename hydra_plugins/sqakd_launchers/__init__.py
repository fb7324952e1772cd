"""Launchers of this project, in the only place where Hydra looks for them: a package below hydra_plugins."""
