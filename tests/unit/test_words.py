"""What the nodes say: tooltips, help pages, translations, and the workflows that come with the pack."""

import copy
import json
import re

import pytest
from packaging.version import Version
from PIL import Image
from support import workflows
from support.host import NODES, ROOT, engine
from support.workflows import OLDEST, needs, workflow

LANGUAGES = ["zh", "ja", "ko", "fr", "de", "es", "ru"]
phrases = engine("phrases")


def inputs(cls):
    info = cls.GET_NODE_INFO_V1()["input"]
    return {**info.get("required", {}), **info.get("optional", {})}


@pytest.mark.parametrize("id", NODES)
def test_everything_has_a_tooltip(id):
    info = NODES[id].GET_NODE_INFO_V1()
    assert len(info["description"]) > 30
    for name, spec in inputs(NODES[id]).items():
        assert len(spec[1].get("tooltip", "")) > 15, name
    assert len(info["output_tooltips"]) == len(info["output"]) and all(info["output_tooltips"])


def wanted():
    """The keys of a translation, as paths: 'CirculationControl.inputs.alpha.name'."""
    for id, cls in NODES.items():
        yield from (f"{id}.display_name", f"{id}.description")
        parts = {"inputs": inputs(cls), "outputs": range(len(cls.GET_NODE_INFO_V1()["output"]))}
        yield from (f"{id}.{part}.{name}.{word}" for part, names in parts.items() for name in names for word in ("name", "tooltip"))


