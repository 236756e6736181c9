"""Door to tantivy: BM25 over code tokens. A projection of the catalogue."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tantivy

from indexer.chunking import Chunk
from indexer.places import is_core
from indexer.tokens import tokens

# What a word is worth where it stands; measured in benchmarks/retrieval.md.
FIELD_WEIGHTS = {"body": 1.0, "symbol": 1.0, "path": 1.0}
_WRITER_BYTES = 32_000_000
_KIND, _CORE, _OTHER = "kind", "core", "other"


class LexicalDamaged(Exception):
    """The lexical index cannot be read; it can be built anew from the catalogue."""


class LexicalIndex:
    """Chunks by their words. Written by one thread at a time; searched by any."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._index = tantivy.Index(_schema(), path=str(folder))
            self._index.register_tokenizer("code", tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
            self._writer: Any = None
            self._lock = threading.Lock()
            self._index.reload()
            self._searcher = self._index.searcher()
        except BaseException as error:  # tantivy's panics are BaseExceptions
            raise _damaged(error) from error

    def close(self) -> None:
        """Let go of the writer, its memory and its threads; the next write takes a new one."""
        with self._lock:
            if self._writer is not None:
                self._writer.wait_merging_threads()
                self._writer = None

    def write(self, changes: Iterable[tuple[str, Chunk | None]]) -> None:
        """Put each chunk, or drop the id whose chunk is None; searchable and on disk when this returns."""
        with self._lock:
            try:
                if self._writer is None:
                    self._writer = self._index.writer(_WRITER_BYTES, 1)
                for id, chunk in changes:
                    self._writer.delete_documents_by_term("id", id)
                    if chunk is not None:
                        self._writer.add_document(_document(chunk))
                self._writer.commit()
                self._index.reload()
                self._searcher = self._index.searcher()
            except BaseException as error:
                self._writer = None
                raise _damaged(error) from error

    def search(self, words: Sequence[str], k: int, core: bool = False) -> list[tuple[str, float]]:
        """The `k` best (id, BM25 score) for any of `words` (tokens), best first; with `core`, of code itself only."""
        if not words:
            return []
        try:
            searcher = self._searcher
            hits = searcher.search(self._query(words, core), k, count=False).hits
            return [(str(searcher.doc(address)["id"][0]), float(score)) for score, address in hits]
        except BaseException as error:
            raise _damaged(error) from error

    def count(self) -> int:
        return int(self._searcher.num_docs)

    def document_frequency(self, name: str, word: str) -> int:
        """How many chunks have the token `word` in the field `name`."""
        return int(self._searcher.doc_freq(name, word))

    def _query(self, words: Sequence[str], core: bool) -> Any:
        schema = self._index.schema
        clauses = [
            (
                tantivy.Occur.Should,
                tantivy.Query.boost_query(tantivy.Query.term_query(schema, field, word, "freq"), weight),
            )
            for word in words
            for field, weight in FIELD_WEIGHTS.items()
        ]
        query = tantivy.Query.boolean_query(clauses)
        if not core:
            return query
        only = tantivy.Query.const_score_query(tantivy.Query.term_query(schema, _KIND, _CORE, "basic"), 0.0)
        return tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, only)])


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field(_KIND, stored=False, tokenizer_name="raw", index_option="basic")
    for name in FIELD_WEIGHTS:
        builder.add_text_field(name, stored=False, tokenizer_name="code", index_option="freq")
    return builder.build()


def field_tokens(chunk: Chunk, name: str) -> list[str]:
    """The tokens of `chunk` in the field `name` (a key of `FIELD_WEIGHTS`)."""
    texts = {"body": chunk.text, "symbol": " ".join((chunk.symbol, *chunk.defines)), "path": chunk.path}
    return tokens(texts[name])


def _document(chunk: Chunk) -> Any:
    kind = _CORE if is_core(chunk.path, chunk.language) else _OTHER
    return tantivy.Document(
        id=chunk.id, kind=kind, **{name: " ".join(field_tokens(chunk, name)) for name in FIELD_WEIGHTS}
    )


def _damaged(error: BaseException) -> BaseException:
    if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
        return error
    return LexicalDamaged(f"the lexical index cannot be used: {error}")
