"""Words of code and of questions as tokens."""

from __future__ import annotations

import pytest

from indexer.tokens import query_tokens, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getUserName", ["getusername", "get", "user", "name"]),
        ("HTTPServer_v2", ["httpserverv2", "http", "serv", "2"]),
        ("routes, router, routing", ["rout", "rout", "rout"]),
        ("café", ["caf\u00e9"]),
        ("🎓\r\n", []),
        ("", []),
    ],
)
def test_a_word_is_its_whole_and_the_stems_of_its_parts(text, expected):
    assert tokens(text) == expected


def test_a_question_asks_for_its_words_and_for_neighbours_written_as_one():
    assert query_tokens("how does the type handler work") == ["type", "handl", "work", "typehandler", "handlerwork"]
    assert "typehandler" in tokens("class TypeHandler: ...")
    assert "typehandler" in tokens("def type_handler(): ...")


def test_a_question_of_common_words_only_keeps_them():
    assert query_tokens("what is it") == ["what", "is", "it", "whatis", "isit"]
