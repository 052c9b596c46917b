import signal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.supervise.plan import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    STEADY_S,
    AllReady,
    Child,
    Exited,
    Fleet,
    Kill,
    NotReady,
    Phase,
    Ready,
    Report,
    Spawn,
    SpawnFailed,
    StopAsked,
    Terminate,
    Tick,
    ending,
    step,
)

STORE = Child("store", ("store",), grace_s=5.0)
WORKER = Child("worker", ("worker",), needs=("store",))
PROXY = Child("proxy", ("proxy",), needs=("worker",))


class Play:
    """A fleet on a clock of its own that remembers every action."""

    def __init__(self, *children):
        self.fleet = Fleet.of(children)
        self.now = 100.0
        self.actions = []

    def see(self, event, after=0.0):
        self.now += after
        self.fleet, actions = step(self.fleet, event, self.now)
        self.actions += actions
        return list(actions)

    def life(self, name):
        return self.fleet.lives[name]

    def start(self):
        """Until every child is ready."""
        self.see(Tick())
        for name in self.fleet.children:
            self.see(Ready(name, 1))


def reports(actions):
    return [action.text for action in actions if isinstance(action, Report)]


def test_a_child_starts_when_all_it_needs_is_ready():
    play = Play(STORE, WORKER, PROXY)

    assert play.see(Tick()) == [Spawn("store", 1)]
    assert play.see(Ready("store", 1)) == [Spawn("worker", 1)]
    assert play.see(Ready("worker", 1)) == [Spawn("proxy", 1)]
    assert play.see(Ready("proxy", 1)) == [AllReady()]


def test_children_with_the_same_needs_start_together():
    play = Play(STORE, WORKER, Child("second", ("x",), needs=("store",)))

    play.see(Tick())

    assert play.see(Ready("store", 1)) == [Spawn("worker", 1), Spawn("second", 1)]


def test_the_need_of_a_child_that_died_after_being_ready_still_counts_as_met():
    play = Play(STORE, WORKER, PROXY)
    play.see(Tick())
    play.see(Ready("store", 1))
    play.see(Exited("store", 1, 1))

    assert play.see(Ready("worker", 1)) == [Spawn("proxy", 1)]


def test_a_killed_child_is_named_with_its_signal_and_restarted_after_the_delay():
    play = Play(STORE)
    play.start()

    said = play.see(Exited("store", 1, -signal.SIGKILL), after=20.0)

    assert reports(said) == ["store was killed by SIGKILL, restarting in 0.25 s"]
    assert play.fleet.deadline == play.now + FIRST_DELAY_S
    assert play.see(Tick(), after=FIRST_DELAY_S / 2) == []
    assert play.see(Tick(), after=FIRST_DELAY_S / 2) == [Spawn("store", 2)]
    assert reports(play.see(Ready("store", 2))) == ["store is ready again"]


def test_all_ready_is_said_once():
    play = Play(STORE)
    play.start()
    play.see(Exited("store", 1, 0))
    play.see(Tick(), after=FIRST_DELAY_S)
    play.see(Ready("store", 2))

    assert play.actions.count(AllReady()) == 1


def test_the_delay_doubles_up_to_its_limit_and_starts_anew_after_a_steady_life():
    play = Play(STORE)
    play.see(Tick())
    delays = []
    for life in range(1, 9):
        play.see(Exited("store", life, 1), after=0.1)
        delays.append(play.life("store").delay)
        play.see(Tick(), after=delays[-1])
    assert delays == [0.25, 0.5, 1, 2, 4, 8, 8, 8]

    play.see(Exited("store", 9, 1), after=STEADY_S)

    assert play.life("store").delay == FIRST_DELAY_S


def test_a_child_that_cannot_be_started_is_tried_again():
    play = Play(STORE)
    play.see(Tick())

    said = play.see(SpawnFailed("store", 1, "Too many open files"))

    assert reports(said) == ["store cannot be started (Too many open files), restarting in 0.25 s"]
    assert play.see(Tick(), after=FIRST_DELAY_S) == [Spawn("store", 2)]


def test_an_event_of_an_earlier_life_is_void():
    play = Play(STORE, WORKER)
    play.see(Tick())
    play.see(Exited("store", 1, 1))
    play.see(Tick(), after=FIRST_DELAY_S)

    assert play.see(Ready("store", 1)) == []
    assert play.see(Exited("store", 1, 0)) == []
    assert play.see(NotReady("store", 1, "late")) == []
    assert play.life("store").phase is Phase.RUNNING


def test_waiting_is_reported_with_its_reason_and_hint_less_and_less_often():
    play = Play(Child("store", ("x",), hint="see its log"))
    play.see(Tick())
    play.see(NotReady("store", 1, "/readyz says 503"))
    times = []
    for _ in range(6):
        play.now = play.fleet.deadline
        assert reports(play.see(Tick()))[0].endswith("/readyz says 503; see its log")
        times.append(play.now - 100)

    assert times == [5, 10, 20, 40, 70, 100]
    play.see(Ready("store", 1))
    assert play.fleet.deadline is None


def test_stopping_goes_backwards_and_waits_for_each():
    play = Play(STORE, WORKER, PROXY)
    play.start()

    assert play.see(StopAsked()) == [Report("stopping"), Terminate("proxy")]
    assert play.see(Exited("proxy", 1, 0)) == [Terminate("worker")]
    assert play.see(Exited("worker", 1, 0)) == [Terminate("store")]
    assert not play.fleet.done
    assert play.see(Exited("store", 1, 0)) == []
    assert play.fleet.done


def test_a_child_is_kept_for_those_that_need_it_through_a_dead_one():
    play = Play(STORE, WORKER, PROXY)
    play.start()
    play.see(Exited("worker", 1, 1))

    assert play.see(StopAsked()) == [Report("stopping"), Terminate("proxy")]
    assert play.see(Exited("proxy", 1, 0)) == [Terminate("store")]


