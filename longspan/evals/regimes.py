"""What may be known when a text is compressed: nothing of the questions, or the question."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from longspan import spec
from longspan.cache.eviction import POLICIES
from longspan.errors import UsageError

if TYPE_CHECKING:
    from longspan.cache.eviction.view import Policy

REGIMES = {
    "agnostic": "a text is read, and evicted from, before any question is known; then each is asked about what is left",
    "aware": "text and question are one prompt, and nothing is evicted before the question was read (wait=true)",
}


def named(regime: str) -> str:
    """Raises UsageError for an unknown one."""
    if regime not in REGIMES:
        raise UsageError(f"regime: unknown {regime!r}; known: {', '.join(REGIMES)}")
    return regime


def check(policy: Policy | None, regime: str) -> None:
    """Raises UsageError where an eviction does not keep to the regime."""
    named(regime)
    if policy is None:
        return
    if regime == "agnostic" and policy.wait:
        raise UsageError("evict: wait=true lets it see the question; leave it out, or give --regime aware")
    if regime == "aware" and policy.once:
        raise UsageError("evict: once=true cuts before a question is known; give wait=true, or --regime agnostic")
    if regime == "aware" and waits(policy) is not policy:
        raise UsageError(
            "regime: with aware nothing may be evicted before the question was read; add wait=true to --evict"
        )


def evict(given: str | None, regime: str | None) -> str | None:
    """The --evict of a regime: with "aware" a policy waits for the question, unless it keeps the newest tokens
    whatever is asked."""
    if given is None or given.strip() == "none" or regime != "aware":
        return given
    policy = spec.parse(given, POLICIES, "evict", "none")
    return spec.render(waits(policy), POLICIES)


def waits(policy: Any) -> Any:
    """The same policy, waiting for a question if it can."""
    return policy if policy.wait or policy.once or policy.window is not None else dataclasses.replace(policy, wait=True)
