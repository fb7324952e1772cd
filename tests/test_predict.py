"""sqakd.predict with damaged and wrong models and images: one line, exit status 1, and no wrong prediction."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from sqakd.model_file import FORMAT, METADATA, ModelFileError, describe, with_digest
from sqakd.predict import Model, PredictError, main, predict
from sqakd.terminal import printable

SIDE, CLASSES = 6, 3
FACTS: dict[str, Any] = {
    "format": FORMAT,
    "classes": ["cat", "dog", "horse"],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.25],
    "image_shape": [3, SIDE, SIDE],
    "resize": {"stored": [SIDE, SIDE], "margin": 0},
    "preprocess": False,
}


def model(facts: object = FACTS, *, digest: bool = True, weight: float = 0.01) -> bytes:
    """Return a linear model with this description."""
    weights = np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, CLASSES)).astype(np.float32) * weight
    nodes = [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    graph = helper.make_graph(
        nodes,
        "sqakd",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(weights, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert isinstance(facts, dict | str)
    text = facts if isinstance(facts, str) else json.dumps(facts)
    if digest:
        assert isinstance(facts, dict)
        text = with_digest(proto.SerializeToString(), facts)
    helper.set_model_props(proto, {METADATA: text})
    return bytes(proto.SerializeToString())


def older(**changes: Any) -> dict[str, Any]:
    """Return a description of format 1, which has no digest, with some values changed."""
    return {key: value for key, value in FACTS.items() if key != "format"} | {"resize": {"margin": 0}} | changes


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(file)
    return file


def run(content: bytes, image: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run the program with a model of this content; return exit status, output and errors."""
    file = image.parent / "model.onnx"
    file.write_bytes(content)
    status = main([str(file), str(image)])
    output, errors = capsys.readouterr()
    return status, output, errors


