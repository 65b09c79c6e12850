"""A server that takes a moment for its answers, to be killed meanwhile: `slow_answers.py PORT`.

It ends by itself between the head and the body of an answer where a request asks for that and names
its port.
"""

import asyncio
import os
import signal
import sys

import uvicorn

from serving.gathered import gather


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
    if (b"x-ends", sys.argv[1].encode()) in scope["headers"]:
        os.kill(os.getpid(), signal.SIGKILL)
    await send({"type": "http.response.body", "body": str(size).encode()})


gather()
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
