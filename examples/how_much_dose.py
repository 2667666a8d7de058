"""How much does each further gray take away? The tumour's burden after 120 days against the prescribed dose.

The mesh, its operators and the time steps are prepared once and shared by all plans.
"""

import hybridtumor as ht
from hybridtumor.growth_simulation import GrowthSimulation


def main(reference: str = "mni152", doses: tuple[int, ...] = (0, 20, 40, 60), cell_size: str = "auto") -> list[float]:
    patient = ht.load_patient(reference)
    simulation = GrowthSimulation.prepare(patient.tissue, patient.density, horizon=120, cell_size=cell_size)
    plans = {
        gray: ht.TherapyPlan.of(
            ht.Fractionation(dose=ht.conformal_dose(patient, f"{gray} Gy"), fractions=30, first_day=14)
        )
        for gray in doses
    }
    steps = simulation.shared_steps(plans.values(), days=(0, 120))
    burdens = []
    for gray, plan in plans.items():
        burdens.append(simulation.run(plan, days=(0, 120), steps=steps).burden[-1])
        print(f"{gray:3d} Gy in 30 fractions: {burdens[-1] / 1000:6.1f} ml on day 120")
    return burdens


if __name__ == "__main__":
    main()
