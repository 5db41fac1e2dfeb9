"""A server of HTTP/2 to ask, hypercorn, on a port of its own choice.

Usage: python http2_upstream.py LIMIT [CERTIFICATES KEY], LIMIT: streams at once on a connection.

The model says what is answered: `drip-N` N chunks, one each 2 ms; `flood-N` with 3,000 characters each, and at once;
`hold` one, and then nothing until the client goes; another one 3. The first chunk has the version and the connection.
Without `stream`: 300,000 characters.
"""

import asyncio
import json
import socket
import sys
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config

EVENT = 'data: {"choices":[{"index":0,"delta":{"content":%s},"finish_reason":null}]}\n\n'
LAST = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 300_000}, "finish_reason": "stop"}]}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body = b""
    while (part := await receive())["type"] == "http.request":
        body += part["body"]
        if not part["more_body"]:
            break
    asked = json.loads(body)
    kind, _, count = asked["model"].partition("-")
    form = b"text/event-stream" if asked.get("stream") else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", form)]})

    async def say(text: str, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": text.encode(), "more_body": more})

    if not asked.get("stream"):
        await say(json.dumps(WHOLE), False)
        return
    await say(EVENT % json.dumps(f"{scope['http_version']} {scope['client'][1]}"))
    if kind == "hold":
        await receive()
        return
    for number in range(int(count or 3)):
        await say(EVENT % json.dumps(" " + str(number) * (3000 if kind == "flood" else 1)))
        if kind == "drip":
            await asyncio.sleep(0.002)
    await say(LAST, False)


def main(limit: str, *files: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=500)
    print(listener.getsockname()[1], flush=True)
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.loglevel = "critical"
    config.h2_max_concurrent_streams = int(limit)
    if files:
        config.certfile, config.keyfile = files
    asyncio.run(serve(app, config, shutdown_trigger=asyncio.Event().wait))


if __name__ == "__main__":
    main(*sys.argv[1:])
