"""Training of a student: task, trainer, recipe, callbacks and loggers."""
