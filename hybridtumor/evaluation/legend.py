"""What the figures of an evaluation are called, and which way is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Meaning:
    """What a figure says.

    Parameters
    ----------
    head
        Column head; a bar breaks the line.
    better
        ↑, ↓, or the value it should have.
    says
        One sentence.
    digits
        Decimals.
    """

    head: str
    better: str
    says: str
    digits: int = 3


MEANINGS = {
    "psnr": Meaning("PSNR|dB", "↑", "Peak signal-to-noise ratio, range 3 healthy ranges.", 2),
    "ssim": Meaning("SSIM", "↑", "Structural similarity."),
    "ms-ssim": Meaning("MS-SSIM", "↑", "Multi-scale structural similarity, as many scales as the region has room for."),
    "mae": Meaning("MAE", "↓", "Mean absolute error, healthy ranges."),
    "spectrum": Meaning("Spectrum", "↓", "Mean absolute difference of log radial power spectra; 0.69: a factor of 2."),
    "haar energy": Meaning("Haar|energy", "↓", "The same of the energies of 14 Haar bands.", 2),
    "haar kurtosis": Meaning("Haar|kurtosis", "↓", "The same of their kurtosis.", 2),
    "patches": Meaning("Patches", "↓", "Sliced Wasserstein distance of 7×7×7 patches, healthy ranges."),
    "density correlation": Meaning("Density|correlation", "↑", "Of the density the image implies and the fields'."),
    "density error": Meaning("Density|error", "↓", "Root mean square of their difference."),
    "spectrum over render's": Meaning("Spectrum over|render's", "↓", "Spectrum distance over that of the render."),
    "spectrum over smooth render's": Meaning(
        "Spectrum over|smooth render's", "↓", "Spectrum distance over that of the smooth render."
    ),
    "crps": Meaning("CRPS", "↓", "Fair continuous ranked probability score, healthy ranges; MAE of a sure forecast."),
    "crps over render's mae": Meaning("CRPS over|render's MAE", "↓", "Below 1: a better forecast than either render."),
    "spread/skill": Meaning("Spread/skill", "1", "Below 1 the ensemble is too narrow.", 2),
    "coverage 50%": Meaning("Coverage|“50 %”", "nominal", "Share of voxels in the inner interval of the ensemble."),
    "nominal coverage 50%": Meaning("nominal", "", "What order statistics of this many members cover."),
    "coverage 90%": Meaning("Coverage|“90 %”", "nominal", "Share of voxels in the outer interval."),
    "nominal coverage 90%": Meaning("nominal", "", "What order statistics of this many members cover."),
    "rank unevenness": Meaning("Rank|unevenness", "0", "Σ|f − 1/(K+1)| of the rank histogram, 0 to 2."),
    "change outside the mask": Meaning("Change outside|the mask", "0", "Largest absolute difference to the render."),
    "dice": Meaning("Dice", "↑", "Overlap with the labels of the target."),
    "hd95": Meaning("HD95|mm", "↓", "95th percentile Hausdorff distance; left out where one label is empty.", 2),
    "volume error": Meaning("Volume|error", "0", "V/V_target − 1; left out where the target has no such label.", 2),
    "dice to fields": Meaning("Dice|to fields", "↑", "Overlap with the fields' density above the imaging thresholds."),
    "seconds": Meaning("Seconds", "↓", "Wall-clock time of the networks for this answer.", 1),
    "spearman": Meaning("Spearman", "−1", "Rank correlation of dose and implied burden.", 2),
    "violations": Meaning("Violations", "0", "Share of dose steps over which the implied burden rises.", 2),
    "slope": Meaning("Slope", "1", "Of the implied burden on the fields'.", 2),
    "relative_slope": Meaning("Relative|slope", "1", "The same of burdens over those of dose 0.", 2),
    "source_over_condition": Meaning(
        "Source over|condition", "1", "Change of implied burden by a small kill, by source term over by fields.", 2
    ),
    "same_sign": Meaning("Same sign", "1", "Share of the change by the fields, at places where both have one sign.", 2),
    "memorisation": Meaning(
        "Nearest training crop|over held-out's",
        "1",
        "Far below 1: copies of training crops, or very smooth images.",
        2,
    ),
    "nearest training crop": Meaning("Nearest|training crop", "", "1 − correlation, median over crops."),
}

GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Images": (
        ("mask", "tumour", "brain"),
        ("psnr", "ssim", "ms-ssim", "mae", "spectrum", "haar energy", "haar kurtosis", "patches",
         "density correlation", "density error", "spectrum over render's", "spectrum over smooth render's"),
    ),
    "Ensemble as a forecast": (
        ("mask", "tumour", "brain"),
        ("crps", "crps over render's mae", "spread/skill", "coverage 50%", "nominal coverage 50%", "coverage 90%",
         "nominal coverage 90%", "rank unevenness"),
    ),
    "Labels": (("whole", "core", "enhancing"), ("dice", "hd95", "volume error", "dice to fields")),
    "Laws": (("outside",), ("change outside the mask",)),
    "Response to dose": (
        ("dose series",),
        ("spearman", "violations", "slope", "relative_slope", "source_over_condition", "same_sign"),
    ),
    "Memorisation": (("crops",), ("nearest training crop", "memorisation")),
    "Cost": (("cost",), ("seconds",)),
}  # fmt: skip
"""Tables of the page: the regions they are made for, and the figures that are their columns."""

REGIONS = {
    "mask": "inside the mask (M > ½)",
    "tumour": "inside the tumour of the target",
    "brain": "whole brain",
    "whole": "whole tumour",
    "core": "core",
    "enhancing": "enhancing",
    "outside": "outside the mask",
    "dose series": "0 to 60 Gy, same noise",
    "crops": "crops in the tumour",
    "cost": "per case",
}
