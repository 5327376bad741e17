"""Delivery: batches of finished documents go to Elasticsearch, and each document's answer is read.

Elasticsearch refuses single documents inside an answer of 200. A document is delivered when its own answer is 201
(created) or 409 (it is there: its id is made from the flow). Any other answer is a fault:

* Elasticsearch's or the key's (no connection, 401, 429, 5xx, security_exception): the batch waits in the disk buffer.
* The index's: it has a write block, is closed, or names a pipeline or alias that does not exist. Its documents wait. If
  they are of an older month, and fewer than the documents that a newer month takes in the same batch, they go to the
  spool: latecomers hold up nobody.
* The document's or the index's (a mapping conflict, too large): if the index takes another document of the batch, the
  refused ones are at fault and go to the spool. If it takes none, it may refuse _CREDIT documents in a row after one
  that it took: they go to the spool. After that its template is at fault, and documents wait. Each further try takes
  new documents along, so a bad document alone waits no longer than until the next good one.
"""

from __future__ import annotations

import collections
import functools
import http.client
import json
import re
import socket
import ssl
import time
import traceback
import typing
import urllib.parse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from wrtflow import health, settings
from wrtflow.outbox import KEPT, TOGETHER, Numbers
from wrtflow.state import Refused, Spool

# Documents of one request at most.
LINES = 500
# Seconds that _bulk waits for an index's shard, and for the whole exchange from the first byte sent.
_SHARD, LIMIT = 5, 15.0
# Bytes of an answer at most: an error has about 1,000.
ANSWER = 16 << 20
# The longest pause between two tries, in seconds.
PAUSE = 30.0
# Documents that an index may refuse in a row, after one that it took, before it is the index that is at fault.
_CREDIT = 20

_PATH = f"/_bulk?timeout={_SHARD}s&filter_path=error,errors,items.*.status,items.*.error"
# Elasticsearch's answer about a document in the usual case.
_IS_CREATED = b'{"create":{"status":201}}'
# The index has no shard to write to: no node has room for it, or the one that had it is away.
_NO_SHARD = "unavailable_shards_exception"
# How refusals begin that are an index's fault, and what ends them.
_MENDS = {
    "cluster_block_exception": "take its block away (index.blocks.write)",
    "index_closed_exception": "open it",
    "index_not_found_exception": "let the key make it, or make it",
    "invalid_index_name_exception": "change its prefix",
    "validation_exception": "delete an old month, or raise the cluster's limit of shards",
    "illegal_argument_exception: pipeline with id ": "make the pipeline, or take it out of the template",
    "illegal_argument_exception: no write index is defined for alias ": "give the alias a write index",
    _NO_SHARD: "free space on its disk, or delete an old month",
}

# The first of a document's two lines.
_action = re.compile(r'\{"create":\{"_index":"([^"]*)","_id":"([^"]*)"\}\}')
# Of the first document: its index, and when its flow ended.
_first = re.compile(rb'\{"create":\{"_index":"([^"]*)[^\n]*\n(?:[^\n]*?"@timestamp":"([0-9TZ:.-]{20,24})")?')


class Document(typing.NamedTuple):
    """A finished flow: the name of its index, its id there, and the JSON object as one line."""

    target: str
    id: str
    source: str

    def lines(self) -> str:
        """Return the two lines that _bulk takes."""
        return f'{{"create":{{"_index":"{self.target}","_id":"{self.id}"}}}}\n{self.source}\n'


class Batch:
    """Documents as _bulk takes them. Each is looked at only when that is necessary: it is costly."""

    def __init__(self, body: bytes, size: int) -> None:
        """body: two lines of each document; size: documents."""
        self.body, self.size = body, size
        first = _first.match(body)
        # Of the first document; empty: it has none.
        self.target = first[1].decode(errors="surrogateescape") if first else ""
        self._ended = first[2] if first else None

    @classmethod
    def of(cls, documents: Sequence[Document]) -> Batch:
        """Put documents together."""
        lines = "".join(document.lines() for document in documents)
        return cls(lines.encode(errors="surrogateescape"), len(documents))

    @functools.cached_property
    def documents(self) -> Sequence[Document]:
        """Each document. One without index and id was never one."""
        lines = self.body.decode(errors="surrogateescape").split("\n")
        names = (_action.fullmatch(action) or ("", "", "") for action in lines[0::2])
        return [Document(name[1], name[2], source) for name, source in zip(names, lines[1::2], strict=False)]

    def age(self) -> int:
        """Return the ms since the end of the first flow, the oldest of a batch; 0 if it has no end."""
        if not self._ended:
            return 0
        return max(0, round((time.time() - datetime.fromisoformat(self._ended.decode()).timestamp()) * 1000))


