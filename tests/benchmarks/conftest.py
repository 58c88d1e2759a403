"""The tiny corpus and recipes of the training tests."""

from tests.train.conftest import make_recipe, manifest

__all__ = ["make_recipe", "manifest"]
