"""The working tree -> chunks -> passages. Knows nobody above it."""
