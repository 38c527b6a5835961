"""Prints the tables, in the prepared environment: see `__main__.py`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import support.host  # noqa: F401  first: it finds ComfyUI

from exact import methods, rounding


def table(head, rows):
    print("| " + " | ".join(head) + " |", "|---" * len(head) + "|", *("| " + " | ".join(row) + " |" for row in rows), sep="\n", end="\n\n")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        table(*{"rounding": rounding.table, "methods": methods.table}[name]())
