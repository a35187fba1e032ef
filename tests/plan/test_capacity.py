"""The queue against closed forms, and what follows from it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from longspan.errors import DoesNotFit, UsageError
from longspan.plan.capacity import Replica, queue, replicas_for, simulate
from longspan.plan.mix import Mix, room, tokens

MANY = 200_000


def arrivals(rate, seed=0):
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, MANY))


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_equal_times_wait_as_a_queue_m_d_1(load):
    waits, _ = queue(arrivals(load), np.ones(MANY), 1)
    assert waits.mean() == pytest.approx(load / (2 * (1 - load)), rel=0.05)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_exponential_times_wait_as_a_queue_m_m_1(load):
    busy = np.random.default_rng(1).exponential(1, MANY)
    waits, _ = queue(arrivals(load), busy, 1)
    assert waits.mean() == pytest.approx(load / (1 - load), rel=0.05)
    # P(wait > t) = ρ·e^(−(1 − ρ)·t)
    assert (waits > 2).mean() == pytest.approx(load * math.exp(-2 * (1 - load)), rel=0.05)


def test_several_servers_wait_as_erlang_says():
    load, servers = 0.7, 3
    offered = load * servers
    last = offered**servers / math.factorial(servers) / (1 - load)
    delayed = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)
    waits, _ = queue(arrivals(offered), np.random.default_rng(1).exponential(1, MANY), servers)
    assert (waits > 0).mean() == pytest.approx(delayed, rel=0.05)
    assert waits.mean() == pytest.approx(delayed / (servers * (1 - load)), rel=0.07)


def test_one_slot_is_one_server():
    # a text that keeps the only slot for its whole stay is a server that is busy so long
    busy, hold = np.full(20_000, 0.1), np.full(20_000, 1.0)
    times = arrivals(0.7)[:20_000]
    slots, short = queue(times, busy, 1, hold, 1)
    assert slots == pytest.approx(queue(times, hold, 1)[0])
    assert 0 < short.mean() < 1
    loose, none = queue(times, busy, 1, hold, 20_000)
    assert loose == pytest.approx(queue(times, busy, 1)[0])
    assert not none.any()


def test_a_full_server_waits_for_the_first_that_ends():
    # two slots of ten seconds, computing takes one: the third begins when the first ends, the fourth a second later
    waits, short = queue(np.zeros(4), np.ones(4), 1, np.full(4, 10.0), 2)
    assert waits.tolist() == [0.0, 1.0, 10.0, 11.0]
    assert short.tolist() == [False, False, True, False]  # the fourth waits for the third to be read


FAST = Replica(prefill=lambda tokens: tokens / 10_000, step=lambda batch, length: 0.01, slots=64, devices=2)


def test_a_rate_is_served_by_the_fewest_that_hold_the_target():
    mix = Mix.parse("4K:70,32K:30")
    served = replicas_for(FAST, mix, 2.0, 128, 8.0)
    assert served.ttft[1] <= 8.0
    assert served.devices == 2 * served.replicas
    assert served.load < 1
    assert served == replicas_for(FAST, mix, 2.0, 128, 8.0)  # the same seed
    assert served.replicas > 1
    assert not holds(mix, served.replicas - 1)


def holds(mix, replicas):
    try:
        return simulate(FAST, mix, 2.0, 128, replicas).ttft[1] <= 8.0
    except DoesNotFit:
        return False


def test_more_requests_never_need_fewer():
    mix = Mix.parse("4K:70,32K:30")
    needed = [replicas_for(FAST, mix, rate, 128, 8.0).replicas for rate in (0.5, 1, 2, 4)]
    assert needed == sorted(needed)
    assert needed[-1] > needed[0]


def test_a_target_below_the_reading_alone_is_refused():
    with pytest.raises(DoesNotFit, match=r"reading, and one step, take 3\.29 s"):
        replicas_for(FAST, Mix.parse("32K"), 1.0, 128, 1.0)


@pytest.mark.parametrize(("rate", "ttft"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1), (1, float("inf"))])
def test_rates_and_targets_are_positive_numbers(rate, ttft):
    with pytest.raises(UsageError, match="give a number above 0"):
        replicas_for(FAST, Mix.parse("4K"), rate, 128, ttft)


def test_no_room_for_one_text():
    none = Replica(FAST.prefill, FAST.step, slots=0)
    with pytest.raises(DoesNotFit, match="not one text"):
        replicas_for(none, Mix.parse("4K"), 1, 128, 1)
    with pytest.raises(DoesNotFit, match="not one text"):
        simulate(none, Mix.parse("4K"), 1, 128, 1)


def test_texts_at_once():
    one = room(Mix.parse("4K"), lambda length: length * 100, 4096 * 100 * 7 + 1)
    assert (one.worst, one.sure, one.mean) == (7, 7, 7)
    mixed = room(Mix.parse("1K:90,64K:10"), lambda length: length, 1 << 20)
    assert mixed.worst == 16
    assert mixed.worst < mixed.sure < mixed.mean
    assert room(Mix.parse("1K:90,64K:10"), lambda length: length, 4096).sure == 0


@pytest.mark.parametrize("text", ["", "0", "-4K", "4K:0", "4K:x", "4K,4K", "1e3", "4G", "4K:-1", "٣"])
def test_mixes_that_mean_nothing(text):
    with pytest.raises(UsageError):
        Mix.parse(text)


def test_mixes_and_tokens():
    mix = Mix.parse("128K:10, 4K:90")
    assert mix.lengths == (4096, 131072)
    assert mix.shares == pytest.approx((0.9, 0.1))
    assert str(mix) == "4,096 (90%), 131,072 (10%)"
    assert mix.mean(float) == pytest.approx(0.9 * 4096 + 0.1 * 131072)
    assert tokens("1M") == 1 << 20
    assert tokens("131,072") == 131072
