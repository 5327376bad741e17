"""Queries to Elasticsearch with the reader's key, which can't write."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
import typing
import urllib.error
import urllib.request
from collections.abc import Iterator

from wrtflow_alerts.settings import Settings

Json = dict[str, typing.Any]

# Seconds to wait for an answer of Elasticsearch.
PATIENCE = 60

# Pairs in one page of a composite aggregation.
_PAGE = 1000


class StorageError(Exception):
    """Elasticsearch does not answer, or refuses. The text is a sentence for people."""


class Storage:
    """The flows of PREFIX-*."""

    def __init__(self, settings: Settings) -> None:
        """Keep the settings; nothing connects yet."""
        self._settings = settings
        self._url = settings.elasticsearch_url.rstrip("/")

    def ask(self, path: str, body: Json | None = None) -> Json:
        """Send a POST (with a body) or GET, and return the parsed answer. Raise StorageError if it fails."""
        try:
            context = ssl.create_default_context(cafile=self._settings.elasticsearch_ca)
        except OSError as error:
            raise StorageError(
                f"The authority's certificate {self._settings.elasticsearch_ca} can't be read: {error}."
            ) from error
        # Python 3.13 and newer refuse authorities without the key usage extension, as Elastic's own.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        headers = {
            "Authorization": f"ApiKey {self._settings.elasticsearch_key}",
            "Content-Type": "application/json",
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE, context=context) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise StorageError(
                f"Elasticsearch answers {error.code}: {_reason(error.read(100_000))}."
            ) from error
        except urllib.error.URLError as error:
            raise StorageError(f"Elasticsearch does not answer at {self._url}: {error.reason}.") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise StorageError(f"Elasticsearch does not answer at {self._url}: {error}.") from error
        if not isinstance(answer, dict):
            raise StorageError(f"What answers at {self._url} is not Elasticsearch.")
        return answer

    def search(self, clauses: list[Json], aggs: Json) -> Json:
        """Return the aggregations over the flows that match all clauses; an empty object if there is no index."""
        # A partial result would look like a complete one.
        path = (
            f"/{self._settings.index_prefix}-*/_search"
            "?ignore_unavailable=true&allow_no_indices=true&allow_partial_search_results=false"
        )
        body = {"size": 0, "query": {"bool": {"filter": clauses}}, "aggs": aggs}
        found = self.ask(path, body).get("aggregations", {})
        return typing.cast(Json, found)

    def pairs(self, clauses: list[Json], fields: dict[str, str], aggs: Json) -> Iterator[Json]:
        """Yield a bucket for every combination of the fields' values (a composite aggregation, page by page)."""
        sources = [{name: {"terms": {"field": field}}} for name, field in fields.items()]
        after: Json = {}
        while True:
            composite = {"size": _PAGE, "sources": sources, **after}
            found = self.search(clauses, {"pairs": {"composite": composite, "aggs": aggs}}).get("pairs", {})
            yield from found.get("buckets", [])
            if "after_key" not in found:
                return
            after = {"after": found["after_key"]}

    def disks(self) -> dict[str, float]:
        """Return, for each node, how full its disk is, from 0 to 1."""
        path = "/_nodes/stats/fs?filter_path=nodes.*.name,nodes.*.fs.total"
        nodes = self.ask(path).get("nodes", {}).values()
        return {
            node["name"]: 1
            - node["fs"]["total"]["available_in_bytes"] / node["fs"]["total"]["total_in_bytes"]
            for node in nodes
            if node.get("fs", {}).get("total", {}).get("total_in_bytes")
        }

    def months(self) -> dict[str, int]:
        """Return each closed month's bytes, oldest first: the current month, by UTC, is not among them."""
        prefix = self._settings.index_prefix
        found = self.ask(f"/{prefix}-*/_stats/store?ignore_unavailable=true").get("indices", {})
        closed = re.compile(re.escape(prefix) + r"-\d{4}\.\d\d").fullmatch
        current = f"{prefix}-{time.strftime('%Y.%m', time.gmtime())}"
        return {
            index: about["total"]["store"]["size_in_bytes"]
            for index, about in sorted(found.items())
            if closed(index) and index < current
        }


def _reason(content: bytes) -> str:
    """Return the reason in Elasticsearch's error."""
    try:
        error = json.loads(content)["error"]
        why = error["reason"] if isinstance(error, dict) else error
    except (ValueError, LookupError, TypeError):
        why = content.decode(errors="replace")
    return " ".join(str(why).split())[:200].rstrip(".")
