#!/usr/bin/env python3
"""Start the server with the flags of the documents, and stay until it ends.

    python examples/backend_api_example.py --host 0.0.0.0 --port 8000 --debug --log-file maos.log

The binary is found in MAOS_BINARY, in target/release or target/debug, or on the PATH.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def binary() -> str:
    """Find the server, or say where it was looked for."""
    named = os.environ.get("MAOS_BINARY")
    built = [ROOT / "target" / kind / "maos" for kind in ("release", "debug")]
    there = [str(path) for path in built if path.is_file()]
    found = named or (there[0] if there else shutil.which("maos"))
    if found is None:
        sys.exit("there is no maos binary\nhint: build it with `cargo build --release`")
    return found


def main() -> None:
    """Replace this process by the server, so that signals and the exit code are the server's."""
    parser = argparse.ArgumentParser(description="Start the MAOS backend.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    parser.add_argument("--debug", action="store_true", help="log everything, also to a file")
    parser.add_argument("--log-file", help="log to this file as well")
    parser.add_argument("--data-dir", help="where everything durable is kept")
    given = parser.parse_args()
    program = binary()
    command = [program, "serve", "--host", given.host, "--port", str(given.port)]
    if given.debug:
        command.append("--debug")
    if given.log_file:
        command += ["--log-file", given.log_file]
    if given.data_dir:
        command += ["--data-dir", given.data_dir]
    os.execv(program, command)


if __name__ == "__main__":
    main()
