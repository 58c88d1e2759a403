"""A journal forgets nothing that was written whole, wherever the writer was killed."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.data.journal import Journal

ANSWERS = st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=8), max_size=2), min_size=1, max_size=5)


@settings(max_examples=15)
@given(ANSWERS, st.integers(0, 10_000))
def test_cut_anywhere_it_keeps_the_whole_lines_and_goes_on(
    tmp_path_factory: object, answers: dict[str, list[str]], cut: int
) -> None:
    path = Path(tmp_path_factory.mktemp("j")) / "journal.jsonl"  # type: ignore[attr-defined]
    journal = Journal(path)
    for key, answer in answers.items():
        journal.put(key, answer)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % (len(whole) + 1)])
    lines = path.read_bytes().count(b"\n")
    again = Journal(path)
    kept = [key for key in answers if key in again]
    assert lines <= len(kept) <= lines + 1  # the last line may be whole but for its end
    for key, answer in answers.items():
        if key not in again:
            again.put(key, answer)
        assert again[key] == answer
    assert all(Journal(path)[key] == answer for key, answer in answers.items())
