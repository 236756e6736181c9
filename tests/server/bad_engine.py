"""A small real HTTP server that plays an engine: `bad_engine.py PORT MODE_FILE LOG_FILE`.

The mode can change at any time. It ends when its standard input closes, as the guard of a real engine does.

Modes: well, 500, loading (503), refuses (400), dies (in the middle), hangs (after a piece), mute (hangs at once),
garbage, error (an error event), bare (404 for every model but its own), exit (the whole process ends in the middle of
an answer), held (after a piece, until the mode is freed).

It loads adapters as vLLM does. Modes of that: load-refused, load-mute, load-exit (the process ends), load-nothing (it
says that it has, and reads as without), load-silent (the adapter writes nothing).
"""

import asyncio
import json
import os
import sys
import threading
from pathlib import Path

HELD = {}  # the adapters: name -> folder
GONE = set()
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
        "held": OK + piece("It is "),
        "exit": OK + piece("It is "),
    }[mode]


def adapters(path, body, mode):
    """The answer to what is asked about adapters; None for what is not about them."""
    name = body.get("lora_name", "")
    if path == "/v1/load_lora_adapter":
        if mode == "load-refused" or name in HELD:
            return plain("500 Internal Server Error", {"error": {"message": "expected target modules in q_proj"}})
        HELD[name] = body["lora_path"]
        return plain("200 OK", "Success")
    if path == "/v1/unload_lora_adapter":
        GONE.add(name)
        return plain("200 OK", "Success") if HELD.pop(name, None) else plain("404 Not Found", {"error": "not there"})
    if body.get("model") in GONE - HELD.keys():
        return plain("404 Not Found", {"error": "no such model"})
    if body.get("model") in HELD and "prompt_logprobs" not in body:
        said = "" if mode == "load-silent" else piece(body["model"])
        return OK + (said or b"") + event(USAGE) + b"data: [DONE]\n\n"
    if body.get("prompt_logprobs") is not None:
        value = -2.5 if body["model"] in HELD and mode != "load-nothing" else -2.0
        return plain("200 OK", {"choices": [{"prompt_logprobs": [None, {"7": {"logprob": value}}]}]})
    return None


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
        path = head.split(b" ")[1].decode()
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        with log_file.open("a") as log:
            about = {"load_lora_adapter": "load:", "unload_lora_adapter": "unload:"}.get(path.rpartition("/")[2])
            log.write(f"{about}{body['lora_name']}\n" if about else f"asked model={body.get('model')}\n")
        if mode == "load-exit" and about == "load:":
            os._exit(1)
        if mode == "load-mute" and about == "load:":
            await reader.read()
        if (mode in ("well", "freed") or mode.startswith("load-")) and (told := adapters(path, body, mode)) is not None:
            writer.write(told)
        elif mode == "bare" and body.get("model") != "played":
            writer.write(plain("404 Not Found", {"error": "no such model"}))
        else:
            writer.write(reply("well" if mode in ("bare", "freed") or mode.startswith("load-") else mode))
    await writer.drain()
    while mode == "held" and mode_file.read_text() != "freed":
        await asyncio.sleep(0.01)
    if mode == "held":
        writer.write(piece("there.") + event(USAGE) + b"data: [DONE]\n\n")
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
