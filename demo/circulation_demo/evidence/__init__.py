"""The study behind EVIDENCE.md.

`plan` says what is asked, `sampling` makes images, `judge` and `metrics` measure them, `evaluate` writes CSVs, `report` tables and graphs.
"""
