"""Batches made ahead, in background threads, while the network computes.

The order is that of the numbers, whatever thread is done first, and a batch depends on its number alone: the result of
a run does not depend on how far ahead it looks. An error while a batch is made is raised where the batch is asked for.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def prefetched[T](
    make: Callable[[int], T], numbers: Iterable[int], ahead: int, workers: int = 1
) -> Iterator[Iterator[T]]:
    """Yield an iterator over `make`(number), up to `ahead` of them made before they are asked for.

    Parameters
    ----------
    ahead
        0 makes each when it is asked for, in the calling thread.
    workers
        Threads that make them.
    """
    if ahead == 0:
        yield map(make, numbers)
        return
    pool = ThreadPoolExecutor(workers, "prefetch", torch.set_num_threads, (torch.get_num_threads(),))
    try:
        yield _in_order(pool, make, numbers, ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order[T](pool: ThreadPoolExecutor, make: Callable[[int], T], numbers: Iterable[int], ahead: int) -> Iterator[T]:
    waiting: deque[Future[T]] = deque()
    for number in numbers:
        waiting.append(pool.submit(make, number))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
