"""Distillation losses, one per file, and the objective that weights them."""
