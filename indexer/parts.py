"""The open doors of one index, handed to what works with them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from indexer.catalogue import Catalogue
from indexer.embedding import Embedder
from indexer.embedding_cache import EmbeddingCache
from indexer.lexical import LexicalIndex
from indexer.settings import IndexerSettings
from indexer.store import Store
from indexer.workspace import Workspace


@dataclass
class Commons:
    """What the repositories of a fleet share: the embeddings by content, and one Chroma.

    `renewals` counts how often a damaged Chroma was set aside: who opened it before that has the old one.
    """

    cache: EmbeddingCache
    chroma: Path
    is_checked: bool = False
    renewals: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)


@dataclass
class Parts:
    """What an open index is made of. `store` is None until somebody needs it: Chroma takes seconds to load.

    `opened_renewal` is `commons.renewals` when the store was opened.
    """

    workspace: Workspace
    settings: IndexerSettings
    catalogue: Catalogue
    cache: EmbeddingCache
    lexical: LexicalIndex
    embedder: Embedder
    store: Store | None = None
    commons: Commons | None = None
    opened_renewal: int = 0
