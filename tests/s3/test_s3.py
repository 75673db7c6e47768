"""Documents in a bucket: the running server against a server that speaks S3, on this machine.

Needs target/debug/maos, and moto, which is that server (`requirements.txt`).
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAOS = str(ROOT / "target/debug/maos")
DEADLINE_SECONDS = 60
SECRET = "made-up-secret"
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
    "AWS_ACCESS_KEY_ID": "made-up-id",
    "AWS_SECRET_ACCESS_KEY": SECRET,
}
LARGE = os.urandom(20 << 20)


class Cable:
    """What connections to a server go through; it can be cut, and it can stop carrying."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._whole = True
        self.carries = threading.Event()
        self.carries.set()
        self.carried = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole = False
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._whole = True

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            if not self._whole:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._to))
            self._open += [near, far]
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                self.carries.wait()
                target.sendall(piece)
                self.carried += len(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Bucket:
    """A bucket of its own, and what is in it."""

    def __init__(self, port: int, name: str) -> None:
        self.name = name
        self.port = port
        self._client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="made-up-id",
            aws_secret_access_key=SECRET,
        )
        self._client.create_bucket(Bucket=name)

    def keys(self) -> list[str]:
        listed = self._client.list_objects_v2(Bucket=self.name)
        return [found["Key"] for found in listed.get("Contents", [])]

    def uploads(self) -> int:
        return len(self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", []))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


class House:
    """A server on a data directory."""

    def __init__(self, folder: pathlib.Path, data: str = "data") -> None:
        self.blobs = folder / data / "blobs"
        self._process = subprocess.Popen(
            [MAOS, "serve", "--port", "0", "--data-dir", data],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        self.said = ""
        for line in self._process.stderr:
            self.said += line
            found = re.search(r"listens on (http://\S+?),", line)
            if found:
                self._at = found[1]
                break
        else:
            self._at = ""
            self._process.wait()
        self.code = self._process.poll()
        # Read to the end, so that it never waits for a reader.
        threading.Thread(target=self._process.stderr.read, daemon=True).start()

    def call(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        request = urllib.request.Request(
            f"{self._at}/api/v1{path}", sent, {"content-type": kind}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as fault:
            return fault.code, fault.read()

    def submit(self, **submission: object) -> tuple[int, dict[str, object]]:
        status, body = self.call("POST", "/tasks", submission)
        answer = json.loads(body)
        return status, answer.get("task", answer)

    def result(self, task: object) -> object:
        status, body = self.call("GET", f"/tasks/{task}?wait_seconds=30")
        assert status == 200, body
        return json.loads(body)["task"]["result"]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def configure(folder: pathlib.Path, bucket: Bucket, port: int, prefix: str = "a/b") -> None:
    (folder / "maos.toml").write_text(
        f'[blobs]\nurl = "s3://{bucket.name}/{prefix}"\n'
        f'endpoint = "http://127.0.0.1:{port}"\nallow_http = true\n'
    )


def maos(folder: pathlib.Path, *words: str) -> tuple[int, str]:
    ran = subprocess.run(
        [MAOS, *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    return ran.returncode, ran.stdout + ran.stderr


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)


def echoed(size: int) -> dict[str, object]:
    return {"action": "noop", "text": "x" * size}


def test_documents_are_in_the_bucket_and_come_back(tmp_path: pathlib.Path, port: int) -> None:
    bucket = Bucket(port, "documents")
    configure(tmp_path, bucket, port)
    house = House(tmp_path)
    assert house.code is None, house.said
    _, echo = house.submit(name="echo", parameters=echoed(5_000))
    assert house.result(echo["id"]) == echoed(5_000)
    _, waits = house.submit(name="waits", required_capabilities=["rare"])
    path = f"/tasks/{waits['id']}/artifacts/large"
    for _ in range(2):
        status, body = house.call("PUT", path, LARGE)
        assert status == 200, body
    assert house.call("GET", path) == (200, LARGE)
    keys = bucket.keys()
    assert "a/b/owner" in keys and "a/b/probe" not in keys, keys
    documents = [key for key in keys if re.fullmatch("a/b/[0-9a-f]{2}/[0-9a-f]{62}", key)]
    assert len(documents) == 3, f"parameters, their echo, and the file once: {keys}"
    assert [file.name for file in house.blobs.iterdir()] == ["url"]
    house.kill()

    code, said = maos(tmp_path, "backup", "copy", "--data-dir", "data")
    assert code == 0 and "its documents stay in `s3://documents/a/b`" in said, said
    assert maos(tmp_path, "restore", "copy", "--data-dir", "back")[0] == 0
    for data in ("data", "back"):
        house = House(tmp_path, data)
        assert house.code is None, house.said
        assert house.result(echo["id"]) == echoed(5_000)
        assert house.call("GET", path) == (200, LARGE)
        house.stop()
    stranger = House(tmp_path, "other")
    assert stranger.code not in (None, 0)
    assert "another server's" in stranger.said and "hint: give each server" in stranger.said

    code, said = maos(tmp_path, "doctor")
    assert code == 0 and "`s3://documents/a/b`" in said, said
    code, said = maos(tmp_path, "config", "show")
    assert code == 0 and "blobs.url" in said and "made-up" not in said, said
    (tmp_path / "one.json").write_text(json.dumps({"name": "a", "parameters": echoed(5_000)}))
    assert maos(tmp_path, "run", "one.json")[0] == 0, "a run has a folder of its own"


def test_a_target_that_cannot_be_used_is_refused(tmp_path: pathlib.Path, port: int) -> None:
    bucket = Bucket(port, "wrong-target")
    bucket.name = "no-such-bucket"
    configure(tmp_path, bucket, port)
    house = House(tmp_path)
    assert house.code not in (None, 0)
    for said in (house.said, maos(tmp_path, "doctor")[1]):
        assert "`blobs.url` names" in said and "NoSuchBucket" in said, said
        assert "hint: make the bucket, or correct `blobs.url`" in said, said
        assert SECRET not in said
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = unused.getsockname()[1]
    configure(tmp_path, bucket, nobody)
    code, said = maos(tmp_path, "doctor")
    assert code == 1 and "hint: look at `blobs.endpoint`" in said, said


def test_a_bucket_that_is_away_for_a_while_loses_nothing(tmp_path: pathlib.Path, port: int) -> None:
    bucket, cable = Bucket(port, "away"), Cable(port)
    configure(tmp_path, bucket, cable.port)
    house = House(tmp_path)
    assert house.code is None, house.said
    _, before = house.submit(name="before", parameters=echoed(5_000))
    assert house.result(before["id"]) == echoed(5_000)
    cable.cut()
    status, refused = house.submit(name="meanwhile", parameters=echoed(6_000))
    assert status == 503 and refused["error_code"] == "STORAGE_UNAVAILABLE", refused
    status, small = house.submit(name="small", parameters=echoed(10))
    assert status == 200, "what needs no bucket goes on"
    assert house.result(small["id"]) == echoed(10)
    cable.mend()
    assert house.result(before["id"]) == echoed(5_000)
    _, after = house.submit(name="after", parameters=echoed(6_000))
    assert house.result(after["id"]) == echoed(6_000)
    house.stop()


def test_a_killed_server_leaves_no_upload_behind(tmp_path: pathlib.Path, port: int) -> None:
    bucket, cable = Bucket(port, "killed"), Cable(port)
    configure(tmp_path, bucket, cable.port)
    house = House(tmp_path)
    assert house.code is None, house.said
    _, waits = house.submit(name="waits", required_capabilities=["rare"])
    path = f"/tasks/{waits['id']}/artifacts/large"

    def put() -> None:
        with contextlib.suppress(OSError):
            house.call("PUT", path, LARGE)

    client = threading.Thread(target=put)
    client.start()
    wait_for(lambda: cable.carried > 9 << 20)
    cable.carries.clear()
    assert bucket.uploads() == 1
    house.kill()
    client.join()
    cable.carries.set()
    house = House(tmp_path)
    assert house.code is None, house.said
    assert bucket.uploads() == 0
    assert [file.name for file in house.blobs.iterdir()] == ["url"]
    assert house.call("GET", path)[0] == 404
    assert house.call("PUT", path, LARGE)[0] == 200
    assert house.call("GET", path) == (200, LARGE)
    house.stop()
