"""A small real HTTP server that plays an engine: `bad_engine.py PORT MODE_FILE LOG_FILE`.

The mode can change at any time. It ends when its standard input closes, as the guard of a real engine does.

Modes: well, 500, loading (503), refuses (400), dies (in the middle), hangs (after a piece), mute (hangs at once),
garbage, error (an error event), bare (404 for every model but its own), exit (the whole process ends in the middle of
an answer).
"""

import asyncio
import json
import os
import sys
import threading
from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def event(body):
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def piece(text):
    return event({"choices": [{"delta": {"content": text}, "text": text}]})


def plain(status, body):
    text = json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text


def reply(mode):
    whole = OK + piece("It is ") + piece("there.") + event(USAGE) + b"data: [DONE]\n\n"
    return {
        "well": whole,
        "500": plain("500 Internal Server Error", {"error": "out of memory"}),
        "loading": plain("503 Service Unavailable", {"error": "loading"}),
        "refuses": plain("400 Bad Request", {"error": "too long"}),
        "dies": OK + piece("It is "),
        "hangs": OK + piece("It is "),
        "mute": b"",
        "garbage": b"\x00\xff garbage \r\n\r\n",
        "error": OK + piece("It is ") + event({"error": {"message": "CUDA error"}}),
        "exit": OK + piece("It is "),
    }[mode]


async def serve(reader, writer, mode_file, log_file):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:  # somebody looked whether we listen
        writer.close()
        return
    mode = mode_file.read_text()
    if head.startswith(b"GET"):
        writer.write(plain("200 OK", {"data": [{"id": "played"}]}))
    else:
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        with log_file.open("a") as log:
            log.write(f"asked model={body.get('model')}\n")
        if mode == "bare" and body.get("model") != "played":
            writer.write(plain("404 Not Found", {"error": "no such model"}))
        else:
            writer.write(reply("well" if mode == "bare" else mode))
    await writer.drain()
    if mode == "exit":
        os._exit(1)
    if mode in ("hangs", "mute") and not head.startswith(b"GET"):
        await reader.read()
        with log_file.open("a") as log:
            log.write("left\n")
    writer.close()


async def main(port, mode_file, log_file):
    server = await asyncio.start_server(lambda r, w: serve(r, w, mode_file, log_file), "127.0.0.1", port)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))
