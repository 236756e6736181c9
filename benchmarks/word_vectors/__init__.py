"""How `indexer/word_vectors.safetensors` was made: see README.md."""
