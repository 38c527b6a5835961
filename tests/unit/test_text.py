"""What leaves the pack as text can be written by any console, and is short."""

import ast
import io
import json
import sys

import pytest
from support.host import ROOT, engine

text, choices, blocks = engine("text"), engine("choices"), engine("rules.blocks")
HOSTILE = ["\ud800", "输入", "a\nb\x00\x1b[31m", "×", "x" * 100_000, "{}%s\\", "é" * 200, "\u202e abc", "9" * 5000]
CONSOLES = ["ascii", "cp1252", "cp1251", "gbk", "utf-8"]


def test_a_line_for_the_log_is_ascii_and_one_line():
    assert text.ascii_line("a 2 × 2 schedule") == "a 2 x 2 schedule"
    for hostile in HOSTILE:
        line = text.ascii_line(hostile)
        assert line.isascii() and line.isprintable()


@pytest.mark.parametrize("encoding", CONSOLES)
@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_every_refusal_can_be_written_and_is_short(monkeypatch, hostile, encoding):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    model_blocks = (blocks.Block("input", 1, 0, 8, 4),)
    schedule = engine("rules.schedule").Schedule
    refusals = [
        lambda: blocks.Selection.parse(hostile).of(model_blocks),
        lambda: blocks.Selection.parse("input.7, !input.7, " + hostile).of(model_blocks),
        lambda: blocks.Selection.parse(f"input.{hostile}-1").of(model_blocks),
        lambda: blocks.Selection.parse(f"{hostile}%-1%").of(model_blocks),
        lambda: choices.check_word("branches", hostile, choices.BRANCHES),
        lambda: choices.check_number("alpha", hostile, 0, 1),
        lambda: choices.check_text("label", [hostile]),
        lambda: schedule.parse(hostile),
        lambda: schedule.parse(json.dumps({"grid": [[hostile]]})),
        lambda: schedule.parse(json.dumps({"grid": [[1]], hostile: 1})),
        lambda: engine("comfy.files").existing_file(hostile),
        lambda: engine("comfy.files").next_file("../" + hostile, ""),
        lambda: engine("records.record").as_record("stability", hostile),
    ]
    for number, refusal in enumerate(refusals):
        with pytest.raises(ValueError) as refused:
            refusal()
        words = str(refused.value)
        words.encode(encoding)
        assert len(words) < 1000, number


def test_many_blocks_are_listed_in_short():
    many = tuple(blocks.Block(f"stage_{'abcdefgh'[n % 8]}", n, 0, 8, 4) for n in range(1000))
    with pytest.raises(ValueError, match="'nowhere' selects no block. This model has stage_a") as refused:
        blocks.Selection.parse("nowhere").of(many)
    assert len(str(refused.value)) < 600


def test_what_is_shown_of_a_value():
    assert text.shown("as it is $") == "as it is $"
    assert text.shown("x" * 81) == "x" * 80 + "..."
    assert text.shown(10**6000) == "something of type int"
    assert text.got("a") == "'a'" and text.got(1.5) == "1.5" and text.got(None) == "None (NoneType)" and text.got([1]) == "[1] (list)"


def test_lines_that_a_traceback_can_repeat_are_ascii():
    """ComfyUI logs tracebacks, which hold the lines of code that failed, on a console of any encoding."""
    for path in (ROOT / "nodes").rglob("*.py"):
        source = path.read_text("utf-8")
        lines = source.splitlines()
        for function in ast.walk(ast.parse(source)):
            if isinstance(function, ast.FunctionDef):
                body = function.body[ast.get_docstring(function) is not None :]
                spoken = [line for statement in body for line in lines[statement.lineno - 1 : statement.end_lineno]]
                wrong = [line for line in spoken if not line.isascii() and not line.lstrip().startswith("#") and '"""' not in line]
                assert not wrong, (path.name, wrong)


