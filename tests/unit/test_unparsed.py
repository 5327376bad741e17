"""wrtflow.unparsed: what was refused can be read, and never fills the disk."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wrtflow.unparsed import Unparsed


def test_a_line_has_time_sender_reason_and_text(tmp_path: Path) -> None:
    log = Unparsed(tmp_path / "unparsed.log", 1000)
    log.write("192.168.1.1", "not a syslog line", "hello\x1b[31m\n\u2028")
    log.close()
    (line,) = (tmp_path / "unparsed.log").read_text().splitlines()
    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert rest == r"192.168.1.1 not a syslog line: hello\x1b[31m\n\u2028"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.text())
def test_any_line_is_one_line_of_ascii(tmp_path: Path, text: str) -> None:
    log = Unparsed(tmp_path / "one.log", 1 << 20)
    log.write("a", "b", text)
    log.close()
    content = (tmp_path / "one.log").read_bytes()
    (tmp_path / "one.log").unlink()
    assert content.isascii()
    assert content.count(b"\n") == 1


def test_a_long_line_is_cut_and_its_length_told(tmp_path: Path) -> None:
    log = Unparsed(tmp_path / "unparsed.log", 10_000)
    log.write("a", "b", "x" * 5000)
    content = (tmp_path / "unparsed.log").read_text()
    assert content.endswith(" ... 5000 characters\n")
    assert len(content) < 1200


def test_two_files_of_the_given_size_are_all(tmp_path: Path) -> None:
    log = Unparsed(tmp_path / "unparsed.log", 2000)
    for number in range(200):
        log.write("a", "b", f"{number}" * 20)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"unparsed.log", "unparsed.log.1"}
    assert max(sizes.values()) <= 2000
    # The newest are there.
    assert "199" * 20 in (tmp_path / "unparsed.log").read_text()


def test_a_full_disk_stops_nothing() -> None:
    Unparsed(Path("/dev/full"), 1000).write("a", "b", "c")
