"""wrtflow.firstseen: the first time a device meets a country or a system, and never again."""

from wrtflow.firstseen import FirstSeen


def made(tmp_path) -> FirstSeen:
    first = FirstSeen(tmp_path / "first.sqlite")
    first.load()
    return first


def test_first_of_country_or_system(tmp_path):
    first = made(tmp_path)
    assert first.meets(None, "10.0.0.1", "DE", "64501")
    assert not first.meets(None, "10.0.0.1", "DE", "64501")
    assert first.meets(None, "10.0.0.1", "DE", "64502")
    assert first.meets(None, "10.0.0.1", "CN", "64501")
    assert first.meets(None, "10.0.0.2", "DE", "64501")
    assert not first.meets(None, "10.0.0.2", None, None)


def test_a_new_address_is_no_new_device(tmp_path):
    first = made(tmp_path)
    assert first.meets(None, "10.0.0.1", "DE", None)
    # The MAC becomes known, then the address changes.
    assert not first.meets("AA", "10.0.0.1", "DE", None)
    assert not first.meets("AA", "10.0.0.9", "DE", None)
    assert not first.meets(None, "10.0.0.9", "DE", None)


def test_it_outlives_a_restart(tmp_path):
    first = made(tmp_path)
    first.meets(None, "10.0.0.1", "DE", "64501")
    first.save()
    assert not made(tmp_path).meets(None, "10.0.0.1", "DE", "64501")
    assert len(made(tmp_path)) == 2
