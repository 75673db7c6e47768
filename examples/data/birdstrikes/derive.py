"""Derives strikes.csv from the npm package `vega-datasets`, as README.md beside it describes.

Usage: python3 examples/data/birdstrikes/derive.py
Needs python3 (3.9 or newer, nothing else) and npm. Writes strikes.csv beside itself.
"""

import csv
import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile

PACKAGE = "vega-datasets@3.2.1"
MEMBER = "package/data/birdstrikes.csv"
SHA256 = "45777edf69984b37599e73dbfb34dbc976055243547407214261a4fcb9466462"

# Ours, theirs. What the examples do not use is left out, to stay small.
COLUMNS = [
    ("date", "Flight Date"),
    ("airport", "Airport Name"),
    ("state", "Origin State"),
    ("phase", "Phase of flight"),
    ("time_of_day", "Time of day"),
    ("speed_knots", "Speed IAS in knots"),
    ("species", "Wildlife Species"),
    ("size", "Wildlife Size"),
    ("damage", "Effect Amount of damage"),
    ("cost_usd", "Cost Total $"),
]


def fetch() -> bytes:
    """The original file, exactly as the package ships it."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", PACKAGE]
        packed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        archive = pathlib.Path(folder) / packed.stdout.strip().splitlines()[-1]
        with tarfile.open(archive) as package:
            content = package.extractfile(MEMBER)
            if content is None:
                sys.exit(f"`{MEMBER}` is not in `{PACKAGE}`")
            return content.read()


def main() -> None:
    original = fetch()
    found = hashlib.sha256(original).hexdigest()
    if found != SHA256:
        sys.exit(f"`{MEMBER}` has the SHA-256 {found}, wanted {SHA256}")
    rows = list(csv.DictReader(io.StringIO(original.decode("utf-8"), newline="")))
    rows.sort(key=lambda row: row["Flight Date"])  # stable: a day keeps its order
    target = pathlib.Path(__file__).with_name("strikes.csv")
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([ours for ours, _ in COLUMNS])
        writer.writerows([row[theirs] for _, theirs in COLUMNS] for row in rows)
    print(f"{len(rows)} rows in {target}", file=sys.stderr)


if __name__ == "__main__":
    main()
