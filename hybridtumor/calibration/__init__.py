"""Calibration: which parameters a patient's scans speak for, how surely, and which they leave open.

`unknowns` says what is looked for and what is believed before any scan; `estimation` finds the most probable values,
`posterior` how far the data let them stray, `sampling` the same without the normal approximation. `identifiability`
says in words what the data do not tell, `sensitivity` which unknowns move an outcome at all. Nothing in here knows of
finite elements: a patient comes in as functions of coordinates (misfit and gradient, information).
"""
