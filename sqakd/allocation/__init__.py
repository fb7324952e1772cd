"""Sensitivity of the layers of a float network to quantization, and the choice of their bits under a budget."""
