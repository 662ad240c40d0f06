"""How a model is trained, adapted and averaged: one file per paper."""
