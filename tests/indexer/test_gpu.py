"""Whether there is a GPU: the driver and a card, not one of them."""

from pathlib import Path

from indexer.gpu import find_gpu


def test_a_driver_without_a_card_is_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    assert not find_gpu(tmp_path)
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").touch()
    # What a container sees of its host's driver, with no card handed in.
    (tmp_path / "dev/nvidiactl").touch()
    assert not find_gpu(tmp_path)
    (tmp_path / "dev/nvidia0").touch()
    assert find_gpu(tmp_path)
