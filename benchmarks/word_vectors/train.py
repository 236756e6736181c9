"""Pairs of a description and its code -> a vector for each word of code:

    python -m benchmarks.word_vectors.train indexer/word_vectors.safetensors PAIRS.jsonl...

A text's vector is the weighted mean of its words'. Of each description and all the code in a batch, its own must be
the nearest, and the other way round (InfoNCE, van den Oord et al. 2018); what stands against it is mostly of the same
package, because that is what a search has to tell apart. The vectors begin as MiniLM's of the words (as model2vec
does), so that words that mean the same are near before anything is learnt.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch.nn import functional

from indexer.embedding import PACKAGED_TRANSFORMER, SentenceTransformerEmbedder
from indexer.tokens import _PART, _WORD, stem, tokens

WORDS, DIM = 40_000, 256
LEAST_USES = 5  # of a word, in that many texts
MOST_TOKENS = 250  # of a piece of code
BATCH = 1024


@dataclass(frozen=True, slots=True)
class Bag:
    """A text as rows of the table, each once, and how much each counts by its number of uses."""

    rows: NDArray[np.int64]
    counts: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pair:
    package: str
    description: Bag
    code: Bag


@dataclass(frozen=True, slots=True)
class How:
    """What the training is tuned by. `one_package`: pairs of the same package in a row of a batch; `drop`: share of a
    code's words left out, half of it of a description's; `drop_shared`: share left out of the words that both have."""

    epochs: float = 4
    rate: float = 0.02
    one_package: int = 1024
    drop: float = 0.3
    drop_shared: float = 0.2
    temperature: float = 0.05
    seed: int = 0


class Table(torch.nn.Module):
    """The vectors, a weight for each word (its rarity at first), and the temperature of the comparison."""

    def __init__(self, start: NDArray[np.float32], rarity: NDArray[np.float32], temperature: float) -> None:
        super().__init__()
        self.vectors = torch.nn.Parameter(torch.from_numpy(start))
        self.weights = torch.nn.Parameter(torch.from_numpy(rarity / rarity.mean()).log())
        self.sharpness = torch.nn.Parameter(torch.tensor(-np.log(temperature), dtype=torch.float32))

    def forward(self, bags: list[Bag]) -> torch.Tensor:
        """Vectors of length 1, (len(bags), dim)."""
        rows = torch.from_numpy(np.concatenate([bag.rows for bag in bags]))
        counts = torch.from_numpy(np.concatenate([bag.counts for bag in bags]))
        begins = torch.tensor(np.cumsum([0, *(len(bag.rows) for bag in bags[:-1])]))
        weights = counts * self.weights.exp()[rows]
        means = functional.embedding_bag(rows, self.vectors, begins, mode="sum", per_sample_weights=weights)
        return functional.normalize(means, dim=1)

    def final(self) -> NDArray[np.float32]:
        """The weighted vectors: what a text's vector is the sum of."""
        weighted: NDArray[np.float32] = (self.vectors * self.weights.exp()[:, None]).detach().numpy()
        return weighted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("pairs", nargs="+", type=Path)
    options = parser.parse_args()
    told = read_pairs(options.pairs)
    words, rarity = vocabulary(told)
    print(f"{len(told)} pairs, {len(words)} words", flush=True)
    start = first_vectors(words, told)
    table = learn(as_bags(told, words), Table(start, rarity, How().temperature), How())
    save(options.out, words, table.final())


def read_pairs(files: list[Path]) -> list[dict[str, str]]:
    """The pairs of all files, each once."""
    told = (json.loads(line) for file in sorted(files) for line in file.open())
    return list({(pair["query"].lower(), pair["code"][:200]): pair for pair in told}.values())


def code_tokens(pair: dict[str, str]) -> list[str]:
    """Of the end of the path and the name, twice, and of the code."""
    header = tokens(f"{'/'.join(pair['path'].split('/')[-3:])} {pair['symbol']}")
    return [*header, *header, *tokens(pair["code"])[:MOST_TOKENS]]


def vocabulary(told: list[dict[str, str]]) -> tuple[list[str], NDArray[np.float32]]:
    """The words that most pairs have, and the rarity of each (inverse document frequency)."""
    uses = Counter[str]()
    for pair in told:
        uses.update({*tokens(pair["query"]), *code_tokens(pair)})
    kept = [(word, count) for word, count in uses.most_common(WORDS) if count >= LEAST_USES]
    rarity = np.log(1 + len(told) / (np.array([count for _, count in kept]) + 1.0)).astype(np.float32)
    return [word for word, _ in kept], rarity


