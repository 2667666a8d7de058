"""What will this tumour look like, on MRI, if we give that dose? The script of the README."""

from pathlib import Path

import hybridtumor as ht

DAYS = (0, 60, 120, 180)


def main(
    reference: str = "mni152", out: Path = Path("what-if.html"), samples: int = 4, cell_size: str = "auto"
) -> None:
    patient = ht.load_patient(reference)
    growth = ht.GrowthParameters(diffusion_white="0.13 mm²/day", proliferation="0.025 /day")
    plan = ht.TherapyPlan.of(
        ht.Fractionation(dose=ht.conformal_dose(patient, "60 Gy"), fractions=30, first_day=14),
        ht.Chemotherapy.temozolomide(first_day=14),
    )
    untreated = ht.simulate(patient, growth, days=DAYS, cell_size=cell_size)
    treated = ht.simulate(patient, growth, plan, days=DAYS, cell_size=cell_size)
    images = ht.Refiner.load().refine(treated, patient, plan, untreated=untreated, samples=samples, seed=0)
    ht.report(patient, treated, images, plan).save(out)


if __name__ == "__main__":
    main()
