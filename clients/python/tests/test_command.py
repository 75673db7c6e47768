"""What `maos-worker` says to mistakes: one error, what would help, and no traceback."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Server

from maos import MAOSClient

MODULE = """
from maos import Worker

worker, empty = Worker(), Worker()
number = 1

@worker.task(capabilities=["good"])
def good():
    return 1

@worker.task(capabilities=["Not Good"])
def bad():
    return 1
"""
BROKEN = """
from maos import Worker

Worker().task(capabilities="greeting")
"""


def refused(folder: Path, *arguments: str) -> str:
    """Run `maos-worker` to its end, and return what it says."""
    (folder / "mine.py").write_text(MODULE)
    (folder / "broken.py").write_text(BROKEN)
    command = [sys.executable, "-m", "maos._command", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == "", done
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["mine:empty"], "no function is registered", '`@worker.task(capabilities=["greeting"])`'),
        (["mine:nope"], "`nope` of `mine` is not there", "write `mine:worker`"),
        (["mine:number"], "`number` of `mine` is no maos.Worker", "write `mine:worker`"),
        (["nowhere:worker"], "`nowhere` cannot be imported", "the folder that holds `nowhere.py`"),
        (["broken"], 'TypeError: `capabilities` must be a list such as `["greeting"]`', "import"),
        (["mine", "--url", "127.0.0.1:1"], "is no address", "write `http://127.0.0.1:1`"),
    ],
)
def test_a_mistake_is_one_error_and_a_hint(
    tmp_path: Path, arguments: list[str], error: str, hint: str
) -> None:
    lines = refused(tmp_path, *arguments).splitlines()
    assert len(lines) == 2, lines
    assert lines[0].startswith("error: ") and error in lines[0], lines
    assert lines[1].startswith("hint: ") and hint in lines[1], lines


def test_a_refused_function_ends_those_that_were_registered_before(
    server: Server, tmp_path: Path
) -> None:
    said = refused(tmp_path, "mine:worker", "--url", server.url)
    assert re.search(r"^error: `bad` was not registered: .*`Not Good`", said, re.MULTILINE), said
    assert re.search(r"^hint: .*@worker.task", said, re.MULTILINE) and "Traceback" not in said

    async def left() -> list[str]:
        async with MAOSClient(server.url) as client:
            page = await client.list_agents(agent_type="good")
            return [agent["status"] for agent in page["items"]]

    assert asyncio.run(left()) in ([], ["terminated"])
