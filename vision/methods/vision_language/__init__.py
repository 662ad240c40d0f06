"""Images and texts in one space: one file per paper."""
