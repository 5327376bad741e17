"""One bound for many: whoever fills it up loses entries of its own, and nobody else's."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass
class Shares(Generic[K]):
    """Which owner has which keys of something bounded, and when each was last put (ms, steady).

    An owner with too many keys loses its oldest. Where all is full, the oldest key of an owner that was silent makes
    room, else the oldest of the same owner; a newcomer is refused.
    """

    most: int  # keys in all
    of_one: int  # keys of one owner
    ttl: int  # ms after which a key is too old
    silent: int  # ms after which an owner counts as silent
    dropped: Callable[[K], None]  # is called with each key that goes
    # Takes {what}_replaced (keys that made room for their owner's next one) and {what}_refused (keys not taken).
    counts: Counter[str]
    what: str
    # Owner -> key -> when. Both in the order of the last put.
    owners: OrderedDict[str, OrderedDict[K, int]] = field(default_factory=OrderedDict)
    count: int = 0

    def put(self, owner: str, key: K, now: int) -> bool:
        """Add a key, or note that it is still in use. Returns whether there was room."""
        own = self.owners.get(owner)
        if own is None or key not in own:
            if not self._room(owner, now):
                self.counts[f"{self.what}_refused"] += 1
                return False
            own = self.owners.setdefault(owner, OrderedDict())
            self.count += 1
        own[key] = now
        own.move_to_end(key)
        self.owners.move_to_end(owner)
        return True

    def drop(self, owner: str, key: K) -> None:
        """Take a key away."""
        own = self.owners[owner]
        del own[key]
        self.count -= 1
        if not own:
            del self.owners[owner]
        self.dropped(key)

    def forget(self, owner: str) -> None:
        """Take all keys of an owner away."""
        for key in list(self.owners.get(owner, ())):
            self.drop(owner, key)

    def refresh(self, now: int) -> None:
        """Forget owners that were silent for longer than the TTL."""
        while self.owners:
            owner, own = next(iter(self.owners.items()))
            if now - next(reversed(own.values())) <= self.ttl:
                return
            self.forget(owner)

    def _room(self, owner: str, now: int) -> bool:
        """Make room for one more key of an owner."""
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
