"""Every setting is documented, and a wrong one stops the start."""

import re
from pathlib import Path

import pytest

from indexer.fleet_settings import FleetSettings
from indexer.settings import BadSettings, IndexerSettings, write_defaults
from indexer.workspace import NotAWorkspace, Workspace, find_workspace, write_atomically
from server.settings import ServerSettings
from trainer.corpus_settings import CorpusSettings
from trainer.settings import TrainerSettings

DOCS = Path(__file__).parent.parent / "docs" / "settings.md"
SECTIONS = [IndexerSettings, FleetSettings, ServerSettings, TrainerSettings, CorpusSettings]


def documented() -> str:
    """docs/settings.md as it must read, from the settings themselves."""
    lines = [
        "# Settings",
        "",
        "`nightschool.toml` at the root of the repository; `NIGHTSCHOOL_<SECTION>__<FIELD>` in the environment wins.",
        "A setting that is unknown or out of range stops the start; it is never replaced by a default.",
    ]
    for section in SECTIONS:
        lines += ["", f"## [{section.section}]", "", "| field | default | meaning |", "|---|---|---|"]
        for name, field in section.model_fields.items():
            default = field.get_default(call_default_factory=True)
            lines.append(f"| `{name}` | `{default}` | {field.description} |")
    return "\n".join(lines) + "\n"


def test_the_documentation_lists_every_setting(request):
    if request.config.getoption("--update-golden"):
        DOCS.write_text(documented())
    assert DOCS.read_text() == documented()


def test_every_setting_says_what_it_means():
    assert [(s.section, n) for s in SECTIONS for n, f in s.model_fields.items() if not f.description] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[indexer]\nmax_file_bytes = -1\n", "max_file_bytes"),
        ("[indexer]\nmax_fiel_bytes = 1\n", "max_fiel_bytes"),
        ("[indexer\n", "not valid TOML"),
        ("indexer = 3\n", "must be a table"),
        ("\xff", "not valid TOML"),
    ],
)
def test_a_bad_setting_stops_the_start_by_name(text, fault, tmp_path):
    (tmp_path / "nightschool.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadSettings, match=fault):
        IndexerSettings.read(Workspace(tmp_path))


@pytest.mark.parametrize("name", ["https://github.com/acme/shop", "shop", "acme/shop/pulls", "-x/shop", "acme/sh op"])
def test_a_repository_on_github_is_owner_and_name(name, tmp_path):
    (tmp_path / "nightschool.toml").write_text(f'[trainer]\ngithub = "{name}"\n')
    with pytest.raises(BadSettings, match=r"\[trainer\] github: .*give owner/name, as in acme/shop"):
        TrainerSettings.read(Workspace(tmp_path))


def test_the_environment_wins_over_the_file(tmp_path, monkeypatch):
    (tmp_path / "nightschool.toml").write_text("[indexer]\nmax_file_bytes = 5\n")
    assert IndexerSettings.read(Workspace(tmp_path)).max_file_bytes == 5
    monkeypatch.setenv("NIGHTSCHOOL_INDEXER__MAX_FILE_BYTES", "7")
    assert IndexerSettings.read(Workspace(tmp_path)).max_file_bytes == 7
    monkeypatch.setenv("NIGHTSCHOOL_INDEXER__MAX_FIEL_BYTES", "7")
    with pytest.raises(BadSettings, match="NIGHTSCHOOL_INDEXER__MAX_FIEL_BYTES"):
        IndexerSettings.read(Workspace(tmp_path))


def test_the_workspace_is_the_nearest_folder_with_settings_or_git(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    inner = tmp_path / "é 🙂" / "deep"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert find_workspace().root == tmp_path
    (inner.parent / "nightschool.toml").touch()
    assert find_workspace().root == inner.parent
    with pytest.raises(NotAWorkspace, match="does not exist"):
        find_workspace(tmp_path / "nothing")
    with pytest.raises(NotAWorkspace, match="is not a directory"):
        find_workspace(inner.parent / "nightschool.toml")


def test_what_is_written_is_there_whole_and_nothing_else_is(tmp_path):
    file = tmp_path / "current.json"
    write_atomically(file, "é🙂\r\n", mode=0o600)
    assert file.read_bytes() == "é🙂\r\n".encode()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["current.json"]


def test_init_writes_every_setting_commented_out_and_never_over_the_users(tmp_path):
    place = Workspace(tmp_path)
    text = write_defaults(place, SECTIONS).read_text()
    assert [s.read(place) for s in SECTIONS] == [s() for s in SECTIONS]
    for section in SECTIONS:
        assert [name for name in section.model_fields if f"\n# {name} =" not in text] == []
    # With every # in front of a value removed it still reads, and says the same.
    fields = "|".join(name for section in SECTIONS for name in section.model_fields)
    (tmp_path / "nightschool.toml").write_text(re.sub(rf"^# ((?:{fields}) = .+)$", r"\1", text, flags=re.M))
    assert [s.read(place) for s in SECTIONS] == [s() for s in SECTIONS]
    with pytest.raises(BadSettings, match="is there already"):
        write_defaults(place, SECTIONS)
