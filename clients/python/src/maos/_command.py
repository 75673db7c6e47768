"""`maos-worker MODULE:WORKER [--url URL]`: runs a worker until a signal ends it."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys

from .worker import Worker


def main() -> None:
    """Read the command line and run the worker."""
    parser = argparse.ArgumentParser(prog="maos-worker", description="Runs a MAOS worker.")
    parser.add_argument("worker", metavar="MODULE:WORKER", help="such as `greet:worker`")
    parser.add_argument(
        "--url", help="the server [default: MAOS_SERVER, else what the worker says]"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.path.insert(0, os.getcwd())
    module, _, name = arguments.worker.partition(":")
    try:
        worker = getattr(importlib.import_module(module), name or "worker")
    except (ImportError, AttributeError) as error:
        parser.error(f"`{arguments.worker}` cannot be had: {error}")
    if not isinstance(worker, Worker):
        parser.error(f"`{arguments.worker}` is no maos.Worker")
    worker.run(arguments.url or os.environ.get("MAOS_SERVER"))


if __name__ == "__main__":
    main()
