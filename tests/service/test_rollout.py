from __future__ import annotations

from fractions import Fraction

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from service.errors import ModelError
from service.rollout import Candidate, Rollout, declared, opened_by, require_served, show_rollout


def config(**parameters: str) -> pb.ModelConfig:
    proto = pb.ModelConfig(name="colours")
    proto.parameters["preprocessing.crop"].string_value = "center"
    for name, value in parameters.items():
        proto.parameters[f"rollout.{name}"].string_value = value
    return proto


def test_nothing_declared() -> None:
    assert declared(config()) == Rollout()
    assert str(Rollout()) == "the highest version that is ready"


def test_all_there_is() -> None:
    proto = config(current="2", previous="1", canary="3", canary_share="0.1", shadow="4", shadow_share="1")
    rollout = declared(proto)
    assert rollout == Rollout("2", "1", Candidate("3", Fraction(1, 10)), Candidate("4", Fraction(1)))
    assert str(rollout) == "version 2, canary version 3 on 0.1, shadow version 4 on 1"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"curent": "1"}, r"parameter rollout\.curent: must be one of rollout\.current, "),
        ({"current": "one"}, r"rollout\.current is 'one': must be a version's number"),
        ({"current": ""}, r"rollout\.current is '': must be"),
        ({"current": "01"}, r"rollout\.current is '01': must be"),
        ({"current": "1", "canary": "2"}, r"rollout\.canary is there without rollout\.canary_share: must have both"),
        ({"current": "1", "shadow_share": "1"}, r"rollout\.shadow_share is there without rollout\.shadow: must have"),
        ({"canary": "2", "canary_share": "0.1"}, r"rollout\.canary is there without rollout\.current: must name"),
        (
            {"current": "2", "canary": "2", "canary_share": "0.1"},
            r"rollout\.canary is 2: must be another version than rollout\.current",
        ),
        (
            {"current": "1", "shadow": "2", "shadow_share": "1.5"},
            r"rollout\.shadow_share is '1\.5': must be a number from 0 to 1, as 0\.1",
        ),
    ],
)
def test_contradictions(parameters: dict[str, str], reason: str) -> None:
    with pytest.raises(ModelError, match=r"config\.pbtxt: " + reason):
        declared(config(**parameters))


def test_every_version_that_has_a_part_must_be_served() -> None:
    rollout = Rollout("1", "9", Candidate("2", Fraction(1, 10)))
    require_served(rollout, ["1", "2"])
    with pytest.raises(ModelError, match=r"rollout\.current is 1: must be one of .*version_policy serves, 2 "):
        require_served(rollout, ["2"])
    with pytest.raises(ModelError, match=r"rollout\.canary is 2: must be one of .*version_policy serves, 1, 3 "):
        require_served(rollout, ["1", "3"])


def test_versions_are_opened_by_all_but_the_rollout() -> None:
    proto = config(current="1")
    proto.version_policy.all.SetInParent()
    assert opened_by(proto) == config()
    assert opened_by(config(current="2")) == config()
    changed = config()
    changed.parameters["preprocessing.crop"].string_value = "other"
    assert opened_by(changed) != config()


def test_a_config_in_use_shows_the_rollout_of_now() -> None:
    in_use, now = config(current="1", canary="2", canary_share="0.1"), config(current="2", previous="1")
    now.version_policy.all.SetInParent()
    show_rollout(now, in_use)
    assert in_use == now
