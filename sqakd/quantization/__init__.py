"""Quantized layers and quantizers, and the conversion of a float network."""
