"""`nightschool mcp`: the code for agents, on standard input and output."""

from __future__ import annotations

from server.options import WorkspaceOption


def mcp(workspace: WorkspaceOption = None) -> None:
    """Serve agents over MCP on standard input and output: `search_code`, `read_passage`, `ask`. They only read.

    An agent starts it: `{"mcpServers": {"nightschool": {"command": "nightschool", "args": ["mcp", "-w", "REPO"]}}}`.
    The running backend also answers at `/mcp` (streamable HTTP, with the token).
    """
    import asyncio

    from indexer.workspace import find_workspace
    from server.logs import configure_logging
    from server.mcp import serve_stdio

    configure_logging(as_json=False)
    asyncio.run(serve_stdio(find_workspace(workspace)))
