"""The answer to `initialize`, given before the protocol library is imported.

`lsprotocol.types` builds 554 classes when it is imported, which takes half a second on a small machine; an editor
shows nothing of a server until this answer has come. So it is made from the message alone, and the library is
imported while the editor reads it.
"""

from __future__ import annotations

import json
import os
from typing import Any

from server.lsp_types import COMMANDS, BadParams, Json, Options, from_wire
from server.lsp_wire import Framing

VERSION = "0.1.0"
ENCODINGS = ("utf-8", "utf-16", "utf-32")
ACTION_KINDS = ["nightschool", "quickfix", "refactor.rewrite"]


def capabilities(encoding: str, options: Options) -> Json:
    """What the server offers to an editor with these options."""
    offered: Json = {
        "positionEncoding": encoding,
        "textDocumentSync": {"openClose": True, "change": 2, "save": True},
        "codeActionProvider": {"codeActionKinds": ACTION_KINDS, "resolveProvider": True},
        "executeCommandProvider": {"commands": list(COMMANDS)},
        "workspace": {"workspaceFolders": {"supported": True, "changeNotifications": True}},
        "experimental": {"nightschool": {"ask": True, "search": True, "status": True}},
    }
    if options.inline_completion:
        offered["inlineCompletionProvider"] = {}
    if options.completion:
        offered["completionProvider"] = {}
    return offered


def early_answer(body: bytes) -> Json | None:
    """The response to a first message that is a plain `initialize`; None leaves it to the protocol class to refuse."""
    try:
        message = json.loads(body)
        params, msg_id = message["params"], message["id"]
        options = from_wire(Options, params.get("initializationOptions") or {})
        encoding = _encoding(params["capabilities"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BadParams):
        return None
    is_id = isinstance(msg_id, (int, str)) and not isinstance(msg_id, bool)
    if not is_id or message.get("jsonrpc") != "2.0" or message.get("method") != "initialize":
        return None
    result = {
        "capabilities": capabilities(encoding, options),
        "serverInfo": {"name": "nightschool", "version": VERSION},
    }
    return {"jsonrpc": "2.0", "id": msg_id, "result": result}


def read_first(stdin: int) -> tuple[bytes | None, Framing]:
    """The first message (None: stdin ended before one), and the framing with what came after it."""
    framing = Framing()
    while data := os.read(stdin, 1 << 16):
        for body in framing.feed(data):
            return body, framing
    return None, framing


def write_now(stdout: int, message: Json) -> None:
    body = json.dumps(message).encode()
    data = memoryview(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    while data:
        data = data[os.write(stdout, data) :]


def _encoding(client: Json) -> str:
    """The first of the editor's position encodings that we know; utf-16 is what LSP means without any."""
    wanted: Any = (client.get("general") or {}).get("positionEncodings") or []
    return next((encoding for encoding in wanted if encoding in ENCODINGS), "utf-16")
