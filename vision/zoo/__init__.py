"""Towers that are trained once, small, by configs: made, measured and shown here.

``vision.weights.zoo`` reads them, as ``zoo:NAME`` in ``InitFrom``, ``Pretrained`` and predict.
"""
