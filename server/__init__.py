"""A question -> a grounded answer. HTTP, LSP, MCP and the command line are its edges."""
