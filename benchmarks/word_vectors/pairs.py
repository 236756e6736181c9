"""Packages -> pairs of a description and its code, as JSON lines:

    python -m benchmarks.word_vectors.pairs PAIRS.jsonl SOURCE...

A source is a wheel, a Debian package, an npm archive, or the folder of an installed package. What carries another
licence than a permissive one is left out, and so is what `--without` names (what retrieval is measured on).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks.word_vectors.descriptions import LANGUAGES, described

MOST_OF_ONE = 5_000  # pairs of one package: none should drown the others
_PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|Python|PSF|Unlicense|CC0|Zlib|HPND|Expat|0BSD|BlueOak|public domain|zope|ZPL|Go)\b",
    re.IGNORECASE,
)
_OTHERWISE = re.compile(
    r"\bA?L?GPL|GNU|Affero|MPL|Mozilla|EPL|CDDL|proprietary|EULA|NVIDIA|non-?commercial|BUSL|SSPL|commons clause"
    r"|elastic",
    re.IGNORECASE,
)
Files = Iterator[tuple[str, bytes]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--without", default="", help="a regular expression for names of packages")
    options = parser.parse_args()
    without = re.compile(options.without or r"(?!)", re.IGNORECASE)
    with options.pairs.open("w") as out:
        for source in sorted(options.sources):
            name = re.split(r"[-_]\d", source.name)[0]
            if without.search(name) or not is_permissive(licence := licence_of(source)):
                continue
            pairs = pairs_of(name, source)
            out.writelines(json.dumps(pair) + "\n" for pair in pairs)
            if pairs:
                print(f"{source.name}\t{licence}\t{len(pairs)}", file=sys.stderr, flush=True)


def is_permissive(licence: str) -> bool:
    """Whether all that the text names lets anything be done."""
    return bool(_PERMISSIVE.search(licence)) and not _OTHERWISE.search(licence)


def pairs_of(name: str, source: Path) -> list[dict[str, str]]:
    """The pairs of one package, each description and each code once, at most `MOST_OF_ONE` by lot."""
    found: list[dict[str, str]] = []
    seen: set[str] = set()
    for path, content in files_of(source):
        try:
            text = content.decode()
        except UnicodeDecodeError:
            continue
        for sentence, symbol, code in described(path, text):
            if sentence.lower() not in seen and code not in seen:
                seen |= {sentence.lower(), code}
                found.append({"repo": name, "path": path, "query": sentence, "symbol": symbol, "code": code[:3_000]})
    random.Random(name).shuffle(found)
    return found[:MOST_OF_ONE]


def files_of(source: Path) -> Files:
    """The files of a package in languages that we read, with their paths."""
    if source.is_dir():
        return (
            (str(f.relative_to(source)), f.read_bytes())
            for f in sorted(source.rglob("*"))
            if _is_read(f.name) and f.is_file()
        )
    if source.suffix == ".whl":
        return _in_zip(source)
    if source.suffix == ".deb":
        return _in_tar(BytesIO(_unpack_deb(source)))
    return _in_tar(BytesIO(source.read_bytes()))


def _in_zip(file: Path) -> Files:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if _is_read(name):
                yield name, archive.read(name)


def _in_tar(file: BytesIO) -> Files:
    with tarfile.open(fileobj=file) as archive:
        for member in archive:
            if member.isfile() and _is_read(member.name):
                yield member.name, _read(archive, member)


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file: Any = archive.extractfile(member)
    content: bytes = file.read()
    return content


def _is_read(name: str) -> bool:
    return Path(name).suffix in LANGUAGES


def _unpack_deb(file: Path) -> bytes:
    return subprocess.run(["dpkg-deb", "--fsys-tarfile", str(file)], capture_output=True, check=True).stdout


def licence_of(source: Path) -> str:
    """What the package says of its licence; "" when it says nothing."""
    if source.suffix == ".whl":
        with zipfile.ZipFile(source) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            return _licence_in(archive.read(name).decode(errors="replace"))
    if source.is_dir():
        beside = source.parent.glob("*.dist-info/RECORD")
        owners = [record for record in beside if f"\n{source.name}/" in f"\n{record.read_text()}"]
        return " | ".join(_licence_in((owner.parent / "METADATA").read_text(errors="replace")) for owner in owners)
    with tarfile.open(
        fileobj=BytesIO(_unpack_deb(source) if source.suffix == ".deb" else source.read_bytes())
    ) as archive:
        for member in archive:
            if member.isfile() and re.search(r"^[^/]+/package\.json$|/copyright$", member.name):
                return _licence_of_text(member.name, _read(archive, member).decode(errors="replace"))
    return ""


def _licence_of_text(name: str, text: str) -> str:
    if name.endswith("package.json"):
        return str(json.loads(text).get("license", ""))
    # What most files carry stands first; the packaging itself may carry another.
    return next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("License:")), "")


def _licence_in(metadata: str) -> str:
    head = metadata.split("\n\n", 1)[0].splitlines()
    said = ("License-Expression:", "Classifier: License", "License:")
    return " | ".join(line.split(":", 1)[1].strip() for line in head if line.startswith(said) and len(line) < 120)


if __name__ == "__main__":
    main()
