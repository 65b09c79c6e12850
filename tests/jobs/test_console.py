"""Progress as a job's log has it."""

import pytest

from jobs import console


def test_lines_tell_how_long_it_will_last_and_none_is_told_twice(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with console.Meter("run", 4000) as meter:
        for clock[0], done in ((100, 32), (102, 200), (108, 832), (110, 4000), (111, 4000)):
            meter.update(done, {"loss": 0.5})
    assert capsys.readouterr().err.splitlines() == [
        "run  32/4,000  loss 0.5",
        "run  832/4,000  loss 0.5  32 s left",
        "run  4,000/4,000  loss 0.5",
    ]


@pytest.mark.parametrize(("seconds", "told"), [(4.2, "4 s"), (150, "2 min"), (7500, "2 h 5 min")])
def test_time_is_told_as_a_person_does(seconds, told):
    assert console.lasting(seconds) == told
