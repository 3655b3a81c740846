"""Passwords: argon2id, at most two at once in a process, the same time for a user that does not exist."""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

import argon2

from calotype.errors import Throttled, Unauthenticated
from calotype.identity.tokens import REFUSED

# OWASP Password Storage Cheat Sheet: argon2id with 19 MiB, 2 passes, 1 lane. Two at once take 38 MiB.
HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Of a random password that nobody has kept: what a login of an unknown user is checked against.
NOBODY: Final = "$argon2id$v=19$m=19456,t=2,p=1$fjjU4GrGe6CpTR3T9NKfvg$Bd3R+K30nDDihQlRYlXTDJ4C1G808ZZuDLi3GEll7BY"
MOST_CHARACTERS: Final = 4096
AT_ONCE: Final = 2
MOST_WAITING: Final = 32  # with those under way: about a second's work

FAILURES: Final = 10  # of one user in WITHIN_S ...
WITHIN_S: Final = 300.0
REFUSED_FOR_S: Final = 60.0  # ... and no password is looked at for so long
MOST_REMEMBERED: Final = 10_000  # users whose failures are counted


class Attempts:
    """Failed logins of each user, in this process. A user that does not exist is counted as one that does."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, list[float]] = OrderedDict()
        self._refused_until: OrderedDict[str, float] = OrderedDict()

    def refused(self, who: str) -> bool:
        until = self._refused_until.get(who)
        if until is None:
            return False
        if self._clock() < until:
            return True
        del self._refused_until[who]
        return False

    def failed(self, who: str) -> None:
        now = self._clock()
        recent = [at for at in self._failures.pop(who, ()) if at > now - WITHIN_S] + [now]
        if len(recent) >= FAILURES:
            self._refused_until[who] = now + REFUSED_FOR_S
            self._refused_until.move_to_end(who)
        else:
            self._failures[who] = recent
        for remembered in (self._failures, self._refused_until):
            while len(remembered) > MOST_REMEMBERED:
                remembered.popitem(last=False)

    def succeeded(self, who: str) -> None:
        self._failures.pop(who, None)


class Passwords:
    """Hashes and checks in threads of its own. Raises `Throttled` when too many wait for them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._attempts = Attempts(clock)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="passwords")
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def hashed(self, password: str) -> str:
        async with self._slot():
            return await asyncio.get_running_loop().run_in_executor(self._threads, HASHER.hash, password)

    async def check(self, who: str, known_hash: str | None, password: str) -> None:
        """Raise `Unauthenticated` unless `known_hash` is of `password`; None is nobody's.

        Failures are counted by `who`; after too many of them no password is right for a while.
        """
        async with self._slot():
            if self._attempts.refused(who):
                raise Unauthenticated(REFUSED)
            loop = asyncio.get_running_loop()
            if not await loop.run_in_executor(self._threads, matches, known_hash, password):
                self._attempts.failed(who)
                raise Unauthenticated(REFUSED)
            self._attempts.succeeded(who)

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._waiting >= MOST_WAITING:
            raise Throttled("too many logins at once; try again shortly")
        self._waiting += 1
        try:
            async with self._slots:
                yield
        finally:
            self._waiting -= 1


def matches(known_hash: str | None, password: str) -> bool:
    """Whether the hash is of the password, in the same time when there is no hash."""
    try:
        HASHER.verify(known_hash or NOBODY, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError, UnicodeEncodeError):
        return False
    return known_hash is not None


def generated() -> str:
    return secrets.token_urlsafe(24)
