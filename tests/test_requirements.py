"""The locks are the whole set: what an installed package asks for is there, or left out on purpose."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def left_out():
    """Names that requirements/overrides.txt drops (`; sys_platform == 'never'`) or loosens."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements/overrides.txt").read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    return {canonicalize_name(r.name): r for r in requirements}


def locked(name):
    lines = (ROOT / f"requirements/{name}.lock").read_text().splitlines()
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1].strip() for line in lines if "==" in line}


def test_nothing_is_missing_but_what_is_left_out_on_purpose():
    overrides, installed = left_out(), {canonicalize_name(d.name): d for d in metadata.distributions()}
    missing = []
    for name in locked("cpu"):
        for text in installed[name].requires or []:
            need = Requirement(text)
            wanted = canonicalize_name(need.name)
            if (need.marker and not need.marker.evaluate({"extra": ""})) or wanted in overrides:
                continue
            if wanted not in installed or not need.specifier.contains(installed[wanted].version, prereleases=True):
                missing.append(f"{name} needs {text}")
    assert missing == []


def test_what_is_left_out_is_left_out():
    dropped = {name for name, need in left_out().items() if need.marker and "never" in str(need.marker)}
    assert dropped
    assert dropped & set(locked("cpu")) == set()


def test_what_is_installed_is_what_the_lock_says():
    installed = {canonicalize_name(d.name): d.version for d in metadata.distributions()}
    assert {name: installed.get(name) for name in locked("cpu")} == locked("cpu")


def test_both_locks_hold_every_dependency_that_the_project_declares():
    text = (ROOT / "pyproject.toml").read_text()
    common = re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M)[1]
    names = {canonicalize_name(Requirement(m).name) for m in re.findall(r'"([^"]+)"', common)}
    assert names - set(locked("cpu")) == set()
    assert names - set(locked("gpu")) == set()


def test_the_licence_list_names_every_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    listed = set(re.findall(r"[A-Za-z0-9_-]+", (ROOT / "docs/licences.md").read_text()))
    assert {Requirement(need).name for need in declared} - listed == set()
