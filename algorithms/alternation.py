"""How long an E-step lasts before the M-step."""

from abc import ABC, abstractmethod

from torch import Tensor

from algorithms.schedule import Schedule, as_schedule
from gfn_envs.errors import UserError


class Alternation(ABC):
    """Decides after each E-update whether the M-step comes next."""

    def start(self, m_steps: int) -> None:
        """Says that an E-step begins.

        Args:
            m_steps: How many M-steps have been made so far.
        """

    @abstractmethod
    def done(self, updates: int, loss: Tensor) -> bool:
        """Says whether the E-step has lasted long enough.

        Args:
            updates: How many updates this E-step has made.
            loss: The loss of the last one, a scalar; read only where needed, since that waits
                for the device.
        """

    def state_dict(self) -> dict[str, float]:
        """Returns what a resumed run needs."""
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Takes what `state_dict` returned."""


class FixedUpdates(Alternation):
    """The same number of updates in every E-step, but perhaps for the first.

    A long first E-step keeps an untrained policy's samples, spread over all structures, out of the
    first M-step: on them a model forgets much of its start.
    """

    def __init__(self, updates: int, first: int | None = None) -> None:
        """Takes the number of updates.

        Args:
            updates: How many in an E-step.
            first: How many in the first, before any M-step; as many by default.

        Raises:
            UserError: If either is below 1.
        """
        self.updates = updates
        self.first = updates if first is None else first
        if min(self.updates, self.first) < 1:
            raise UserError(f"An E-step needs at least 1 update; got {min(updates, self.first)}.")
        self._current_updates = self.first

    def start(self, m_steps: int) -> None:
        """Says whether this is the first E-step; see `Alternation.start`."""
        self._current_updates = self.updates if m_steps else self.first

    def done(self, updates: int, loss: Tensor) -> bool:
        """Says whether the updates are made; see `Alternation.done`."""
        return updates >= self._current_updates

    def state_dict(self) -> dict[str, float]:
        """Returns how long this E-step lasts."""
        return {"updates": self._current_updates}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Takes how long this E-step lasts."""
        self._current_updates = int(state["updates"])


class LossThreshold(Alternation):
    """Updates until a moving average of the loss falls below a bound that moves over training.

    The adaptive E-step of Hu et al. 2023, section 4.2. An untrained policy spreads its samples over
    all structures, and an M-step on them pulls every component towards the middle of the data; so
    the first E-steps must be long, while later ones, from a policy that is nearly right, need not.
    """

    def __init__(
        self, bound: Schedule | float, max_updates: int = 1000, momentum: float = 0.9
    ) -> None:
        """Takes the bound and the average's memory.

        Args:
            bound: The bound on the average loss; a schedule's steps are M-steps.
            max_updates: An E-step ends after so many updates even above the bound.
            momentum: The weight of the past in the moving average, in 0 .. 1.

        Raises:
            UserError: If max_updates is below 1 or momentum outside 0 .. 1.
        """
        if max_updates < 1 or not 0.0 <= momentum < 1.0:
            raise UserError("LossThreshold needs max_updates >= 1 and momentum in [0, 1).")
        self.bound = as_schedule(bound)
        self.max_updates = max_updates
        self.momentum = momentum
        self.average: float | None = None
        self._current_bound = self.bound.at(0)

    def start(self, m_steps: int) -> None:
        """Moves the bound; the average goes on from the last E-step. See `Alternation.start`."""
        self._current_bound = self.bound.at(m_steps)

    def done(self, updates: int, loss: Tensor) -> bool:
        """Says whether the average is below the bound; see `Alternation.done`."""
        latest = loss.item()
        past = latest if self.average is None else self.average
        self.average = self.momentum * past + (1 - self.momentum) * latest
        return self.average < self._current_bound or updates >= self.max_updates

    def state_dict(self) -> dict[str, float]:
        """Returns this E-step's bound and the moving average, if there is one yet."""
        average = {} if self.average is None else {"average": self.average}
        return {"bound": self._current_bound, **average}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Takes this E-step's bound and the moving average."""
        self._current_bound = state["bound"]
        self.average = state.get("average")