def refused(content: bytes, image: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Check that the program prints nothing but one line that names the file, and return this line."""
    status, output, errors = run(content, image, capsys)
    assert (status, output) == (1, "")
    assert len(errors.splitlines()) == 1
    assert errors.startswith("error: ")
    assert "model.onnx" in errors
    return errors


def test_intact_model_predicts(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (model(), model(older(), digest=False)):
        status, output, errors = run(content, image, capsys)
        assert (status, errors) == (0, "")
        assert output.count("%") == 3


def test_the_folder_of_an_export_stands_for_its_model(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = image.parent / "export"
    folder.mkdir()
    assert main([str(folder), str(image)]) == 1
    assert f"no file {folder / 'model.onnx'}; expected the model.onnx" in capsys.readouterr().err
    (folder / "model.onnx").write_bytes(model())
    assert main([str(folder), str(image)]) == 0
    assert capsys.readouterr().out.count("%") == 3


def test_every_flipped_bit_of_a_model_is_found() -> None:
    """Each byte of the file is changed in turn; the graph, its weights and the description are all covered."""
    whole = model()
    wanted = describe(whole)
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        with pytest.raises(ModelFileError) as error:
            describe(bytes(content))
        assert "\n" not in str(error.value)
    assert describe(whole) == wanted


@pytest.mark.parametrize("digest", [True, False], ids=["with digest", "without digest"])
def test_damaged_model_is_refused_in_one_line_or_harmless(
    image: Path, capsys: pytest.CaptureFixture[str], digest: bool
) -> None:
    """Files of format 1 have no digest: a flipped bit in their weights cannot be found, but nothing may crash."""
    whole = model(FACTS if digest else older(), digest=digest)
    rng = np.random.default_rng(0)
    for _ in range(40):
        content = bytearray(whole[: rng.integers(0, len(whole))] if rng.random() < 0.4 else whole)
        for position in rng.integers(0, max(1, len(content)), 3) if content else ():
            content[position] ^= 1 << rng.integers(0, 8)
        if digest:
            refused(bytes(content), image, capsys)
        else:
            status, output, errors = run(bytes(content), image, capsys)
            assert len((output if status == 0 else errors).splitlines()) == 1
            assert "nan" not in output


@pytest.mark.parametrize("content", [b"", b"none", b"\x00" * 999, b"<html>not found</html>", b"\xff" * 50])
def test_file_that_is_no_model_is_refused(content: bytes, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(content, image, capsys)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        *(("mean", wrong) for wrong in (None, 0.5, [0.5], [0.5] * 4, ["0.5"] * 3, [float("nan")] * 3, [True] * 3)),
        *(("std", wrong) for wrong in ([0.2], [0.2, 0.0, 0.2], [0.2, -0.2, 0.2], [float("inf")] * 3, [10**400] * 3)),
        *(("image_shape", wrong) for wrong in (None, [3, 6], [2, 6, 6], [3, 30000, 30000], [3, 0, 6], [3, 6.0, 6])),
        *(("image_shape", other) for other in ([3, 8, 8], [1, 6, 6])),  # possible, but the graph has another size
        *(("classes", wrong) for wrong in (None, "cat", ["cat", 2], ["cat", "dog"])),
        *(("resize", wrong) for wrong in (None, {}, 3, {"margin": -1}, {"margin": 10**9}, {"margin": 0.5})),
        *(("resize", {"margin": 0, "stored": wrong}) for wrong in (6, [6], [30000, 30000], [0, 6], ["6", "6"])),
        *(("preprocess", wrong) for wrong in (None, "false", 0, True)),
        *(("format", wrong) for wrong in (3, "2", FORMAT)),
        ("digest", "0" * 64),
    ],
)
def test_wrong_description_is_refused(key: str, wrong: object, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(model(older(**{key: wrong}), digest=False), image, capsys)
    if key not in ("format", "digest"):  # a program that writes nonsense may also write its digest
        refused(model(FACTS | {key: wrong}), image, capsys)


@pytest.mark.parametrize("key", sorted(set(FACTS) - {"format"}))
def test_missing_entry_is_refused(key: str, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = older()
    del facts[key]
    refused(model(facts, digest=False), image, capsys)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a": 1', "[" * 100_000])
def test_description_that_is_no_json_object_is_refused(
    text: str, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(model(text, digest=False), image, capsys)


def test_file_that_is_too_large_for_the_format_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    with file.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(
        PredictError, match=r"model\.onnx has 1099511627776 bytes; an ONNX file has at most 2147483648$"
    ):
        Model(file)


def test_model_whose_outputs_overflow_is_refused(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not finite" in refused(model(weight=1e38), image, capsys)


def test_metadata_of_other_programs_does_not_matter(tmp_path: Path) -> None:
    proto = onnx.load_from_string(model())
    entry = proto.metadata_props.add()
    entry.key, entry.value = "note", "deployed on Monday"
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    assert Model(tmp_path / "model.onnx").facts.classes == FACTS["classes"]


def test_unreadable_images_are_reported_and_the_others_predicted(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image.parent / "model.onnx").write_bytes(model())
    damages: dict[str, Callable[[bytes], bytes]] = {
        "empty.png": lambda _: b"",
        "text.jpg": lambda _: b"no image",
        "half.png": lambda content: content[: len(content) // 2],
    }
    for name, damage in damages.items():
        (image.parent / name).write_bytes(damage(image.read_bytes()))
    status = main([str(image.parent / "model.onnx"), str(image.parent)])
    output, errors = capsys.readouterr()
    assert status == 1
    assert [line.split(":")[0] for line in output.splitlines()] == [str(image)]
    assert len(errors.splitlines()) == len(damages) + 2
    assert "1 left out: 1 not an image format (.onnx)" in errors


def test_links_are_followed_and_other_formats_reported(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = image.parent / "folder"
    folder.mkdir()
    (image.parent / "model.onnx").write_bytes(model())
    elsewhere = image.parent / "elsewhere"
    elsewhere.mkdir()
    image.rename(elsewhere / image.name)
    (folder / "link").symlink_to(elsewhere)
    (folder / "up").symlink_to(folder)
    (folder / "a.heic").write_bytes(b"no plugin reads this")
    assert main([str(image.parent / "model.onnx"), str(folder)]) == 1
    output, errors = capsys.readouterr()
    assert output.startswith(f"{folder / 'link' / image.name}: ")
    assert "1 left out: 1 link to one of its own parent folders (up)" in errors
    assert f"{folder / 'a.heic'}: cannot be read" in errors


def test_progress_is_shown_before_the_first_batch(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image.with_name("model.onnx").write_bytes(model())
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", shown)
    next(predict(Model(image.with_name("model.onnx")), [image, image], batch=1))
    assert shown.getvalue() == f"\r[{'.' * 30}] 0/2"


def test_names_cannot_control_the_terminal() -> None:
    assert printable("a\x1b[2J\nb\udcff\u2028é") == "a\\x1b[2J\\nb\\udcff\\u2028é"


def test_a_mistake_in_the_program_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(_: object) -> None:
        raise ValueError("mistake")

    monkeypatch.setattr("sqakd.predict.Model", mistake)
    with pytest.raises(ValueError, match="mistake"):
        main([str(tmp_path / "model.onnx"), str(tmp_path)])
