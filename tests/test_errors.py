"""Data that are wrong: one clear line each, none accepted silently."""

import pytest

from slams_jax.errors import InputError
from support import bad_data, bad_models, bad_nature, error_table
from support.bad_commands import COMMANDS

CORPUS = [*bad_data.CORPUS, *bad_models.CORPUS, *bad_nature.CORPUS]


@pytest.mark.slow
@pytest.mark.parametrize("case", CORPUS, ids=lambda c: f"{c.group}: {c.what}")
def test_every_bad_input_is_one_clear_line(case, tmp_path):
    attempt = case.make(tmp_path)
    with pytest.raises(InputError, match=case.says) as error:
        attempt()
    message = str(error.value)
    assert "\n" not in message
    assert 20 <= len(message) <= 400
    error_table.keep(case.group, case.what, message, tmp_path)


def test_the_page_lists_the_corpus_and_nothing_else():
    corpus = {(case.group, case.what) for case in CORPUS}
    assert len(corpus) == len(CORPUS)
    commands = {(f"`{name}`", what) for name, cases in COMMANDS.items() for what in cases}
    rows = error_table.known_rows()
    assert len(rows) == len(set(rows))
    assert set(rows) == corpus | commands
    assert len(rows) >= 120
