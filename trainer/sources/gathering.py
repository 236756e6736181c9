"""What the sources give, on its way to the corpus: the documents, and the counted reasons of what is none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from indexer.quarantine import Quarantine
from trainer.sources.document import Document


@dataclass
class Gathering:
    """Takes documents and refuses what is quarantined, empty, or newer than `until` (what proves an adapter)."""

    quarantine: Quarantine = field(default_factory=Quarantine)
    until: datetime | None = None
    documents: list[Document] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)

    def take(self, document: Document) -> None:
        """Keep it, or count why not."""
        if self.quarantine.holds_source(document.source_id):
            self.leave_out("quarantined")
        elif not document.text.strip():
            self.leave_out("empty")
        elif self.until is not None and document.date > self.until:
            self.leave_out("newer than the snapshot")
        else:
            self.documents.append(document)

    def leave_out(self, reason: str, count: int = 1) -> None:
        self.left_out[reason] += count

    def notice(self, text: str) -> None:
        """One line for the user; said once."""
        if text not in self.notices:
            self.notices.append(text)
