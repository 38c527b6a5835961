"""`python3 -m tests`: the tests, in the environment that the demo uses too.

`python3 -m tests unit sampling -x`: first the tiers, then arguments of pytest; README.md has a table of the tiers.
"""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from demo.environment import HOME, prepare
from demo.evidence.__main__ import REQUIREMENTS as EVIDENCE

TESTS = Path(__file__).resolve().parent
TIERS = ["unit", "gpu", "sampling", "server", "browser", "study"]  # folders, the quickest first
REQUIREMENTS = ["pytest", "pytest-instafail", "pytest-timeout", "pytest-xdist", "hypothesis", "playwright", "prdc", *EVIDENCE]
# The tests of the front end wait for a browser much of the time: others run beside them. -n 0 is one after the other.
SIDE_BY_SIDE = ["-n", "2", "--dist", "loadscope"]
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]


def run_module(script, arguments):
    """Run a script of the tests in the prepared environment, and exit with its status."""
    sys.exit(prepare(REQUIREMENTS).run(script, *arguments))


def find_chromium():
    """The path of a Chromium for the tests of the front end. It is installed where that needs no questions."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found:
        return found
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        print("Installing Chromium for the tests of the front end ...", flush=True)
        with (HOME / "apt.log").open("w") as log:
            for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
                subprocess.run(["apt-get", *command], stdout=log, stderr=subprocess.STDOUT)
        found = shutil.which("chromium")
    if not found:
        print("There is no Chromium here, so the tests of the front end will fail. Install one (Debian: sudo apt install chromium),")
        print("or set CHROMIUM to the path of a Chromium or Chrome.", flush=True)
    return found or ""


def pytest_arguments(arguments):
    """The command line of pytest: paths are absolute, since it runs in another directory, and whole tiers run two files at a time.

    Without a tier or a path, all tiers run.
    """
    tiers = leading_tiers(arguments)
    others = [resolve(argument) for argument in arguments[len(tiers) :]]
    if any(os.path.isabs(argument) for argument in others):
        return [*(str(TESTS / tier) for tier in tiers), *others]
    return [*SIDE_BY_SIDE, *others, *(str(TESTS / tier) for tier in tiers or TIERS)]


def leading_tiers(arguments):
    return list(itertools.takewhile(TIERS.__contains__, arguments))


def resolve(argument):
    path, colons, test = argument.partition("::")
    is_path = not argument.startswith("-") and (colons or os.sep in path or path.endswith(".py")) and Path(path).exists()
    return str(Path(path).resolve()) + colons + test if is_path else argument


if __name__ == "__main__":
    environment = prepare(REQUIREMENTS)
    tiers = leading_tiers(sys.argv[1:])
    if not tiers or "browser" in tiers:
        os.environ["CHROMIUM"] = find_chromium()
    options = ["--import-mode=importlib", "-c", TESTS / "pytest.ini", "--rootdir", TESTS, "--confcutdir", TESTS]
    options += ["-o", f"cache_dir={HOME / 'pytest'}"]
    sys.exit(environment.run("-m", "pytest", *options, *pytest_arguments(sys.argv[1:])))
