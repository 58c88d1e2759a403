"""Errors: their tree is drawn truly, they travel between processes, and they suggest the nearest name."""

from __future__ import annotations

import pickle
import re

import pytest

from omni_avsr import errors


def kinds() -> list[type[errors.OmniAVSRError]]:
    return [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.OmniAVSRError)]


def test_the_tree_is_drawn_as_it_is() -> None:
    drawing = errors.__doc__ or ""
    drawn = re.findall(r"^([│├└─ ]*)(\w+(?:Error|Interrupted))\b", drawing, re.M)
    depth = {name: len(indent) for indent, name in drawn}
    assert set(depth) == {k.__name__ for k in kinds()}
    for kind in kinds():
        for parent in kind.__bases__:
            if parent.__name__ in depth:
                assert depth[parent.__name__] < depth[kind.__name__]


def test_a_missing_extra_says_the_pip_line_and_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(errors.MissingExtraError("accelerate", "train")))
    assert str(error) == "'accelerate' is not installed. Install it with: pip install 'omni-avsr[train]'"


@pytest.mark.parametrize(("typed", "expected"), [("projektor", "did you mean 'projector'?"), ("zzz", "known: ")])
def test_nearest(typed: str, expected: str) -> None:
    assert errors.nearest(typed, ["projector", "lora"]).startswith(expected)
