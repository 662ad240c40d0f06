"""What a trained model says of images: ``vision.load`` and ``python -m vision.predict``."""
