"""Adds to each phase its share of damaging strikes, in thousandths, and puts the worst first.

Reads a task as JSON on stdin; its `parameters.input` is what `count.sh` made. Phases with fewer than
`parameters.strikes_min` strikes are left out, and counted.
"""

import json
import sys


def main() -> None:
    parameters = json.load(sys.stdin)["parameters"]
    phases = parameters["input"]["phases"]
    kept = [phase for phase in phases if phase["strikes"] >= parameters["strikes_min"]]
    for phase in kept:
        phase["damaging_per_mille"] = 1000 * phase["damaging"] // phase["strikes"]
    kept.sort(key=lambda phase: (-phase["damaging_per_mille"], phase["phase"]))
    print(f"{len(kept)} of {len(phases)} phases kept", file=sys.stderr)
    json.dump({"phases": kept, "left_out_count": len(phases) - len(kept)}, sys.stdout)


if __name__ == "__main__":
    main()
