"""Work on many items in processes of which one may die: the item that kills it is named, the others go on."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[tuple[Item, Result | None]]:
    """(item, work(item)) as they are finished; None where the item killed its process (a decoder's crash, no memory).

    With fewer than two workers, or one item, it runs in this process. What `work` raises is raised here.

    Args:
        work: a function that can be pickled; items and results too.
    """
    if min(workers, len(items)) < 2:
        yield from ((item, work(item)) for item in items)
        return
    left, suspects = list(range(len(items))), 0
    while left:
        alone = suspects > 0  # one process for one item: if it dies, this item did it
        batch = left[:1] if alone else left
        done: set[int] = set()
        try:
            for number, result in _one_pool(work, {n: items[n] for n in batch}, 1 if alone else workers):
                done.add(number)
                yield items[number], result
        except BrokenProcessPool:
            if alone:
                done.add(batch[0])
                yield items[batch[0]], None
        left = [number for number in left if number not in done]
        # Items start in their order, so the one that broke the pool is among the first that are left.
        suspects = suspects - 1 if alone else 2 * workers + 1


def _one_pool(work: Callable[[Item], Result], items: dict[int, Item], workers: int) -> Iterator[tuple[int, Result]]:
    # Never fork: this process may have threads, whose locks a fork would freeze.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        futures: dict[Future[Result], int] = {pool.submit(work, item): number for number, item in items.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
