"""A trained model behind a page and a JSON endpoint: ``python -m vision.serve``."""
