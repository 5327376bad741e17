"""Delivery: batches of finished documents go to Elasticsearch, and each document's answer is read.

Elasticsearch refuses single documents inside an answer of 200, and syslog-ng's own HTTP destinations take that for
delivered. Here a document is delivered when its own answer is 201 (created) or 409 (it is there: its id is made from
the flow). What hinders all documents alike makes the batch wait in syslog-ng's disk buffer; what Elasticsearch holds
against one document moves that one to the spool.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import http.client
import json
import operator
import os
import re
import socket
import ssl
import time
import traceback
import typing
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wrtflow import health, outbox, settings
from wrtflow.spool import Refused, Spool

try:
    from syslogng import LogDestination  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # outside syslog-ng: the command line tool and the tests

    class LogDestination:  # type: ignore[no-redef]
        """Stands in for syslog-ng's class."""

        SUCCESS, QUEUED, NOT_CONNECTED = 3, 4, 5


CREATED, BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, CONFLICT, TOO_LARGE, TOO_MANY = (
    201,
    400,
    401,
    403,
    409,
    413,
    429,
)
SERVER_ERROR = 500

# Refusals of single documents that have nothing to do with the document: they stop when somebody mends the cluster
# or the key (no right to write; no index may be made: none by itself, or the cluster has its limit of shards).
_NOT_THE_DOCUMENT = {"security_exception", "index_not_found_exception", "validation_exception"}

# PyGILState_LOCKED of Python's C interface.
_GIL_WAS_HELD = 0

# Names that need no quoting inside the action line.
_PLAIN = re.compile(rb"[A-Za-z0-9_.=+/-]*").fullmatch


class Document(typing.NamedTuple):
    """A finished flow: the name of its index, its id there, and the JSON object as one line."""

    target: bytes
    id: bytes
    source: bytes

    @classmethod
    def of(cls, refused: Refused) -> Document:
        """Return the document that was put into the spool."""
        return cls(_bytes(refused.index), _bytes(refused.id), _bytes(refused.document))

    def lines(self) -> bytes:
        """Return the two lines that _bulk wants, without the last line's end."""
        return b'{"create":{"_index":"%b","_id":"%b"}}\n%b' % self


class Batch(Sequence[Document]):
    """Documents as the outbox put them together. Each is looked at only where that is necessary: it is costly."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        """Texts: messages' wrtflow.documents."""
        self.body = b"\n".join([*texts, b""])
        self._lines = self.body.count(b"\n")
        self.whole = self._lines % 2 == 0

    def __len__(self) -> int:
        """Count the documents."""
        return (self._lines + 1) // 2

    @typing.overload
    def __getitem__(self, index: int) -> Document: ...

    @typing.overload
    def __getitem__(self, index: slice) -> Sequence[Document]: ...

    def __getitem__(self, index: int | slice) -> Document | Sequence[Document]:
        """Return documents."""
        return list(self)[index]

    def __iter__(self) -> Iterator[Document]:
        """Go through the documents."""
        lines = self.body.split(b"\n")
        for action, source in zip(lines[0::2], lines[1::2], strict=False):
            found = _action(action)
            target, identity = found.groups() if found else (b"", b"")
            yield Document(target, identity, source)


_action = re.compile(rb'\{"create":\{"_index":"([^"]*)","_id":"([^"]*)"\}\}').fullmatch

# What makes it the same document: index and id.
_key = operator.itemgetter(0, 1)


def fit(documents: Sequence[Document]) -> bool:
    """Whether the documents can be parts of a request without breaking each other."""
    if isinstance(documents, Batch):
        return documents.whole
    targets, ids, sources = zip(*documents, strict=True)
    return bool(
        all(targets)
        and all(ids)
        and all(sources)
        and _PLAIN(b"".join(ids + tuple(set(targets))))
        and not any(b"\n" in source for source in sources)
    )


