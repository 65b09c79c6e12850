"""A server that takes a moment for its answers, to be killed meanwhile: `slow_answers.py PORT`."""

import asyncio
import sys

import uvicorn


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    size = len(body) + len(message.get("body", b""))
    if not scope["path"].startswith("/-/"):
        await asyncio.sleep(0.05)
    headers = [(b"content-type", b"text/plain"), (b"x-from", sys.argv[1].encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(size).encode()})


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
