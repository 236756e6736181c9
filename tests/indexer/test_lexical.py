"""Chunks by their words: in one look, beside what is only shown yet, and weighed among several indexes."""

import random

import pytest
import tantivy

from indexer.catalogue import Target
from indexer.chunking import Chunk
from indexer.lexical import LexicalIndex
from indexer.recent import MOST, Recent
from indexer.tokens import stem
from indexer.word_counts import all_words, rarity, weights_among

REMINDER = stem("reminder")
WORDS = "parse invoice mail queue worker token é cache route".split()


def chunk(number, text, folder="src"):
    return Chunk(f"{folder}/f{number}.py", 1, 2, "python", f"f{number}", (f"f{number}",), text)


def made_up(count, folder="src", seed=1):
    dice = random.Random(seed)
    return [chunk(n, " ".join(dice.choices(WORDS, k=dice.randrange(3, 30))) + "\n", folder) for n in range(count)]


@pytest.fixture
def lexical(tmp_path):
    index = LexicalIndex(tmp_path / "lexical")
    yield index
    index.close()


def put(lexical, chunks):
    lexical.write([(one.id, one) for one in chunks])


@pytest.mark.parametrize("tests", [0, 30, 300])
def test_code_itself_has_all_its_places_however_many_tests_there_are(lexical, tests):
    core, others = made_up(60), made_up(tests, "tests", seed=2)
    put(lexical, core + others)
    code, every = lexical.candidates(["invoice", "mail"], 40, 10)
    scored = dict(lexical.search(["invoice", "mail"], 1000))
    best = sorted((one.id for one in core if one.id in scored), key=lambda id: -scored[id])[:40]
    assert sorted(code.values()) == sorted(scored[id] for id in best)
    assert set(code) <= {one.id for one in core}
    assert sorted(every.values()) == sorted(scored.values())[-10:]


def test_what_is_shown_is_found_beside_what_is_written_and_once(lexical):
    old, new = chunk(1, "parse an invoice\n"), chunk(2, "parse a reminder é\n")
    put(lexical, [old])
    assert lexical.show([(new.id, new)])
    assert set(lexical.candidates(["pars"], 10, 10)[1]) == {old.id, new.id}
    assert lexical.document_frequency("body", REMINDER) == 1
    put(lexical, [new])
    assert sorted(lexical.candidates(["pars"], 10, 10)[1]) == sorted([old.id, new.id])
    lexical.hide([new.id])
    assert (set(lexical.candidates([REMINDER], 10, 10)[1]), lexical.count()) == ({new.id}, 2)


def test_only_a_few_are_shown_and_many_are_written():
    recent = Recent()
    chunks = made_up(MOST + 1)
    assert recent.put(chunks[:MOST])
    assert recent.put(chunks[:MOST])
    assert not recent.put(chunks[MOST:])
    assert len(recent) == MOST
    recent.drop([one.id for one in chunks])
    assert len(recent) == 0


def test_a_score_among_several_indexes_is_that_of_one_with_all_of_them(lexical, tmp_path):
    mine, theirs = made_up(40), made_up(200, "other", seed=3)
    put(lexical, mine)
    other, whole = LexicalIndex(tmp_path / "other"), LexicalIndex(tmp_path / "whole")
    put(other, theirs)
    put(whole, mine + theirs)
    words = ["invoice", "mail", "é", "nowhere"]
    every = all_words([lexical, other])
    weights = weights_among(words, lexical, every)
    assert ("body", "nowhere") not in weights
    alone = dict(lexical.candidates(words, 40, 0)[0])
    among = dict(lexical.candidates(words, 40, 0, weights)[0])
    meant = dict(whole.search(words, 1000))
    # The mean length of a field stays the index's own: so about, and nearer than without.
    assert sum(abs(among[id] - meant[id]) for id in among) < sum(abs(alone[id] - meant[id]) for id in alone) / 4
    other.close()
    whole.close()


def test_rarity_falls_with_how_many_have_the_word_and_never_to_nothing():
    assert rarity(10, 1) > rarity(10, 9) > rarity(10, 10) > 0


def test_an_index_of_an_older_schema_is_built_anew(write, opened, workspace):
    write("a.py", "def parse_invoice():\n    pass\n")
    with opened() as index:
        index.update()
    folder = workspace.state / "index/lexical"
    for file in folder.iterdir():
        file.unlink()
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    tantivy.Index(builder.build(), path=str(folder))
    with opened() as index:
        assert index._parts.catalogue.waiting(Target.LEXICAL) == 1
        index.update()
        assert index.search("parse_invoice", 1)[0].path == "a.py"
