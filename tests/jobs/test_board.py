"""The board between a command and its workers, as plain Python."""

from jobs.runs.board import Board, News, Wishes

FIRST = (32, {"loss": 1.0})
SECOND = (64, {"loss": 0.5})


def test_what_was_read_is_not_told_again_although_workers_post_all_of_it_each_time():
    board = Board()
    told = {"warnings": ("skipped a.png",), "notes": ("goes on at 8 of 64 images",)}
    board.post(News(latest=FIRST, evaluations=(FIRST,), **told))
    assert board.read() == News(FIRST, (FIRST,), **told)
    board.post(News(latest=SECOND, evaluations=(FIRST, SECOND), **told))
    assert board.read() == News(SECOND, (SECOND,))
    assert board.read() == News(SECOND)


def test_a_board_that_came_back_empty_learns_everything_from_the_next_line():
    news = News(SECOND, (FIRST, SECOND), ("skipped a.png",))
    board = Board()
    board.post(news)
    assert board.read() == news


def test_a_failure_stays():
    board = Board()
    assert not board.failed()
    reason = ValueError("no")
    board.fail(reason)
    board.post(News(latest=FIRST))
    board.read()
    assert board.failed()
    assert board.read() == News(FIRST, failure=reason)


def test_wishes():
    board = Board()
    assert board.wishes() == Wishes()
    board.ask_to_stop(discard=True)
    assert board.wishes() == Wishes(stop=True, discard=True)


def test_workers_are_not_asked_to_rest_again_before_another_checkpoint():
    board = Board()
    assert not board.ask_to_rest()
    assert board.wishes() == Wishes(rest=True)
    board.post(News(latest=FIRST, evaluations=(FIRST,)))  # the checkpoint that this brings
    board.rests()
    assert board.ask_to_rest()
    board.go_on()
    assert board.wishes() == Wishes()

    assert not board.ask_to_rest()
    board.post(News(latest=SECOND, evaluations=(FIRST,)))  # nothing new was saved
    assert not board.ask_to_rest()
    assert board.wishes() == Wishes()
    board.post(News(latest=SECOND, evaluations=(FIRST, SECOND)))
    assert not board.ask_to_rest()
    assert board.wishes() == Wishes(rest=True)


def test_a_rest_that_is_off_again_does_not_begin_and_the_next_one_waits_for_its_checkpoint():
    board = Board()
    board.ask_to_rest()
    board.go_on()
    board.rests()  # worker 0 had not read that yet
    assert not board.ask_to_rest()
    assert board.wishes() == Wishes(rest=True)
