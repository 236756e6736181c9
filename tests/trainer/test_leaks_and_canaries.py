"""What must not be in a corpus is not in it: secrets, duplicates, what is withheld; and a planted leak is found."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from indexer.secrets import mask_secrets
from indexer.settings import IndexerSettings
from indexer.workspace import Workspace
from trainer.corpus import Beside, CorpusPlan, build_corpus, check_corpus, read_examples
from trainer.duplicates import NearDuplicates, jaccard
from trainer.leaks import Grams, Leak
from trainer.ledger import Entry, Ledger, read_ledger
from trainer.patches import patches_of
from trainer.sources.document import Document
from trainer.sources.snapshot import Snapshot, SnapshotFile, take_snapshot
from trainer.synthesis import Amounts

NOW = datetime(2026, 11, 23, tzinfo=UTC)
AMOUNTS = Amounts(restatements=6, relations=2, retrieval=10, conflicts=2, unanswerable=4)
PLAN = CorpusPlan(600, 0.2, 1, 500, 0.2, AMOUNTS)


def code(number: int) -> str:
    word = "".join("abcdefghij"[int(digit)] for digit in f"{number:03}")
    lines = [f"def {verb}_{word}(basket):\n    return basket.{verb}_{word} + {number}\n\n\n" for verb in
             ("open", "close", "count", "refund", "charge")]  # fmt: skip
    return "".join(lines)


def snapshot_of(files: dict[str, str], changed: dict[str, float] | None = None) -> Snapshot:
    made = tuple(SnapshotFile(path, text, (changed or {}).get(path, 0.0)) for path, text in sorted(files.items()))
    return Snapshot("shop", "c0ffee" * 6, NOW, made)


FILES = {f"shop/part_{number}.py": code(number) for number in range(30)}
WIKI = Document(
    "wiki:Deploying", "wiki", "Deploying",
    "# Deploying\n\nEvery deploy goes out by hand.\n\n## Rolling back\n\nPress the red button and call the people.\n",
    NOW,
)  # fmt: skip


@pytest.fixture
def counter(tiny_folder: Path) -> Path:
    return tiny_folder / "tokenizer.json"


@pytest.fixture
def corpus(tmp_path: Path, counter: Path) -> Path:
    """A corpus of 30 files and a page, with all three sides."""
    folder = tmp_path / "corpus"
    build_corpus(snapshot_of(FILES), counter, "ab", PLAN, folder, beside=Beside([WIKI]))
    return folder


def plant(folder: Path, entry: Entry, text: str) -> None:
    """Put one more example into a corpus, as one that was collected."""
    ledger = read_ledger(folder)
    file, _, number = entry.id.partition("#")
    if number:
        line = len((folder / file).read_text().splitlines()) + 1
        with (folder / file).open("a") as chats:
            chats.write(text + "\n")
        entry = replace(entry, id=f"{file}#{line}")
    else:
        (folder / file).write_bytes(text.encode())
    entry = replace(entry, sha256=sha256(text.encode()).hexdigest())
    replace(ledger, entries=(*ledger.entries, entry)).write(folder)


def first(ledger: Ledger, kind: str, split: str) -> Entry:
    return next(entry for entry in ledger.entries if entry.kind == kind and entry.split == split)


def talk(question: str, answer: str = "yes") -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns, "source_id": "file:x.py"})


def test_a_corpus_as_it_is_made_has_no_leak(corpus: Path) -> None:
    ledger = read_ledger(corpus)
    assert {entry.split for entry in ledger.entries} == {"train", "validation", "held-out"}
    assert check_corpus(corpus) == []


def test_a_source_on_both_sides_is_found(corpus: Path) -> None:
    ledger = read_ledger(corpus)
    source = first(ledger, "restatement", "validation").source
    plant(corpus, replace(first(ledger, "restatement", "train"), source=source), talk("Is `quite_new` a thing here?"))
    assert Leak("a source on both sides", source, "training") in check_corpus(corpus)


def test_a_withheld_source_that_a_training_prompt_shows_is_found(corpus: Path) -> None:
    ledger = read_ledger(corpus)
    withheld = first(ledger, "raw", "held-out").source
    plant(corpus, replace(first(ledger, "retrieval", "train"), also=(withheld,)), talk("Is `quite_new` a thing here?"))
    assert check_corpus(corpus) == [Leak("a source on both sides", withheld, "training")]


def test_a_validation_question_asked_in_training_in_nearly_the_same_words_is_found(corpus: Path) -> None:
    ledger = read_ledger(corpus)
    question = "Which of the many parts of the shop would you open first when a refund is late, and why would you?"
    plant(corpus, first(ledger, "restatement", "validation"), talk(question))
    plant(corpus, first(ledger, "restatement", "train"), talk(question.removesuffix(" you?").upper()))
    kinds = {leak.kind for leak in check_corpus(corpus)}
    assert "a question asked in training" in kinds


def test_a_validation_question_inside_training_text_is_found(corpus: Path) -> None:
    ledger = read_ledger(corpus)
    words = "Which button do the people on call press when a deploy has gone wrong on a Friday evening?"
    plant(
        corpus, first(ledger, "restatement", "validation"), talk(f"{words} Please tell me in a few words of your own.")
    )
    raw = replace(first(ledger, "raw", "train"), id="raw/999999.txt")
    plant(corpus, raw, f"- File: notes.txt\nContent:\nold notes\n\nQ: {words.upper()}\n")
    (leak,) = check_corpus(corpus)
    assert (leak.kind, leak.training) == ("a question inside training text", "raw/999999.txt")


def test_a_withheld_text_that_is_learnt_elsewhere_is_found(corpus: Path) -> None:
    ledger = read_ledger(corpus)
    entry = first(ledger, "raw", "held-out")
    text = (corpus / entry.id).read_text().replace("Content:\n", "Content:\n# a copy\n")
    plant(corpus, replace(first(ledger, "raw", "train"), id="raw/999999.txt"), text)
    assert check_corpus(corpus) == [Leak("a withheld text learnt", entry.id, "raw/999999.txt")]


def test_what_is_newer_than_the_snapshot_is_left_out_and_found_when_planted(corpus: Path, counter: Path) -> None:
    later = replace(WIKI, source_id="wiki:Later", title="Later", date=NOW + timedelta(seconds=1))
    ledger = build_corpus(snapshot_of(FILES), counter, "ab", PLAN, corpus, beside=Beside([WIKI, later]))
    assert ledger.left_out["newer than the snapshot"] == 1
    page = replace(first(ledger, "raw", "train"), id="raw/999999.txt", source="wiki:Later", date="2026-11-24T00:00:00")
    plant(corpus, page, "- Page: Later\nContent:\nwords of tomorrow")
    assert check_corpus(corpus) == [Leak("newer than the snapshot", "wiki:Later", ledger.date)]


def test_a_question_that_training_text_holds_is_not_kept_for_validation(tmp_path: Path, counter: Path) -> None:
    files = dict(FILES)
    for number in range(30, 60):
        about = f"Counts how many of the {number} parcels left the warehouse on the day before a public holiday."
        text = code(number)
        files[f"shop/part_{number}.py"] = text.replace("(basket):\n", f'(basket):\n    """{about}"""\n', 1)
    ledger = build_corpus(snapshot_of(files), counter, "ab", PLAN, tmp_path / "corpus")
    assert ledger.left_out["restatement: held out, but learnt elsewhere"] > 0
    assert check_corpus(tmp_path / "corpus") == []


def test_a_part_that_is_learnt_elsewhere_is_not_withheld_for_show(tmp_path: Path, counter: Path) -> None:
    boilerplate = "".join(f"    option_{n} = setting('option', default={n}, kind='number')\n" for n in range(12))
    files = {f"shop/part_{n}.py": f"{boilerplate}\n\n{code(n) * (1 + n % 3)}" for n in range(30)}
    ledger = build_corpus(snapshot_of(files), counter, "ab", replace(PLAN, example_tokens=900), tmp_path / "corpus")
    assert ledger.left_out["raw: held out, but learnt elsewhere"] > 0
    assert check_corpus(tmp_path / "corpus") == []


def test_what_is_alike_is_learnt_once_and_counted(tmp_path: Path, counter: Path) -> None:
    longer = "".join(code(number) for number in range(100, 104))
    files = FILES | {
        "a.py": longer,
        "copy/a.py": longer.replace("\n", "\r\n"),
        "old/a.py": longer + "# one more line\n",
    }
    files |= {"empty.py": " \n"}
    page = Document("doc:a.py", "documentation", "A page that is a file", longer, NOW)
    again = Document("wiki:Copy", "wiki", "A page with the file in it", longer + "\n# as of today\n", NOW)
    snapshot = snapshot_of(files, {"a.py": 9.0})
    ledger = build_corpus(snapshot, counter, "ab", PLAN, tmp_path / "c", beside=Beside([page, again]))
    assert {e.source for e in ledger.entries if e.is_raw} == {*FILES, "a.py"}
    assert {k: v for k, v in ledger.left_out.items() if ":" not in k} == {
        "empty": 1, "nearly the same as another": 2, "the same as another": 1,
    }  # fmt: skip


def diff_of(path: str, text: str, status: str = "added") -> str:
    added = "\n".join(f"+{line}" for line in text.splitlines())
    return f"File: {path}, Status: {status}\nChanges: @@ -0,0 +1,{text.count(chr(10))} @@\n{added}\n"


def test_a_diff_that_restates_the_snapshot_is_taken_out_and_the_rest_stays(tmp_path: Path, counter: Path) -> None:
    newer = 'def refund_twice(order):\n    """Sends the money back again, by mistake."""\n    return order * 2\n'
    head, tail = "PR #7: Open the shop\nURL: u\nDescription: We sell things now.\n", "ada: looks good to me\n"
    text = head + diff_of("shop/part_3.py", FILES["shop/part_3.py"]) + diff_of("shop/refunds.py", newer) + tail
    pull = Document("pr:7", "pull-request", "Open the shop", text, NOW)
    same = Document("commit:ab", "commit", "Open", f"Commit ab: Open\n{diff_of('shop/refunds.py', newer)}", NOW)
    plan = replace(PLAN, held_out_share=0.01)
    ledger = build_corpus(snapshot_of(FILES), counter, "ab", plan, tmp_path / "c", beside=Beside([same, pull]))
    raw = [example for example in read_examples(tmp_path / "c", ledger) if example.entry.is_raw]
    assert [e.text for e in raw if e.entry.source in ("pr:7", "commit:ab")] == [
        head + diff_of("shop/refunds.py", newer) + tail
    ]
    assert ledger.left_out["patches: restate a file of the snapshot"] == 1
    assert ledger.left_out["patches: restate an earlier change"] == 1
    assert ledger.left_out["commits: nothing left to say"] == 1


def test_a_diff_of_a_withheld_file_is_withheld_too(tmp_path: Path, counter: Path) -> None:
    first_time = build_corpus(snapshot_of(FILES), counter, "ab", PLAN, tmp_path / "c")
    withheld = first(first_time, "raw", "held-out").source
    secret = "def plan_of_the_withheld_file(): return 'nobody may learn this line of it, ever'\n"
    hunk = f"--- a/{withheld}\n+++ b/{withheld}\n@@ -1 +1 @@\n+{secret}"
    text = (
        "PR #8: Two files\nDescription: d\n" + diff_of(withheld, secret * 3, "modified") + diff_of("new.py", "x = 1\n")
    )
    pull = Document("pr:8", "pull-request", "Two files", text, NOW)
    commit = Document(
        "commit:cd", "commit", "Change it", "Commit cd: Change it\n", NOW, asked="Change it", answered=hunk
    )
    build_corpus(snapshot_of(FILES), counter, "ab", PLAN, tmp_path / "c", beside=Beside([pull, commit]))
    assert not [p for p in (tmp_path / "c").rglob("*") if p.is_file() and b"plan_of_the_withheld" in p.read_bytes()]


def test_patches_are_found_in_both_forms() -> None:
    text = "PR #1: x\nFile: a é.py, Status: renamed (from b.py)\nChanges: @@ -1 +1 @@\n-old\n+new\n\nbo: nice\n"
    (one,) = patches_of(text)
    assert (one.path, one.added, one.text.split("\n")[-1]) == ("a é.py", "new", "+new")
    (two,) = patches_of("diff --git a/x.py b/y.py\n--- a/x.py\n+++ b/y.py\n@@ -1 +1,2 @@\n+one\r\n+two\n")
    assert (two.path, two.added) == ("y.py", "one\r\ntwo")
    assert patches_of("") == patches_of("no file at all\n+ nor a patch\n") == []


def test_near_duplicates_are_those_of_four_fifths() -> None:
    words = [f"w{number}" for number in range(100)]
    text, close, far = " ".join(words), " ".join(words[:95]), " ".join(words[:60] + words[::-1][:40])
    known = NearDuplicates()
    assert known.add("text", text) is None
    assert known.add("again", text) == "text"
    assert (known.find(close), known.find(far)) == ("text", None)
    assert jaccard(text, close) > 0.8 > jaccard(text, far)
    assert known.find("") is None
    assert known.add("empty", "") is None
    assert jaccard("", "") == 1.0


def test_thirteen_words_in_a_row_are_found_and_twelve_are_not() -> None:
    grams = Grams()
    words = [f"w{number}" for number in range(20)]
    grams.add("long", " ".join(words))
    grams.add("short", "only six words of this question")
    grams.add("tiny", "what is it")
    assert grams.find(f"x {' '.join(words[4:17])} y") == {"long"}
    assert grams.find(f"x {' '.join(words[4:16])} y") == set()
    assert grams.find("Only six: words, of this QUESTION!") == {"short"}
    assert grams.find("what is it") == set()


_DICE = random.Random(11)


def made_of(alphabet: str, count: int) -> str:
    return "".join(_DICE.choice(alphabet) for _ in range(count))


L, W, H = string.ascii_letters + string.digits, string.ascii_letters + string.digits + "_-", "0123456789abcdef"
U = string.ascii_uppercase + "234567"
# Put together here, so that no scanner of this repository finds one.
CANARIES = {
    "aws-access-key": "AK" + "IA" + made_of(U, 16),
    "github-token": "gh" + "p_" + made_of(L, 36),
    "github-pat": "github" + "_pat_" + made_of(L, 22) + "_" + made_of(L, 59),
    "gitlab-token": "gl" + "pat-" + made_of(L, 20),
    "slack-token": "xo" + "xb-" + made_of(string.digits, 12) + "-" + made_of(L, 24),
    "slack-webhook": "hooks.slack.com" + "/services/T" + made_of(L, 8) + "/B" + made_of(L, 8) + "/" + made_of(L, 24),
    "openai-key": "sk-" + "proj-" + made_of(W, 60),
    "anthropic-key": "sk-" + "ant-api03-" + made_of(W, 60),
    "huggingface-token": "h" + "f_" + made_of(string.ascii_letters, 34),
    "google-api-key": "AI" + "za" + made_of(W, 35),
    "google-oauth": "GOC" + "SPX-" + made_of(L, 28),
    "pypi-token": "py" + "pi-AgEI" + made_of(W, 80),
    "npm-token": "np" + "m_" + made_of(L, 36),
    "stripe-key": "sk" + "_live_" + made_of(L, 24),
    "sendgrid-key": "S" + "G." + made_of(L, 22) + "." + made_of(L, 43),
    "twilio-key": "S" + "K" + made_of(H, 32),
    "jwt": "ey" + "J" + made_of(L, 20) + ".ey" + "J" + made_of(L, 30) + "." + made_of(L, 43),
    "telegram-token": made_of(string.digits, 9) + ":AA" + made_of(L, 33),
    "digitalocean-token": "do" + "p_v1_" + made_of(H, 64),
    "shopify-token": "shp" + "at_" + made_of(H, 32),
    "databricks-token": "da" + "pi" + made_of(H, 32),
    "vault-token": "hv" + "s." + made_of(L, 24),
    "age-key": "AGE-SECRET" + "-KEY-1" + made_of(string.digits + string.ascii_uppercase, 58),
    "mailgun-key": "ke" + "y-" + made_of(H, 32),
}


def changes_with(kind: str, secret: str, number: int, date: datetime) -> list[Document]:
    """A wiki page, and a pull request with the secret in its diff and in a comment, cleaned as every source does."""
    page = mask_secrets(f"# {kind}\n\nThe key is {secret}, keep it.\n\n## Where\n\nIn {secret}\n")
    patch = f"File: k.py, Status: modified\nChanges: @@ -1 +1 @@\n+x = '{secret}'\n"
    pull = mask_secrets(f"PR #{number}: {kind}\n{patch}bo: please use {secret} instead\n")
    asked = mask_secrets(f"Use {secret}, the other key").text
    return [
        Document(f"wiki:{kind}", "wiki", kind, page.text, date, masked=page.counts),
        Document(f"pr:{number}", "pull-request", kind, pull.text, date, masked=pull.counts),
        Document(f"commit:{number}", "commit", kind, pull.text + "!", date, asked=asked, answered=pull.text),
    ]


def test_no_canary_of_24_kinds_is_anywhere_in_the_corpus(
    git_workspace: tuple[Path, Callable[..., str]], counter: Path, tmp_path: Path
) -> None:
    assert len(CANARIES) == 24
    root, commit = git_workspace
    files = {f"shop/part_{n}.py": code(n) for n in range(8)}
    for number, (kind, secret) in enumerate(CANARIES.items()):
        files[f"keys/{number}.py"] = f"# {kind}\ndef use_{number}():\n    return connect('{secret}', {number})\n"
        files[f"docs/page_{number}.md"] = f"# Page {number}\n\nUse {secret} for {kind}.\n\n## Next\n\nCall {secret}.\n"
    commit(1, files)
    snapshot = take_snapshot(Workspace(root), IndexerSettings())
    documents = [
        document
        for number, (kind, secret) in enumerate(CANARIES.items())
        for document in changes_with(kind, secret, number, snapshot.date)
    ]
    folder = tmp_path / "corpus"
    ledger = build_corpus(snapshot, counter, "ab", replace(PLAN, example_tokens=1500), folder, beside=Beside(documents))
    contents = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    # Half of one is one too many.
    sought = {
        part.encode() for secret in CANARIES.values() for part in (secret, secret[8:], secret[: len(secret) // 2])
    }
    assert {name for name, content in contents.items() if any(part in content for part in sought)} == set()
    assert sum(ledger.masked.values()) >= 24 * 4
    masked = [entry for entry in ledger.entries if entry.masked]
    assert {entry.kind for entry in masked} >= {"raw", "wiki", "pull-request", "restatement", "change"}
