"""The quick start of the README, executed as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import Server


def test_the_quick_start_does_what_it_says(server: Server, tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    files = [body for language, body in blocks if language == "python"]
    for body in files:
        name = re.match(r"# (\S+)\n", body)
        assert name
        # The server of this test has another port.
        (tmp_path / name[1]).write_text(body.replace("http://127.0.0.1:8000", server.url))
    command = re.search(r"`maos-worker (\S+)`", text)
    assert command
    worker = subprocess.Popen(
        [str(Path(sys.executable).parent / "maos-worker"), command[1]],
        cwd=tmp_path,
        env={**os.environ, "MAOS_SERVER": server.url},
    )
    try:
        asked = subprocess.run(
            [sys.executable, "ask.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
    finally:
        worker.terminate()
        assert worker.wait(30) == 0
    expected = next(body for language, body in blocks if language == "text")
    assert (asked.returncode, asked.stdout) == (0, expected), asked.stderr
