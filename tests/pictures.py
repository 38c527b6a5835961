"""`python3 -m tests.pictures`: all pictures of the repository anew. Look at each before it is committed."""

import os
import subprocess
import sys

from demo.environment import ROOT

COMMANDS = [["demo.pictures"], ["tests", "tests/browser/test_pictures.py"]]  # of the demo's model; of the nodes, for the help pages

if __name__ == "__main__":
    os.environ["UPDATE_PICTURES"] = "1"
    sys.exit(any(subprocess.run([sys.executable, "-m", *command], cwd=ROOT).returncode for command in COMMANDS))
