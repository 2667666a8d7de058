"""Evaluation: how good generated images are, against every simpler answer, in the open.

Figures: `similarity` (voxel by voxel), `texture` (spectra, bands, patches), `ensemble` (calibration), `response` (what
the images say of density and dose), `memorisation`. `cases` poses the problems, `predictions` answers them in every
way there is, `scoring` puts figures on the answers, `table` gathers them with `bootstrap` intervals, `page` shows them.
"""