def first_vectors(words: list[str], told: list[dict[str, str]]) -> NDArray[np.float32]:
    """MiniLM's vectors of the words as they are mostly written, their first `DIM` principal components."""
    written: dict[str, Counter[str]] = defaultdict(Counter)
    spelt = Counter(word for pair in told for word in _WORD.findall(f"{pair['query']} {pair['code'][:1_500]}"))
    for word, count in spelt.items():
        parts = [part.lower() for part in _PART.findall(word)]
        for part in parts:
            written[stem(part)][part] += count
        written["".join(parts)][" ".join(parts)] += count
    texts = [written[word].most_common(1)[0][0] if written[word] else word for word in words]
    model = SentenceTransformerEmbedder(PACKAGED_TRANSFORMER)
    vectors = np.vstack([model.embed(texts[at : at + 2_048]) for at in range(0, len(texts), 2_048)])
    centred = vectors - vectors.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:DIM]
    seen: NDArray[np.float32] = centred @ axes.T
    return np.ascontiguousarray(seen / (np.linalg.norm(seen, axis=1, keepdims=True) + 1e-9))


def as_bags(told: list[dict[str, str]], words: list[str]) -> list[Pair]:
    """The pairs as rows of the table; without those of which too few words are in it."""
    rows = {word: row for row, word in enumerate(words)}

    def bag(found: list[str]) -> Bag:
        unique, counts = np.unique([rows[word] for word in found if word in rows], return_counts=True)
        return Bag(unique.astype(np.int64), (1 + np.log(counts)).astype(np.float32))

    pairs = (Pair(one["repo"], bag(tokens(one["query"])), bag(code_tokens(one))) for one in told)
    return [pair for pair in pairs if len(pair.description.rows) >= 3 and len(pair.code.rows) >= 8]


def learn(pairs: list[Pair], table: Table, how: How) -> Table:
    """`table`, trained; the loss is printed every hundred steps."""
    torch.manual_seed(how.seed)
    lot = np.random.default_rng(how.seed)
    rates = [(table.vectors, how.rate / 10), (table.weights, how.rate), (table.sharpness, how.rate / 10)]
    optimizer = torch.optim.Adam([{"params": [part], "lr": rate} for part, rate in rates], betas=(0.9, 0.99))
    steps = int(how.epochs * len(pairs) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _pace(step, steps))
    batches, began = _batches(pairs, how, lot), time.monotonic()
    for step in range(steps):
        loss = _loss(next(batches), table, how, lot)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"{step} of {steps}: loss {loss.item():.3f}, {time.monotonic() - began:.0f} s", flush=True)
    return table


def _pace(step: int, steps: int) -> float:
    """Fifty steps of warm-up, then half a cosine down to a fiftieth."""
    return float(min(1, (step + 1) / 50) * max(0.02, 0.5 * (1 + np.cos(np.pi * step / steps))))


def _batches(pairs: list[Pair], how: How, lot: np.random.Generator):  # type: ignore[no-untyped-def]
    by_package: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_package[pair.package].append(pair)
    packages = sorted(by_package)
    shares = np.array([len(by_package[name]) ** 0.75 for name in packages])
    while True:
        batch: list[Pair] = []
        while len(batch) < BATCH:
            own = by_package[packages[lot.choice(len(packages), p=shares / shares.sum())]]
            batch += [own[at] for at in lot.choice(len(own), min(how.one_package, len(own)), replace=False)]
        yield batch[:BATCH]


def _loss(batch: list[Pair], table: Table, how: How, lot: np.random.Generator) -> torch.Tensor:
    asked = table([_thinned(pair.description, how.drop / 2, lot) for pair in batch])
    code = table([_thinned(pair.code, how.drop, lot, pair.description.rows, how.drop_shared) for pair in batch])
    likeness = asked @ code.T * table.sharpness.exp()
    own = torch.arange(len(batch))
    return (functional.cross_entropy(likeness, own) + functional.cross_entropy(likeness.T, own)) / 2


def _thinned(
    bag: Bag, share: float, lot: np.random.Generator, shared: NDArray[np.int64] | None = None, of_shared: float = 0.0
) -> Bag:
    kept = lot.random(len(bag.rows)) >= share
    if shared is not None:
        kept &= ~(np.isin(bag.rows, shared) & (lot.random(len(bag.rows)) < of_shared))
    return Bag(bag.rows[kept], bag.counts[kept]) if kept.any() else bag


def save(file: Path, words: list[str], vectors: NDArray[np.float32]) -> None:
    """Each vector as 8-bit numbers and their scale."""
    scales = np.abs(vectors).max(axis=1) / 127
    rounded = np.round(vectors / scales[:, None]).astype(np.int8)
    listed = np.frombuffer("\n".join(words).encode(), np.uint8)
    save_file({"words": listed, "vectors": rounded, "scales": scales.astype(np.float32)}, file)


if __name__ == "__main__":
    main()
