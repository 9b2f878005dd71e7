"""What the demonstration draws."""

from __future__ import annotations

from durable_log._cli.screen import Screen, clipped, last_words


def test_without_a_terminal_only_notes_are_printed(capfdbinary):
    screen = Screen(live=False)
    screen.show(["a viewer"])
    screen.note("the server is back")
    screen.show(["a viewer, further on"])
    assert capfdbinary.readouterr().out == b"the server is back\n"


def test_on_a_terminal_notes_stay_above_the_lines_that_change(capfdbinary):
    screen = Screen(live=True)
    screen.show(["one", "two"])
    screen.show(["one", "two"])
    screen.note("note")
    screen.show([])
    assert capfdbinary.readouterr().out == b"one\ntwo\n\x1b[2A\r\x1b[Jnote\none\ntwo\n\x1b[2A\r\x1b[J"


def test_a_line_never_wraps():
    assert clipped("abc", 3) == "abc"
    assert clipped("abcd", 3) == "abc"
    assert clipped("一度だけ", 5) == "一度"


def test_the_last_words_are_on_one_line_and_whole_characters():
    assert last_words(b"one\n\ntwo", 20) == "one two"
    assert last_words("……abc".encode()[1:], 20) == "…abc"
    assert last_words(b"0123456789", 5) == "…6789"
