"""Float networks that know nothing of quantization."""
