"""The port that the backend listens on."""

import pytest

from server.run import CannotServe, open_listener
from server.settings import ServerSettings


def port_of(listener):
    return listener.getsockname()[1]


def test_a_restart_takes_the_port_that_was_used_last(tmp_path):
    with open_listener(ServerSettings(), tmp_path / "port") as first:
        port = port_of(first)
    with open_listener(ServerSettings(), tmp_path / "port") as again:
        assert port_of(again) == port


def test_a_port_that_somebody_took_meanwhile_is_left_to_them(tmp_path):
    with open_listener(ServerSettings(), tmp_path / "port") as first:
        with open_listener(ServerSettings(), tmp_path / "port") as second:
            assert port_of(second) != port_of(first)
        with pytest.raises(CannotServe, match=f"port {port_of(first)} is in use"):
            open_listener(ServerSettings(port=port_of(first)), tmp_path / "port")


@pytest.mark.parametrize("text", ["", "x", "-1", "80", "70000"])
def test_a_record_that_names_no_port_is_passed_over(tmp_path, text):
    (tmp_path / "port").write_text(text)
    with open_listener(ServerSettings(), tmp_path / "port") as listener:
        assert port_of(listener) > 1024
