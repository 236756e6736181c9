"""Chunks are whole lines and whole symbols, and hold everything once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.chunking import MAX_CHARS, chunk_text
from indexer.languages import language_of
from indexer.lines import cut_lines, split_lines

SYMBOLS = {
    "a.py": ("class A:\n    def b(self):\n        pass\n\n\ndef c():\n    pass\n", {"A", "A.b", "c"}),
    "a.js": ("app.use = function use(fn) {\n};\nconst f = (x) => {\n};\nclass K { m() {} }\n", {"app.use", "f", "K.m"}),
    "a.ts": ("export interface I { b: string }\nexport type T = {a: 1};\n", {"I", "T"}),
    "b.ts": ("namespace N { export function q() {} }\n", {"N", "N.q"}),
    "a.go": ("package x\n\nfunc (e *Engine) Use() {\n}\n\ntype A struct {\n}\n", {"Engine.Use", "A"}),
    "a.rs": ("struct S;\nimpl S {\n  fn x(&self) {}\n}\ntrait T { fn y(); }\n", {"S", "S.x", "T", "T.y"}),
    "a.c": ("static int *foo(int a) {\n return 0;\n}\n#define X 1\n", {"foo", "X"}),
    "a.cpp": ("namespace a { class B { void c() {} }; }\nvoid B::d() {}\n", {"a", "a.B", "a.B.c", "B.d"}),
    "A.java": ("public class A { A() {} void m() {} }\n", {"A", "A.m"}),
    "a.rb": ("module M\n class B\n  def x\n  end\n end\nend\n", {"M", "M.B", "M.B.x"}),
    "a.ex": ("defmodule A.B do\n def x(a), do: 1\nend\n", {"A.B", "A.B.x"}),
    "a.kt": ("class A { fun b() {} }\nfun c() = 1\n", {"A", "A.b", "c"}),
    "a.php": ("<?php class A { function b() {} }\n", {"A", "A.b"}),
    "a.sh": ("foo() { echo 1; }\n", {"foo"}),
    "a.cs": ("namespace N { class B { void C() {} } }\n", {"N", "N.B", "N.B.C"}),
    "a.scala": ("object A { def b = 1 }\n", {"A", "A.b"}),
    "a.swift": ("class A { func b() {} }\n", {"A", "A.b"}),
    "a.lua": ("function M.b() end\n", {"M.b"}),
}  # fmt: skip


@pytest.mark.parametrize("path", SYMBOLS)
def test_the_symbols_of_a_language_are_named(path):
    text, names = SYMBOLS[path]
    found = {name for chunk in chunk_text(path, text, language_of(path)) for name in chunk.defines}
    assert found >= names


def test_a_long_class_is_cut_at_its_methods_and_each_knows_whose_it_is():
    methods = "".join(f"    def method_{n}(self):\n" + f"        x = {n}\n" * 60 + "\n" for n in range(4))
    chunks = chunk_text("a.py", f"class Big:\n    field = 1\n\n{methods}", "python")
    assert chunks[0].defines == ("Big", "Big.field", "Big.method_0")
    assert [chunk.symbol for chunk in chunks[1:]] == [f"Big.method_{n}" for n in range(1, 4)]
    assert all(len(chunk.text) <= MAX_CHARS * 1.2 for chunk in chunks)


def test_markdown_is_cut_by_heading_and_not_by_what_looks_like_one_in_a_fence():
    text = "# Guide\n\nhello é\n\n## Install 🎓\n\n```sh\n# no heading\n```\n" + "words\n" * 100 + "# End\nbye\n"
    chunks = chunk_text("README.md", text, "markdown")
    assert [chunk.symbol for chunk in chunks] == ["Guide", "Guide > Install 🎓", "End"]


def test_a_notebook_is_cut_by_cell():
    cell = '  {{\n   "cell_type": "code",\n   "source": [\n{}    "x"\n   ]\n  }}'
    cells = ",\n".join(cell.format("".join(f'    "line {n} of {k}\\n",\n' for n in range(40))) for k in range(3))
    chunks = chunk_text("a.ipynb", f'{{\n "cells": [\n{cells}\n ]\n}}\n', "notebook")
    assert [f"of {k}" in chunk.text for chunk in chunks for k in range(3) if f"line 20 of {k}" in chunk.text] == [
        True
    ] * 3
    assert not [chunk for chunk in chunks if sum(f"line 20 of {k}" in chunk.text for k in range(3)) > 1]


LINE = st.sampled_from(
    [
        "def f():",
        "    return 1",
        "class A {",
        "}",
        "",
        "é 🎓",
        "x = 1\x0c",
        "a\u2028b",
        "# h",
        "```",
        "(",
        "*/",
        "/*",
        "end",
    ]
)
END = st.sampled_from(["\n", "\r\n", "\r"])


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(st.tuples(LINE, END), max_size=80),
    name=st.sampled_from(["a.py", "a.js", "a.md", "a.txt", "a.c", "a.rb"]),
)
def test_every_line_that_is_not_blank_is_in_one_chunk_and_at_its_place(lines, name):
    text = "".join(line + end for line, end in lines)
    chunks = chunk_text(name, text, language_of(name))
    covered: list[int] = []
    for chunk in chunks:
        assert cut_lines(text, chunk.start_line, chunk.end_line) == chunk.text
        covered += range(chunk.start_line, chunk.end_line + 1)
    assert len(covered) == len(set(covered))
    assert covered == sorted(covered)
    blank = {number for number, line in enumerate(split_lines(text), 1) if not line.strip()}
    assert set(range(1, len(split_lines(text)) + 1)) - set(covered) <= blank
    assert len({chunk.id for chunk in chunks}) == len(chunks)


def test_an_empty_file_has_no_chunks():
    assert chunk_text("a.py", "", "python") == []
    assert chunk_text("a.py", "\r\n\n", "python") == []


def test_very_deep_nesting_is_no_trouble():
    assert chunk_text("a.js", "(" * 20_000 + ")" * 20_000 + "\n", "javascript")
    assert chunk_text("a.py", "".join(" " * n + "if x:\n" for n in range(400)), "python")
