"""End of a finite search space: every point of it has a trial."""

from collections.abc import Callable

import optuna
from optuna.trial import TrialState

from lightning_hpo.search.samplers import NumberSeededSampler
from lightning_hpo.storage.attributes import StudyKey

__all__ = ["Exhaustion"]


class Exhaustion:
    """Tells whether the sampler has sampled the whole search space. The study remembers it.

    Args:
        study: The study.
        sampler: Its sampler.
        say: Shows a line to the user.
        endless: Whether the trials do not come from a search space.

    Attributes:
        reached: Whether the end has been reached.
    """

    def __init__(
        self, study: optuna.Study, sampler: NumberSeededSampler, say: Callable[[str], None], *, endless: bool
    ) -> None:
        self._study, self._sampler, self._say, self._endless = study, sampler, say, endless
        self.reached = bool(study.user_attrs.get(StudyKey.EXHAUSTED))

    def reopen(self) -> None:
        """Go on if the search space has new points, because a range has been extended."""
        if self.reached and self._sampler.has_new_point(self._study):
            self._set(False)

    def look(self, *, running: bool) -> bool:
        """Return whether every point of the search space has a trial, and no trial is paused.

        Args:
            running: Whether a trial is running, which may yet be paused.
        """
        if self._endless or self._sampler.has_new_point(self._study):
            return False
        if self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return False
        if not running:
            self._set(True)
        return True

    def note(self) -> None:
        """Note that the sampler itself has found the end, if it has."""
        if self._sampler.exhausted and not self.reached:
            self._set(True)

    def _set(self, reached: bool) -> None:
        self.reached = reached
        self._study.set_user_attr(StudyKey.EXHAUSTED, reached)
        if reached:
            self._say("the sampler has sampled the whole search space: no further trial is started")
