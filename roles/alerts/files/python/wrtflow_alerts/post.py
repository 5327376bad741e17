"""Send messages to webhook, ntfy and mail, with a limit an hour. A message waits until each receiver has taken it."""

from __future__ import annotations

import email.message
import email.utils
import http.client
import json
import os
import subprocess
import typing
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

from wrtflow_alerts.memory import Memory, say
from wrtflow_alerts.message import MORE, WELL, Message, identify
from wrtflow_alerts.message import text as body
from wrtflow_alerts.rules import CHAIN
from wrtflow_alerts.settings import Settings, iso

# Seconds to wait for a receiver.
PATIENCE = 15

# At most so many waiting messages, and headlines in a message "more".
MOST, _NAMED = 200, 20

_HOUR = 3600

# HTTP status codes that refuse this message for ever.
_UNFIT = (400, 413, 422)


class Refused(Exception):  # noqa: N818 - an answer
    """A receiver will never take this message. The text gives the reason."""


class Away(Exception):  # noqa: N818 - a state of the other side, not an error of this one
    """A receiver takes no message now. The text gives the reason."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a redirected POST would arrive as a GET, without its message."""

    def redirect_request(self, *_: typing.Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def _post(url: str, token: str, content: object) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "wrtflow"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    # The address itself may be a secret.
    host = urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
    request = urllib.request.Request(url, json.dumps(content).encode(), headers)
    try:
        with _opener.open(request, timeout=PATIENCE) as response:
            response.read(1 << 16)
    except urllib.error.HTTPError as error:
        sentence = f"{host} answers {error.code} {error.reason}"
        raise (Refused if error.code in _UNFIT else Away)(sentence) from None
    except urllib.error.URLError as error:
        raise Away(f"{host} is not reached ({error.reason})") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Away(f"{host} does not answer ({error})") from None


def webhook(settings: Settings, message: Message) -> None:
    """POST the message as JSON."""
    _post(settings.webhook_url, settings.webhook_token, message.as_json())


def ntfy(settings: Settings, message: Message) -> None:
    """Publish the message to a topic, see https://docs.ntfy.sh/publish/#publish-as-json."""
    address = urllib.parse.urlsplit(settings.ntfy_url)
    content = {
        "topic": address.path.strip("/"),
        "title": message.title,
        "message": message.text,
        "tags": ["white_check_mark" if message.state == WELL else "rotating_light"],
        **({"click": message.link} if message.link else {}),
    }
    _post(f"{address.scheme}://{address.netloc}/", settings.ntfy_token, content)


def mail(settings: Settings, message: Message) -> None:
    """Hand the message to the machine's sendmail."""
    letter = email.message.EmailMessage()
    letter["Subject"] = f"wrtflow: {message.title}"
    # The same when it is sent again: of two mails with one id, mailboxes show one.
    letter["Message-ID"] = f"<{message.id}@wrtflow.{os.uname().nodename}>"
    letter.set_content(message.text)
    send_mail(settings, letter, settings.mail_to)


def send_mail(settings: Settings, letter: email.message.EmailMessage, to: tuple[str, ...]) -> None:
    """Give a mail to sendmail. Raise Away if it fails."""
    letter["From"] = settings.mail_from or f"wrtflow@{os.uname().nodename}"
    letter["To"] = ", ".join(to)
    letter["Date"] = email.utils.localtime()
    letter["Auto-Submitted"] = "auto-generated"
    command = [settings.sendmail, "-i", "--", *to]
    try:
        done = subprocess.run(command, input=letter.as_bytes(), capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise Away(f"{settings.sendmail} can't be run ({error})") from None
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).decode(errors="replace").split())[-300:]
        raise Away(f"{settings.sendmail} ended with {done.returncode}: {words}")


Receivers = dict[str, Callable[[Settings, Message], None]]


