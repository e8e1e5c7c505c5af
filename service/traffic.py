"""Where a model's requests go that name no version, by its rollout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from service.loading import ServedVersion
from service.rollout import SHADOW, Rollout
from service.share import EvenShare
from service.trial import Observe, Part, Role, Shadow, Side, TakenUp

log = logging.getLogger("fovea.repository")


class Chosen(NamedTuple):
    """The version that answers a request, and the request's part in a trial, where there is one."""

    served: ServedVersion
    part: Part | None


class Traffic:
    """One model's.

    Args:
        ready: a version that takes requests, by its number; None where it does not.
        observe: told what comes of a trial.
    """

    def __init__(
        self, model: str, rollout: Rollout, ready: Callable[[str], ServedVersion | None], observe: Observe
    ) -> None:
        self.rollout = rollout
        self._model = model
        self._ready = ready
        self._observe = observe
        self._canary = EvenShare(rollout.canary.share if rollout.canary else Fraction(0))
        self._shadow = EvenShare(rollout.shadow.share if rollout.shadow else Fraction(0))
        self._parts: dict[tuple[Role, bool], Part] = {}
        self._built_for: tuple[ServedVersion | None, ...] = ()
        observe(TakenUp(model, tuple(self._shares())))

    @property
    def on_trial(self) -> bool:
        return bool(self.rollout.canary or self.rollout.shadow)

    def next(self) -> Chosen | None:
        """What the next request gets; None where the current version is not ready. Its part, where it has one, is to
        be told that it begins."""
        current = self._ready(self.rollout.current)
        if not self.on_trial:
            return Chosen(current, None) if current else None
        canary = self._ready(self.rollout.canary.version) if self.rollout.canary else None
        shadow = self._ready(self.rollout.shadow.version) if self.rollout.shadow else None
        if (current, canary, shadow) != self._built_for:
            self._build(current, canary, shadow)
        part = self._parts.get(("canary", False)) if self._canary.due else None
        # A canary that is not ready leaves its share to the current version.
        part = part or self._parts.get(("current", self._shadow.due)) or self._parts.get(("current", False))
        return Chosen(part.served, part) if part else None

    def _build(self, current: ServedVersion | None, canary: ServedVersion | None, shadow: ServedVersion | None) -> None:
        self._built_for = (current, canary, shadow)
        self._parts = {}
        if canary:
            self._parts["canary", False] = self._part("canary", canary, None)
        if current:
            self._parts["current", False] = self._part("current", current, None)
        if current and shadow:
            if shadow.config.inputs != current.config.inputs or shadow.max_rows < current.max_rows:
                log.error(
                    "%s: %s is %s, and gets no copies: its inputs must be those of version %s",
                    self._model, SHADOW, shadow.version, current.version,
                )  # fmt: skip
                return
            asked = Shadow(Side(self._model, shadow.version, "shadow"), shadow, current, self._observe)
            self._parts["current", True] = self._part("current", current, asked)

    def _part(self, role: Role, served: ServedVersion, shadow: Shadow | None) -> Part:
        return Part(Side(self._model, served.version, role), served, shadow, self._observe, self._count)

    def _count(self, role: Role) -> None:
        self._canary.count()
        if role == "current":
            self._shadow.count()

    def _shares(self) -> list[tuple[Side, Fraction]]:
        rollout = self.rollout
        if not self.on_trial:
            return []
        canary = rollout.canary.share if rollout.canary else Fraction(0)
        found = [(Side(self._model, rollout.current, "current"), 1 - canary)]
        if rollout.canary:
            found.append((Side(self._model, rollout.canary.version, "canary"), canary))
        if rollout.shadow:
            found.append((Side(self._model, rollout.shadow.version, "shadow"), rollout.shadow.share))
        return found
