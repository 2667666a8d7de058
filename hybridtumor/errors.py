"""The errors a user can meet, each with the exit code the command line gives it."""


class HybridTumorError(Exception):
    """Base of every error that hybridtumor raises on purpose."""

    exit_code = 1


class InputError(HybridTumorError, ValueError):
    """An input is not what it has to be. The message says what was expected, what came and what to do."""

    exit_code = 2


class ConvergenceError(HybridTumorError, ArithmeticError):
    """A numerical method did not reach its tolerance; no field of that run can be trusted."""

    exit_code = 3


class ResourceError(HybridTumorError, RuntimeError):
    """Memory, disk, compiler, display or weights are missing for what was asked."""

    exit_code = 4
