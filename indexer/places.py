"""What kind of place a file is, by its path: code, or a test, an example, prose, configuration, a re-export. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from indexer.languages import CONFIGURATION, PROSE

_TEST_PATH = re.compile(
    r"(^|/)(tests?|testing|__tests__|specs?|fixtures?|testdata|mocks?|__mocks__|e2e)/|(^|/)test_[^/]*$"
    r"|(^|/)conftest\.py$|[._-](test|tests|spec|e2e|bench)\.[^/]+$|(Test|Tests|Spec)\.[a-z]+$"
)
_ASIDE_PATH = re.compile(
    r"(^|/)(_?examples?|samples?|demos?|docs?|docs_src|documentation|versioned_docs|benchmarks?|bench|scripts?|tools?"
    r"|legacy|deprecated|compat|_?vendor|migrations?|playground|\.github|dist|build|static)/|_?compat\.[a-z]+$"
    r"|\.d\.[cm]?ts$"
)
_REEXPORT = frozenset(
    {"__init__.py", "index.ts", "index.js", "index.tsx", "index.mjs", "mod.rs", "lib.rs", "doc.go", "package-info.java"}
)
_NAMED_BY_FOLDER = frozenset({"__init__", "index", "mod", "lib", "main", "doc", "init"})


# Each query asks for some 300 paths, most of them for the hundredth time.
_remembered = lru_cache(maxsize=50_000)


@_remembered
def is_test(path: str) -> bool:
    return bool(_TEST_PATH.search(path))


@_remembered
def is_aside(path: str) -> bool:
    """Examples, documentation, scripts, what is old, what was built: about the code, or a copy of it."""
    return bool(_ASIDE_PATH.search(path))


def is_prose(language: str) -> bool:
    """Prose and configuration: no code."""
    return language in PROSE or language in CONFIGURATION


@_remembered
def is_reexport(path: str) -> bool:
    """A file whose business is often to name what others define."""
    return path.rsplit("/", 1)[-1] in _REEXPORT


def is_core(path: str, language: str) -> bool:
    """Code itself, which most questions are about."""
    return not (is_test(path) or is_aside(path) or is_prose(language))


def file_stem(path: str) -> str:
    """What a file is called after: `routing/router.py` after router, `routing/mod.rs` after its folder."""
    *folders, name = path.split("/")
    stem = name.rsplit(".", 1)[0]
    return folders[-1] if stem in _NAMED_BY_FOLDER and folders else stem
