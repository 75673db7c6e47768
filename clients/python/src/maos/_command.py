"""`maos-worker MODULE:WORKER [--url URL]`: runs a worker until a signal ends it."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import threading

from .worker import GaveUp, Worker

_THREAD_SECONDS = 0.5


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
    try:
        worker.run(arguments.url or os.environ.get("MAOS_SERVER"))
        _end(0)
    except GaveUp as error:
        logging.getLogger("maos.worker").error("%s", error)
        _end(1)


def _end(code: int) -> None:
    """End the program, also when a function that was given up goes on in its thread."""
    others = [thread for thread in threading.enumerate() if not thread.daemon]
    for thread in others:
        if thread is not threading.main_thread():
            thread.join(_THREAD_SECONDS)
    if all(thread is threading.main_thread() or not thread.is_alive() for thread in others):
        sys.exit(code)
    logging.getLogger("maos.worker").warning("a function goes on after its time: it is ended")
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
