#!/usr/bin/env python3
"""`.ci/check_release.py TAG ADDRESS`: fails unless the tag is pyproject.toml's version with a v before it, the address is the
repository's of pyproject.toml, and CHANGELOG.md has an entry for the version. Needs Python 3.11."""

import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent


def problems(tag, address):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    version, repository = project["version"], project["urls"]["Repository"]
    if tag != f"v{version}":
        yield f"The tag is {tag}, but the version in pyproject.toml is {version}."
    if address.rstrip("/").lower() != repository.rstrip("/").lower():
        yield f"This is {address}, but the repository in pyproject.toml is {repository}."
    if f"\n## {version}" not in (ROOT / "CHANGELOG.md").read_text("utf-8"):
        yield f"CHANGELOG.md has no entry for {version}."


if __name__ == "__main__":
    sys.exit("\n".join(problems(*sys.argv[1:])) or 0)