class Answer(typing.NamedTuple):
    """What Elasticsearch says of one document, or of a whole request: HTTP status, type of error, reason."""

    status: int
    kind: str = ""
    reason: str = ""

    def __str__(self) -> str:
        """For people, as `400 document_parsing_exception: failed to parse …`."""
        return f"{self.status} {self.kind}: {self.reason[:500]}".rstrip(": ")


_CREATED = Answer(CREATED)
_UNFIT = Answer(BAD_REQUEST, "unfit", "no name of an index, no id, or not one line")


class Unavailable(Exception):  # noqa: N818 - a state of the other side, not an error of this one
    """Documents have to wait. fault tells one cause from another; the text is a sentence for people."""

    def __init__(self, fault: str, sentence: str) -> None:
        """See the class."""
        super().__init__(sentence)
        self.fault = fault


class Unfit(Exception):  # noqa: N818 - as above
    """The request is refused for what is in it: a part of it may pass."""

    def __init__(self, answer: Answer) -> None:
        """See the class."""
        super().__init__(str(answer))
        self.answer = answer


class Client:
    """One kept connection to Elasticsearch's _bulk, over TLS with an API key."""

    def __init__(self, chosen: settings.Delivery) -> None:
        """Nothing is read or connected before it is needed."""
        self._settings = chosen
        self._url = urllib.parse.urlsplit(chosen.url)
        self._path = (
            f"{self._url.path.rstrip('/')}/_bulk?filter_path=error,errors,items.*.status,items.*.error"
        )
        self._connection: http.client.HTTPSConnection | None = None
        self._headers: dict[str, str] = {}
        self._opened_with: object = None

    def fingerprint(self) -> object:
        """Differs as soon as the key's or the authority's file is another one."""
        return tuple(map(_file_fingerprint, (self._settings.ca_file, self._settings.api_key_file)))

    def close(self) -> None:
        """Give the connection up; the next request makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def bulk(self, documents: Sequence[Document]) -> list[Answer]:
        """Create the documents: one answer each, in their order.

        Unavailable: it is unknown what became of them, or nothing did. Unfit: none was taken.
        """
        batch = (
            documents if isinstance(documents, Batch) else Batch([document.lines() for document in documents])
        )
        status, content = self._request(batch.body)
        try:
            answer = json.loads(content)
            error = answer.get("error")
            items = answer.get("items", [])
            # The usual case is worth a short cut: what Python does here costs more than all else of the delivery.
            answers = (
                [_CREATED] * len(items)
                if answer.get("errors") is False
                else [_item(item["create"]) for item in items]
            )
        except (ValueError, LookupError, TypeError, AttributeError):
            error, answers = None, []
        if status == http.HTTPStatus.OK and len(answers) == len(documents):
            return answers
        whole = (
            Answer(status, *_error(error))
            if error
            else Answer(status, "", http.client.responses.get(status, ""))
        )
        # A 400 that isn't Elasticsearch's own says nothing about the documents.
        if status == TOO_LARGE or (status == BAD_REQUEST and error):
            raise Unfit(whole)
        if status == http.HTTPStatus.OK:
            raise Unavailable("answer", f"What answers at {self._settings.url} is not Elasticsearch.")
        raise _unavailable(whole, self._settings)

    def _request(self, body: bytes) -> tuple[int, bytes]:
        if self.fingerprint() != self._opened_with:
            self.close()
        kept = self._connection is not None
        try:
            return self._exchange(body)
        except TimeoutError as error:
            self.close()
            seconds = self._settings.timeout
            raise Unavailable(
                "timeout", f"{self._settings.url} does not answer within {seconds:g} s."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if kept:
                # A kept connection may have been closed since its last answer: that alone says nothing.
                return self._request(body)
            raise _unreached(error, self._settings) from error

    def _exchange(self, body: bytes) -> tuple[int, bytes]:
        connection = self._connection or self._open()
        connection.request("POST", self._path, body, self._headers)
        response = connection.getresponse()
        content = response.read()
        if connection.sock is None:
            self._connection = None
        return response.status, content

    def _open(self) -> http.client.HTTPSConnection:
        opened_with = self.fingerprint()
        if self._url.scheme != "https" or not self._url.hostname:
            raise Unavailable("url", f"{self._settings.url} is no https:// address of Elasticsearch.")
        try:
            key = Path(self._settings.api_key_file).read_text(encoding="ascii").strip()
            context = ssl.create_default_context(cafile=self._settings.ca_file)
            # From Python 3.13 on authorities without the key usage extension are refused: Elastic's own are such.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        except (OSError, ValueError) as error:
            raise Unavailable(
                "files",
                f"The API key {self._settings.api_key_file} or the authority's certificate {self._settings.ca_file}"
                f" can't be used ({error}): run the collector's playbook.",
            ) from error
        self._headers = {
            "Authorization": f"ApiKey {key}",
            "Content-Type": "application/x-ndjson",
            "Accept": "application/json",
        }
        connection = http.client.HTTPSConnection(
            self._url.hostname, self._url.port, timeout=self._settings.timeout, context=context
        )
        connection.connect()
        self._connection, self._opened_with = connection, opened_with
        return connection


def _unreached(error: Exception, chosen: settings.Delivery) -> Unavailable:
    match error:
        case ssl.SSLCertVerificationError():
            return Unavailable(
                "certificate",
                f"The certificate of {chosen.url} is not trusted ({error.verify_message.rstrip('.')};"
                f" the authority's is {chosen.ca_file}): run the playbook again, and look who answers there.",
            )
        case socket.gaierror():
            return Unavailable("name", f"The name in {chosen.url} has no address ({error.strerror}).")
    return Unavailable(type(error).__name__, f"Elasticsearch at {chosen.url} is not reached ({error}).")


def _unavailable(answer: Answer, chosen: settings.Delivery) -> Unavailable:
    if answer.status == UNAUTHORIZED:
        sentence = (
            f"Elasticsearch refuses the API key in {chosen.api_key_file} ({answer}):"
            " run the playbook, it makes a new one."
        )
    elif answer.status == FORBIDDEN or answer.kind == "security_exception":
        sentence = f"Elasticsearch doesn't let the API key in {chosen.api_key_file} write ({answer}): run the playbook."
    elif answer.status == TOO_MANY:
        sentence = f"Elasticsearch takes no documents now, its disk is full or it is overloaded ({answer})."
    else:
        sentence = f"Elasticsearch at {chosen.url} can't take documents ({answer})."
    return Unavailable(f"{answer.status} {answer.kind}", sentence)


class Delivery:
    """What becomes of documents: settled (indexed, there already, spooled) or waiting to be sent again."""

    def __init__(
        self,
        chosen: settings.Delivery,
        spool: Spool,
        client: Client | None = None,
        clock: Callable[[], float] = time.monotonic,
        behind: Callable[[], int] = lambda: 0,
    ) -> None:
        """Clock tells seconds; behind, how many documents wait behind the batch."""
        self._settings = chosen
        self._client = client or Client(chosen)
        self._spool = spool
        self._clock = clock
        self._behind = behind
        self._batch: list[bytes | Document] = []
        self._waiting: Sequence[Document] = []
        self._settled: set[tuple[bytes, bytes]] = set()
        # Settled as well, all of each; their keys are read when they are asked for.
        self._created: list[Sequence[Document]] = []
        self._failures = 0
        self._next_try = 0.0
        self._tried_with: object = None
        self._last_error: dict[str, str] = {}
        self._last_success = ""
        self._rarely = health.Rarely()
        self.condition = health.Condition("Elasticsearch takes documents again")
        self.numbers: collections.Counter[str] = collections.Counter()
        self.refusals: collections.Counter[str] = collections.Counter()

    def add(self, documents: bytes | Document) -> None:
        """Put a document into the batch, or documents as the outbox put them together."""
        self._batch.append(documents)

    def forget(self) -> None:
        """Empty the batch: its documents will be added again."""
        self._batch = []

    def flush(self) -> bool:
        """Settle the batch. False: nothing of it may be forgotten, it is to be added again after retry()."""
        batch, self._batch = _documents(self._batch), []
        unsettled = self._unsettled(batch)
        if unsettled and not self._try(unsettled, len(unsettled)):
            return False
        self._created.clear()
        if self._settled:
            self._settled.difference_update(map(_key, batch))
        return True

    def retry(self) -> bool:
        """Settle what waits, when it is time to try. True: nothing waits any more."""
        if not self._waiting:
            return True
        if self._clock() < self._next_try and self._client.fingerprint() == self._tried_with:
            return False
        # Few first: who was overloaded isn't at once again, and what breaks on a large request passes in small ones.
        return self._try(self._waiting, 1)

    def settle(self, documents: Sequence[Document], first: int) -> None:
        """Send the documents and spool what is refused. Unavailable: those that aren't settled have to wait.

        The first request has at most first of them, each further one four times as many, as far as requests go.
        """
        if documents and not fit(documents):
            unfit = [document for document in documents if not fit([document])]
            self._read(unfit, [_UNFIT] * len(unfit))
            documents = self._unsettled(documents)
        while documents:
            first = min(first, self._settings.batch_lines)
            if len(documents) <= first:
                self._send(documents)
                break
            self._send(documents[:first])
            documents = documents[first:]
            first *= 4

    def _unsettled(self, documents: Sequence[Document]) -> Sequence[Document]:
        while self._created:
            self._settled.update(map(_key, self._created.pop()))
        if not self._settled:
            return documents
        return [document for document in documents if _key(document) not in self._settled]

    def _send(self, documents: Sequence[Document]) -> None:
        parts = [documents]
        while parts:
            part = parts.pop()
            try:
                answers = self._client.bulk(part)
            except Unfit as unfit:
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                    continue
                answers = [unfit.answer]
            self._read(part, answers)

    def report(self) -> health.Report:
        """Return the numbers for the health record; they count from the first start on."""
        documents, size = self._spool.size()
        return {
            "state": "waiting" if self.condition.fault else "delivering" if self._last_success else "idle",
            "since": health.timestamp(self.condition.since),
            "reason": self.condition.sentence,
            "last_error": self._last_error,
            "last_success": self._last_success,
            **{
                name: self.numbers[name]
                for name in ("indexed", "duplicates", "refused", "lost", "failed_requests")
            },
            "refusals": dict(self.refusals),
            "spool": {"documents": documents, "bytes": size},
        }

    def resume(self, report: object) -> None:
        """Go on counting from an earlier report."""
        if isinstance(report, dict):
            for name in ("indexed", "duplicates", "refused", "lost", "failed_requests"):
                if isinstance(report.get(name), int):
                    self.numbers[name] = report[name]
            if isinstance(report.get("refusals"), dict):
                self.refusals.update({str(kind): int(number) for kind, number in report["refusals"].items()})

    def close(self) -> None:
        """Give the connection up."""
        self._client.close()

    def _try(self, documents: Sequence[Document], first: int) -> bool:
        self._tried_with = self._client.fingerprint()
        try:
            self.settle(documents, first)
        except Unavailable as unavailable:
            self._wait(documents, unavailable)
            return False
        except Exception as error:
            # syslog-ng drops a batch whose delivery raises: whatever it is, the batch waits.
            place = traceback.extract_tb(error.__traceback__)[-1]
            self._wait(
                documents,
                Unavailable(
                    repr(error),
                    f"Delivery fails ({error!r} in {place.name}, {place.filename}:{place.lineno}).",
                ),
            )
            return False
        self._failures = 0
        self._waiting = []
        if not self._last_success:
            health.changed()
        self._last_success = health.timestamp(time.time())
        self.condition.right()
        return True

    def _wait(self, documents: Sequence[Document], unavailable: Unavailable) -> None:
        self._waiting = self._unsettled(documents)
        if len(self._waiting) < len(documents):
            self._failures = 0
        self._next_try = self._clock() + min(2.0**self._failures, self._settings.retry_max)
        self._failures = min(self._failures + 1, 30)
        self.numbers["failed_requests"] += 1
        self._last_error = {"at": health.timestamp(time.time()), "what": str(unavailable)}
        if unavailable.fault != self.condition.fault:
            number = len(self._waiting) + self._behind()
            self.condition.wrong(unavailable.fault, f"{unavailable} {number} documents wait.")

    def _read(self, documents: Sequence[Document], answers: Sequence[Answer]) -> None:
        """Take one request's answers in; Unavailable when any says that its document has to wait."""
        if answers.count(_CREATED) == len(documents):
            self.numbers["indexed"] += len(documents)
            self._created.append(documents)
            return
        refused = []
        waiting = None
        for document, answer in zip(documents, answers, strict=True):
            if answer.status == CREATED:
                self.numbers["indexed"] += 1
            elif answer.status == CONFLICT:
                self.numbers["duplicates"] += 1
            elif (
                answer.status in {UNAUTHORIZED, TOO_MANY}
                or answer.status >= SERVER_ERROR
                or answer.kind in _NOT_THE_DOCUMENT
            ):
                waiting = waiting or answer
                continue
            else:
                refused.append((document, answer))
            self._settled.add(_key(document))
        if refused:
            self._refuse(refused)
        if waiting:
            raise _unavailable(waiting, self._settings)

    def _refuse(self, refused: list[tuple[Document, Answer]]) -> None:
        self.numbers["refused"] += len(refused)
        self.refusals.update(f"{answer.status} {answer.kind}".strip() for _, answer in refused)
        for document, answer in refused:
            self._last_error = {
                "at": health.timestamp(time.time()),
                "what": f"{_text(document.id)}: {answer}",
            }
            self._rarely.say(
                f"{answer.status} {answer.kind}",
                health.WARNING,
                f"Elasticsearch refuses the document {_text(document.id)} for {_text(document.target)} ({answer}):"
                " it is kept, see `wrtflow spool list`.",
            )
        now = time.time()
        try:
            lost = self._spool.add(
                Refused(
                    now,
                    _text(document.target),
                    _text(document.id),
                    answer.status,
                    answer.kind,
                    answer.reason,
                    _text(document.source),
                )
                for document, answer in refused
            )
        except OSError as error:
            lost = len(refused)
            self._rarely.say("spool", health.ERROR, f"Refused documents can't be kept and are lost: {error}.")
        if lost:
            self.numbers["lost"] += lost
            self._rarely.say(
                "full", health.ERROR, "The spool of refused documents is full: the oldest are dropped."
            )


