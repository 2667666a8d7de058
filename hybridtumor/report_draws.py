"""Draws in words and tables: what each arm comes to, and how often one plan beats another."""

from collections.abc import Mapping, Sequence
from typing import Any

from hybridtumor.report_answer import millilitres, share

ARM_COLUMNS = ("arm", "burden ml", "visible volume ml", "progression day", "progressed")
PAIR_COLUMNS = ("plan", "P, by burden", "90 % interval of P", "difference of burden ml")

Figures = Mapping[str, Any]


def arm_rows(figures: Figures) -> list[tuple[str, ...]]:
    """Return a row for each arm: median (5 % to 95 %) on the last day, of the day of progression too."""
    last = figures["days"][-1]
    return [
        (
            name,
            _spread([millilitres(arm["burden_mm3"][key][-1]) for key in ("median", "low", "high")]),
            _spread([millilitres(arm["volume_mm3"][key][-1]) for key in ("median", "low", "high")]),
            _spread([_day(arm["time_to_progression_days"][key], last) for key in ("median", "low", "high")]),
            share(arm["progressed"]),
        )
        for name, arm in figures["arms"].items()
    ]


def pair_rows(figures: Figures) -> list[tuple[str, ...]]:
    """Return a row for each pair of arms: how often the one leaves less burden than the other, and by how much."""
    return [
        (
            f"{pair['arm']} beats {pair['against']}",
            share(pair["beats"]),
            " to ".join(share(end) for end in pair["interval"]),
            _spread([_signed(pair["difference_mm3"][key]) for key in ("median", "low", "high")]),
        )
        for pair in figures["pairs"]
    ]


def caption(figures: Figures) -> str:
    """Return what the figures are of."""
    return (
        f"{figures['draws']} draws of the calibrated parameters, the same for every arm; day {figures['days'][-1]:g}:"
        " median (5 % to 95 %)"
    )


def parameter_rows(calibration: Figures) -> list[tuple[str, str]]:
    """Return name and value of every parameter of a calibration, with its 90 % interval."""
    rows = [
        (name, f"{entry['estimate']:.3g} ({entry['interval'][0]:.3g} to {entry['interval'][1]:.3g}) {_unit(entry)}")
        for name, entry in calibration["parameters"].items()
    ]
    return [*rows, *((name, f"{value:.3g}, fixed") for name, value in calibration["fixed"].items())]


def _unit(entry: Figures) -> str:
    return "" if entry["unit"] == "1" else str(entry["unit"])


def _spread(texts: Sequence[str]) -> str:
    """Return median (low to high), or the one value where all are the same."""
    median, low, high = texts
    return median if low == high else f"{median} ({low} to {high})"


def _day(day: float | None, last: float) -> str:
    return f">{last:g}" if day is None else f"{day:.0f}"


def _signed(difference: float) -> str:
    text = millilitres(abs(difference))
    return text if difference == 0 else f"{'−' if difference < 0 else '+'}{text}"