def paths(value, before=()):
    if isinstance(value, str):
        return {".".join(before): value}
    return {path: text for key, inner in value.items() for path, text in paths(inner, (*before, key)).items()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_all_that_there_is_and_nothing_else(language):
    found = paths(json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8")))
    keys = set(wanted())
    missing, unknown = sorted(keys - found.keys()), sorted(found.keys() - keys)
    assert not missing and not unknown, f"add to locales/{language}/nodeDefs.json: {missing}; take out: {unknown}"
    assert all(text.strip() for text in found.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_all_that_the_panels_say(language):
    """With the same places to be filled in."""
    code = (ROOT / "js" / "words.js").read_text("utf-8")
    english = dict(re.findall(r'^    "?([\w ]+)"?: "(.*)",$', code[code.index("ENGLISH = {") : code.index("};")], re.MULTILINE))
    found = json.loads((ROOT / "locales" / language / "main.json").read_text("utf-8"))
    said = found["circulation"]
    assert found.keys() == {"circulation"} and said.keys() == {*english, "phrases"} and len(english) > 30
    assert said["phrases"].keys() == phrases.ENGLISH.keys()
    for key, text in {**english, **phrases.ENGLISH}.items():
        translated = said["phrases"][key] if key in phrases.ENGLISH else said[key]
        assert translated.strip() and set(re.findall(r"\{\w+\}", translated)) == set(re.findall(r"\{\w+\}", text)), key


def test_every_phrase_that_the_engine_says_is_known_and_every_one_is_said():
    code = "".join(path.read_text("utf-8") for path in (ROOT / "nodes").rglob("*.py") if path.name != "phrases.py")
    keys = {key for argument in re.findall(r"\b(?:Phrase|Remark)\(([^,)]+)", code) for key in re.findall(r'"([^"]+)"', argument)}
    keys |= {reason.value for reason in engine("run.outcome").Reason}
    assert len(keys) > 40 and keys <= phrases.ENGLISH.keys()
    assert [key for key in phrases.ENGLISH if f'"{key}"' not in code] == ["positive and negative"]  # both in a row


def test_a_phrase_is_its_english_text_and_comes_out_of_json_whole():
    def again(value):
        return phrases.Phrase(value["key"], **{name: again(v) for name, v in value["values"].items()}) if isinstance(value, dict) else value

    steps = phrases.Phrase("stepsFromTo", first=2, last=3, total=4)
    extent = phrases.Phrase("extent", hit=1, all=6, steps=steps, branches=phrases.Phrase("negative"))
    sentences = [phrases.Phrase("hit", extent=extent), phrases.Phrase("leftAlone", count=2, blocks="middle", why="{key}")]
    line = json.loads(json.dumps(phrases.line_of(iter(sentences))))
    assert line["text"] == "1 of 6 blocks hit, steps 2 to 3 of 4, negative. Left alone in 2 calls at middle: {key}."
    assert [again(sentence) for sentence in line["sentences"]] == [sentence["text"] for sentence in line["sentences"]] == sentences
    assert line["sentences"][0]["values"]["extent"]["values"]["steps"] == {
        "key": "stepsFromTo", "values": {"first": 2, "last": 3, "total": 4}, "text": "steps 2 to 3 of 4",
    }  # fmt: skip
    for copied in (copy.deepcopy(extent), copy.copy(extent)):  # as ComfyUI copies models
        assert copied.data() == extent.data()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_names_the_words_that_are_typed(language):
    """Values of menus and words of the block grammar are the same in every language."""
    found = paths(json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8")))
    for word in ("input.4.1", "output.3-5", "0%-40%", "!middle"):
        assert word in found["CirculationControl.inputs.blocks.tooltip"]
    for name, words in {"formula": ("deviation", "scale"), "rescale": ("value space", "input space", "off")}.items():
        assert all(word in found[f"CirculationAdaptive.inputs.{name}.tooltip"] for word in words)


@pytest.mark.parametrize("id", NODES)
def test_a_node_has_a_help_page(id):
    page = (ROOT / "js" / "docs" / f"{id}.md").read_text("utf-8")
    assert page.startswith(f"# {NODES[id].GET_NODE_INFO_V1()['display_name']}\n")
    for part in ("## Two recipes", "## What it cannot do", "Source: Cho, Han, Jin", "arXiv:2605.27476"):
        assert part in page
    named = set(re.findall(r"`(\w+)`", page))
    between = re.search(r"`stability_2` to `stability_4`", page)
    assert set(inputs(NODES[id])) <= named | ({"stability_3"} if between else set())
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page)
    with Image.open(ROOT / "js" / "docs" / picture) as image:
        assert min(image.size) > 100
    assert not re.search(r"\$[^$]+\$", page)  # the front end does not typeset formulas
    assert not re.search(r"^\|", page, re.MULTILINE)  # a table has no room beside the graph, where the front end shows the page


def test_every_help_page_is_a_nodes():
    assert {page.stem for page in (ROOT / "js" / "docs").glob("*.md")} == set(NODES)
    assert {page.parent.name for page in (ROOT / "js" / "docs").glob("*/*.md")} == set(NODES)


def built(page):
    """What a translation has in common with its page: its headings, what its lists explain, its pictures and what is typed."""
    headings = re.findall(r"^#+(?= )", page, re.MULTILINE)
    explained = [re.findall(r"`[^`]+`", first) for first in re.findall(r"^\* ((?:`[^`]+`[,、，]? ?)+)[:：]", page, re.MULTILINE)]
    return headings, explained, re.findall(r"\]\([^)]+\)", page), set(re.findall(r"`([^`]+)`", page)), page.count("\n* **")


@pytest.mark.parametrize("language", ["zh", "ja"])
@pytest.mark.parametrize("id", NODES)
def test_a_help_page_has_the_same_parts_in_other_languages(id, language):
    """The front end looks for docs/NODE/LANGUAGE.md first."""
    page = (ROOT / "js" / "docs" / id / f"{language}.md").read_text("utf-8")
    assert built(page) == built((ROOT / "js" / "docs" / f"{id}.md").read_text("utf-8"))
    # after such a mark bold text ends only where a space follows
    assert not re.search(r"\*\*[^*\n]+[）」”。]\*\*[^\s、。，；：（|]", page)
    names = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    assert page.startswith(f"# {names[id]['display_name']}\n")


@pytest.mark.parametrize("path", workflows.PATHS, ids=lambda path: path.stem)
def test_a_workflow_says_which_comfyui_it_needs(path):
    """In its note, where that is not the oldest that the pack runs in."""
    graph = workflow(path.stem)
    (note,) = (node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote")
    said = re.search(r"\*\*Needs ComfyUI ([\d.]+) or newer\*\*", note)
    assert (Version(said[1]) if said else OLDEST) == needs(graph)


@pytest.mark.parametrize("path", workflows.PATHS, ids=lambda path: path.stem)
def test_a_workflow_has_a_note_and_says_where_its_nodes_come_from(path):
    nodes = json.loads(path.read_text("utf-8"))["nodes"]
    assert any(node["type"] == "MarkdownNote" for node in nodes)
    assert {node["type"] for node in nodes} & set(NODES)
    for node in nodes:
        if node["type"] in NODES:
            assert node["properties"]["cnr_id"] == "attention-circulation"


@pytest.mark.parametrize("path", workflows.PATHS, ids=lambda path: path.stem)
def test_the_nodes_of_a_workflow_do_not_lie_on_each_other(path):
    boxes = [(*node["pos"], *node["size"]) for node in json.loads(path.read_text("utf-8"))["nodes"]]
    for i, (x, y, width, height) in enumerate(boxes):
        for left, top, w, h in boxes[:i]:
            assert x >= left + w or left >= x + width or y - 30 >= top + h or top - 30 >= y + height
