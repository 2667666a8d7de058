"""The answer in words: which plan, by how much, at what dose to the brain. Numbers as a report writes them."""

from collections.abc import Sequence
from math import floor, log10

from hybridtumor.report_outcomes import Outcome, least, pareto, reference, same

CAUTION = "Model output, not advice."

MOST_NAMES = 4
"""Names that a sentence lists."""


def answer(arms: Sequence[Outcome]) -> str:
    """Return in two or three sentences which plan leaves the least burden, and what speaks for another."""
    treated, free = [arm for arm in arms if arm.treated], reference(arms)
    if not treated:
        return f"{_untreated(arms[0])} {CAUTION}"
    best = least(treated)
    parts = [_course(treated[0], free) if len(treated) == 1 else _best(treated, best, free)]
    if len(treated) > 1:
        parts.append(_others(treated, best))
    return " ".join([*(part for part in parts if part), CAUTION])


def millilitres(volume: float) -> str:
    """Return a volume, mm³, in ml: to a tenth, or to three figures when it is small."""
    value = volume / 1000
    if value >= 0.995 or value == 0:
        return f"{value:.1f}"
    return f"{value:.2g}" if value >= 0.001 else power(value)


def power(value: float) -> str:
    """Return a number as 3.2 × 10⁷, or as 12 when it is between 1 and 1000."""
    if value == 0 or 1 <= value < 999.5:
        return f"{value:.3g}"
    exponent = floor(log10(value))
    mantissa = f"{value / 10**exponent:.1f}"
    if mantissa == "10.0":
        mantissa, exponent = "1.0", exponent + 1
    return f"{mantissa} × 10{str(exponent).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def share(value: float) -> str:
    """Return a share as a percentage that is 0 or 100 % only where it is."""
    if 0 < value < 0.001:
        return "<0.1 %"
    if 0.999 < value < 1:
        return ">99.9 %"
    return (
        f"{value:.1%}".replace("%", " %") if 0 < value < 0.01 or 0.99 < value < 1 else f"{value:.0%}".replace("%", " %")
    )


def probability(value: float) -> str:
    """Return the probability of a model that is never certain, as a percentage."""
    return share(min(max(value, 1e-6), 1 - 1e-6))


def change(burden: float, other: float) -> str:
    """Return a burden against another as a signed percentage; – when the other is zero."""
    if other <= 0:
        return "–"
    ratio = burden / other - 1
    if ratio <= -0.99:
        return f"−{share(-ratio)}" if ratio > -0.999 else "<−99.9 %"
    return f"{100 * ratio:+.0f} %".replace("-", "−") if round(100 * ratio) else "0 %"


def listed(names: Sequence[str]) -> str:
    """Return names as a list in words, the first few of them."""
    shown = list(names[:MOST_NAMES])
    if len(names) > MOST_NAMES:
        shown.append(f"{len(names) - MOST_NAMES} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _untreated(arm: Outcome) -> str:
    return (
        f"Without treatment the model's tumour burden goes from {millilitres(arm.first)} ml on day 0"
        f" to {millilitres(arm.burden)} ml on day {arm.day:g}."
    )


def _course(arm: Outcome, free: Outcome | None) -> str:
    """Say what the only plan does."""
    return (
        f"Under {arm.name} the model's tumour burden goes from {millilitres(arm.first)} ml on day 0 to"
        f" {millilitres(arm.burden)} ml on day {arm.day:g}{_against(arm, free)}{_brain(arm)}."
    )


def _best(treated: Sequence[Outcome], best: Sequence[Outcome], free: Outcome | None) -> str:
    """Name the plan that leaves the least burden, or all that leave it."""
    first, day = best[0], f"on day {best[0].day:g}"
    if len(best) == 1:
        return (
            f"Of {len(treated)} plans, {first.name} leaves the least tumour burden {day}:"
            f" {millilitres(first.burden)} ml{_against(first, free)}{_brain(first)}."
        )
    who = f"all {len(best)} plans" if len(best) == len(treated) else listed([arm.name for arm in best])
    opening = f"{who} leave" if len(best) == len(treated) else f"of {len(treated)} plans, {who} leave the least and"
    return (
        f"{opening[0].upper()}{opening[1:]} practically the same tumour burden {day}:"
        f" {millilitres(first.burden)} ml{_against(first, free)}{_spared(best)}."
    )


def _against(arm: Outcome, free: Outcome | None) -> str:
    """Compare with no treatment, where there is such an arm."""
    if free is None:
        return " (there is no arm without treatment to compare with)"
    other = f"no treatment ({millilitres(free.burden)} ml)"
    if same(arm.burden, free.burden):
        return f", practically the same as {other}"
    if arm.burden > free.burden:
        return f", more than {other}"
    below = share(1 - arm.burden / free.burden)
    return f", {below.replace('<', 'less than ').replace('>', 'more than ')} below {other}"


def _brain(arm: Outcome) -> str:
    """State the dose to the brain, where there is one and it is known."""
    if arm.brain is None or arm.bed == 0:
        return ""
    risk = "" if arm.ntcp is None else f" (NTCP of the brain {probability(arm.ntcp)})"
    return f", at a mean brain EQD2 of {arm.brain:.1f} Gy{risk}"


def _spared(best: Sequence[Outcome]) -> str:
    """Name, of plans with the same burden, the one that spares the brain most."""
    known = sorted(((arm.brain, arm.name) for arm in best if arm.brain is not None), key=lambda entry: entry[0])
    if len(known) < len(best) or known[-1][0] == 0:
        return ""
    if known[-1][0] - known[0][0] < 0.05:
        return f", at a mean brain EQD2 of {known[0][0]:.1f} Gy"
    return f"; of these {known[0][1]} gives the brain least, a mean EQD2 of {known[0][0]:.1f} Gy"


def _others(treated: Sequence[Outcome], best: Sequence[Outcome]) -> str:
    """Say what the other plans offer: less dose to the brain where that is known, else the next in burden."""
    names = {arm.name for arm in best}
    rest = sorted((arm for arm in treated if arm.name not in names), key=lambda arm: arm.burden)
    if not rest:
        return ""
    gentler = [arm for arm in pareto(treated) if arm.name not in names and (arm.brain or 0) < _gentlest(best) - 0.05]
    if not gentler:
        return f"Next comes {rest[0].name} with {millilitres(rest[0].burden)} ml{_brain(rest[0])}."
    near = min(gentler, key=lambda arm: arm.burden)
    return (
        f"Of the plans that spare the brain more, {near.name} leaves the least: {millilitres(near.burden)} ml"
        f"{_brain(near)}.{_trade_off(treated)}"
    )


def _trade_off(treated: Sequence[Outcome]) -> str:
    """Say how many plans no other beats."""
    known, front = sum(arm.brain is not None for arm in treated), len(pareto(treated))
    if known < 3:
        return ""
    who = "None" if front == known else f"Of {known} plans, {known - front}"
    verb = "is beaten" if front >= known - 1 else "are beaten"
    return f" {who} {verb} by another plan in both burden and dose to the brain."


def _gentlest(best: Sequence[Outcome]) -> float:
    """Return the least dose to the brain of the best plans, Gy; 0 when it is not known."""
    return min((arm.brain for arm in best if arm.brain is not None), default=0.0)
