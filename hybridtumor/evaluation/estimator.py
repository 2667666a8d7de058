"""S_B as the evaluation calls it: a network that reads density off images, and never the one that steers them."""

import numpy as np
import torch
from numpy.typing import NDArray

from hybridtumor.evaluation.dose_series import EstimatorOf
from hybridtumor.evaluation.response import DensityEstimator
from hybridtumor.models.density_estimator import DensityNet

Array = NDArray[np.float32]


def measured_by(net: DensityNet) -> EstimatorOf:
    """Return what makes a patient's estimator from his healthy fill and the flags of his modalities."""
    net.eval()

    def of_patient(healthy: Array, available: tuple[bool, ...]) -> DensityEstimator:
        fill = torch.from_numpy(np.ascontiguousarray(healthy, np.float32))[None]
        present = torch.tensor([available])

        @torch.no_grad()
        def estimate(images: Array) -> Array:
            seen = torch.from_numpy(np.ascontiguousarray(images, np.float32))[None]
            found: Array = net(seen, fill, present)[0, 0].numpy()
            return found

        return estimate

    return of_patient
