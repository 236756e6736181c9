"""The ledger's tables and page, and the commands that show them and look for leaks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from server.prompt import PROMPT_VERSION
from trainer.corpus import Beside, CorpusPlan, build_corpus
from trainer.ledger import Entry, Ledger, read_ledger
from trainer.ledger_page import to_html
from trainer.ledger_tables import entries_of, tables_of, token_histogram
from trainer.sources.document import Document
from trainer.sources.snapshot import Snapshot, SnapshotFile
from trainer.synthesis import Amounts

NOW = datetime(2026, 11, 23, tzinfo=UTC)
AMOUNTS = Amounts(restatements=6, relations=3, retrieval=12, conflicts=3, unanswerable=8)


def spelt(number: int) -> str:
    return "".join("abcdefghij"[int(digit)] for digit in f"{number:03}")


def code(number: int) -> str:
    word, licence = spelt(number), "# SPDX-License-Identifier: Apache-2.0\n" if number == 3 else ""
    limit = f"LIMIT_{word.upper()}"
    opening = f"{limit} = {number + 2}\n\n\ndef open_{word}(cart):\n    return cart.open_{word} + {limit}\n"
    return f"{licence}{opening}\n\ndef close_{word}(cart):\n    return open_{word}(cart)\n"


def caller(number: int) -> str:
    return f"def call_{spelt(number)}(cart):\n    return open_{spelt(number)}(cart).of_{spelt(number + 500)}\n"


FILES = {f"shop/part_{number}.py": code(number) for number in range(24)}
FILES |= {f"shop/calls_{number}.py": caller(number) for number in range(12)}
PAGE = Document(
    "wiki:A & <b>",
    "wiki",
    "A & <b>",
    "# A & <b>\n\nHow we work here.\n\n## Next" + "\n\nAnd then on." * 60 + "\n\nAsk somebody.\n",
    NOW,
)


@pytest.fixture
def make(tiny_folder: Path) -> Callable[[Path], Ledger]:
    def build(folder: Path) -> Ledger:
        files = tuple(SnapshotFile(path, text, 0.0) for path, text in sorted(FILES.items()))
        snapshot = Snapshot("shop", "c0ffee" * 6, NOW, files, {"binary": 2}, {"jwt": 1})
        plan = CorpusPlan(700, 0.15, 1, 100, 0.15, AMOUNTS)
        beside = Beside([PAGE], {"by a bot": 4})
        return build_corpus(snapshot, tiny_folder / "tokenizer.json", "ab", plan, folder, beside=beside)

    return build


class Outside(HTMLParser):
    """What a page would load from elsewhere, and its tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [
            f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "xlink:href", "data")
        ]
        self.loads += [tag] if tag in ("script", "link", "iframe", "img", "object") else []
        if tag not in ("meta", "rect", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag


def test_the_same_inputs_give_the_same_bytes_with_every_kind(make: Callable[[Path], Ledger], tmp_path: Path) -> None:
    ledger = make(tmp_path / "one")
    make(tmp_path / "two")
    assert {entry.kind for entry in ledger.entries} >= {
        "raw", "wiki", "file-question", "page-question", "restatement", "relation", "retrieval", "conflict",
        "unanswerable",
    }  # fmt: skip

    def contents(name: str) -> dict[str, bytes]:
        root = tmp_path / name
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    assert contents("one") == contents("two")
    assert json.loads((tmp_path / "one" / "ledger.json").read_text())["sha256"] == ledger.sha256


def test_an_entry_says_where_it_is_from(make: Callable[[Path], Ledger], tmp_path: Path) -> None:
    ledger = make(tmp_path / "corpus")
    assert ledger.prompt_version == PROMPT_VERSION
    licensed = {entry.source for entry in ledger.entries if entry.licence == "Apache-2.0"}
    assert licensed == {"shop/part_3.py"}
    page, *_ = [entry for entry in ledger.entries if entry.kind == "wiki"]
    assert (page.source, page.date) == ("wiki:A & <b>", NOW.isoformat())
    assert (
        (tmp_path / "corpus" / page.id)
        .read_text()
        .startswith(f"- Page: A & <b> (wiki of shop, part 1 of {page.parts})\nContent:\n")
    )
    related = next(entry for entry in ledger.entries if entry.kind == "retrieval" and entry.also)
    assert set(related.also) <= set(FILES)
    assert related in entries_of(ledger, related.also[0])


def test_the_tables_add_up(make: Callable[[Path], Ledger], tmp_path: Path) -> None:
    ledger = make(tmp_path / "corpus")
    tables = {table.title: table for table in tables_of(ledger)}
    kinds = {row[0]: row for row in tables["the mix, by kind"].rows}
    learnt = sum(int(row[2].replace(",", "")) for row in kinds.values())
    assert learnt == sum(entry.tokens for entry in ledger.entries if entry.split == "train")
    assert sum(float(row[3].rstrip("%")) for row in kinds.values()) == pytest.approx(100, abs=1)
    sources = tables["by source"].rows
    assert sum(int(row[3].replace(",", "")) for row in sources) == sum(entry.tokens for entry in ledger.entries)
    assert ("binary", "2") in tables["left out"].rows
    assert ("documents: by a bot", "4") in tables["left out"].rows
    assert tables["secrets replaced"].rows == (("jwt", "1"),)
    bars = token_histogram(ledger)
    assert sum(raw + chat for _, _, raw, chat in bars) == len(ledger.entries)
    assert all(one[1] == two[0] for one, two in pairwise(bars))
    assert bars[-1][1] > max(entry.tokens for entry in ledger.entries)


def test_the_page_is_whole_loads_nothing_and_escapes_names(make: Callable[[Path], Ledger], tmp_path: Path) -> None:
    ledger = make(tmp_path / "corpus")
    page = to_html(ledger)
    parser = Outside()
    parser.feed(page)
    assert parser.loads == []
    assert parser.open == []
    assert "http" not in page
    assert "url(" not in page
    assert "A &amp; &lt;b&gt;" in page
    assert "A & <b>" not in page
    assert page == to_html(ledger)
    widths = [float(width) for width in re.findall(r'<rect x="[\d.]+" y="0" width="([\d.]+)"', page)]
    assert sum(widths) == pytest.approx(960, abs=6)


def test_an_empty_ledger_has_a_page_too() -> None:
    empty = Ledger("shop", "", "2026-11-23", "ab", 512, ())
    assert "<svg" in to_html(empty)
    assert token_histogram(empty) == []


@pytest.fixture
def workspace(make: Callable[[Path], Ledger], tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    (root / ".git").mkdir(parents=True)
    make(root / ".nightschool" / "corpus" / "2026-11-23-c0ffeec")
    return root


def test_corpus_show_prints_tables_json_and_a_page(workspace: Path, cli: Callable[..., Any]) -> None:
    shown = cli("corpus", "show", cwd=workspace)
    assert shown.returncode == 0, shown.stderr
    assert "the mix, by kind" in shown.stdout
    page = Path(shown.stdout.rsplit("page: ", 1)[1].strip().replace("\n", ""))
    assert page.read_text().startswith("<!doctype html>")
    told = json.loads(cli("corpus", "show", "--json", cwd=workspace).stdout)
    assert told["repository"] == "shop"
    only = json.loads(cli("corpus", "show", "--json", "--source", "shop/part_3.py", cwd=workspace).stdout)
    assert 0 < len(only["entries"]) < len(told["entries"])
    assert all("shop/part_3.py" in (e["source"], *e["also"]) for e in only["entries"])


def test_collect_check_fails_on_a_planted_leak_and_lists_it(workspace: Path, cli: Callable[..., Any]) -> None:
    clean = cli("collect", "--check", cwd=workspace)
    assert (clean.returncode, clean.stdout.strip()) == (0, "no leak in 2026-11-23-c0ffeec")
    folder = workspace / ".nightschool" / "corpus" / "2026-11-23-c0ffeec"
    ledger = read_ledger(folder)
    withheld = next(entry for entry in ledger.entries if entry.kind == "raw" and entry.split == "held-out")
    planted: Entry = replace(withheld, id="raw/900000.txt", split="train")
    text = (folder / withheld.id).read_bytes()
    (folder / planted.id).write_bytes(text)
    assert planted.sha256 == sha256(text).hexdigest()
    replace(ledger, entries=(*ledger.entries, planted)).write(folder)
    leaky = cli("collect", "--check", cwd=workspace)
    assert leaky.returncode == 1
    assert "a source on both sides" in leaky.stdout
    assert "a withheld text learnt" in leaky.stdout
    found = json.loads(cli("collect", "--check", "--json", cwd=workspace).stdout)["leaks"]
    assert {"kind": "a source on both sides", "held_out": withheld.source, "training": "training"} in found
    (folder / planted.id).write_bytes(b"changed")
    damaged = cli("collect", "--check", cwd=workspace)
    assert damaged.returncode == 1
    assert "was changed after it was collected: collect again" in damaged.stderr


def test_without_a_corpus_the_commands_say_what_to_do(tmp_path: Path, cli: Callable[..., Any]) -> None:
    (tmp_path / ".git").mkdir()
    for command in (("corpus", "show"), ("collect", "--check")):
        done = cli(*command, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert "there is no corpus yet: run `nightschool collect` first" in done.stderr
