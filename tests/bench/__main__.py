"""`python3 -m tests.bench`: what Circulation costs, as ratios measured side by side in one process."""

import sys
from pathlib import Path

from tests.__main__ import run_module


def from_here(arguments):
    """The benchmark runs in another directory, so the file after --json is made absolute."""
    before = ["", *arguments]
    return [str(Path(argument).resolve()) if previous == "--json" else argument for previous, argument in zip(before, arguments)]


if __name__ == "__main__":
    run_module(Path(__file__).with_name("measure.py"), from_here(sys.argv[1:]))
