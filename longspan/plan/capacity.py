"""How many machines serve a rate of requests within a time to the first token: a queue, simulated event by event."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable

import numpy as np

from longspan.errors import DoesNotFit, UsageError
from longspan.plan.mix import Mix

REQUESTS = 20_000
WARM = 0.1
"""Of the requests, the first that are not counted: the queue begins empty."""
QUANTILE = 0.95
MOST = 4096
"""Replicas that are tried at most."""


@dataclasses.dataclass(frozen=True, slots=True)
class Replica:
    """One copy of a model on `devices` devices.

    prefill: seconds of reading a text of so many tokens, alone. step: seconds of one decoded token when (texts at once,
    tokens of each) are there. slots: texts that its memory holds at once.
    """

    prefill: Callable[[int], float]
    step: Callable[[int, int], float]
    slots: int
    devices: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Served:
    """replicas, devices: needed. ttft: seconds to the first token, median and 95th percentile. token: seconds between
    two
    tokens of an answer. reading: share of the time that a replica reads prompts. load: the share that it computes, with
    as many texts decoded together as its memory holds. batch: texts that are decoded together at this rate. waits:
    share
    of the requests that wait for room in memory."""

    replicas: int
    devices: int
    ttft: tuple[float, float]
    token: float
    reading: float
    load: float
    batch: int
    waits: float


def assumptions(new: int) -> tuple[str, ...]:
    """What the simulation takes for granted."""
    return (
        "requests come independently of one another (Poisson), lengths are drawn from the mix, nothing is cached "
        "between "
        "them",
        "one queue, first come first served; a free replica takes the next request and reads its prompt alone and at "
        "once: "
        "answers stand still meanwhile",
        f"each answer has {new:,} tokens; a replica decodes its texts together, one step for all, and begins an "
        "answer at "
        "its next step",
        "a replica's memory holds so many texts of the mix; the next one waits until one of them has ended",
        f"{REQUESTS:,} requests, fixed seed, the first tenth not counted; 95th percentile; no failures, no network",
    )


def queue(
    arrivals: np.ndarray, busy: np.ndarray, servers: int, hold: np.ndarray | None = None, slots: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(seconds that each request waits, whether for a slot) in one queue before `servers` servers, first come first
    served.

    arrivals: times, ascending. busy: seconds that a server computes for each request. hold: seconds that a request
    keeps
    one of the `slots` of its server, from its start on; None: no limit of slots.
    """
    ready = [(0.0, 0.0, server) for server in range(servers)]  # with a slot; done computing; who
    held: list[list[float]] = [[] for _ in range(servers)]  # the last ends, as many as there are slots
    waits, short = np.empty(len(arrivals)), np.zeros(len(arrivals), dtype=bool)
    for i, (at, work) in enumerate(zip(arrivals.tolist(), busy.tolist(), strict=True)):
        open_at, done, server = heapq.heappop(ready)
        start = max(at, open_at)
        waits[i], short[i] = start - at, start > max(at, done)
        done = open_at = start + work
        if hold is not None:
            heapq.heappush(held[server], start + float(hold[i]))
            if len(held[server]) > slots:
                heapq.heappop(held[server])
            if len(held[server]) == slots:
                open_at = max(done, held[server][0])
        heapq.heappush(ready, (open_at, done, server))
    return waits, short


def simulate(replica: Replica, mix: Mix, rate: float, new: int, replicas: int, seed: int = 0) -> Served:
    """What `replicas` replicas make of `rate` requests a second, each with an answer of `new` tokens.

    Raises DoesNotFit where a replica holds no text, or the work that comes in is more than all of them do.
    """
    if replica.slots < 1:
        raise DoesNotFit("capacity: not one text of that length fits beside the weights")
    each, length = rate / replicas, round(mix.mean(float))
    reading = each * mix.mean(replica.prefill)
    load = reading + each * new * replica.step(replica.slots, length) / replica.slots
    if load >= 1:
        raise DoesNotFit(f"capacity: {replicas} replicas would have to compute {load:.0%} of the time")
    batch = _batch(replica, each * new / (1 - reading), length)
    token = replica.step(batch, length) / (1 - reading)
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, REQUESTS))
    prefill = np.array([replica.prefill(length) for length in mix.lengths])[mix.draw(REQUESTS, seed + 1)]
    waits, short = queue(arrivals, prefill, replicas, prefill + new * token, replica.slots)
    counted = slice(int(REQUESTS * WARM), None)
    first = (waits + prefill + replica.step(batch, length))[counted]
    return Served(
        replicas,
        replicas * replica.devices,
        (float(np.median(first)), float(np.quantile(first, QUANTILE))),
        token,
        reading,
        load,
        batch,
        float(short[counted].mean()),
    )


def _batch(replica: Replica, rate: float, length: int) -> int:
    """Texts that a replica decodes together when `rate` tokens a second are to be generated while it decodes: the
    fewest
    with batch / step(batch) at least that (Little's law)."""
    low, high = 0, replica.slots
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle / replica.step(middle, length) >= rate else (middle, high)
    return high


def replicas_for(replica: Replica, mix: Mix, rate: float, new: int, ttft: float, seed: int = 0) -> Served:
    """The fewest replicas whose 95th percentile of the time to the first token is at most `ttft` seconds.

    Raises UsageError for a rate or target that is no positive number, DoesNotFit where no number of replicas is enough:
    a text alone takes longer to read, or none fits.
    """
    for name, value in (("rate", rate), ("ttft", ttft)):
        if not 0 < value < 1e9:
            raise UsageError(f"{name}: {value:g}; give a number above 0")
    if replica.slots < 1:
        raise DoesNotFit("capacity: not one text of that length fits beside the weights")
    alone = _alone(replica, mix) + replica.step(1, round(mix.mean(float)))
    if alone > ttft:
        raise DoesNotFit(
            f"ttft: reading, and one step, take {alone:.3g} s for the 95th percentile of lengths, more than {ttft:g} "
            "s, on "
            "any number "
            "of replicas: keep texts read before (prefix cache), share a text among more devices, or retrieve less "
            "of it"
        )

    def enough(count: int) -> Served | None:
        try:
            made = simulate(replica, mix, rate, new, count, seed)
        except DoesNotFit:
            return None
        return made if made.ttft[1] <= ttft else None

    high = 1
    while (found := enough(high)) is None:
        high *= 2
        if high > MOST:
            raise DoesNotFit(f"capacity: {rate:g} requests a second need more than {MOST:,} replicas")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        made = enough(middle)
        if made is None:
            low = middle
        else:
            high, found = middle, made
    return found


def _alone(replica: Replica, mix: Mix) -> float:
    """Seconds of reading the text at the 95th percentile of lengths."""
    total = 0.0
    for length, share in zip(mix.lengths, mix.shares, strict=True):
        total += share
        if total >= QUANTILE:
            return replica.prefill(length)
    return replica.prefill(mix.lengths[-1])
