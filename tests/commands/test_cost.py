"""The tables of `experiments.cost`."""

from experiments import cost as tables


def test_tables_hold_every_case():
    every = (tables.networks(), tables.training(0.5), tables.analyses(0.5))
    for name, *_ in tables.CASES:
        assert sum(row[0] == name for table in every for row in table.rows) == 2 + 2 * 4
    assert all(len(row) == len(table.header) for table in every for row in table.rows)
