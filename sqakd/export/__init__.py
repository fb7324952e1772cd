"""From a trained run to integers: lowering, ONNX, proof, measurement."""
