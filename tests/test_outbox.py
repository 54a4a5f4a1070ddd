"""What a receiver is told, by histories: a letter a second for the engine and for the receiver. And its promises."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel.outbox import GIVE_UP_S, Line, Manner, Outbox, hear, sent, take

if TYPE_CHECKING:
    from collections.abc import Iterable

STATES = {"H": "healthy", "D": "degraded", "U": "unhealthy", "S": "starting", "?": "unknown", "M": "maintenance"}
LETTERS = {state: letter for letter, state in STATES.items()}
ALL = ("unhealthy", "unknown", "degraded")
CHAT = Manner(ALL, gather_s=1.0, remind_s=10.0, per_hour=20)
ALERTS = Manner(ALL, gather_s=0.0, remind_s=4.0, hold_s=4.0)


def code(line: Line) -> str:
    """+U began, -U ended, U? became unknown, =U a reminder."""
    began, ended = (LETTERS[each.state] if each else "" for each in (line.began, line.ended))
    return (
        f"={began}" if line.again else f"{ended}{began}" if began and ended else f"+{began}" if began else f"-{ended}"
    )


class Receiver:
    """A box and what arrived out of it: `down` are the seconds in which nothing does."""

    def __init__(self, manner: Manner) -> None:
        self.manner, self.box = manner, Outbox()
        self.arrived: list[tuple[float, tuple[Line, ...]]] = []

    def hear(self, engine: str, state: str, now: float) -> None:
        text = f"{engine} is {state}"
        self.box = hear(self.box, self.manner, engine, state, text, now, 1000.0 + now)

    def look(self, now: float, up: bool = True) -> None:
        self.box, batch = take(self.box, self.manner, now, 1000.0 + now, lambda engine: f"{engine} is as it was")
        if batch:
            self.box = sent(self.box, self.manner, batch, up, now)
            if up:
                self.arrived.append((now, batch))


def play(manner: Manner, states: str, receiver: str = "") -> list[str]:
    """`SECOND CODE CODE …` for each message that arrived. `receiver`: x while it is down; it is up after that."""
    heard = Receiver(manner)
    before = "H"
    for now, letter in enumerate(states):
        if letter != before:
            heard.hear("e", STATES[letter], now)
        before = letter
        heard.look(now, up=receiver[now : now + 1] != "x")
    return [f"{now:g} {' '.join(map(code, batch))}" for now, batch in heard.arrived]


@pytest.mark.parametrize(
    ("states", "receiver", "messages"),
    [
        pytest.param("HHHH", "", [], id="nothing happens, nothing is said"),
        pytest.param("HUUUHH", "", ["2 +U", "5 -U"], id="a beginning and an end, each once"),
        pytest.param("HUHUHHH", "", ["2 +U -U", "4 +U -U"], id="what comes within a second comes together"),
        pytest.param("HUU??HH", "", ["2 +U", "4 U?", "6 -?"], id="a trouble that became another is one change"),
        pytest.param("HUUSSUUU", "", ["2 +U"], id="starting is no news: the same trouble is told once"),
        pytest.param("HUUSSHH", "", ["2 +U", "6 -U"], id="starting does not end it, health does"),
        pytest.param("SSSH", "", [], id="an engine that starts well is no news"),
        pytest.param("HHMMHH", "", [], id="maintenance is told to nobody"),
        pytest.param("HMMUU", "", ["4 +U"], id="a maintenance that ends badly is told"),
        pytest.param("HUUMMHHH", "", ["2 +U", "4 -U"], id="maintenance ends what was told, once"),
        pytest.param("HUUUUUUUUUUUUUH", "", ["2 +U", "12 =U"], id="a reminder while it lasts"),
        pytest.param(
            "HUUUHHHHHHHHHHHH", "xxxxxxxxx", ["9 +U -U"], id="an outage: all of it comes, with the backoff's delay"
        ),
    ],
)
def test_history_of_a_chat(states: str, receiver: str, messages: list[str]) -> None:
    assert play(CHAT, states, receiver) == messages


@pytest.mark.parametrize(
    ("states", "receiver", "messages"),
    [
        pytest.param("HUUUHH", "", ["1 +U", "4 -U"], id="at once"),
        pytest.param("HUUUUUUUUUUH", "", ["1 +U", "5 =U", "9 =U", "11 -U"], id="sent again while it lasts"),
        pytest.param(
            "HUU??H", "", ["1 +U", "3 -U +?", "5 -?"], id="the end of one and the beginning of the next, apart"
        ),
        pytest.param("HUUUUUUUUUUH", "..xxxxx", ["1 +U", "8 =U", "11 -U"], id="an outage in the middle"),
        pytest.param("HUHHHH", "", ["1 +U", "2 -U"], id="a short one told in time ends at once"),
        pytest.param("HUUUUHHHHHHHH", "...xxxxx", ["1 +U", "8 -U"], id="ended while it was away"),
        pytest.param(
            "HUUUHHHHHHHHHHHHHHHHHH",
            "xxxxxxxxx",
            ["16 +U", "20 -U"],
            id="begun and ended while it was away: told as lasting first, or it would be told to nobody",
        ),
        pytest.param(
            "HUUU??HHHHHHHHHHHHHHHH",
            "xxxxxxxxx",
            ["16 +U +?", "20 -U -?"],
            id="two of them",
        ),
    ],
)
def test_history_of_an_alertmanager(states: str, receiver: str, messages: list[str]) -> None:
    assert play(ALERTS, states, receiver) == messages


def test_a_receiver_hears_of_its_own_states_only() -> None:
    page = Manner(("unhealthy",), gather_s=0.0)
    assert play(page, "HDDU??HUDD") == ["3 +U", "4 -U", "7 +U", "8 -U"]


def test_what_is_over_the_limit_comes_together_in_the_next() -> None:
    receiver = Receiver(Manner(ALL, gather_s=0.0, per_hour=3))
    for now in range(10):
        receiver.hear("e", "unhealthy" if now % 2 == 0 else "healthy", now)
        receiver.look(now)
    assert [len(batch) for _, batch in receiver.arrived] == [1, 1, 1]
    receiver.look(3599.0)
    assert len(receiver.arrived) == 3
    receiver.look(3600.0)
    assert [code(line) for line in receiver.arrived[3][1]] == ["-U", "+U", "-U", "+U", "-U", "+U", "-U"]
    assert receiver.box.dropped == 0


def test_attempts_come_after_growing_pauses_of_at_most_a_minute() -> None:
    receiver = Receiver(CHAT.replace(remind_s=0.0))
    receiver.hear("e", "unhealthy", 0.0)
    attempts, failed = [], 0
    for now in range(400):
        receiver.look(now, up=False)
        if receiver.box.failed > failed:
            failed = receiver.box.failed
            attempts.append(now)
    assert [after - before for before, after in itertools.pairwise(attempts)] == [
        1,
        2,
        4,
        8,
        16,
        32,
        60,
        60,
        60,
        60,
        60,
    ]


def test_after_an_hour_a_change_is_given_up_and_counted_and_what_lasts_is_told_again() -> None:
    receiver = Receiver(CHAT)
    for at, (engine, state) in enumerate((("e", "unhealthy"), ("f", "unhealthy"), ("f", "healthy"))):
        receiver.hear(engine, state, at)
    receiver.look(GIVE_UP_S - 1, up=False)
    assert (receiver.box.dropped, len(receiver.box.pending)) == (0, 3)
    receiver.look(GIVE_UP_S + 2, up=False)
    assert (receiver.box.dropped, receiver.box.pending) == (3, ())
    receiver.look(GIVE_UP_S + 20)
    assert [(line.text, line.again) for line in receiver.arrived[0][1]] == [("e is as it was, for 1 h now", True)]


def test_a_thousand_lines_are_kept_and_the_oldest_is_counted() -> None:
    receiver = Receiver(CHAT)
    for number in range(1001):
        receiver.hear(f"e{number}", "unhealthy", 0.0)
    assert (len(receiver.box.pending), receiver.box.dropped, receiver.box.pending[0].text) == (
        1000,
        1,
        "e1 is unhealthy",
    )


def test_a_line_says_what_it_was_and_for_how_long() -> None:
    receiver = Receiver(CHAT)
    for now, state in ((0.0, "unhealthy"), (200.0, "unknown"), (260.0, "healthy")):
        receiver.hear("e", state, now)
    assert [line.text for line in receiver.box.pending] == [
        "e is unhealthy",
        "e is unknown, was unhealthy for 3 min",
        "e is healthy, was unknown for 60 s",
    ]


# --- promises, for any history --------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(st.sampled_from("ef"), st.sampled_from("HDUS?M"), st.floats(0.0, 90.0), st.booleans()), max_size=60
)


def told(arrived: Iterable[tuple[float, tuple[Line, ...]]]) -> list[Line]:
    return [line for _, batch in arrived for line in batch if not line.again]


@given(EVENTS, st.sampled_from([CHAT, ALERTS, Manner(("unhealthy",), per_hour=2)]))
def test_nothing_is_lost_or_told_twice_and_the_last_word_is_true(
    events: list[tuple[str, str, float, bool]], manner: Manner
) -> None:
    receiver, now = Receiver(manner), 0.0
    heard: list[Line] = []
    state = {"e": "H", "f": "H"}
    for engine, letter, pause_s, up in events:
        receiver.look(now, up)
        if letter != state[engine]:
            before = receiver.box.pending
            receiver.hear(engine, STATES[letter], now)
            heard += receiver.box.pending[len(before) :]
            state[engine] = letter if letter != "S" else state[engine]
        for _ in range(int(pause_s // 10) + 1):
            now += pause_s / (int(pause_s // 10) + 1)
            receiver.look(now, up)
    for _ in range(130):  # up again, for longer than anything is held, paused or limited
        now += 60.0
        receiver.look(now)
    lines = told(receiver.arrived)
    assert receiver.box.pending == ()
    assert len(lines) + receiver.box.dropped == len(heard)
    assert len({id(line) for line in lines}) == len(lines)
    if not receiver.box.dropped:
        order = {id(line): number for number, line in enumerate(heard)}
        last: dict[str, str] = {}
        for line in sorted(lines, key=lambda line: order[id(line)]):
            if line.ended:
                assert last.pop(line.ended.engine) == line.ended.state  # an end was begun
            if line.began:
                assert line.began.engine not in last  # and nothing begins twice
                last[line.began.engine] = line.began.state
        assert last == {name: STATES[letter] for name, letter in state.items() if STATES[letter] in manner.states}
    if manner.per_hour:
        times = [at for at, _ in receiver.arrived]
        assert all(sum(at <= each < at + 3600 for each in times) <= manner.per_hour for at in times)
