import stat
import tempfile

import pytest

from controller.up.place import Place
from extproc.supervise import worker_socket


def test_two_places_are_different_and_not_yet_there():
    first, second = Place.pick(), Place.pick()

    assert first != second
    assert not first.root.exists()


def test_it_is_for_this_user_only_and_gone_with_all_files_afterwards():
    place = Place.pick()
    with place.made():
        assert stat.S_IMODE(place.root.stat().st_mode) == 0o700
        place.bootstrap.write_text("{}")
        (place.root / "more").mkdir()
    assert not place.root.exists()


def test_it_is_gone_after_an_error_too():
    place = Place.pick()
    with pytest.raises(KeyboardInterrupt), place.made():
        raise KeyboardInterrupt
    assert not place.root.exists()


def test_somebody_elses_directory_is_not_used():
    place = Place.pick()
    place.root.mkdir()
    try:
        with pytest.raises(FileExistsError), place.made():
            pass
        assert place.root.exists()
    finally:
        place.root.rmdir()


@pytest.mark.parametrize("parent", ["/tmp", "/var/" + "x" * 55, "/var/" + "x" * 200])
def test_every_socket_path_is_short_enough_wherever_temporary_files_go(monkeypatch, parent):
    monkeypatch.setattr(tempfile, "tempdir", parent)
    place = Place.pick()

    for path in (place.valkey_socket, place.xds_socket, place.envoy_admin_socket):
        assert len(str(path)) <= 100
        assert path.parent == place.root
    assert worker_socket(place.root, 255)