class Answer(typing.NamedTuple):
    """What Elasticsearch says of one document, or of a whole request: HTTP status, type of error, reason."""

    status: int
    kind: str = ""
    reason: str = ""

    @classmethod
    def of(cls, status: int, error: object) -> Answer:
        """Read an error, if there is one, and its cause."""
        if not isinstance(error, dict):
            return cls(status, "", str(error or ""))
        parts = (error, error.get("caused_by"))
        reasons = [part["reason"] for part in parts if isinstance(part, dict) and part.get("reason")]
        return cls(status, str(error.get("type") or ""), ": ".join(map(str, reasons)))

    @property
    def passing(self) -> bool:
        """Whether it is the cluster's or the key's fault."""
        away = self.status in (401, 429) or (self.status >= 500 and self.kind != _NO_SHARD)
        return away or self.kind == "security_exception"

    @property
    def index_mend(self) -> str | None:
        """What to do, where it is the index's fault."""
        text = f"{self.kind}: {self.reason}"
        return next((mend for fault, mend in _MENDS.items() if text.startswith(fault)), None)

    @property
    def name(self) -> str:
        """Status and type, for the numbers."""
        return f"{self.status} {self.kind[:80]}".strip()

    def __str__(self) -> str:
        """For people, as `400 document_parsing_exception: failed to parse …`."""
        return f"{self.status} {self.kind}: {self.reason[:500]}".rstrip(": ")


_Refusals = list[tuple[Document, Answer]]

_CREATED = Answer(201)
_UNFIT = Answer(400, "unfit", "no name of an index, no id, or not one line")


class Unavailable(Exception):  # noqa: N818 - a state of the other side, not an error of this one
    """Documents have to wait. fault tells one cause from another; the text is a sentence for people."""

    def __init__(self, fault: str, sentence: str) -> None:
        """Keep the fault beside the sentence."""
        super().__init__(sentence)
        self.fault = fault


class _Socket(ssl.SSLSocket):
    """A connection with a limit on a whole exchange: a timeout of each operation lets an answer drip for ever."""

    ends = 0.0

    def recv_into(self, *arguments: typing.Any, **options: typing.Any) -> int:
        self._limit()
        return super().recv_into(*arguments, **options)

    def send(self, *arguments: typing.Any, **options: typing.Any) -> int:
        self._limit()
        return super().send(*arguments, **options)

    def _limit(self) -> None:
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)


