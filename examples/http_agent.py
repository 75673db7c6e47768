"""The target of an HTTP agent: SECRET=whsec_... python3 http_agent.py [PORT]

It shouts the text of a task: at once, or with {"slow": true} by a callback.
"""
import base64, hashlib, hmac, json, os, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

KEY = base64.b64decode(os.environ["SECRET"].removeprefix("whsec_"))
cancelled = set()  # what is not worth finishing any more

def signed(headers, body):
    moment = headers.get("webhook-timestamp", "0")
    text = f"{headers.get('webhook-id')}.{moment}.".encode() + body
    own = "v1," + base64.b64encode(hmac.digest(KEY, text, hashlib.sha256)).decode()
    fresh = abs(time.time() - int(moment)) < 300  # an old request is a copy of somebody's
    return fresh and hmac.compare_digest(own, headers.get("webhook-signature", ""))

def shout(task):
    text = task["parameters"].get("text")
    if not isinstance(text, str):
        return {"status": "failed", "error": "`text` must be a string", "permanent": True}
    return {"status": "completed", "result": {"text": text.upper()}}

def call_back(task):
    outcome, to = shout(task), task["callback"]
    if (task["task_id"], task["attempt"]) not in cancelled:
        headers = {"content-type": "application/json", "authorization": "Bearer " + to["token"]}
        urlopen(Request(to["url"], json.dumps(outcome).encode(), headers), timeout=30)

class Target(BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        status, said = 401, {"error": "the signature is wrong", "permanent": True}
        if signed(self.headers, body):
            status, said = getattr(self, "on_" + self.command.lower())(json.loads(body))
        said = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def on_post(self, task):
        if task["parameters"].get("slow"):
            threading.Thread(target=call_back, args=[task]).start()
            return 202, {}
        outcome = shout(task)
        return (200, outcome["result"]) if "result" in outcome else (422, outcome)

    def on_delete(self, attempt):
        cancelled.add((attempt["task_id"], attempt["attempt"]))
        return 200, {}

    do_POST = do_DELETE = answer

server = ThreadingHTTPServer(("127.0.0.1", int((sys.argv[1:] or ["9000"])[0])), Target)
print(f"listens on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
