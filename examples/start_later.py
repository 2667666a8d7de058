"""What does it cost to start radiotherapy later? The same 60 Gy from day 7, 28 or 49, followed to day 120."""

import hybridtumor as ht


def main(reference: str = "mni152", starts: tuple[int, ...] = (7, 28, 49), cell_size: str = "auto") -> list[float]:
    patient = ht.load_patient(reference)
    dose = ht.conformal_dose(patient, "60 Gy")
    burdens = []
    for first_day in starts:
        plan = ht.TherapyPlan.of(ht.Fractionation(dose=dose, fractions=30, first_day=first_day))
        forecast = ht.simulate(patient, plan=plan, days=(0, 120), cell_size=cell_size)
        peak = forecast.burden_curve[:, 1].max()
        burdens.append(forecast.burden[-1])
        print(f"from day {first_day:2d}: at most {peak / 1000:5.1f} ml, on day 120 {burdens[-1] / 1000:5.1f} ml")
    return burdens


if __name__ == "__main__":
    main()
