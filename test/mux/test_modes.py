"""The modes: who may choose them, what latches, what asks for a stop to be sent."""

from lingbot_va_ros.mux.modes import ModeStateMachine, MuxMode


def test_it_starts_in_hold_and_asks_for_nothing():
    machine = ModeStateMachine()
    assert machine.mode == MuxMode.HOLD and machine.stop_requests == 0


def test_a_fault_before_anybody_chose_a_mode_asks_for_no_stop():
    machine = ModeStateMachine()
    machine.stop('pressed')
    assert machine.mode == MuxMode.STOPPED and machine.stop_requests == 0


def test_what_is_missing_is_named_and_the_mode_stays():
    machine = ModeStateMachine()
    assert machine.choose(MuxMode.POLICY, ['a', 'b']) == (False, 'POLICY needs a; b')
    assert machine.mode == MuxMode.HOLD and not machine.chosen


def test_falling_to_hold_asks_for_one_stop():
    machine = ModeStateMachine()
    machine.choose(MuxMode.POLICY, [])
    assert machine.fall_to_hold('lost')
    assert not machine.fall_to_hold('lost again')
    assert machine.state == (MuxMode.HOLD, 'lost')
    assert machine.stop_requests == 1 and machine.is_fault


def test_stopped_keeps_its_first_reason_and_no_fault_leads_out_of_it():
    machine = ModeStateMachine()
    machine.stop('first')
    machine.stop('second')
    assert not machine.fall_to_hold('fault')
    assert machine.state == (MuxMode.STOPPED, 'first')
    assert not machine.choose(MuxMode.HOLD, [])[0]


def test_clearing_needs_a_released_input_that_is_heard():
    machine = ModeStateMachine(emergency_timeout=0.5)
    assert not machine.clear_stop(10.0)[0]
    machine.emergency_input(True, 10.0)
    assert not machine.clear_stop(10.1)[0]
    machine.emergency_input(False, 10.2)
    assert not machine.clear_stop(10.8)[0], 'silent for too long'
    machine.emergency_input(False, 11.0)
    assert machine.clear_stop(11.1)[0]
    machine.watch(11.4)
    assert machine.mode == MuxMode.HOLD
    machine.watch(11.6)
    assert machine.mode == MuxMode.STOPPED


def test_without_a_timeout_silence_is_no_fault():
    machine = ModeStateMachine()
    machine.watch(1e9)
    assert machine.mode == MuxMode.HOLD
