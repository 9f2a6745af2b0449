"""Failed authentications, limited for each address and for the beginning of each key.

256 random bits are not guessed; what the limit keeps small is the log, and what an attacker costs.
A good key is looked at first and let in whoever else fails at the same address: behind one NAT an
attacker must not be able to stop the line.
"""

import ipaddress
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

import structlog

from app.core.errors import TooManyFailures, Unauthenticated
from app.core.settings import AuthSettings
from app.http.metrics import Metrics
from app.keys.service import PREFIX_LENGTH
from models.errors import ShotlineError

log = structlog.get_logger(__name__)

# So many addresses, and as many beginnings of keys, are remembered; the oldest are forgotten.
MOST_REMEMBERED = 10_000

# What a key begins with may be shown; of anything else, a password perhaps, nothing is.
_OURS = re.compile(r"sl_[a-z2-7]{8}_")
# An IPv6 customer has a network of this size; by single addresses it would never be limited.
_IPV6_NETWORK = 64
_LONGEST = 64


class TokenBuckets:
    """A bucket of `burst` tokens for each name, filled by one every `seconds`; bounded in number.

    Args:
        burst: tokens of a full bucket.
        seconds: for one token.
        size: names that are remembered; of more, those longest unused are forgotten.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        burst: int,
        seconds: float,
        *,
        size: int = MOST_REMEMBERED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst, self._seconds, self._size, self._clock = burst, seconds, size, clock
        self._lock = threading.Lock()
        # Tokens, and when they were counted; the least recently used name first.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many names are remembered."""
        return len(self._buckets)

    def take(self, name: str) -> float:
        """Take a token; return 0, or the seconds until there is one where the bucket is empty."""
        now = self._clock()
        with self._lock:
            tokens, counted = self._buckets.get(name, (float(self._burst), now))
            tokens = min(self._burst, tokens + (now - counted) / self._seconds)
            wait = 0.0 if tokens >= 1 else (1 - tokens) * self._seconds
            self._buckets[name] = (tokens if wait else tokens - 1, now)
            self._buckets.move_to_end(name)
            if len(self._buckets) > self._size:
                self._buckets.popitem(last=False)
        return wait


class FailedLogins:
    """What becomes of a request that no key lets in.

    Args:
        settings: how many failures are answered as such.
        metrics: counts them.
    """

    def __init__(self, settings: AuthSettings, metrics: Metrics) -> None:
        allowed, seconds = settings.auth_failures, settings.auth_failure_seconds
        self._addresses = TokenBuckets(allowed, seconds)
        self._prefixes = TokenBuckets(allowed, seconds)
        self._metrics = metrics

    def missing(self) -> None:
        """Count a request without a key; it guesses nothing and is not limited."""
        self._metrics.auth_failed("missing")

    def answer(self, error: Unauthenticated, key: str, address: str | None) -> ShotlineError:
        """Return how a wrong key is answered: `error`, or where there were too many, that.

        Args:
            error: what is wrong with the key.
            key: as it was sent; it is not logged.
            address: the caller's; None for a Unix socket.
        """
        caller = network_of(address)
        wait = max(self._addresses.take(caller), self._prefixes.take(key[:PREFIX_LENGTH]))
        self._metrics.auth_failed("limited" if wait else "wrong")
        if not wait:
            ours = _OURS.match(key)
            shown = key[:PREFIX_LENGTH] if ours else None
            log.warning("auth_failed", address=caller, prefix=shown)
            return error
        log.debug("auth_limited", address=caller)
        return TooManyFailures(
            "Too many wrong API keys came from this address, or began like this one.",
            fix="Correct the key: a good one is let in at once. Wait the seconds in Retry-After"
            " before another one is tried.",
            field="Authorization",
            retry_after=wait,
        )


def network_of(address: str | None) -> str:
    """Return what is limited for a caller: the IPv4 address, or the /64 network of an IPv6 one."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return (address or "local")[:_LONGEST]  # what a proxy says may be anything
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_NETWORK), strict=False))
