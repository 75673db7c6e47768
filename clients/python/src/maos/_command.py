"""`maos-worker MODULE:WORKER [--url URL]`: runs a worker until a signal ends it."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import threading
from typing import NoReturn, Optional

from ._wire import MAOSError, Misused
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
    worker = _worker(arguments.worker)
    try:
        worker.run(arguments.url or os.environ.get("MAOS_SERVER"))
        _end(0)
    except GaveUp as error:
        logging.getLogger("maos.worker").error("%s", error)
        _end(1)
    except Misused as error:
        _refuse(str(error))
    except MAOSError as error:
        _refuse(error.message, "change what is said in its `@worker.task(...)`")


def _worker(named: str) -> Worker:
    module, _, name = named.partition(":")
    name = name or "worker"
    try:
        there = importlib.import_module(module)
    # The module is the user's, and may do anything.
    except Exception as error:
        hint = f'`{os.path.basename(sys.executable)} -c "import {module}"` says more'
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            hint = f"start in the folder that holds `{module}.py`"
        _refuse(f"`{module}` cannot be imported: {type(error).__name__}: {error}", hint)
    worker = getattr(there, name, None)
    if not isinstance(worker, Worker):
        found = [key for key, value in vars(there).items() if isinstance(value, Worker)]
        write = f"`{module}:{found[0]}`" if found else f"`{name} = Worker()` in `{module}`"
        what = "is no maos.Worker" if hasattr(there, name) else "is not there"
        _refuse(f"`{name}` of `{module}` {what}", f"write {write}")
    return worker


def _refuse(why: str, hint: Optional[str] = None) -> NoReturn:
    """Say what is wrong and what would help, and end the program."""
    if hint and "\nhint: " not in why:
        why = f"{why}\nhint: {hint}"
    print(f"error: {why}", file=sys.stderr)
    sys.exit(1)


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
