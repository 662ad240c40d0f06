"""Papers: a folder each, with its method, config, tests, claim and result.

    papers/<slug>/__init__.py    PAPER = Paper(title, year, card, tags, headline)
                  method.py      the method, where it has code of its own
                  config.py      get_config(): the paper's recipe; small(): on data that ships
                  test_method.py identities of the method
                  claim.py       the method beside a baseline on equal terms
                  result.json    what the claim found (``ledger``)
                  golden.json    the resolved config
                  README.md, picture.png   where there is more to see

A folder elsewhere on the disk has the same shape and works the same way. Commands:
``python -m vision.papers --help``.
"""

from vision.papers.paper import Paper

__all__ = ["Paper"]
