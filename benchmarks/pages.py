"""Parts of a page that are made from stored results: what lies between `<!-- name -->` and `<!-- end of name -->`."""

from __future__ import annotations


def replaced(page: str, name: str, part: str) -> str:
    """`page` with `part` in the place that is called `name`."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"the page has no place '{name}'"
    return f"{before}{begin}\n{part.strip()}\n\n{end}{after}"
