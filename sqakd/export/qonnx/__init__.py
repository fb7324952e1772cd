"""QONNX: a trained network with quantizers as nodes, for FINN, hls4ml and others that build hardware from it."""
