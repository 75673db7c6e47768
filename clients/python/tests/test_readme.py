"""The quick start of the README, executed as it is written."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BINARY, ROOT, Server

TEXT = (ROOT / "clients/python/README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
INSTALL_SECONDS = 240
REGISTRY_SECONDS = 30
PATIENCE = {"PIP_RETRIES": "1", "PIP_TIMEOUT": "10", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
# What pip says of a registry that stalls, and never of a package. Of one that it does not find it
# says the same where there is no registry as where our own pin is wrong.
STALLED = "Read timed out"


def environment(**more: str) -> dict[str, str]:
    # The package is to be the one that was installed, wherever this test has its own from.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, **more}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What a clone has after the build, as far as the quick start needs it."""
    unwanted = shutil.ignore_patterns("build", "*.egg-info", ".*", "__pycache__", "tests")
    shutil.copytree(ROOT / "clients/python", tmp_path / "clients/python", ignore=unwanted)
    built = tmp_path / "target/release/maos"
    built.parent.mkdir(parents=True)
    built.symlink_to(Path(BINARY).resolve())
    return tmp_path


def ends_within(seconds: float, command: list[str], folder: Path) -> tuple[int, str]:
    """Run pip; skips where the registry stalls."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(**PATIENCE),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pytest.skip(f"the registry of packages did not answer within {seconds} seconds")
    if process.returncode != 0 and STALLED in said:
        pytest.skip("the registry of packages stalls")
    return process.returncode, said


@pytest.fixture
def registry(tmp_path: Path) -> None:
    """Skips where there is no registry to install a package from that surely exists."""
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir"]
    code, _ = ends_within(REGISTRY_SECONDS, [*download, "-d", str(tmp_path), "idna"], tmp_path)
    if code != 0:
        pytest.skip("there is no registry of packages to install from")


@pytest.fixture
def installed(project: Path, registry: None) -> Path:
    """The first block, without what builds the server."""
    build, *lines = BLOCKS[0][1].splitlines()
    assert build == "cargo build --release"
    code, said = ends_within(INSTALL_SECONDS, ["sh", "-e", "-c", "\n".join(lines)], project)
    assert code == 0, said
    return project / ".venv/bin"


@pytest.fixture
def started(project: Path) -> Iterator[Server]:
    """The second block, on a free port."""
    server = Server(project, command=shlex.split(BLOCKS[1][1]))
    yield server
    server.kill()


def asks_and_is_answered(server: Server, folder: Path, programs: Path) -> None:
    for language, body in BLOCKS:
        if language == "python":
            name = re.match(r"# (\S+)\n", body)
            assert name
            # The server of this test has another port.
            (folder / name[1]).write_text(body.replace("http://127.0.0.1:8000", server.url))
    run, ask = re.search(r"`maos-worker (\S+)`", TEXT), re.search(r"`python3 (\S+)`", TEXT)
    assert run and ask
    worker = subprocess.Popen(
        [str(programs / "maos-worker"), run[1]],
        cwd=folder,
        env=environment(MAOS_SERVER=server.url),
    )
    try:
        command = [str(programs / "python3"), ask[1]]
        asked = subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
        )
    finally:
        worker.terminate()
        assert worker.wait(30) == 0
    expected = next(body for language, body in BLOCKS if language == "text")
    assert (asked.returncode, asked.stdout) == (0, expected), asked.stderr


def test_the_quick_start_does_what_it_says(server: Server, tmp_path: Path) -> None:
    asks_and_is_answered(server, tmp_path, Path(sys.executable).parent)


def test_the_quick_start_installs_what_it_needs(
    installed: Path, started: Server, project: Path
) -> None:
    asks_and_is_answered(started, project, installed)
