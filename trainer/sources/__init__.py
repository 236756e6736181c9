"""Where a corpus comes from, one module a source."""
