"""`python -m tests.exploration [world ...]`: explore and print the table; EXPLORE=deep for more. Exit 1 = broken."""

from __future__ import annotations

import sys

from tests.exploration.runs import HEAD, chosen_worlds, explore, total


def main() -> int:
    worlds = chosen_worlds()
    names = sys.argv[1:] or list(worlds)
    if unknown := set(names) - set(worlds):
        print(f"no such world: {sorted(unknown)}; there are: {', '.join(worlds)}")
        return 2
    print(HEAD)
    figures: list[tuple[int, int, float]] = []
    broken = 0
    for name in names:
        explored = explore(worlds[name])
        figures.append((explored.states, explored.transitions, explored.seconds))
        print(explored.line, explored.world.about, flush=True)
        if explored.counter_example is not None:
            broken += 1
            print(explored.counter_example)
    print(total(figures))
    return 1 if broken else 0


sys.exit(main())
