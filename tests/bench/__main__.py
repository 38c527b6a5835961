"""`python3 -m tests.bench`: what Circulation costs, as ratios measured side by side in one process."""

import sys
from pathlib import Path

from tests.__main__ import run_module

if __name__ == "__main__":
    run_module(Path(__file__).with_name("measure.py"), sys.argv[1:])
