"""One night: sources -> corpus -> adapter -> verdict."""
