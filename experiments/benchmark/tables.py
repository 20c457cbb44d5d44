"""The results of a benchmark in Markdown."""

from collections.abc import Callable, Sequence
from typing import Any

from slams_jax.verify.report import Table, markdown

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def _number(name: str, form: str, scale: float = 1.0) -> Callable[[Row], str]:
    """A cell: the value of `name`, or nothing where it was not measured."""

    def cell(row: Row) -> str:
        value = row.get(name)
        return "" if value is None else format(value * scale, form)

    return cell


CASE: Column = ("case", lambda row: row["case"])
SECONDS: Column = ("seconds", _number("seconds", ".3g"))
COMPILE: Column = ("compile, s", _number("compile_seconds", ".1f"))
LOAD: Column = ("load", _number("load", ".1f"))
NETWORKS: Sequence[Column] = (
    CASE,
    SECONDS,
    ("PyTorch, s", _number("pytorch_seconds", ".3g")),
    ("throughput over PyTorch", _number("throughput_over_pytorch", ".2f")),
    ("per cent of peak", _number("percent_of_peak", ".0f")),
    ("per cent of bandwidth", _number("percent_of_bandwidth", ".0f")),
    ("GFLOP", _number("gflops", ".1f")),
    ("temporary memory, GB", _number("temporary_bytes", ".2f", 1e-9)),
    COMPILE,
    ("difference", _number("largest_difference", ".0e")),
    LOAD,
)
DRAWS: Sequence[Column] = (
    CASE,
    SECONDS,
    ("evaluations", _number("evaluations", ".0f")),
    ("derivatives", _number("derivative_evaluations", ".0f")),
    ("measured, s", _number("measured_seconds", ".3g")),
    ("times", _number("multiplied_by", ".4g")),
    ("the default is faster by", _number("default_faster_by", ".1f")),
    ("over a scan, %", _number("percent_over_scan", ".1f")),
    ("temporary memory, GB", _number("temporary_bytes", ".2f", 1e-9)),
    ("process, GB", _number("process_bytes", ".2f", 1e-9)),
    COMPILE,
    LOAD,
)
FILTERS: Sequence[Column] = (
    CASE,
    ("cycles", _number("cycles", ".0f")),
    SECONDS,
    ("DAPPER, s", _number("dapper_seconds", ".3g")),
    ("times faster", _number("throughput_over_dapper", ".3g")),
    ("RMSE", _number("rmse", ".3f")),
    ("RMSE of DAPPER", _number("dapper_rmse", ".3f")),
    COMPILE,
    LOAD,
)


def tables(rows: Sequence[Row]) -> str:
    """The machine's limits, and a table each of networks, filters and draws."""
    limits = [row for row in rows if row["case"].startswith("limit")]
    networks = [row for row in rows if "gflops" in row and row not in limits]
    filters = [row for row in rows if "dapper_seconds" in row]
    draws = [row for row in rows if row not in [*limits, *networks, *filters]]
    groups = ((NETWORKS, networks), (FILTERS, filters), (DRAWS, draws))
    return "\n".join(
        [
            f"Measured on: {rows[0]['device']}, {rows[0]['dtype']}.",
            "",
            *(f"- {in_words(row)}" for row in limits),
            "",
            *(_table(columns, found) for columns, found in groups),
        ]
    )


def in_words(row: Row) -> str:
    """One line for the log."""
    parts = [f"{row['case']}: {row['seconds']:.3g} s"]
    for name, form, unit in (
        ("gigabytes_per_second", ".1f", "GB/s"),
        ("throughput_over_pytorch", ".2f", "times PyTorch's throughput"),
        ("throughput_over_dapper", ".3g", "times faster than DAPPER"),
        ("percent_of_peak", ".0f", "% of the peak"),
        ("percent_over_scan", ".1f", "% more than a scan"),
    ):
        if row.get(name) is not None:
            parts.append(f"{row[name]:{form}} {unit}")
    if row["case"].startswith("limit") and "gflops" in row:
        parts.append(f"{row['gflops']:.0f} GFLOP/s")
    return ", ".join(parts)


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The columns in which any of the rows has a value; nothing without rows."""
    if not rows:
        return ""
    cells = [[cell(row) for _, cell in columns] for row in rows]
    kept = [i for i in range(len(columns)) if any(line[i] for line in cells)]
    chosen = lambda values: [values[i] for i in kept]
    return markdown(Table("", chosen([name for name, _ in columns]), list(map(chosen, cells))))
