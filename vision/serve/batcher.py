"""Pictures that arrive one by one, answered as many at a time as there are."""

from __future__ import annotations

import collections
import dataclasses
import threading
from concurrent.futures import Future
from typing import Any

import numpy as np

from vision.blocks.sites import SiteError
from vision.predict.explain import Explanation
from vision.predict.predictor import Predictor
from vision.predict.results import Prediction

WAITING = 32


class Full(Exception):
    """As many pictures wait as may."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """One picture.

    Attributes:
      encoded: bytes of its file.
      explained: whether a map is asked for; otherwise probabilities.
      class_name: of the map; None for the likeliest class.
      answer: what waits for it.
    """

    encoded: bytes
    explained: bool = False
    class_name: str | None = None
    answer: Future[Any] = dataclasses.field(default_factory=Future)


class Batcher:
    """A thread that has the model to itself.

    It takes what has arrived while it was busy, up to ``batch_size`` pictures at a time: a picture
    that comes alone is not kept waiting for others. Maps are computed one by one, when no
    probabilities are asked for before them. A picture whose answer nobody waits for any more is
    left out.
    """

    def __init__(self, predictor: Predictor, waiting: int) -> None:
        """
        Args:
          predictor: the model.
          waiting: most pictures that have not begun.
        """
        self._predictor = predictor
        self._most = waiting
        self._jobs: collections.deque[_Job] = collections.deque()
        self._arrived = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._jobs)

    def predict(self, encoded: bytes) -> Future[Prediction]:
        """The row of one picture, whose ``error`` says why it cannot be used.

        Raises:
          Full: too many wait.
        """
        return self._put(_Job(encoded))

    def explain(self, encoded: bytes, class_name: str | None) -> Future[Explanation]:
        """Where the model sees a class; DataError of a picture that cannot be used.

        Raises:
          Full: too many wait.
        """
        return self._put(_Job(encoded, True, class_name))

    def close(self) -> None:
        """Ends the thread; what has not begun is cancelled."""
        with self._arrived:
            self._closed = True
            for job in self._jobs:
                job.answer.cancel()
            self._jobs.clear()
            self._arrived.notify()
        self._thread.join()

    def _put(self, job: _Job) -> Future[Any]:
        with self._arrived:
            if self._closed or len(self._jobs) >= self._most:
                raise Full
            self._jobs.append(job)
            self._arrived.notify()
        return job.answer

    def _take(self) -> list[_Job]:
        """The next jobs of one kind; none at the end."""
        with self._arrived:
            while True:
                self._arrived.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return []
                most = 1 if self._jobs[0].explained else self._predictor.batch_size
                taken: list[_Job] = []
                while self._jobs and len(taken) < most:
                    if taken and self._jobs[0].explained:
                        break
                    job = self._jobs.popleft()
                    if job.answer.set_running_or_notify_cancel():
                        taken.append(job)
                    elif job.explained:
                        break
                if taken:
                    return taken

    def _work(self) -> None:
        while jobs := self._take():
            try:
                answers = self._answers(jobs)
            except Exception as error:
                for job in jobs:
                    job.answer.set_exception(error)
            else:
                for job, answer in zip(jobs, answers, strict=True):
                    job.answer.set_result(answer)

    def _answers(self, jobs: list[_Job]) -> list[Any]:
        if jobs[0].explained:
            return [self._predictor.explain(jobs[0].encoded, jobs[0].class_name)]
        return list(self._predictor.predict([job.encoded for job in jobs], on_error="keep"))


def warm(predictor: Predictor) -> str:
    """Compiles what requests will need, before anyone waits for it.

    Returns:
      Why the model has no maps; empty where it has.

    Raises:
      PredictError: a model without classes.
    """
    height, width, channels = predictor.preprocessing.shape
    image = np.zeros((height, width, channels), np.uint8)
    counts = {predictor.batch_size, *(2**i for i in range(predictor.batch_size.bit_length()))}
    missing = ""
    try:
        predictor.explain(image)
    except SiteError as error:
        missing = str(error)
    for count in sorted(counts):
        predictor.predict([image] * count)
    return missing
