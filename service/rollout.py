"""What a model's `config.pbtxt` declares of its rollout: which version answers, which are tried, on how much.

In `parameters`, which Triton reads and leaves alone: `rollout.current`, `rollout.previous`, `rollout.canary` with
`rollout.canary_share`, `rollout.shadow` with `rollout.shadow_share`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tritonclient.grpc import model_config_pb2 as pb

from service.errors import ModelError
from service.share import parse_share

PREFIX = "rollout."
CURRENT, PREVIOUS = "rollout.current", "rollout.previous"
CANARY, CANARY_SHARE = "rollout.canary", "rollout.canary_share"
SHADOW, SHADOW_SHARE = "rollout.shadow", "rollout.shadow_share"
NAMES = (CURRENT, PREVIOUS, CANARY, CANARY_SHARE, SHADOW, SHADOW_SHARE)


@dataclass(frozen=True)
class Candidate:
    """A version that is being tried, and on which share of the requests."""

    version: str
    share: Fraction


@dataclass(frozen=True)
class Rollout:
    """Which versions have a part in answering requests that name none.

    Attributes:
        current: answers; empty: the highest that is ready.
        previous: what was current before, for the way back; empty: not known.
        canary: answers its share in the place of the current one.
        shadow: is asked what the current one has answered, for its share of that; nobody gets its answers.
    """

    current: str = ""
    previous: str = ""
    canary: Candidate | None = None
    shadow: Candidate | None = None

    def __str__(self) -> str:
        words = [f"version {self.current}" if self.current else "the highest version that is ready"]
        for role, tried in (("canary", self.canary), ("shadow", self.shadow)):
            if tried:
                words.append(f"{role} version {tried.version} on {float(tried.share):g}")
        return ", ".join(words)


def declared(proto: pb.ModelConfig) -> Rollout:
    """What a config declares.

    Raises:
        ModelError: it contradicts itself.
    """
    given = {key: value.string_value for key, value in proto.parameters.items() if key.startswith(PREFIX)}
    for name in given.keys() - set(NAMES):
        raise ModelError(f"config.pbtxt: parameter {name}: must be one of {', '.join(NAMES)}")
    for name in (CURRENT, PREVIOUS, CANARY, SHADOW):
        if name in given and not _is_version(given[name]):
            raise ModelError(f"config.pbtxt: {name} is {given[name]!r}: must be a version's number, as string_value")
    rollout = Rollout(
        given.get(CURRENT, ""),
        given.get(PREVIOUS, ""),
        _candidate(given, CANARY, CANARY_SHARE),
        _candidate(given, SHADOW, SHADOW_SHARE),
    )
    for name, candidate in ((CANARY, rollout.canary), (SHADOW, rollout.shadow)):
        if candidate and not rollout.current:
            raise ModelError(
                f"config.pbtxt: {name} is there without {CURRENT}: must name the version to be tried against"
            )
        if candidate and candidate.version == rollout.current:
            raise ModelError(f"config.pbtxt: {name} is {candidate.version}: must be another version than {CURRENT}")
    return rollout


def require_served(rollout: Rollout, versions: Sequence[str]) -> None:
    """Raises:
    ModelError: a version that has a part is none of those that the version policy serves.
    """
    parts = {CURRENT: rollout.current}
    parts |= {name: tried.version for name, tried in ((CANARY, rollout.canary), (SHADOW, rollout.shadow)) if tried}
    for name, version in parts.items():
        if version and version not in versions:
            raise ModelError(
                f"config.pbtxt: {name} is {version}: must be one of the versions that version_policy serves, "
                f"{', '.join(versions)} (version_policy {{ all {{ }} }} serves every one that has a folder)"
            )


def opened_by(proto: pb.ModelConfig) -> pb.ModelConfig:
    """All of a config that a version is opened by: neither which ones are, nor who of them answers."""
    rest = pb.ModelConfig()
    rest.CopyFrom(proto)
    rest.ClearField("version_policy")
    for name in NAMES:
        rest.parameters.pop(name, None)
    return rest


def show_rollout(declaring: pb.ModelConfig, proto: pb.ModelConfig) -> None:
    """Bring what `opened_by` leaves out of a config in use in line with the one that declares it."""
    proto.version_policy.CopyFrom(declaring.version_policy)
    for name in NAMES:
        proto.parameters.pop(name, None)
        if name in declaring.parameters:
            proto.parameters[name].CopyFrom(declaring.parameters[name])


def _candidate(given: dict[str, str], name: str, of_share: str) -> Candidate | None:
    if name not in given and of_share not in given:
        return None
    if name not in given or of_share not in given:
        there, missing = (name, of_share) if name in given else (of_share, name)
        raise ModelError(f"config.pbtxt: {there} is there without {missing}: must have both, or none")
    try:
        return Candidate(given[name], parse_share(given[of_share]))
    except ValueError as error:
        raise ModelError(f"config.pbtxt: {of_share} is {error}") from None


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdecimal() and text == str(int(text)) and text != "0"
