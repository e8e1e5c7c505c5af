"""`fovea rollout`: shows what a model's `config.pbtxt` declares of its rollout, or changes it there."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from service.config_text import replace_text, with_parameters
from service.errors import FoveaError, ModelError
from service.model_config import read_proto, served_versions
from service.model_folder import CONFIG_FILE, version_numbers
from service.rollout import (
    CANARY,
    CANARY_SHARE,
    CURRENT,
    PREVIOUS,
    SHADOW,
    SHADOW_SHARE,
    Candidate,
    Rollout,
    declared,
    require_served,
)
from service.share import parse_share

STEPS = ("canary", "shadow", "promote", "rollback", "pin")
OF_A_VERSION = ("canary", "shadow", "pin")
WITH_A_SHARE = ("canary", "shadow")
DEFAULT_SHARE = "0.1"
TAKEN_UP = (
    "A service takes it up at its next look at the folder (FOVEA_MODEL_CONTROL_MODE=poll), when the model is loaded "
    "by request (explicit), or at its next start."
)


def roll_out(model: Path, step: str | None, version: str | None, share: str | None) -> int:
    """Take one step, or none, and show where that leads; 1 where it cannot be taken, and nothing has changed.

    Args:
        model: its folder.
        step: one of `STEPS`.
        version: of `OF_A_VERSION`.
        share: of `WITH_A_SHARE`.
    """
    # Its name is the model's: of a link, the link's own.
    model = Path(os.path.abspath(model))
    try:
        versions = _versions(model)
        rollout = declared(read_proto(model))
        if step:
            rollout = after(rollout, versions, step, version, share)
        require_served(rollout, versions)
        if step:
            path = model / CONFIG_FILE
            text = path.read_bytes().decode() if path.is_file() else ""
            replace_text(path, with_parameters(text, _parameters(rollout)))
    except (FoveaError, ModelError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(_shown(rollout, versions)))
    if step:
        print(TAKEN_UP)
    return 0


def after(rollout: Rollout, versions: Sequence[str], step: str, version: str | None, share: str | None) -> Rollout:
    """What a rollout is after a step.

    Args:
        versions: those that are served, ascending.

    Raises:
        ValueError: it cannot be taken; the message says what can.
    """
    if (version is not None) is not (step in OF_A_VERSION):
        raise ValueError(f"{step}: must {'' if step in OF_A_VERSION else 'not '}be followed by a version")
    if share is not None and step not in WITH_A_SHARE:
        raise ValueError(f"{step}: --share belongs to {' and '.join(WITH_A_SHARE)}")
    if version is not None and version not in versions:
        raise ValueError(
            f"{step} {version}: must be one of the versions that version_policy serves, {', '.join(versions)} "
            "(version_policy { all { } } serves every one that has a folder)"
        )
    match step:
        case "canary" | "shadow":
            assert version
            try:
                candidate = Candidate(version, parse_share(share or DEFAULT_SHARE))
            except ValueError as error:
                raise ValueError(f"--share {error}") from None
            others = [other for other in versions if other != version]
            if not rollout.current and not others:
                raise ValueError(
                    f"{step} {version}: version_policy must serve another version beside it, which is tried against "
                    "(version_policy { all { } } serves every one that has a folder)"
                )
            current = rollout.current or others[-1]
            if current == version:
                raise ValueError(f"{step} {version}: must be another version than the current one")
            tried = replace(rollout, current=current)
            return replace(tried, canary=candidate) if step == "canary" else replace(tried, shadow=candidate)
        case "promote":
            if not rollout.canary:
                raise ValueError("promote: there is no canary; `pin VERSION` makes any version the current one")
            return _pinned(rollout, rollout.canary.version)
        case "pin":
            assert version
            return _pinned(rollout, version)
        case "rollback":
            if rollout.canary or rollout.shadow:
                return replace(rollout, canary=None, shadow=None)
            if rollout.previous:
                return Rollout(current=rollout.previous)
            raise ValueError("rollback: there is no canary, no shadow and no previous version to go back to")
    raise ValueError(f"{step}: must be one of {', '.join(STEPS)}")


def _pinned(rollout: Rollout, version: str) -> Rollout:
    def unless_it(candidate: Candidate | None) -> Candidate | None:
        return None if candidate and candidate.version == version else candidate

    previous = rollout.previous if version == rollout.current else rollout.current
    return Rollout(version, previous, unless_it(rollout.canary), unless_it(rollout.shadow))


def _versions(model: Path) -> list[str]:
    if not model.is_dir():
        raise ModelError(f"{model}: must be a model's folder in a model repository")
    proto = read_proto(model)
    found = served_versions(proto, version_numbers(model, proto.default_model_filename))
    if not found:
        raise ModelError(f"{model}: no version folder (1, 2, …) with a {proto.default_model_filename}")
    return [str(number) for number in found]


def _parameters(rollout: Rollout) -> dict[str, str | None]:
    canary, shadow = rollout.canary, rollout.shadow
    return {
        CURRENT: rollout.current or None,
        PREVIOUS: rollout.previous or None,
        CANARY: canary.version if canary else None,
        CANARY_SHARE: _written(canary) if canary else None,
        SHADOW: shadow.version if shadow else None,
        SHADOW_SHARE: _written(shadow) if shadow else None,
    }


def _written(candidate: Candidate) -> str:
    text = f"{float(candidate.share):.9f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


def _shown(rollout: Rollout, versions: Sequence[str]) -> list[str]:
    lines = [f"current   {f'version {rollout.current}' if rollout.current else 'the highest version that is ready'}"]
    for role, candidate in (("canary", rollout.canary), ("shadow", rollout.shadow)):
        if candidate:
            lines.append(f"{role}    version {candidate.version}, share {_written(candidate)}")
    if rollout.previous:
        lines.append(f"previous  version {rollout.previous}")
    return [*lines, f"served    {', '.join(versions)}"]
