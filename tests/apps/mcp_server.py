"""A server of the Model Context Protocol as a plain WSGI app, with one tool that takes its time."""

import json
import os
import time
from pathlib import Path

TOOL = {
    "name": "slow",
    "description": "Takes its time.",
    "inputSchema": {"type": "object", "properties": {"seconds": {"type": "number"}}},
}


def result(message):
    given = message.get("params") or {}
    if message["method"] == "initialize":
        info = {"name": "s", "version": "1"}
        version = given["protocolVersion"]
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    if message["method"] == "tools/list":
        return {"tools": [TOOL]}
    if message["method"] == "tools/call":
        with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
            runs.write("tool\n")
        seconds = given["arguments"]["seconds"]
        time.sleep(seconds)
        return {"content": [{"type": "text", "text": f"took {seconds} s"}], "isError": False}
    return None


def app(environ, start_response):
    if environ["REQUEST_METHOD"] != "POST":
        start_response("405 Method Not Allowed", [("Content-Type", "text/plain"), ("Allow", "POST")])
        return [b""]
    message = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    if "id" not in message:
        start_response("202 Accepted", [("Content-Length", "0")])
        return [b""]
    found = result(message)
    outcome = {"result": found} if found else {"error": {"code": -32601, "message": "unknown method"}}
    body = json.dumps({"jsonrpc": "2.0", "id": message["id"], **outcome}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
