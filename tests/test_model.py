"""Values: frozen, compared whole, and as strict as a dataclass."""

from __future__ import annotations

import pytest

from sentinel.model import FindProcesses, Get, Policy, ReadMemory, Tally


def test_a_value_is_made_by_place_or_by_name_with_its_defaults() -> None:
    assert Get("u", 1) == Get(url="u", max_bytes=1, fresh=True)
    assert repr(FindProcesses("x")) == "FindProcesses(name='x')"


def test_equal_values_are_equal_and_hash_so_and_kinds_are_apart() -> None:
    assert {Get("u", 1): 5}[Get("u", 1)] == 5
    assert FindProcesses("x") != ReadMemory("x")
    assert FindProcesses("x") != "x"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        pytest.param((), {}, id="a field without a default is missing"),
        pytest.param(("u", 1, True, "", (), (), 7), {}, id="one too many"),
        pytest.param(("u", 1), {"nope": 1}, id="a field that is not there"),
        pytest.param(("u", 1), {"url": "v"}, id="a field twice"),
    ],
)
def test_a_value_made_wrongly_is_a_type_error(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Get(*args, **kwargs)


def test_a_value_is_frozen_and_replaced() -> None:
    policy = Policy()
    for change in (
        lambda: setattr(policy, "fall", 1),
        lambda: delattr(policy, "fall"),
        lambda: setattr(policy, "x", 1),
    ):
        with pytest.raises(AttributeError):
            change()
    assert (policy.replace(fall=1).fall, policy.fall) == (1, 3)
    assert policy.replace() == policy
    with pytest.raises(TypeError):
        policy.replace(nope=1)


def test_a_tally_is_cumulative() -> None:
    tally = Tally().add(0.001).add(100.0)
    assert (tally.counts[0], tally.counts[1], tally.counts[-2], tally.counts[-1]) == (0, 1, 1, 2)
    assert tally.sum_s == 100.001
