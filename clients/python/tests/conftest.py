"""A real server for each test, on a free port and with a data directory of its own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("MAOS_BINARY", str(ROOT / "target/debug/maos"))


class Server:
    """A `maos serve`."""

    def __init__(
        self, folder: Path, port: int = 0, command: Sequence[str] = (BINARY, "serve")
    ) -> None:
        """Start it and wait until it says where it listens."""
        self.folder = folder
        arguments = ["--port", str(port), "--data-dir", str(folder / "data")]
        self.process = subprocess.Popen(
            [*command, *arguments], cwd=folder, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found = re.match(r"maos listens on (http://\S+:(\d+)),", line)
            if found:
                self.url, self.port = found[1], int(found[2])
                return
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def again(self) -> Server:
        """Start it again on the same directory and port."""
        return Server(self.folder, self.port)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that ends with the test."""
    server = Server(tmp_path)
    yield server
    if server.process.poll() is None:
        server.kill()
