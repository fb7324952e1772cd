"""Export of a trained low-bit network: lowering to integers, ONNX file, proof of equality, speed."""
