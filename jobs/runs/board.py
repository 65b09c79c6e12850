"""What the workers of a training and the command that waits for them tell one another."""

from __future__ import annotations

from typing import NamedTuple

Line = tuple[int, dict[str, float]]  # images seen, and values


class News(NamedTuple):
    """What has happened; all but the line since the last reading, some of it perhaps again."""

    latest: Line | None = None  # the newest line of the log
    evaluations: tuple[Line, ...] = ()
    warnings: tuple[str, ...] = ()
    failure: Exception | None = None  # why training cannot go on
    notes: tuple[str, ...] = ()  # as warnings, of what goes well


class Wishes(NamedTuple):
    """What the workers are asked to do at the next line of the log."""

    stop: bool = False  # save a checkpoint and end
    discard: bool = False  # and it need not be saved
    rest: bool = False  # save a checkpoint and wait: their number is about to change


class Board:
    """Runs as an actor that outlives the workers (in a module that needs no PyTorch to start).

    Where it dies it comes back empty, and everybody says again what still matters: workers all of
    their news at each line, the command and the controller their wishes at each look.
    """

    def __init__(self) -> None:
        self.news = News()
        self.known: set[int | str] = set()  # evaluations and warnings that were told before
        self.stop = False
        self.discard = False
        self.rest = False
        self.resting = False
        self.saved = True  # whether there was a checkpoint since the last rest

    def post(self, news: News) -> None:
        """Worker 0: all that happened since it started, without `failure`."""
        evaluations = [line for line in news.evaluations if line[0] not in self.known]
        warnings = [text for text in news.warnings if text not in self.known]
        notes = [text for text in news.notes if text not in self.known]
        self.known |= {seen for seen, _ in evaluations} | {*warnings, *notes}
        self.saved = self.saved or bool(evaluations)
        self.news = self.news._replace(
            latest=news.latest or self.news.latest,
            evaluations=(*self.news.evaluations, *evaluations),
            warnings=(*self.news.warnings, *warnings),
            notes=(*self.news.notes, *notes),
        )

    def fail(self, reason: Exception) -> None:
        self.news = self.news._replace(failure=reason)

    def failed(self) -> bool:
        return self.news.failure is not None

    def read(self) -> News:
        news = self.news
        self.news = news._replace(evaluations=(), warnings=(), notes=())
        return news

    def ask_to_stop(self, discard: bool) -> None:
        """discard: nothing need be saved."""
        self.stop = True
        self.discard = discard

    def wishes(self) -> Wishes:
        return Wishes(self.stop, self.discard, self.rest)

    def ask_to_rest(self) -> bool:
        """Whether all work is saved and the workers wait, so that their number may change.

        They are not asked a second time before there was another checkpoint.
        """
        self.rest = self.rest or self.saved
        return self.resting

    def rests(self) -> None:
        """Worker 0: everything is saved, and all wait. Too late where that is off again."""
        if self.rest:
            self.resting = True
            self.saved = False

    def go_on(self) -> None:
        """The number of workers need not change, or has changed; or they wait no longer."""
        self.rest = self.resting = False
