"""Image-classification research in JAX: towers, objectives, data, evaluators, one loop."""
