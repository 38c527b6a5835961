"""`python3 -m tests.bench.steps`: what each method adds to a whole step of a full-size model on a GPU. Modelled: no GPU takes part."""

import sys
from pathlib import Path

from tests.__main__ import run_module
from tests.bench.__main__ import from_here

if __name__ == "__main__":
    run_module(Path(__file__).with_name("cost_model.py"), from_here(sys.argv[1:]))
