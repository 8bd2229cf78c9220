"""In which order the tests run on several workers: the long ones first, the short ones fill the gaps at the end.

Owns: what is known about how long tests take. Does not own: who runs what (`--dist worksteal`: each worker begins with
an equal share of the list, and one that has none left takes over half of what the busiest still has).

Invariants: every test stays, once; the order depends on nothing but the tests and the number of workers, for all
workers have to find the same. A wrong figure here costs time, never a test.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# Seconds of those that take 15 or more, with all their parameters alike, on a machine with two cores.
LONG: Final[Mapping[str, float]] = {
    "test_outages_of_30_s_cost_ticks_that_are_counted_and_no_record_none_doubled_in_bounded_memory": 70,
    "test_no_body_made_to_cost_memory_does": 37,
    "test_stopped_in_a_storm_of_all_faults_it_has_lost_nothing_and_counted_what_it_may_have_doubled": 34,
    "test_a_foreign_object_in_the_way_stalls_the_partition_until_it_is_gone": 33,
    "test_kill_9_again_and_again_loses_and_doubles_nothing": 32,
    "test_a_revived_old_task_and_the_new_prefix_never_run_together": 28,
    "test_the_recipe_changes_prefix_template_format_and_codec_while_records_arrive": 26,
    "test_a_hanging_broker_holds_no_call_beyond_its_deadline": 26,
    "test_the_demo_runs_stores_verifies_and_leaves_nothing_running": 25,
    "test_whatever_happens_everything_is_stored_once_in_order_and_in_time": 50,
    "test_a_rolling_change_is_refused_and_kafkas_tool_moves_no_living_group": 25,
    "test_offsets_reset_in_a_wrong_way_are_refused_before_the_new_prefix_begins": 25,
    "test_a_zombie_with_data_buffered_does_no_harm": 23,
    "test_sigterm_under_load_stops_within_the_budget_and_stores_what_was_open": 20,
    "test_replicas_come_and_go_under_load": 20,
    "test_memory_is_bounded_however_many_and_large_the_objects_are": 20,
    "test_an_environment_is_made_once_and_again_when_it_no_longer_fits": 20,
    "test_a_restarting_broker_is_never_taken_for_one_without_offsets": 20,
    "test_a_put_that_fails_is_kept_and_heals_without_a_restart": 15,
    "test_a_refused_put_is_told_and_nothing_is_committed": 15,
    "test_a_broker_keeps_its_records_and_address_over_kill_suspension_and_stop": 15,
}
# Seconds of any other, by its folder.
USUAL: Final[Mapping[str, float]] = {
    "tests/e2e": 6,
    "tests/integration": 4,
    "tests/simulation": 3,
    "tests/exploration": 2,
    "tests/contract": 1,
}
SHORT_SECONDS: Final = 0.03
# They share a server of their own: on one worker it is started once.
TOGETHER: Final = frozenset({"tests/integration/test_kafka_security.py"})


def seconds(node_id: str) -> float:
    """About how long that test takes."""
    path, _, name = node_id.partition("::")
    known = LONG.get(name.rpartition("::")[2].partition("[")[0])
    return known if known is not None else USUAL.get("/".join(path.split("/")[:2]), SHORT_SECONDS)


def dealt(node_ids: Sequence[str], workers: int) -> list[int]:
    """The tests' numbers in the order to run them, cut by worksteal into `workers` shares that take equally long."""
    bundles: dict[str, list[int]] = defaultdict(list)
    for number, node_id in enumerate(node_ids):
        path = node_id.partition("::")[0]
        bundles[path if path in TOGETHER else node_id].append(number)
    cost = {name: sum(seconds(node_ids[number]) for number in bundle) for name, bundle in bundles.items()}
    shares: list[list[int]] = [[] for _ in range(workers)]
    spent = [0.0] * workers
    # As worksteal cuts: they differ by one at most, and the larger ones are the last.
    room = [(len(node_ids) + worker) // workers for worker in range(workers)]
    for name in sorted(bundles, key=lambda name: -cost[name]):
        bundle = bundles[name]
        whole = any(len(bundle) + len(share) <= most for share, most in zip(shares, room, strict=True))
        for piece in [bundle] if whole else [[number] for number in bundle]:
            fitting = [worker for worker in range(workers) if len(shares[worker]) + len(piece) <= room[worker]]
            chosen = min(fitting, key=lambda worker: spent[worker])
            shares[chosen] += piece
            spent[chosen] += cost[name] * len(piece) / len(bundle)
    return [number for share in shares for number in share]
