"""The tables of `experiments.cost`."""

from experiments import cost as tables


def test_tables_hold_every_case():
    lines = [*tables.networks(), *tables.training(0.5), *tables.analyses(0.5)]
    for name, *_ in tables.CASES:
        assert sum(f"| {name} |" in line for line in lines) == 2 + 2 * 4
    assert len({line.count("|") for line in tables.training(0.5)}) == 1
