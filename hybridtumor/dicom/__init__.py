"""DICOM in and out: what a clinic sends becomes a patient folder, what a run makes becomes files a clinic can open.

DICOM gives positions in LPS, mm; everything that leaves this package for the rest of hybridtumor is RAS+, mm. Needs the
extra ``hybridtumor[dicom]``. No name, number, date or UID of a patient leaves this package.
"""
