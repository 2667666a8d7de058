"""Draws shared by processes: each is started anew, since MPI and PETSc do not survive a fork, and has one thread."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path

from hybridtumor.calibration_file import Values
from hybridtumor.draws import Draw, DrawSetting, simulate_draw
from hybridtumor.errors import ResourceError
from hybridtumor.growth_simulation import GrowthSimulation

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

LAUNCHERS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
"""Set by mpiexec: a process that it has started cannot start others that use MPI."""

MEMORY = 1 << 30
"""bytes that a worker may need: 0.67 GB were seen for the embedded brain, two doses and cells of 4 mm."""


def run_draws(
    setting: DrawSetting,
    draws: Sequence[Values],
    workers: int,
    simulation: GrowthSimulation,
    progress: Callable[[float], None],
) -> list[Draw]:
    """Simulate draws, in their order.

    Parameters
    ----------
    setting
        What they have in common.
    draws
        Parameters of each.
    workers
        Processes; 1, or under MPI: this one, or all ranks together.
    simulation
        Of the setting, for draws that this process simulates.
    progress
        Told the share that is done.

    Raises
    ------
    ConvergenceError, ResourceError
        A draw failed; or a process ended, most likely for want of memory.
    """
    workers = min(workers, len(draws))
    if workers <= 1 or simulation.domain.comm.size > 1 or any(name in os.environ for name in LAUNCHERS):
        results: Iterator[Draw] = (simulate_draw(simulation, setting, values) for values in draws)
        return _counted(results, len(draws), progress)
    with _one_thread():
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare, (setting,))
        try:
            return _counted(pool.map(_simulate, draws), len(draws), progress)
        except BrokenProcessPool as error:
            raise ResourceError(
                f"draws: expected {workers} processes to simulate them, one has ended, most likely for want of memory."
                " Use fewer (--workers)."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def usual_workers() -> int:
    """Return as many workers as there are processors for this process, and memory."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), MEMORY)
    return max(1, min(len(os.sched_getaffinity(0)), free // MEMORY))


def _counted(results: Iterator[Draw], count: int, progress: Callable[[float], None]) -> list[Draw]:
    found = []
    for result in results:
        found.append(result)
        progress(len(found) / count)
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that are started here compute with one thread each."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Worker:
    """What a worker keeps between draws: it serves one run."""

    setting: DrawSetting
    simulation: GrowthSimulation


def _prepare(setting: DrawSetting) -> None:
    """Set a worker up; it ends with the process that started it, which alone answers to an interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _Worker.setting, _Worker.simulation = setting, setting.simulation()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _simulate(values: Values) -> Draw:
    return simulate_draw(_Worker.simulation, _Worker.setting, values)
