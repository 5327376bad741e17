"""One limit for many: an owner that reaches it loses entries of its own, and nobody else's."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

# ms: later than any time.
NEVER = 1 << 62


@dataclass
class Shares:
    """Which owner has which keys of a bounded table, and when each was last put (ms, steady).

    An owner with too many keys loses its oldest. If the table is full, the oldest key of a silent owner makes room,
    else the oldest of the same owner; a newcomer is refused.
    """

    most: int  # keys in all
    of_one: int  # keys of one owner
    ttl: int  # ms after which a key is too old
    silent: int  # ms after which an owner counts as silent
    dropped: Callable[[str], None]  # is called with each key that goes
    # Takes {what}_replaced (keys that made room for their owner's next one) and {what}_refused (keys not taken).
    counts: Counter[str]
    what: str
    # Owner -> key -> when. Both in the order of the last put.
    owners: OrderedDict[str, OrderedDict[str, int]] = field(default_factory=OrderedDict)
    count: int = 0

    def put(self, owner: str, key: str, now: int) -> bool:
        """Add a key, or note that it is still in use. Returns whether there was room."""
        if key not in self.owners.get(owner, ()):
            if not self._room(owner, now):
                self.counts[f"{self.what}_refused"] += 1
                return False
            self.count += 1
        own = self.owners.setdefault(owner, OrderedDict())
        own[key] = now
        own.move_to_end(key)
        self.owners.move_to_end(owner)
        return True

    def drop(self, owner: str, key: str) -> None:
        """Take a key away."""
        own = self.owners[owner]
        del own[key]
        self.count -= 1
        if not own:
            del self.owners[owner]
        self.dropped(key)

    def forget(self, owner: str, before: int = NEVER) -> None:
        """Take the keys of an owner away that were last put before a time."""
        for key, when in list(self.owners.get(owner, {}).items()):
            if when < before:
                self.drop(owner, key)

    def refresh(self, now: int) -> None:
        """Take the keys away that are older than the TTL."""
        for owner in list(self.owners):
            self.forget(owner, now - self.ttl)

    def _room(self, owner: str, now: int) -> bool:
        own = self.owners.get(owner, OrderedDict())
        while own and now - next(iter(own.values())) > self.ttl:
            self.drop(owner, next(iter(own)))
        if len(own) < self.of_one:
            if self.count < self.most:
                return True
            idlest, keys = next(iter(self.owners.items()))
            if now - next(reversed(keys.values())) >= self.silent:
                self.drop(idlest, next(iter(keys)))
                return True
            if not own:
                return False
        self.counts[f"{self.what}_replaced"] += 1
        self.drop(owner, next(iter(own)))
        return True
