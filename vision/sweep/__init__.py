"""Many runs of one config, over a grid or by a search: ``python -m vision.sweep``."""
