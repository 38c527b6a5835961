"""What must agree between files of the repository, where nothing else would notice."""

import json
import re
import subprocess
import sys

import pytest
from support.host import ROOT, engine

tomllib = pytest.importorskip("tomllib")  # Python 3.11

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".json", ".js", ".css", ".ts", ".txt", ".csv", ""}


def texts():
    """Every file of words outside .git and .comfy."""
    for top in ROOT.iterdir():
        if top.name not in (".git", ".comfy"):
            paths = top.rglob("*") if top.is_dir() else [top]
            yield from (path for path in paths if path.is_file() and path.suffix in TEXT)


def test_the_public_address_stands_in_pyproject_alone():
    address = PYPROJECT["project"]["urls"]["Repository"].removeprefix("https://")
    places = [path.relative_to(ROOT).as_posix() for path in texts() if address in path.read_text("utf-8", errors="ignore")]
    assert places == ["pyproject.toml"]


def test_the_version_is_the_same_everywhere():
    version = PYPROJECT["project"]["version"]
    (in_code,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "nodes/engine/__init__.py").read_text("utf-8"), re.MULTILINE)
    assert in_code == version
    assert re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)[0] == version


def test_the_manager_installs_what_pyproject_asks_for():
    """ComfyUI Manager reads requirements.txt, the registry pyproject.toml."""
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == PYPROJECT["project"]["dependencies"]


@pytest.mark.parametrize("tag, address, words", [
    ("v{version}", "{address}", ""),
    ("{version}", "{address}", "The tag is"),
    ("v0.0.0", "{address}", "The tag is"),
    ("v{version}", "{address}-fork", "This is"),
])  # fmt: skip
def test_only_the_version_is_published_and_only_from_here(tag, address, words):
    values = {"version": PYPROJECT["project"]["version"], "address": PYPROJECT["project"]["urls"]["Repository"]}
    command = [sys.executable, ROOT / ".ci" / "check_release.py", tag.format(**values), address.format(**values)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert words in result.stderr and bool(words) == bool(result.returncode), result.stderr


MAP = (ROOT / "ARCHITECTURE.md").read_text("utf-8")


def file_of_map(path):
    """A path of the map is whole, or from nodes/ or nodes/engine/ on."""
    return next((ROOT / base / path for base in ("", "nodes", "nodes/engine") if (ROOT / base / path).exists()), None)


def test_the_map_names_files_that_are_there():
    """A row of its table names a folder and then files in it; elsewhere a path has its folder with it."""
    paths = set(re.findall(r"`([\w/]+/[\w./]*)`", MAP))
    for folder, words in re.findall(r"^\| `([\w/]+/)(?:\*\.py)?` \| (.*) \|$", MAP, re.MULTILINE):
        paths.update(f"{folder}{name}" for name in re.findall(r"`(\w+\.(?:py|js))`", words))
    assert len(paths) > 40
    assert [path for path in sorted(paths) if file_of_map(path) is None] == []


def test_the_map_names_what_its_files_define():
    """Such as `skewed_keys` in `engine/method/formula.py`, or `Run` (`run/run.py`)."""
    places = re.findall(r"`(?:\w+\.)?(\w+)` (?:in |\()`([\w/]+\.py)`", MAP)
    assert len(places) > 8
    for name, path in places:
        assert re.search(rf"(def|class) {name}\b", file_of_map(path).read_text("utf-8")), f"{name} in {path}"


@pytest.mark.parametrize("script, pattern, module, names", [
    ("painter.js", "MOST = { rows: (.+?), columns: (.+?), factor: (.+?) }", "rules.schedule", ["MAX_ROWS", "MAX_COLUMNS", "MAX_FACTOR"]),
    (
        "results.js",
        r'subscribe\((".+?"), withPoint\);\s+subscribe\((".+?"),.*\s+api\.addEventListener\((".+?"),',
        "comfy.events",
        ["STABILITY", "STATUS", "REFUSED"],
    ),
])  # fmt: skip
def test_the_browser_and_the_engine_agree(script, pattern, module, names):
    """Limits and names of events that are written in both languages."""
    (found,) = re.findall(pattern, (ROOT / "js" / script).read_text("utf-8"))
    assert [json.loads(value) for value in found] == [getattr(engine(module), name) for name in names]


README = (ROOT / "README.md").read_text("utf-8")
MOST_WORDS = 1500


def test_the_front_page_is_short():
    """Outside of tables and code."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", README, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    assert len(" ".join(lines).split()) <= MOST_WORDS


def test_the_first_screen_shows_it_and_says_how_to_try_it():
    """A sentence, a picture and what it is of, three steps and the templates, before any heading."""
    first, *_ = README.removeprefix("# ").split("\n## ")
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", first)
    assert (ROOT / picture).is_file()
    assert re.findall(r"^\d\.", first, re.MULTILINE) == ["1.", "2.", "3."]
    assert len(first.split()) < 200 and "Your model will differ" in first and "Browse Templates" in first


def links(page):
    for words, target in re.findall(r"!?\[([^\]]*)\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)):
        if "://" not in target:
            yield words, target


def anchors(page):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def git_files(*options):
    command = ["git", "-C", str(ROOT), "ls-files", *options]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def test_the_published_archive_holds_what_its_pages_show_and_nothing_else():
    """Of what git has it takes what .comfyignore leaves."""
    archive = git_files() - git_files("--cached", "--ignored", "--exclude-from=.comfyignore")
    tops = {path.partition("/")[0] for path in archive}
    assert tops == {
        *("__init__.py", "nodes", "js", "locales", "workflows", "docs", "pyproject.toml", "requirements.txt", "LICENSE"),
        *("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "EVIDENCE.md", "SECURITY.md", "demo"),
    }
    shown = set()
    for page in (ROOT / path for path in archive if path.endswith(".md")):
        pictures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", page.read_text("utf-8"))
        base = ROOT / "js" / "docs" if "js/docs" in page.as_posix() else page.parent  # where the front end looks from, in any language
        shown |= {(base / picture).resolve().relative_to(ROOT).as_posix() for picture in pictures}
    assert shown <= archive
    assert {path for path in archive if path.endswith(".png")} <= shown
    assert {path for path in archive if path.startswith("demo/")} <= shown


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]), ids=lambda page: page.name)
def test_links_of_the_pages_lead_somewhere(page):
    for words, target in links(page):
        path, _, anchor = target.partition("#")
        led_to = page.parent / path if path else page
        assert led_to.exists(), f"[{words}]({target})"
        assert not anchor or anchor in anchors(led_to), f"[{words}]({target})"
