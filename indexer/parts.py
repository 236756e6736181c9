"""The open doors of one index, handed to what works with them."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.catalogue import Catalogue
from indexer.embedding import Embedder
from indexer.embedding_cache import EmbeddingCache
from indexer.lexical import LexicalIndex
from indexer.settings import IndexerSettings
from indexer.store import Store
from indexer.workspace import Workspace


@dataclass
class Parts:
    """What an open index is made of. `store` is None until somebody needs it: Chroma takes seconds to load."""

    workspace: Workspace
    settings: IndexerSettings
    catalogue: Catalogue
    cache: EmbeddingCache
    lexical: LexicalIndex
    embedder: Embedder
    store: Store | None = None
