"""Export of a trained low-bit network: lowering to integers, ONNX file, proof of equality, speed.

This package can be called: `sqakd.export(model, example, path)` is `sqakd.library.exporting.export`.
"""

from sqakd.face import make_callable

make_callable(__name__)
