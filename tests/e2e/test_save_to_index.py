"""Flow 2: what is saved is what the next answer reads."""

import time

import pytest

pytestmark = pytest.mark.engine


def paths(backend, query):
    return [p["path"] for p in backend.http.get("/search", params={"q": query}).json()["passages"]]


def test_a_saved_file_is_found_and_a_deleted_one_is_not(backend, repository, wait):
    new = repository / "src" / "itsdangerous" / "quokka.py"
    try:
        new.write_text('def quokka_salt(é: str) -> str:\n    """Salts for marsupials 🙂."""\n    return é\n')
        saved = time.monotonic()
        wait(lambda: "src/itsdangerous/quokka.py" in paths(backend, "quokka_salt"), 10, "the saved file is not found")
        assert time.monotonic() - saved < 10
        answer = backend.http.post("/ask", json={"question": "What does quokka_salt do?", "max_tokens": 4}).json()
        assert answer["passages"][0]["path"] == "src/itsdangerous/quokka.py"
        assert answer["freshness"]["dirty_files"] == 1
    finally:
        new.unlink()
    wait(lambda: "src/itsdangerous/quokka.py" not in paths(backend, "quokka_salt"), 10, "the deleted file is found")


def test_an_edit_moves_the_lines_of_what_is_found(backend, repository, wait):
    file = repository / "src" / "itsdangerous" / "url_safe.py"
    before = file.read_text()
    found = backend.http.get("/search", params={"q": "URLSafeSerializer"}).json()["passages"][0]
    try:
        file.write_text("# one line more\r\n" + before)

        def has_moved():
            passages = backend.http.get("/search", params={"q": "URLSafeSerializer"}).json()["passages"]
            return any(p["path"] == found["path"] and p["text"] in file.read_bytes().decode() for p in passages)

        wait(has_moved, 10, "the edit is not seen")
        for passage in backend.http.get("/search", params={"q": "URLSafeSerializer"}).json()["passages"]:
            whole = (repository / passage["path"]).read_bytes().decode()
            assert passage["text"] in whole
    finally:
        file.write_text(before)


def test_an_unsaved_buffer_is_read_before_it_is_saved(backend):
    asked = {"question": "What does wombat_signature do?", "path": "src/itsdangerous/exc.py", "max_tokens": 4}
    buffer = "def wombat_signature(value):\n    return value[::-1]\n"
    answer = backend.http.post("/ask", json=asked | {"buffer": buffer}).json()
    assert any("wombat_signature" in p["text"] for p in answer["passages"])
    assert all("wombat_signature" not in p["text"] for p in backend.http.post("/ask", json=asked).json()["passages"])
