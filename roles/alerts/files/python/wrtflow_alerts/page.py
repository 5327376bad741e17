"""The letter's text: from figures to blocks, and from blocks to plain text and HTML."""

from __future__ import annotations

import html
from dataclasses import dataclass

from wrtflow_alerts.letter import TIMES, WEEKS, Figures, NewDevice, Traffic
from wrtflow_alerts.settings import MONTHS, WEEKDAYS, Settings

# At most so many rows in a table, and names in a sentence.
_ROWS, _NAMES = 10, 5

# A device with fewer bytes at night is not named.
_NIGHT = 1_000_000


@dataclass(frozen=True)
class Block:
    """A heading, a list of sentences, and perhaps a table."""

    heading: str
    lines: list[str]
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Letter:
    """A letter, ready to be sent."""

    subject: str
    opening: str
    blocks: list[Block]
    closing: list[str]
    link: str


def size(count: float) -> str:
    """Return a number of bytes as text with a unit: 2.5 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def write(settings: Settings, found: Figures, faults: list[str], link: str) -> Letter:
    """Write the letter; leave out empty blocks. faults: the collector's present faults."""
    begin, end = (_date(settings, at) for at in (found.begin, found.end))
    new, large = found.new_devices, [one for one in found.traffic if one.large]
    blocks = [
        _block("Needs your attention", [_sentence(fault) for fault in faults]),
        _block("New devices", [_new(settings, found, each) for each in new[:_ROWS]], len(new)),
        _block(
            f"Sent more than {TIMES} times as much as usual",
            [
                f"{one.device} sent {size(one.up)}. Usually it sends {size(one.usual_up or 0)}."
                for one in large
            ],
        ),
        _block(
            "Countries that a device called for the first time",
            [f"{device}: {_names(names)}" for device, names in found.new_countries.items()],
        ),
        _most(found),
        _nights(found),
        _block(
            "Sites that a device visited for the first time",
            [
                f"{device}: {each.count} site{_s(each.count)}, {'most of all ' if each.count > 1 else ''}"
                f"{_names(each.largest)}"
                for device, each in list(found.new_sites.items())[:_ROWS]
            ],
            len(found.new_sites),
        ),
        _block("What wrtflow does not know", _gaps(found)),
    ]
    news = [
        f"{len(new)} new device{_s(len(new))}" if new else "",
        f"{_names([one.device for one in large], 2)} sent far more than usual" if large else "",
        f"{len(found.new_countries)} device{_s(len(found.new_countries))} called a new country"
        if found.new_countries
        else "",
    ]
    subject = ", ".join(filter(None, news)) or ("nothing new" if found.flows else "nothing was recorded")
    return Letter(
        f"Your network, {begin} to {end}: {subject}",
        _opening(found),
        [block for block in blocks if block],
        [
            f"The figures are from {settings.clock(found.begin)} to {settings.clock(found.end)}. They are about what"
            f' your devices exchanged with the internet. "Usual" is the mean of the {WEEKS} weeks before, or of as many'
            " as the device has been there."
        ],
        link,
    )  # fmt: skip


def _opening(found: Figures) -> str:
    if not found.flows:
        return "wrtflow recorded nothing at all in this time. That is a fault: is the router on, and the log server?"
    count = len(found.traffic)
    up, down = sum(one.up for one in found.traffic), sum(one.down for one in found.traffic)
    said = (
        f"{count} device{_s(count)} of your house received {size(down)} from the internet and sent {size(up)}"
    )
    usual = [one for one in found.traffic if one.usual_down is not None]
    if usual and found.whole:
        before = sum((one.usual_down or 0) + (one.usual_up or 0) for one in usual)
        said += f", {_compared(up + down, before)}"
    if not found.whole:
        said += (
            ". wrtflow has not watched for longer, so the next letter will be the first to say what is new"
        )
    return f"{said}."


def _compared(now: float, usual: float) -> str:
    if usual and now > 1.25 * usual:
        return f"more than the usual {size(usual)} in all"
    if usual and now < 0.75 * usual:
        return f"less than the usual {size(usual)} in all"
    return "about as much as usual"


def _new(settings: Settings, found: Figures, each: NewDevice) -> str:
    names = [each.manufacturer and f"made by {each.manufacturer}", *each.macs, *each.addresses]
    about = ", ".join(name for name in names if name and name != each.device)
    traffic = next((one for one in found.traffic if one.device == each.device), Traffic(each.device))
    return (
        f"{each.device}{f' ({about})' if about else ''}, first seen on {settings.clock(each.first)}."
        f" It received {size(traffic.down)} and sent {size(traffic.up)}."
    )


