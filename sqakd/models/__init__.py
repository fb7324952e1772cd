"""Float networks. They contain no code for quantization or distillation."""
