"""What can be done next, as a value.

Owns: the shape of a move and the names of the faults. Does not own: which moves there are (`model`, `launching`,
`surroundings`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tests.exploration.world import NOBODY, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

States: TypeAlias = Iterable[State]
FREE = -1  # of no budget
NO_BUDGET = -2  # a fault that this world does not have


class Move(NamedTuple):
    """`act(state, index, *args)` says what comes of it: a state, several, or none when the world does not let it.

    `index` is the writer's, NOBODY for the rest of the world. `budget` is that of its fault. A fair move happens in the
    end wherever it stays possible.
    """

    name: str
    act: Callable[..., States]
    args: tuple[Any, ...] = ()
    budget: int = FREE
    fair: bool = True


class Faults:
    """The faults that a world has a budget for."""

    def __init__(self, budgets: Mapping[str, int]) -> None:
        self._index = {name: index for index, name in enumerate(budgets)}

    def budget(self, name: str) -> int:
        """Where the state counts what is left of it; NO_BUDGET in a world that does not have it."""
        return self._index.get(name, NO_BUDGET)

    def __call__(self, index: int, name: str, act: Callable[..., States], *args: Any) -> Iterator[Move]:
        """The move, if the world has it."""
        if name in self._index:
            who = f"{'ab'[index]}: " if index != NOBODY else ""
            yield Move(who + name, act, args, self._index[name], fair=False)


def pay(state: State, budget: int) -> State | None:
    """The state with one fault less to come; None when it has none left."""
    if budget == FREE:
        return state
    left = 0 if budget == NO_BUDGET else state.budgets[budget]
    if not left:
        return None
    return state._replace(budgets=(*state.budgets[:budget], left - 1, *state.budgets[budget + 1 :]))