def test_a_child_that_ignores_the_request_is_killed_after_its_grace():
    play = Play(STORE)
    play.start()
    play.see(StopAsked())

    assert play.see(Tick(), after=4.9) == []
    assert play.see(Tick(), after=0.1) == [
        Report("store did not stop within 5 s, killing it"),
        Kill("store"),
    ]
    assert play.fleet.deadline is None
    play.see(Exited("store", 1, -9))
    assert play.fleet.done


def test_asking_twice_kills_all_at_once():
    play = Play(STORE, WORKER, PROXY)
    play.start()
    play.see(StopAsked())

    assert [a for a in play.see(StopAsked()) if isinstance(a, Kill)] == [
        Kill("store"),
        Kill("worker"),
        Kill("proxy"),
    ]


def test_readiness_that_comes_while_stopping_does_not_put_off_the_kill():
    play = Play(STORE)
    play.see(Tick())
    play.see(StopAsked())
    kill_at = play.fleet.deadline

    assert AllReady() not in play.see(Ready("store", 1))
    assert play.fleet.deadline == kill_at


def test_nothing_is_started_once_stopping():
    play = Play(STORE, WORKER)
    play.see(StopAsked())

    assert play.fleet.done
    assert not any(isinstance(action, Spawn) for action in play.actions)


def test_a_resting_child_is_not_restarted_once_stopping():
    play = Play(STORE)
    play.start()
    play.see(Exited("store", 1, 1))
    play.see(StopAsked())

    assert play.fleet.done


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exited with status 0"),
        (2, "exited with status 2"),
        (-11, "was killed by SIGSEGV"),
        (-200, "was killed by signal 200"),
    ],
)
def test_an_ending_in_words(status, words):
    assert ending(status) == words


@pytest.mark.parametrize(
    ("children", "error"),
    [
        ([STORE, STORE], "two children are called store"),
        ([WORKER], "worker needs store, which is no child before it"),
        ([WORKER, STORE], "worker needs store, which is no child before it"),
    ],
)
def test_a_fleet_that_makes_no_sense_is_refused(children, error):
    with pytest.raises(ValueError, match=error):
        Fleet.of(children)


NAMES = ("a", "b", "c", "d")


@st.composite
def fleets(draw):
    children = []
    for at, name in enumerate(NAMES):
        needs = draw(st.lists(st.sampled_from(NAMES[:at]), unique=True)) if at else []
        children.append(
            Child(name, (name,), needs=tuple(needs), grace_s=draw(st.sampled_from([0.0, 1.0, 5.0])))
        )
    return children


names = st.sampled_from(NAMES)
lives = st.integers(1, 4)
events = st.one_of(
    st.just(Tick()),
    st.builds(Ready, names, lives),
    st.builds(NotReady, names, lives, st.just("why")),
    st.builds(Exited, names, lives, st.integers(-15, 3)),
    st.builds(SpawnFailed, names, lives, st.just("why")),
)
times = st.floats(0, 12)


class Machine:
    """Plays the operating system: knows which processes truly live, and holds the plan to its promises."""

    def __init__(self, children):
        self.play = Play(*children)
        self.alive = {}
        self.signalled = set()
        self.delays = {name: [] for name in NAMES}

    def see(self, event, after):
        real = not isinstance(event, Exited | SpawnFailed) or self.alive.get(event.name) == event.life
        if not real:
            return
        if isinstance(event, Exited | SpawnFailed):
            del self.alive[event.name]
        order = self.play.fleet.order
        for action in self.play.see(event, after):
            self.obey(action, order)

    def obey(self, action, order):
        match action:
            case Spawn(name, life):
                assert name not in self.alive, "two lives of one child"
                assert order == "run"
                assert all(self.play.life(need).was_ready for need in self.play.fleet.children[name].needs)
                self.alive[name] = life
                self.delays[name].append(self.play.life(name).delay)
            case Terminate(name):
                assert name in self.alive
                assert not self.alive.keys() & self.play.fleet.dependants[name], "stopped under its users"
                assert name not in self.signalled, "asked twice"
                self.signalled.add(name)
            case Kill(name):
                assert name in self.alive


@given(fleets(), st.lists(st.tuples(events, times), max_size=60), st.integers(0, 60))
@settings(max_examples=300, deadline=None)
def test_whatever_happens_no_child_lives_twice_and_stopping_ends(children, happenings, stop_at):
    machine = Machine(children)
    machine.see(Tick(), 0.0)
    for at, (event, after) in enumerate(happenings):
        if at == stop_at:
            machine.see(StopAsked(), after)
        machine.see(event, after)
        assert {n for n, life in machine.play.fleet.lives.items() if life.alive} == machine.alive.keys()
        deadline = machine.play.fleet.deadline
        assert deadline is None or deadline >= machine.play.now

    machine.see(StopAsked(), 0.0)
    while machine.alive:
        name, life = next(reversed(machine.alive.items()))
        machine.see(Exited(name, life, 0), 1.0)
    assert machine.play.fleet.done


@given(st.lists(st.floats(0, STEADY_S - 0.01), min_size=2, max_size=12))
def test_among_short_lives_the_delay_never_shrinks_and_never_passes_its_limit(lengths):
    play = Play(STORE)
    play.see(Tick())
    delays = []
    for life, length in enumerate(lengths, start=1):
        play.see(Exited("store", life, 1), after=length)
        delays.append(play.life("store").delay)
        play.now = play.fleet.deadline
        play.see(Tick())

    assert all(a <= b <= LONGEST_DELAY_S for a, b in pairwise(delays))
