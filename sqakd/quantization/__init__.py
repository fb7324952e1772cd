"""Quantizers, layers that apply them, and the conversion of a float network into a quantized one."""