def receivers(settings: Settings) -> Receivers:
    """Return the receivers that are set, by their names."""
    ways: list[tuple[object, str, Callable[[Settings, Message], None]]] = [
        (settings.webhook_url, "webhook", webhook),
        (settings.ntfy_url, "ntfy", ntfy),
        (settings.mail_to, "mail", mail),
    ]
    return {name: send for named, name, send in ways if named}


def put(memory: Memory, message: Message) -> None:
    """Put a message into the queue. Alerts about the chain go before those about the house."""
    place = len(memory.queue)
    if message.rule in CHAIN:
        place = next((at for at, item in enumerate(memory.queue) if _waits_behind(item)), place)
    memory.queue.insert(place, {"message": message.as_json(), "left": None})
    while len(memory.queue) > MOST:
        del memory.queue[-1]
        memory.lost += 1


def _waits_behind(item: dict[str, typing.Any]) -> bool:
    return item["left"] is None and item["message"]["rule"] not in CHAIN


def deliver(settings: Settings, memory: Memory, save: Callable[[], None], now: float) -> None:
    """Send the waiting messages. now: seconds since 1970.

    Each receiver gets its messages in their order. A receiver that is away does not hold up the others. save() is
    called after each message, so that a crash sends at most one message twice.
    """
    ways = receivers(settings)
    memory.sent = [at for at in memory.sent if now - _HOUR < at <= now]
    away: set[str] = set()
    position = 0
    # Messages that some receivers have taken come before those that nobody has taken.
    while position < len(memory.queue) and len(away) < len(ways):
        item = memory.queue[position]
        message, fresh = Message.of(item["message"]), item["left"] is None
        if fresh and message.state != MORE and len(memory.sent) >= settings.at_most:
            if not _sum_up(settings, memory, now):
                break
            continue
        left = []
        for name in sorted(ways) if fresh else item["left"]:
            # Skip a receiver that is not set any more.
            if name in ways and (name in away or not _gives(settings, memory, name, ways[name], message)):
                away.add(name)
                left.append(name)
        taken = len(left) < len(ways)
        if fresh and taken and message.state != MORE:
            memory.sent.append(now)
        if left:
            item["left"] = None if fresh and not taken else left
            position += 1
        else:
            del memory.queue[position]
        save()


def _gives(
    settings: Settings, memory: Memory, name: str, send: Callable[[Settings, Message], None], message: Message
) -> bool:
    """Send a message to a receiver. Return whether the receiver is done with it."""
    try:
        send(settings, message)
    except Refused as why:
        say(4, f'The {name} will never take "{message.title}": {why}. It is not sent again.')
        return True
    except Away as why:
        if memory.away.get(name) != str(why):
            memory.away[name] = str(why)
            say(4, f'The {name} does not take "{message.title}": {why}. It is sent again each minute.')
        return False
    if memory.away.pop(name, None):
        say(5, f"The {name} takes messages again.")
    return True


def _sum_up(settings: Settings, memory: Memory, now: float) -> bool:
    """Replace all messages above the limit by one that names them. Return False if this hour has had such a message."""
    if now - _HOUR < memory.summed <= now:
        return False
    waiting = [Message.of(item["message"]) for item in memory.queue if item["left"] is None]
    count = len(waiting) + memory.lost
    titles = [f"- {message.title}" for message in waiting[:_NAMED]]
    if count > len(titles):
        titles.append(f"- and {count - len(titles)} more")
    since = now - _HOUR
    paragraphs = [
        f"At most {settings.at_most} alerts an hour are sent one by one. These came as well:",
        *titles,
    ]
    title = f"{count} more alert{'' if count == 1 else 's'} in this hour"
    more = Message(
        identify(MORE, now), "", MORE, "", title, iso(since), title,
        body(settings, paragraphs, since, waiting[0].link if count == 1 else ""),
    )  # fmt: skip
    memory.queue = [item for item in memory.queue if item["left"] is not None]
    memory.queue.append({"message": more.as_json(), "left": None})
    memory.summed, memory.lost = now, 0
    return True
