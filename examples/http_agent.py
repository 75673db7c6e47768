"""A target of HTTP agents that shouts: SECRET=whsec_.. python3 http_agent.py [PORT].

It checks the signature, answers at once or, with `"slow": true`, calls back; docs/http-agents.md
has the whole conversation. Nothing is to be installed.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

KEY = base64.b64decode(os.environ["SECRET"].removeprefix("whsec_"))
cancelled = set()


def is_signed(headers, body):
    """Tell whether this was signed with our secret, within the last five minutes."""
    moment = headers.get("webhook-timestamp", "0")
    text = f"{headers.get('webhook-id')}.{moment}.".encode() + body
    wanted = "v1," + base64.b64encode(hmac.digest(KEY, text, hashlib.sha256)).decode()
    fresh = moment.isdigit() and abs(time.time() - int(moment)) < 300
    return fresh and hmac.compare_digest(wanted, headers.get("webhook-signature", ""))


def shout(task):
    """Do the work: return an outcome."""
    text = task["parameters"].get("text")
    if not isinstance(text, str):
        return {"status": "failed", "error": "`text` must be a string", "permanent": True}
    return {"status": "completed", "result": {"text": text.upper()}}


def call_back(task):
    """Do the work, and bring its outcome unless nobody wants it any more."""
    outcome, to = shout(task), task["callback"]
    if (task["task_id"], task["attempt"]) not in cancelled:
        headers = {"authorization": f"Bearer {to['token']}", "content-type": "application/json"}
        urlopen(Request(to["url"], json.dumps(outcome).encode(), headers)).close()


class Target(BaseHTTPRequestHandler):
    """Attempts come as POST, and end before their time by DELETE."""

    def answer(self, act):
        """Answer with what `act` makes of the body."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        status, said = 401, {"error": "the signature is wrong", "permanent": True}
        if is_signed(self.headers, body):
            status, said = act(json.loads(body))
        said = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def do_POST(self):
        """Take an attempt."""
        self.answer(begun)

    def do_DELETE(self):
        """Take an attempt's end."""
        self.answer(ended)


def begun(task):
    """Answer an attempt, at once or later."""
    if task["parameters"].get("slow"):
        threading.Thread(target=call_back, args=[task]).start()
        return 202, {}
    outcome = shout(task)
    return (200, outcome["result"]) if "result" in outcome else (422, outcome)


def ended(attempt):
    """Note that nobody waits for an attempt any more."""
    cancelled.add((attempt["task_id"], attempt["attempt"]))
    return 200, {}


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int((sys.argv[1:] or ["9000"])[0])), Target)
    print(f"listens on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
