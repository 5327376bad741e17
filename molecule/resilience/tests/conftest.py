"""Has the faults come last, and prints their table."""

import faults


def pytest_collection_modifyitems(items):
    # Behind the other tests of the chain: some faults cost flows, and the ledger says so for a day.
    last = ["test_faults", "test_uninstall"]
    items.sort(key=lambda item: last.index(item.path.stem) if item.path.stem in last else -1)


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(faults.TABLE, [])
    if not rows:
        return
    terminalreporter.section("faults")
    why = {fault.name: fault.why for fault in faults.FAULTS}
    write = terminalreporter.write_line
    write(f"{'fault':<36} {'time':>6} {'flows':>6} {'lost':>5} {'twice':>5} {'no start':>8}")
    for row in rows:
        write(
            f"{row.fault:<36} {row.seconds:>4.0f} s {row.expected:>6} {row.lost:>5} {row.doubled:>5}"
            f" {row.without_start:>8}  {why[row.fault]}".rstrip()
        )
