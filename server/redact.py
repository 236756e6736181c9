"""Secrets in an answer become placeholders while it streams: a model may repeat what an open buffer holds. Pure."""

from __future__ import annotations

import re

from indexer.secrets import mask_secrets

# No rule of one line finds a secret with a space in it, so what stands before the last space is decided.
_OPEN_WORD = re.compile(r"(?:-----BEGIN [A-Z0-9 ]*|\S*)\Z")
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY")
# The shortest that any rule takes for a secret; and how many words before it a rule can look at: "aws", 30 characters,
# "secret", 30 characters.
_SHORTEST = 8
_CONTEXT_WORDS = 64
# What a line's first word may begin with before it is whole. Nothing stands before it that makes a short word a secret
# ("password = ..."), and what the rules find without such a word begins with a fixed prefix (npm_, xoxb-, key-) or is
# of 24 characters and more, 20 of which are then still hidden. An answer is seen to begin a token earlier.
_BEGINNING = re.compile(r"[A-Za-z][a-z]{0,3}")
_KEY_ENDS = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----")


class Redactor:
    """Pieces in, the same text without secrets out: a word waits until it is whole, a private key until it ends.

    Up to four letters of a line's first word do not wait.
    """

    def __init__(self) -> None:
        self._shown = ""  # of the last line, masked: the context of what comes
        self._held = ""
        self._begun = ""  # the beginning of what is held that is shown already

    def feed(self, piece: str) -> str:
        """What of the text up to and with `piece` can be shown now."""
        self._held += piece
        key_end = _KEY_ENDS.search(self._held)
        if _KEY_BEGINS.search(self._held) and not key_end:
            return ""
        word = _OPEN_WORD.search(self._held)
        end = max(word.start() if word else 0, key_end.end() if key_end else 0)
        ready, self._held = self._mask(self._held[:end]), self._held[end:]
        self._remember(ready)
        if ready:
            ready, self._begun = ready.removeprefix(self._begun), ""
        return ready + self._begin()

    def close(self) -> str:
        """The rest; a private key that never ended is left out whole."""
        begins = _KEY_BEGINS.search(self._held)
        rest = self._held[: begins.start()] + "<secret:private-key>" if begins else self._held
        return self._mask(rest).removeprefix(self._begun)

    def _begin(self) -> str:
        """What of an unfinished word can be shown."""
        if self._shown.strip() or not _BEGINNING.fullmatch(self._held):
            return ""
        shown, self._begun = self._begun, self._held
        return self._begun.removeprefix(shown)

    def _remember(self, ready: str) -> None:
        self._shown = _last_words((self._shown + ready).rsplit("\n", 1)[-1])

    def _mask(self, text: str) -> str:
        # Nearly every piece is a short word, and looking at its whole line each time was 60% of what a token cost us.
        if all(len(word) < _SHORTEST for word in text.split()):
            return text
        whole = mask_secrets(self._shown + text).text
        # Where a secret stood in what is shown already, its line cannot be taken back; the new part is masked alone.
        return whole[len(self._shown) :] if whole.startswith(self._shown) else mask_secrets(text).text


def _last_words(line: str) -> str:
    first, *later = line.rsplit(None, _CONTEXT_WORDS) or [""]
    return line[len(first) :] if len(later) == _CONTEXT_WORDS else line
