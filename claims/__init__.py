"""Runnable claims: a method beside its baseline, on data that ships, on a laptop.

    make claims                                   all of them, and records what they found
    pytest claims/vision_language/test_x.py       one of them, and records nothing
    pytest claims/vision_language/test_x.py --record

``claims/<family>/test_<slug>.py`` trains or fits method and baseline on equal terms (same data,
budget and seeds), and ends with one call of the fixture ``record``. The file states with
``expected`` whether its claim holds. A claim that does not hold stays, as ``expected=False`` with
what was seen in its docstring and numbers; margins come from the paper or its card, before the
first run, and are not moved to what was measured. An outcome other than the stated one fails.

What was found stands in ``results/<slug>.json`` (``vision.papers.ledger``) and ``docs/methods.md``.
"""
