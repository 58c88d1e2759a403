"""Training: a recipe and manifests in, a model folder out."""