class Elasticsearch(LogDestination):  # type: ignore[misc]
    """The destination that 90-store.conf names. syslog-ng calls it from one thread."""

    _delivery: Delivery
    _record: Path
    _tally: outbox.Tally
    _attached = False
    # Documents of the batch that the tally has, and how many leave room for another message in a request.
    _counted = 0
    _enough = 0
    # Outlives a reload, as what it counts does.
    _rarely = health.Rarely()

    def init(self, _options: object) -> bool:
        """Read the settings. Called again when syslog-ng reloads."""
        try:
            chosen = settings.load()
        except settings.SettingsError as error:
            health.say(health.ERROR, f"syslog-ng can't start with these settings: {error}.")
            return False
        self._record = chosen.state_file("health.json")
        self._tally = outbox.tally(chosen.tally_file)
        self._enough = max(0, chosen.delivery.batch_lines - outbox.TOGETHER)
        self._delivery = Delivery(
            chosen.delivery,
            Spool(chosen.state_file("refused"), chosen.delivery.spool_size),
            behind=lambda: max(0, self._tally.waiting - self._counted),
        )
        self._delivery.resume(health.read(self._record).get("delivery"))
        health.register("delivery", self._delivery.report)
        health.register("queue", self._queue)
        health.start(self._record)
        return True

    def _queue(self) -> health.Report:
        said = health.queue()
        if said.get("waiting") == 0 and not self._counted:
            self._tally.empty()
        numbers = queue(said, self._tally.report())
        if numbers.get("dropped"):
            self._rarely.say(
                "dropped",
                health.ERROR,
                f"The disk buffer is full: {numbers['dropped']} documents have been dropped since syslog-ng's start.",
            )
        return numbers

    def deinit(self) -> None:
        """Keep the numbers for the next start."""
        # Only ours: to collect the others' would ask syslog-ng, which is waiting for this to return.
        with contextlib.suppress(OSError):
            health.write(self._record, {**health.read(self._record), "delivery": self._delivery.report()})

    def open(self) -> bool:
        """Whether it makes sense to give documents. syslog-ng asks every second while they wait."""
        self._forget()
        ready = self._delivery.retry()
        if ready and not self._attached:
            # syslog-ng attaches its thread to Python for each call anew, which costs more than the call itself.
            # Once more, and it stays attached until close().
            ctypes.pythonapi.PyGILState_Ensure()
            self._attached = True
        return ready

    def close(self) -> None:
        """End the connection, when syslog-ng stops or documents have to wait."""
        self._forget()
        self._delivery.close()
        if self._attached:
            ctypes.pythonapi.PyGILState_Release(_GIL_WAS_HELD)
            self._attached = False

    def send(self, message: typing.Any) -> int:
        """Take one message into the batch, and settle it when it fills a request."""
        text = message.get("wrtflow.documents", b"")
        if text:
            self._delivery.add(text)
            self._counted += (text.count(b"\n") + 1) // 2
        else:
            # Out of a buffer that was written before documents went together.
            parts = ("wrtflow.index", "wrtflow.id", "wrtflow.document")
            self._delivery.add(Document(*(message.get(part, b"") for part in parts)))
        return self.flush() if self._counted > self._enough else typing.cast("int", self.QUEUED)

    def flush(self) -> int:
        """Settle the batch; NOT_CONNECTED makes syslog-ng keep it and ask open() again."""
        if not self._delivery.flush():
            return typing.cast("int", self.NOT_CONNECTED)
        if self._counted:
            self._tally.settled(self._counted)
            self._counted = 0
        return typing.cast("int", self.SUCCESS)

    def _forget(self) -> None:
        self._delivery.forget()
        self._counted = 0


def _documents(batch: Sequence[bytes | Document]) -> Sequence[Document]:
    texts = [item for item in batch if isinstance(item, bytes)]
    if len(texts) == len(batch):
        return Batch(texts) if texts else []
    return [
        document for item in batch for document in (Batch([item]) if isinstance(item, bytes) else (item,))
    ]


def queue(said: dict[str, int], counted: dict[str, int]) -> dict[str, int]:
    """Join what syslog-ng says of the disk buffer and what the tally says of the documents in it.

    Every message has at least one: of a buffer from before there was a tally that is all that is known.
    """
    waiting = max(said.get("waiting", 0), counted.get("waiting", 0))
    return {**said, **counted, "waiting": waiting} if said else {}


def _item(item: dict[str, typing.Any]) -> Answer:
    return Answer(item["status"], *_error(item["error"])) if "error" in item else Answer(item["status"])


def _error(error: object) -> tuple[str, str]:
    if not isinstance(error, dict):
        return "", str(error)
    reasons = [str(error.get("reason") or "")]
    cause = error.get("caused_by")
    if isinstance(cause, dict) and cause.get("reason"):
        reasons.append(str(cause["reason"]))
    return str(error.get("type") or ""), ": ".join(reasons)


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _file_fingerprint(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
