"""Plain functions that several configs share: data sets and evaluation suites."""
