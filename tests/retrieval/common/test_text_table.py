"""Aligned tables: wide and combining characters, control characters, narrow terminals."""

from retrieval.common.text_table import display_width, text_table


def test_columns_are_aligned_by_their_width_on_screen() -> None:
    assert text_table(["a", "b"], [["日本", 1], ["é", 22], ["e\u0301x", None]], width=80) == (
        "a      b\n日本   1\né     22\ne\u0301x"
    )
    assert display_width("日本e\u0301") == 5
    clipped = text_table(["t"], [["long " * 30], ["a\nb\x1b[0m"]], width=80)
    assert clipped.splitlines()[1].endswith("…")
    assert clipped.splitlines()[2] == "a·b·[0m"


def test_a_narrow_terminal_cuts_texts_and_then_leaves_columns_out() -> None:
    narrow = text_table(["a", "b", "c", "d"], [["x" * 10] * 4], width=36)
    assert narrow.splitlines()[0].split() == ["a", "b", "c"]
    row = ["a-long-id-" * 4, 4.37, "a long title " * 3, "Action|Comedy|" * 3, 1]
    squeezed = text_table(["id", "rating", "title", "genres", "Action"], [row], width=98).splitlines()
    assert squeezed[0].split() == ["id", "rating", "title", "genres"]
    assert squeezed[1].split()[0] == row[0]
    assert squeezed[1].count("…") == 2
    assert all(len(line) <= 98 for line in squeezed)
    assert text_table(["title", "n"], [["a long title " * 3, 1]], width=98).splitlines()[1].count("title") == 3
