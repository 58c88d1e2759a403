"""Manifests, synthetic speech and talking heads, augmentation, datasets and samplers."""
