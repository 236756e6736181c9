"""Door to tantivy: BM25 over code tokens. A projection of the catalogue."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tantivy

from indexer.chunking import Chunk
from indexer.places import is_core
from indexer.recent import Recent
from indexer.word_counts import FIELD_WEIGHTS, field_tokens

_WRITER_BYTES = 32_000_000
_KIND, _CORE, _OTHER = "kind", "core", "other"
_HIGH, _LOW, _IS_CORE = "id_high", "id_low", "is_core"  # columns: stored documents are unpacked one by one
Weights = Mapping[tuple[str, str], float]  # (field, word) -> what it is worth there
Hit = tuple[str, float, bool]  # id, score, is it code itself


class LexicalDamaged(Exception):
    """The lexical index cannot be read; it can be built anew from the catalogue."""


class LexicalIndex:
    """Chunks by their words. Written by one thread at a time; searched by any.

    What is only shown yet is searched beside what is on disk: a commit waits for the disk a dozen times (tantivy 0.27).
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._index = tantivy.Index(_schema(), path=str(folder))
            self._index.register_tokenizer("code", tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
            self._writer: Any = None
            self._recent = Recent()
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

    def show(self, changes: Iterable[tuple[str, Chunk | None]]) -> bool:
        """Make each chunk be found from now on, until `hide`; an id whose chunk is None goes when that is written.

        False when there are so many that writing them is the better way: then nothing is done.
        """
        return self._recent.put([chunk for _, chunk in changes if chunk is not None])

    def hide(self, ids: Iterable[str]) -> None:
        """No longer show these beside what is on disk."""
        self._recent.drop(ids)

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

    def search(self, words: Sequence[str], k: int) -> list[tuple[str, float]]:
        """The `k` best (id, BM25 score) for any of `words` (tokens), best first."""
        return [(id, score) for id, score, _ in self._hits(_plain(words), k, core=False)]

    def candidates(
        self, words: Sequence[str], core: int, every: int, weights: Weights | None = None
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Id -> BM25 score, best first: of the `core` best chunks of code itself, and of the `every` best of all.

        With `weights`: those words in those fields, in place of `words`.
        """
        asked = _plain(words) if weights is None else weights
        most = 2 * max(core, every)  # enough for both where half of what is found is code, and so one search is
        hits = self._hits(asked, most, core=False)
        of_code = [hit for hit in hits if hit[2]]
        if len(hits) == most and len(of_code) < core:
            of_code = self._hits(asked, core, core=True)
        if recent := self._recent.search(words, self):
            hits, of_code = _merged(recent, hits), _merged([hit for hit in recent if hit[2]], of_code)
        return {id: score for id, score, _ in of_code[:core]}, {id: score for id, score, _ in hits[:every]}

    def _hits(self, weights: Weights, k: int, core: bool) -> list[Hit]:
        """The `k` best on disk, best first."""
        if not weights:
            return []
        try:
            searcher = self._searcher
            hits = searcher.search(self._query(weights, core), k, count=False).hits
            places = [address for _, address in hits]
            highs, lows = searcher.fast_field_values(_HIGH, places), searcher.fast_field_values(_LOW, places)
            is_core = searcher.fast_field_values(_IS_CORE, places)
            return [
                (f"{high:016x}{low:016x}", score, bool(code))
                for (score, _), high, low, code in zip(hits, highs, lows, is_core, strict=True)
            ]
        except BaseException as error:
            raise _damaged(error) from error

    def count(self) -> int:
        return int(self._searcher.num_docs) + len(self._recent)

    def document_frequency(self, name: str, word: str) -> int:
        """How many chunks have the token `word` in the field `name`."""
        return int(self._searcher.doc_freq(name, word)) + self._recent.document_frequency(name, word)

    def _query(self, weights: Weights, core: bool) -> Any:
        query = tantivy.Query.boolean_query([(tantivy.Occur.Should, self._term(*one)) for one in weights.items()])
        if not core:
            return query
        term = tantivy.Query.term_query(self._index.schema, _KIND, _CORE, "basic")
        only = tantivy.Query.const_score_query(term, 0.0)
        return tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, only)])

    def _term(self, place: tuple[str, str], weight: float) -> Any:
        term = tantivy.Query.term_query(self._index.schema, *place, "freq")
        return term if weight == 1 else tantivy.Query.boost_query(term, weight)


def _plain(words: Sequence[str]) -> Weights:
    return {(name, word): weight for word in words for name, weight in FIELD_WEIGHTS.items()}


def _merged(recent: list[Hit], hits: list[Hit]) -> list[Hit]:
    """Both, best first; what is on disk already is in both."""
    known = {id for id, _, _ in recent}
    return sorted([*recent, *(hit for hit in hits if hit[0] not in known)], key=lambda hit: -hit[1])


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", stored=False, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field(_HIGH, fast=True)
    builder.add_unsigned_field(_LOW, fast=True)
    builder.add_boolean_field(_IS_CORE, fast=True)
    builder.add_text_field(_KIND, stored=False, tokenizer_name="raw", index_option="basic")
    for name in FIELD_WEIGHTS:
        builder.add_text_field(name, stored=False, tokenizer_name="code", index_option="freq")
    return builder.build()


def _document(chunk: Chunk) -> Any:
    core = is_core(chunk.path, chunk.language)
    texts = {name: " ".join(field_tokens(chunk, name)) for name in FIELD_WEIGHTS}
    document = tantivy.Document(id=chunk.id, kind=_CORE if core else _OTHER, is_core=core, **texts)
    document.add_unsigned(_HIGH, int(chunk.id[:16], 16))  # given to Document() a number would be a signed one
    document.add_unsigned(_LOW, int(chunk.id[16:], 16))
    return document


def _damaged(error: BaseException) -> BaseException:
    if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
        return error
    return LexicalDamaged(f"the lexical index cannot be used: {error}")
