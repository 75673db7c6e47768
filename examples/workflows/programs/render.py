"""Turns rated phases into a Markdown table. Reads what `rate.py` made from `parameters.input`."""

import json
import sys


def main() -> None:
    rated = json.load(sys.stdin)["parameters"]["input"]
    lines = ["| phase | strikes | damaging | per mille |", "|---|---:|---:|---:|"]
    for phase in rated["phases"]:
        cells = (phase["phase"], phase["strikes"], phase["damaging"], phase["damaging_per_mille"])
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    json.dump({"markdown": "\n".join(lines) + "\n", **rated}, sys.stdout)


if __name__ == "__main__":
    main()