def _most(found: Figures) -> Block | None:
    rows = [
        (
            one.device,
            size(one.down),
            "new" if one.usual_down is None else size(one.usual_down),
            size(one.up),
            "new" if one.usual_up is None else size(one.usual_up),
        )
        for one in found.traffic[:_ROWS]
        if one.up or one.down
    ]
    if not rows:
        return None
    if not any(one.usual_down is not None for one in found.traffic):
        return Block(
            "Most traffic", [], ("device", "received", "sent"), tuple((r[0], r[1], r[3]) for r in rows)
        )
    return Block("Most traffic", [], ("device", "received", "usual", "sent", "usual"), tuple(rows))


def _nights(found: Figures) -> Block | None:
    busy = sorted((one for one in found.traffic if one.night >= _NIGHT), key=lambda one: -one.night)
    lines = [
        f"{one.device}: {size(one.night)}"
        + (f" (usually {size(one.usual_night)})" if one.usual_night is not None else "")
        for one in busy[:_NAMES]
    ]
    return _block("At night, between midnight and six", lines)


def _gaps(found: Figures) -> list[str]:
    lines = []
    if found.unnamed >= found.outbound / 200 > 0:
        lines.append(
            f"{found.unnamed / found.outbound:.0%} of the connections to the internet went to addresses without a name:"
            " their devices asked no name server that wrtflow sees."
        )
    if found.timeouts:
        lines.append(
            f"wrtflow did not see the end of {found.timeouts} connection{_s(found.timeouts)}: those bytes are missing."
        )
    return lines + [_sentence(loss) for loss in found.losses]


def _block(heading: str, lines: list[str], count: int = 0) -> Block | None:
    """Return a block, None if there are no lines. count: the number of all lines, of which these are the first."""
    if count > len(lines) > 0:
        lines = [*lines, f"and {count - len(lines)} more"]
    return Block(heading, lines) if lines else None


def _names(names: list[str], most: int = _NAMES) -> str:
    shown = names[:most]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]])) if shown else ""


def _sentence(text: str) -> str:
    whole = text.strip()
    return whole[:1].upper() + whole[1:] + ("" if whole.endswith((".", "?", "!")) else ".")


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _date(settings: Settings, seconds: float) -> str:
    at = settings.local(seconds)
    return f"{WEEKDAYS[at.weekday()]} {at.day} {MONTHS[at.month - 1]}"


def as_text(letter: Letter) -> str:
    """Return the letter as plain text."""
    parts = [letter.opening]
    for block in letter.blocks:
        lines = [block.heading, *(f"- {line}" for line in block.lines)]
        if block.rows:
            lines += _table(block)
        parts.append("\n".join(lines))
    parts += [*letter.closing, *([f"The dashboards: {letter.link}"] if letter.link else [])]
    return "\n\n".join(parts) + "\n"


def _table(block: Block) -> list[str]:
    whole = [block.header, *block.rows]
    widths = [max(len(row[column]) for row in whole) for column in range(len(block.header))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in whole
    ]


def as_html(letter: Letter) -> str:
    """Return the letter as an HTML page that loads nothing."""
    parts = [f"<p>{html.escape(letter.opening)}</p>"]
    for block in letter.blocks:
        parts.append(f"<h2>{html.escape(block.heading)}</h2>")
        if block.lines:
            lines = "".join(f"<li>{html.escape(line)}</li>" for line in block.lines)
            parts.append(f"<ul>{lines}</ul>")
        if block.rows:
            parts.append(
                f"<table>{_row('th', block.header)}{''.join(_row('td', row) for row in block.rows)}</table>"
            )
    parts += [f'<p class="small">{html.escape(line)}</p>' for line in letter.closing]
    if letter.link:
        parts.append(f'<p><a href="{html.escape(letter.link)}">The dashboards</a></p>')
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(letter.subject)}</title><style>"
        "body{font:16px/1.5 sans-serif;max-width:42em;margin:1em}h2{font-size:1.1em;margin:1.4em 0 .3em}"
        "ul{margin:0;padding-left:1.2em}td,th{padding:.1em .8em .1em 0;text-align:right}"
        "td:first-child,th:first-child{text-align:left}.small{color:#666;font-size:.85em}"
        "</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _row(tag: str, cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
