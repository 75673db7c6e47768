"""The examples, each run as its first lines say."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import BINARY, ROOT, Server

EXAMPLES = ROOT / "examples"


def example(name: str, *arguments: str, folder: Path) -> str:
    """Run an example to its end, and return what it printed."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ("tasks", ["simple task: completed, the result is 242", "[1, 4, 9, 16, 25]", "404"]),
        ("agents", ["calculator", "completed", "is healthy"]),
        ("claude", ["claude: completed, priority critical", "is running"]),
        ("all", ["simple task", "specialised agents", "claude"]),
    ],
)
def test_client_examples(server: Server, tmp_path: Path, group: str, said: list[str]) -> None:
    out = example(
        "client_examples.py", "--example", group, "--base-url", server.url, folder=tmp_path
    )
    for words in said:
        assert words in out, out


def test_the_backend_starts_with_the_flags_of_the_documents(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, str(EXAMPLES / "backend_api_example.py")]
    command += ["--host", "127.0.0.1", "--port", port, "--debug", "--log-file", "server.log"]
    environment = {**os.environ, "MAOS_BINARY": str(Path(BINARY).resolve())}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert (tmp_path / "server.log").stat().st_size > 0


@pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None,
    reason="scikit-learn is installed by `scripts/test --full`",
)
def test_the_machine_learning_pipeline_trains_a_model(server: Server, tmp_path: Path) -> None:
    out = example("ml_pipeline.py", "--base-url", server.url, folder=tmp_path)
    accuracy = float(out.split("accuracy ")[1].split()[0])
    assert 0.93 <= accuracy <= 1.0, out
    assert (tmp_path / "digits.model").stat().st_size > 1_000
    assert "[0, 1, 2, 3, 4]" in out
