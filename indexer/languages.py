"""Path -> language: tree-sitter's name where there is a grammar, or markdown, notebook, text."""

from __future__ import annotations

from pathlib import PurePosixPath

_BY_SUFFIX = {
    "ada": "adb ads", "bash": "sh bash zsh bats", "c": "c", "clojure": "clj cljs cljc edn", "cmake": "cmake",
    "commonlisp": "lisp lsp", "cpp": "cc cpp cxx hpp hh hxx h ipp tpp inl", "csharp": "cs csx", "css": "css",
    "cuda": "cu cuh", "d": "d", "dart": "dart", "dockerfile": "dockerfile", "elisp": "el", "elixir": "ex exs",
    "elm": "elm", "erlang": "erl hrl", "fish": "fish", "fortran": "f90 f95 f03 f f77", "fsharp": "fs fsx",
    "gdscript": "gd", "gleam": "gleam", "glsl": "glsl vert frag", "go": "go", "gomod": "mod", "graphql": "graphql gql",
    "groovy": "groovy gradle", "hare": "ha", "haskell": "hs", "haxe": "hx", "hcl": "hcl", "heex": "heex",
    "html": "html htm xhtml", "ini": "ini cfg conf editorconfig", "java": "java", "javascript": "js jsx mjs cjs",
    "json": "json json5 jsonc webmanifest", "jsonnet": "jsonnet libsonnet", "julia": "jl", "kotlin": "kt kts",
    "latex": "tex sty cls", "lua": "lua", "luau": "luau", "make": "mk mak", "markdown": "md mdx markdown mdc",
    "matlab": "m", "meson": "meson", "nim": "nim nims", "ninja": "ninja", "nix": "nix", "notebook": "ipynb",
    "objc": "mm", "ocaml": "ml", "ocaml_interface": "mli", "odin": "odin", "org": "org", "pascal": "pas pp dpr",
    "perl": "pl pm t", "php": "php phtml", "powershell": "ps1 psm1 psd1", "prisma": "prisma",
    "properties": "properties", "proto": "proto", "puppet": "puppet", "purescript": "purs",
    "python": "py pyi pyw pyx pxd", "r": "r rmd", "racket": "rkt", "rego": "rego", "rst": "rst",
    "ruby": "rb rake gemspec ru", "rust": "rs", "scala": "scala sc sbt", "scheme": "scm ss", "scss": "scss",
    "solidity": "sol", "sql": "sql", "starlark": "bzl star", "svelte": "svelte", "swift": "swift", "tcl": "tcl",
    "terraform": "tf tfvars", "text": "txt adoc asciidoc text", "thrift": "thrift", "toml": "toml", "tsx": "tsx",
    "twig": "twig", "typescript": "ts mts cts", "typst": "typ", "v": "v", "verilog": "sv svh vh", "vhdl": "vhd vhdl",
    "vim": "vim", "vue": "vue", "wgsl": "wgsl", "xml": "xml xsd xsl plist", "yaml": "yaml yml", "zig": "zig zon",
}  # fmt: skip
LANGUAGE_BY_SUFFIX = {suffix: language for language, suffixes in _BY_SUFFIX.items() for suffix in suffixes.split()}
_BY_NAME = {
    "makefile": "make", "gnumakefile": "make", "dockerfile": "dockerfile", "containerfile": "dockerfile",
    "cmakelists.txt": "cmake", "rakefile": "ruby", "gemfile": "ruby", "vagrantfile": "ruby", "podfile": "ruby",
    "build": "starlark", "workspace": "starlark", "meson.build": "meson", "jenkinsfile": "groovy", "go.mod": "gomod",
    ".bashrc": "bash", ".zshrc": "bash", ".profile": "bash", "requirements.txt": "requirements",
}  # fmt: skip
_BY_INTERPRETER = {
    "python": "python",
    "sh": "bash",
    "zsh": "bash",
    "node": "javascript",
    "ruby": "ruby",
    "perl": "perl",
}
PROSE = frozenset({"markdown", "rst", "text", "org", "latex", "typst"})
CONFIGURATION = frozenset(
    {"json", "yaml", "toml", "ini", "xml", "properties", "requirements", "gomod", "html", "css", "scss"}
)


def language_of(path: str, first_line: str = "") -> str:
    """The language of a file by its name, else by its `#!` line, else "text"."""
    name = PurePosixPath(path).name.lower()
    if name in _BY_NAME:
        return _BY_NAME[name]
    if "." in name and (language := LANGUAGE_BY_SUFFIX.get(name.rsplit(".", 1)[1])):
        return language
    if first_line.startswith("#!"):
        return next((language for word, language in _BY_INTERPRETER.items() if word in first_line), "text")
    return "text"
