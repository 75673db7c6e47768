"""The pages that describe the API, in a real browser that reaches nothing but this machine.

Needs target/debug/maos and Debian's `chromium`; talks to it over its debugging protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator

import aiohttp
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 60


@contextlib.asynccontextmanager
async def running_server() -> AsyncIterator[str]:
    """A server of its own; its address."""
    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.create_subprocess_exec(
            str(ROOT / "target/debug/maos"),
            *["serve", "--port", "0", "--data-dir", f"{folder}/data"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert server.stdout is not None
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while True:
                    line = (await server.stdout.readline()).decode()
                    assert line, "the server ended"
                    found = re.search(r"listens on (http://\S+?),", line)
                    if found:
                        break
            yield found[1]
        finally:
            server.terminate()
            await server.communicate()


class Page:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, origin: str) -> None:
        self._socket = socket
        self._origin = origin
        self._number = 0
        self.complaints: list[str] = []

    async def call(self, method: str, **parameters: object) -> dict[str, object]:
        self._number += 1
        number = self._number
        await self._socket.send_json(
            {"id": number, "method": method, "params": parameters}
        )
        while True:
            message = await self._socket.receive_json()
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message: dict[str, object]) -> None:
        """What the page's own policy blocked, and what failed in it, is not to be overlooked."""
        if message.get("method") == "Network.requestWillBeSent":
            self._note_request(message["params"]["request"]["url"])
        if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            text = json.dumps(message["params"])
            # Redoc would fetch its maker's logo from elsewhere; that the policy keeps it out is right.
            if "cdn.redoc.ly" in text:
                return
            if '"level": "error"' in text or "exceptionDetails" in text:
                self.complaints.append(text)

    def _note_request(self, url: str) -> None:
        """Whatever a page loads or asks comes from the server itself."""
        own = (f"{self._origin}/", f"blob:{self._origin}/", "data:")
        if not url.startswith(own) and "cdn.redoc.ly" not in url:
            self.complaints.append(f"the page asks {url}")

    async def evaluate(self, script: str) -> object:
        answer = await self.call(
            "Runtime.evaluate", expression=script, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        result = answer["result"]
        assert isinstance(result, dict)
        return result.get("value")

    async def until(self, script: str) -> object:
        """The value of a script, once it is true."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                value = await self.evaluate(script)
                if value:
                    return value
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Page]:
    """A page in a browser of its own."""
    program = shutil.which("chromium")
    assert program, "chromium is not installed"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = await asyncio.create_subprocess_exec(
            program,
            *[
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ],
            *["--remote-debugging-port=0", f"--user-data-dir={folder}"],
            # Nothing but this machine has an address.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "about:blank",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port_file = pathlib.Path(folder, "DevToolsActivePort")
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not port_file.exists() or not port_file.read_text():
                    await asyncio.sleep(0.05)
            base = f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}"
            async with aiohttp.ClientSession() as session:
                async with session.put(f"{base}/json/new?about:blank") as answer:
                    target = await answer.json()
                address = target["webSocketDebuggerUrl"]
                async with session.ws_connect(address, max_msg_size=0) as socket:
                    page = Page(socket, url.rsplit("/", 1)[0])
                    for domain in ("Log", "Runtime", "Page", "Network"):
                        await page.call(f"{domain}.enable")
                    await page.call("Page.navigate", url=url)
                    yield page
                    assert page.complaints == []
        finally:
            browser.terminate()
            await browser.communicate()


async def try_out_health(address: str) -> None:
    async with opened(f"{address}/docs") as page:
        await page.until("document.querySelectorAll('.opblock').length >= 45")
        block = "document.querySelector('#operations-system-health')"
        await page.evaluate(
            f"{block}.querySelector('.opblock-summary-control').click()"
        )
        await page.until(f"{block}.querySelector('.try-out__btn') !== null")
        await page.evaluate(f"{block}.querySelector('.try-out__btn').click()")
        await page.until(f"{block}.querySelector('.execute') !== null")
        await page.evaluate(f"{block}.querySelector('.execute').click()")
        live = f"{block}.querySelector('.live-responses-table')"
        text = await page.until(
            f"{live} && {live}.innerText.includes('healthy') && {live}.innerText"
        )
        assert isinstance(text, str)
        assert "200" in text


async def read_the_reference(address: str) -> None:
    async with opened(f"{address}/redoc") as page:
        await page.until("document.body?.innerText.includes('Submit a task')")
        sections = await page.evaluate(
            "document.querySelectorAll('[data-section-id]').length"
        )
        assert isinstance(sections, int)
        assert sections >= 45


@pytest.mark.parametrize("visit", [try_out_health, read_the_reference])
def test_a_page_works_without_a_network(visit: object) -> None:
    async def run() -> None:
        async with running_server() as address:
            assert callable(visit)
            await visit(address)

    asyncio.run(run())