class Client:
    """One kept connection to Elasticsearch's _bulk, over TLS with an API key."""

    def __init__(self, chosen: settings.Delivery) -> None:
        """Nothing is read or connected before it is needed."""
        self._settings = chosen
        # The node in use is the first.
        self._urls = collections.deque((chosen.url, *chosen.more_urls))
        self._connection: http.client.HTTPSConnection | None = None
        self._headers: dict[str, str] = {}

    def close(self) -> None:
        """Give up the connection. The next request makes a new one, with the key and the authority as they are then."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def bulk(self, batch: Batch) -> list[Answer] | Answer:
        """Create the documents. Return one answer each, in their order.

        A single answer refuses the request for what is in it. Unavailable: nothing is known to be stored. The next
        request then goes to the next node.
        """
        try:
            return self._bulk(batch)
        except Unavailable:
            self.close()
            self._urls.rotate(-1)
            raise

    def _bulk(self, batch: Batch) -> list[Answer] | Answer:
        status, content = self._request(batch.body)
        # To read this as JSON would cost more than all else of the delivery.
        if status == 200 and content.count(_IS_CREATED) == batch.size:
            return [_CREATED] * batch.size
        try:
            answer = json.loads(content)
            error = answer.get("error")
            items = [item["create"] for item in answer.get("items", [])]
            answers = [Answer.of(item["status"], item.get("error")) for item in items]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            error, answers = None, []
        if status == 200 and len(answers) == batch.size:
            return answers
        whole = Answer.of(status, error or http.client.responses.get(status, ""))
        # A 400 that isn't Elasticsearch's own says nothing about the documents.
        if status == 413 or (status == 400 and error):
            return whole
        if status == 200:
            raise Unavailable("answer", f"What answers at {self._urls[0]} is not Elasticsearch.")
        raise _unavailable(whole, batch.target, self._settings.api_key_file)

    def _request(self, body: bytes) -> tuple[int, bytes]:
        kept = self._connection if self._connection and self._connection.sock else None
        try:
            connection = kept or self._connected()
            typing.cast("_Socket", connection.sock).ends = time.monotonic() + LIMIT
            path = urllib.parse.urlsplit(self._urls[0]).path.rstrip("/") + _PATH
            connection.request("POST", path, body, self._headers)
            response = connection.getresponse()
            content = response.read(ANSWER)
            if response.length and len(content) < ANSWER:
                raise http.client.IncompleteRead(content, response.length)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A kept connection may have been closed since its last answer: that alone says nothing.
            if kept and not isinstance(error, TimeoutError):
                return self._request(body)
            raise self._unreached(error) from error
        if len(content) == ANSWER:
            raise Unavailable("large", f"What answers at {self._urls[0]} does not come to an end.")
        return response.status, content

    def _connected(self) -> http.client.HTTPSConnection:
        try:
            key = Path(self._settings.api_key_file).read_text(encoding="ascii").strip()
            context = ssl.create_default_context(cafile=self._settings.ca_file)
            # From Python 3.13 on authorities without the key usage extension are refused: Elastic's own are such.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        except (OSError, ValueError) as error:
            files = f"{self._settings.api_key_file} or the authority's certificate {self._settings.ca_file}"
            sentence = f"The API key {files} can't be used ({error}): run the collector's playbook."
            raise Unavailable("files", sentence) from error
        context.sslsocket_class = _Socket
        formats = {"Content-Type": "application/x-ndjson", "Accept": "application/json"}
        self._headers = {"Authorization": f"ApiKey {key}", **formats}
        host = urllib.parse.urlsplit(self._urls[0])
        self._connection = http.client.HTTPSConnection(
            host.hostname or "", host.port, timeout=LIMIT, context=context
        )
        self._connection.connect()
        return self._connection

    def _unreached(self, error: Exception) -> Unavailable:
        url = self._urls[0]
        match error:
            case TimeoutError():
                sentence = f"{url} does not answer within {LIMIT:g} s."
            case ssl.SSLCertVerificationError():
                why = f"{error.verify_message.rstrip('.')}; the authority's is {self._settings.ca_file}"
                what = "run the playbook again, and look who answers"
                sentence = f"The certificate of {url} is not trusted ({why}): {what}."
            case socket.gaierror():
                sentence = f"The name in {url} has no address ({error.strerror})."
            case _:
                sentence = f"Elasticsearch at {url} is not reached ({error})."
        return Unavailable(type(error).__name__, sentence)


class Store:
    """What becomes of documents: settled (indexed, there already, spooled) or waiting to be sent again."""

    def __init__(self, chosen: settings.Delivery, kept: Spool, numbers: Numbers | None = None) -> None:
        """kept: where refused documents go."""
        self.numbers = numbers or Numbers()
        self._key = chosen.api_key_file
        self._client = Client(chosen)
        self._spool = kept
        self._batch: list[bytes] = []
        self._odd: _Refusals = []
        # Documents in the batch.
        self.size = 0
        # Documents that are through, of a batch that waits for others; whether Elasticsearch has them.
        self._settled: dict[Document, bool] = {}
        # How many documents an index may refuse.
        self._credit: collections.Counter[str] = collections.Counter()
        # Seconds from the last failure to the next try; 0: it did not fail.
        self._pause = 0.0
        self._next_try = 0.0
        self._last_success = ""
        self.condition = health.Condition("Elasticsearch takes documents again")

    def add(self, text: bytes) -> bool:
        """Put documents into the batch, as the outbox put them together. Return whether they fill a request."""
        newlines = text.count(b"\n")
        if newlines % 2:
            self._batch.append(text)
            self.size += newlines // 2 + 1
        elif text:
            self._odd.append((Document("", "", text.decode(errors="surrogateescape")), _UNFIT))
        return self.size > LINES - TOGETHER

    def flush(self) -> bool:
        """Settle the batch. False: nothing of it may be forgotten, it is to be added again once it is due()."""
        batch = Batch(b"\n".join([*self._batch, b""]), self.size)
        try:
            self._settle(batch)
        except Exception as error:
            # syslog-ng drops a batch whose delivery raises: whatever it is, the batch waits.
            self._wait(error)
            return False
        self._refuse(self._odd)
        if self._settled:
            for document in batch.documents:
                self._settled.pop(document, None)
        self.numbers.add("waiting", -self.size)
        self._forget()
        return True

    def due(self) -> bool:
        """Whether it is time to send: the pause after a failure is over."""
        return time.monotonic() >= self._next_try

    def close(self) -> None:
        """Give up the connection and the batch: its documents will be added again."""
        self._client.close()
        self._forget()

    def report(self) -> health.Report:
        """Return the numbers for the health record; they count from the first start on."""
        documents, size = self._spool.size()
        return {
            "state": "waiting" if self.condition.fault else "delivering" if self._last_success else "idle",
            "since": health.timestamp(self.condition.since),
            "reason": self.condition.sentence,
            "last_success": self._last_success,
            **{name: self.numbers[name] for name in KEPT if name != "dropped"},
            "refusals": self.numbers.under("refusals."),
            "spool": {"documents": documents, "bytes": size},
            "fault": f"refused documents can't be kept: {self._spool.fault}" if self._spool.fault else None,
        }

    def resend(self) -> None:
        """Send what is in the spool again. What is refused again is kept again. Unavailable: the rest is kept, too."""
        for number, kept in self._spool.batches(LINES):
            refused: _Refusals = []
            documents = [Document(each.index, each.id, each.document) for each in kept]
            # A document that would break the request does not come out of a batch as it went in.
            fit = [each for each in documents if all(each) and Batch.of([each]).documents == [each]]
            self._send(Batch.of(fit), LINES, refused)
            self._refuse(refused + [(each, _UNFIT) for each in documents if each not in fit])
            self._spool.forget(number)

    def _forget(self) -> None:
        self._batch, self._odd, self.size = [], [], 0

    def _wait(self, error: Exception) -> None:
        if not isinstance(error, Unavailable):
            place = traceback.extract_tb(error.__traceback__)[-1]
            sentence = f"Delivery fails ({error!r}, {place.filename}:{place.lineno})."
            error = Unavailable(repr(error), sentence)
        self._pause = min(max(1.0, 2 * self._pause), PAUSE)
        self._next_try = time.monotonic() + self._pause
        self.numbers.add("failed_requests")
        number = max(self.size, self.numbers["waiting"])
        self.condition.wrong(error.fault, f"{error} {number} documents wait.")
        self.close()

    def _settle(self, batch: Batch) -> None:
        """Send the documents, and spool what is refused. Unavailable: those that aren't settled have to wait."""
        before = len(self._settled)
        if before:
            batch = Batch.of([document for document in batch.documents if document not in self._settled])
        if not batch.size:
            return
        refused: _Refusals = []
        try:
            # Few first: they don't overload who was overloaded, and pass where a large request breaks.
            self._send(batch, 1 if self._pause else LINES, refused)
        finally:
            waits = self._judge(refused)
            if len(self._settled) > before:
                self._pause = 0.0
        if waits:
            raise waits
        self._pause = 0.0
        self._last_success = health.timestamp(time.time())
        self.condition.right()

    def _send(self, batch: Batch, first: int, refused: _Refusals) -> None:
        """Send first documents, then four times as many, and so on, as far as requests go. Note what is refused."""
        ends = time.monotonic() + LIMIT
        begin = 0
        while begin < batch.size:
            if time.monotonic() > ends:
                raise Unavailable("slow", "Elasticsearch is slow.")
            whole = begin == 0 and batch.size <= first
            part = batch if whole else Batch.of(batch.documents[begin : begin + first])
            answers = self._client.bulk(part)
            self.numbers.delay = max(self.numbers.delay, part.age())
            if not isinstance(answers, list):
                if part.size > 1:
                    first = part.size // 2
                    continue
                answers = [answers]
            if whole and answers.count(_CREATED) == part.size:
                # The usual case: nobody will ask which documents these were.
                self.numbers.add("indexed", part.size)
                self._credit[part.target] = _CREDIT
            else:
                self._read(part, answers, refused)
            begin += part.size
            first = min(4 * first, LINES)

    def _read(self, part: Batch, answers: Sequence[Answer], refused: _Refusals) -> None:
        """Take one request's answers in; Unavailable when any says that its document has to wait for the cluster."""
        waiting = None
        for document, answer in zip(part.documents, answers, strict=True):
            if answer.status in (201, 409):
                self.numbers.add("indexed" if answer.status == 201 else "duplicates")
                self._settled[document] = True
                self._credit[document.target] = _CREDIT
            elif answer.passing:
                waiting = waiting or (answer, document.target)
            else:
                refused.append((document, answer))
        if waiting:
            raise _unavailable(*waiting, self._key)

    def _judge(self, refused: _Refusals) -> Unavailable | None:
        """Spool the refused documents that are at fault themselves. Return why the others wait."""
        taken = collections.Counter(document.target for document, there in self._settled.items() if there)
        own: _Refusals = []
        for target in {document.target for document, _ in refused}:
            pairs = [pair for pair in refused if pair[0].target == target]
            others = [pair for pair in pairs if not pair[1].index_mend]
            newer = sum(number for index, number in taken.items() if index > target)
            if not target or len(pairs) < newer:
                own += pairs
            elif taken[target]:
                own += others
            elif len(others) <= self._credit[target]:
                self._credit[target] -= len(others)
                own += others
        self._refuse(own)
        self._settled.update((document, False) for document, _ in own)
        for document, answer in refused:
            if document not in self._settled:
                return _unavailable(answer, document.target, self._key, index=True)
        return None

    def _refuse(self, refused: _Refusals) -> None:
        """Put documents into the spool."""
        if not refused:
            return
        self.numbers.add("refused", len(refused))
        for document, answer in refused:
            self.numbers.add(f"refusals.{answer.name}")
            what = f"the document {document.id} for {document.target} ({answer})"
            sentence = f"Elasticsearch refuses {what}: it is kept, see `wrtflow spool list`."
            health.rarely(answer.name, health.WARNING, sentence)
        now = time.time()
        lost = self._spool.add(
            Refused(now, document.target, document.id, *answer, document.source)
            for document, answer in refused
        )
        if lost:
            self.numbers.add("lost", lost)
            why = self._spool.fault
            full = "The spool of refused documents is full: the oldest are dropped."
            sentence = f"Refused documents can't be kept and are lost: {why}." if why else full
            health.rarely(str(why), health.ERROR, sentence)


def _unavailable(answer: Answer, name: str, key: str, *, index: bool = False) -> Unavailable:
    """Say what keeps documents of an index from being taken, and what to do. name: the index's."""
    forbidden = answer.status == 403 and not answer.index_mend
    if answer.status == 401 or answer.kind == "security_exception" or forbidden:
        sentence = f"refuses the API key in {key} ({answer}): run the playbook, it makes a new one."
    elif answer.status == 429:
        sentence = f"takes no documents now, its disk is full or it is overloaded ({answer})."
    elif answer.kind == _NO_SHARD:
        why = f"most likely because its disk is above the high watermark ({answer}): {answer.index_mend}."
        sentence = f"has no room for the index {name}, {why}"
    elif index:
        mend = answer.index_mend or "mend its mapping, or the template that it was made from"
        return Unavailable(
            f"{name} {answer.name}", f"The index {name} takes no documents ({answer}): {mend}."
        )
    else:
        sentence = f"can't take documents ({answer})."
    return Unavailable(answer.name, f"Elasticsearch {sentence}")
