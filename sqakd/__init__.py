"""Label-free training of low-bit neural networks by self-supervised knowledge distillation."""

__version__ = "0.1.0"
