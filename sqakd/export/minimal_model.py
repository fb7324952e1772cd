"""Removal of everything from an exported ONNX model that is not needed to run it.

The exporter leaves stack traces, scopes and the shapes of inner values in a model. These are half of a small network's
file.
"""

from __future__ import annotations

import onnx

IR_VERSION = 10  # the version that belongs to opset 21


def minimise(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Remove notes, inner shapes and long names from a model, in place; return the checked model."""
    for thing in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        thing.ClearField("doc_string")
        thing.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")
    model.graph.ClearField("value_info")
    model.graph.ClearField("metadata_props")
    model.ClearField("functions")
    model.ir_version = IR_VERSION
    model.graph.name = "sqakd"
    assert all(entry.version == opset for entry in model.opset_import if not entry.domain)
    _shorten_names(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _shorten_names(model: onnx.ModelProto) -> None:
    """Give inner values and nodes short names; inputs, outputs and weights keep their names."""
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    kept |= {tensor.name for tensor in model.graph.initializer}
    names: dict[str, str] = {"": ""}  # ONNX writes an omitted input as an empty name
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
        for name in node.output:
            names.setdefault(name, name if name in kept else f"v{len(names)}")
        for field in (node.input, node.output):
            for i, name in enumerate(field):
                field[i] = names.get(name, name)
    for domain in [entry for entry in model.opset_import if entry.domain]:
        if all(node.domain != domain.domain for node in model.graph.node):
            model.opset_import.remove(domain)
