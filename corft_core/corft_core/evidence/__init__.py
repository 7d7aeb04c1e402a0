"""The evidence: CO-RFT against its controls and ablations, on all tasks, under one protocol fixed in advance.

``protocol`` holds every constant, ``arms`` every recipe, ``runner`` does the work, ``summary`` the statistics,
``page`` the document. Run it with ``make evidence``.
"""
