"""What a question names outright is found by name; and a name that stands nowhere is known to."""

import pytest

from indexer.named import names_in

FILES = {
    "package.json": '{"name": "shop", "version": "1.2.3"}\n',
    "web/package.json": '{"name": "web"}\n',
    "src/product.ts": "export enum ProductSwitchType {\n  On,\n  Off,\n}\n",
    "src/signer.py": "class Signer:\n"
    + "".join(f"    def step_{n}(self, max_age=30):\n        return '{'word ' * 90}'\n\n" for n in range(6)),
    "tests/test_signer.py": "def test_signer():\n    assert 'ProductSwitchType'\n",
}


@pytest.fixture
def shop(write, index):
    for path, text in FILES.items():
        write(path, text)
    index.update()
    return index


def paths(passages):
    return list(dict.fromkeys(passage.path for passage in passages))


def test_a_file_that_is_named_is_found_the_one_at_the_root_first(shop):
    assert paths(shop.find_named("What version is in package.json?")) == ["package.json", "web/package.json"]
    assert paths(shop.find_named("What is in `web/package.json`?")) == ["web/package.json"]


def test_a_symbol_that_is_named_is_found_where_it_is_defined(shop):
    assert paths(shop.find_named("What is ProductSwitchType for?")) == ["src/product.ts"]
    assert shop.find_named("productswitchtype") == []


def test_what_is_inside_a_named_class_is_found_with_it(shop):
    found = shop.find_named("What does `Signer` do in step_4?")
    assert len(found) > 2
    assert any("step_4" in passage.text for passage in found)


def test_an_open_buffer_is_read_in_place_of_its_file(shop):
    [passage] = shop.find_named(
        "what is in package.json", {"package.json": '{"name": "new"}\n', "web/package.json": ""}
    )
    assert passage.text == '{"name": "new"}\n'


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("ProductSwitchType", True), ("max_age", True), ("maxAge", True), ("Signer.step_1", True),
        ("src/signer.py", True), ("signer.py", True), ("package.json", True), ("--max-age", True),
        ("retry_with_jitter", False), ("Signer.fly_away", False), ("src/hardware.py", False), ("web/signer.py", False),
        ("", False), ("é🙂", False),
    ],
)  # fmt: skip
def test_a_name_is_known_when_it_stands_somewhere(name, known, shop):
    assert shop.knows(name) is known


def test_names_are_read_from_plain_questions():
    assert names_in("What does `load` in src/a.py or getUserName() do with Signer.sign? And README").files == (
        "src/a.py", "Signer.sign", "README",
    )  # fmt: skip
    assert names_in("what does `load` do with getUserName() and max_age?").symbols == ("load", "getUserName", "max_age")
