"""The application: the only room that knows Hydra."""
