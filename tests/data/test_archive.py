import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from slams_jax.data import build_archive, channels_in, grid_points, open_archive, store
from slams_jax.data.regrid import regrid
from slams_jax.data.resample import match_times
from slams_jax.data.transforms import transform
from slams_jax.errors import InputError, RunError
from slams_jax.grid import Grid
from slams_jax.readers import open_dataset, read_stations, split_periods
from slams_jax.schema import Channel, channels_of
from support.data_samples import fields, gridded, records, times, values, write


def test_holds_the_fields_on_the_times_of_the_state(tmp_path):
    given = fields()
    archive = build_archive(tmp_path, {"run": 1}, given)
    np.testing.assert_array_equal(archive.times, given["state"].time)
    assert archive.grid == Grid.of(given["state"].latitude.values, given["state"].longitude.values)
    assert archive.fields["state"].channels == channels_of(["temperature"], [500.0, 850.0, 1000.0])
    np.testing.assert_array_equal(archive.fields["state"].array, values(given["state"]))
    background = archive.fields["background"].array
    np.testing.assert_array_equal(background[[0, 1, 3]], values(given["background"]))
    assert np.isnan(background[[2, 4, 5]]).all()
    assert isinstance(background, np.memmap)
    assert background.dtype == np.float32


def test_channels_choose_and_order(tmp_path):
    given = gridded().assign(
        outgoing_longwave_radiation=gridded(seed=2).temperature.isel(level=0, drop=True)
    )
    channels = (
        Channel("outgoing_longwave_radiation"),
        Channel("temperature", 1000.0),
        Channel("temperature", 500.0),
    )
    archive = build_archive(tmp_path, {}, {"state": given}, {"state": channels})
    array = archive.fields["state"].array
    np.testing.assert_array_equal(array[..., 0], given.outgoing_longwave_radiation)
    np.testing.assert_array_equal(array[..., 1], given.temperature.sel(level=1000))
    np.testing.assert_array_equal(array[..., 2], given.temperature.sel(level=500))


def test_another_dimension_is_flattened_in_order(tmp_path):
    sounder = (
        gridded(seed=3)
        .rename(level="sounding_channel", temperature="brightness_temperature")
        .transpose("sounding_channel", "time", "latitude", "longitude")
    )
    assert channels_in(sounder) == (Channel("brightness_temperature"),) * 3
    archive = build_archive(tmp_path, {}, {"state": gridded(), "sounder": sounder})
    expected = np.moveaxis(sounder.brightness_temperature.values, 0, -1)
    np.testing.assert_array_equal(archive.fields["sounder"].array, expected)


def test_blocks_of_times_do_not_matter(tmp_path, monkeypatch):
    given = fields(11)
    monkeypatch.setattr(store, "_CHUNK_BYTES", 3 * values(given["state"])[0].nbytes)
    archive = build_archive(tmp_path, {}, given)
    np.testing.assert_array_equal(archive.fields["state"].array, values(given["state"]))
    np.testing.assert_array_equal(
        archive.fields["background"].array[[0, 1, 3]], values(given["background"])
    )


def test_files_and_stations_end_to_end(tmp_path):
    path = write(gridded(latitude=(-45.0, -15.0, 15.0, 45.0)), tmp_path / "state.nc")
    with open_dataset(path) as state:
        grid = Grid.of(state.latitude.values, state.longitude.values)
        points = grid_points(records(), grid, state.time.values, "temperature")
        archive = build_archive(tmp_path / "cache", {}, {"state": state, "stations": points})
    assert archive.fields["stations"].array.shape == (5, 4, 6, 1)
    assert np.isfinite(archive.fields["stations"].array).sum() == 11
    assert np.isnan(archive.fields["stations"].array[4]).all()


def test_is_reused_only_for_the_same_data(tmp_path, monkeypatch):
    given = fields()
    first = build_archive(tmp_path, {"run": 1}, given)
    others = [
        build_archive(tmp_path, {"run": 2}, given),
        build_archive(tmp_path, {"run": 1}, {"state": given["state"]}),
        build_archive(
            tmp_path, {"run": 1}, given, {"state": channels_of(["temperature"], [850.0])}
        ),
        build_archive(tmp_path, {"run": 1}, {**given, "state": given["state"].isel(time=slice(5))}),
    ]
    assert len({first.path, *(a.path for a in others)}) == 5

    def refuse(*_):
        raise AssertionError("written again")

    monkeypatch.setattr("slams_jax.data.archive.write_archive", refuse)
    again = build_archive(tmp_path, {"run": 1}, given)
    assert again.path == first.path
    np.testing.assert_array_equal(again.fields["state"].array, first.fields["state"].array)


def replaced(dataset, folder):
    """A file written over by another one of the same size."""
    return open_dataset(write(dataset, folder / "state.nc"))


def one_chunk(version):
    """A store in which one chunk of values is overwritten."""

    def opened(dataset, folder):
        store = folder / "state.zarr"
        if store.exists():
            part = dataset.isel(time=[1]).drop_vars(("level", "latitude", "longitude"))
            part.to_zarr(store, region={"time": slice(1, 2)}, consolidated=False)
        else:
            encoding = {"temperature": {"chunks": (1, 3, 4, 6)}}
            dataset.to_zarr(store, zarr_format=version, consolidated=False, encoding=encoding)
        return open_dataset(store)

    return opened


def in_place(dataset, folder):
    """Values in memory that still carry the attributes of the file that they come from."""
    path = folder / "state.nc"
    opened = open_dataset(path if path.exists() else write(gridded(), path)).load()
    opened["temperature"].values[:] = dataset["temperature"].values
    return opened


def selected(dataset, folder):
    """One position along a dimension that leaves no trace in the result."""
    path = folder / "two.nc"
    if not path.exists():
        both = xr.concat([gridded(), warmer()], "member", data_vars=["temperature"])
        write(both.transpose("time", "level", "latitude", "longitude", "member"), path)
    return open_dataset(path).isel(member=int(not dataset.equals(gridded())), drop=True)


def corrected():
    """Another value at a time that is neither the first, the middle nor the last."""
    dataset = gridded()
    dataset["temperature"].values[1, 1, 1, 1] += 1.0
    return dataset


def warmer():
    return gridded() + xr.Dataset({"temperature": np.float32(1.0)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("opened", "change"),
    [
        (replaced, corrected),
        (one_chunk(2), corrected),
        (one_chunk(3), corrected),
        (lambda dataset, _: dataset, corrected),
        (in_place, corrected),
        (selected, warmer),
    ],
)
def test_changed_values_make_another_archive(opened, change, tmp_path):
    (tmp_path / "data").mkdir()
    for given in (gridded(), change()):
        with opened(given, tmp_path / "data") as state:
            archive = build_archive(tmp_path / "cache", {}, {"state": state})
        np.testing.assert_array_equal(archive.fields["state"].array, values(given))
    assert len(list((tmp_path / "cache").iterdir())) == 2


TABLE = "YYYYMMDD,a,b\n20010101,10.5,11.0\n20010102,12.5,12.0\n"
PLACES = "station_id,longitude,latitude,altitude\na,0,-60,12\nb,60,20,300\n"


@pytest.mark.parametrize(
    ("name", "before", "after", "cell", "kelvin"),
    [
        ("tmean.csv", "10.5", "10.6", (0, 0), 283.75),
        ("stations.csv", "a,0,-60", "a,0,-20", (1, 0), 283.65),
    ],
)
def test_corrected_station_files_make_another_archive(name, before, after, cell, kelvin, tmp_path):
    (tmp_path / "tmean.csv").write_text(TABLE)
    (tmp_path / "stations.csv").write_text(PLACES)
    state = gridded()
    grid = Grid.of(state.latitude.values, state.longitude.values)

    def build():
        stations = read_stations(tmp_path / "tmean.csv", stations=tmp_path / "stations.csv")
        points = grid_points(stations, grid, state.time.values, "temperature")
        return build_archive(tmp_path / "cache", {}, {"state": state, "stations": points})

    first = build()
    assert build().path == first.path
    path = tmp_path / name
    status = path.stat()
    path.write_text(path.read_text().replace(before, after))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    array = build().fields["stations"].array
    np.testing.assert_allclose(array[(0, *cell)], kelvin, rtol=1e-6)


COARSE = Grid.of([-30.0, 30.0], [0.0, 90.0, 180.0, 270.0])
DAYS = times(3, "2001-01-03")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda d: regrid(d, COARSE, known=0.5), lambda d: regrid(d, COARSE, known=0.9)),
        (lambda d: transform(d, "log1p", 1.0), lambda d: transform(d, "log1p", 2.0)),
        (
            lambda d: match_times(d, DAYS, "mean", hours=48),
            lambda d: match_times(d, DAYS, "mean", hours=48, known=1.0),
        ),
    ],
)
def test_other_options_of_a_computation_make_another_archive(first, second, tmp_path):
    with open_dataset(write(gridded(), tmp_path / "state.nc")) as opened:
        paths = {
            build_archive(tmp_path, {}, {"state": change(opened)}).path
            for change in (first, second, first)
        }
    assert len(paths) == 2


def truncate(path):
    file = path / "state.npy"
    file.write_bytes(file.read_bytes()[:-100])


def flip(path):
    file = path / "state.npy"
    data = bytearray(file.read_bytes())
    data[-7] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip,
        lambda path: (path / "state.npy").write_bytes(b""),
        lambda path: (path / "background.npy").unlink(),
        lambda path: (path / "index.json").unlink(),
        lambda path: (path / "index.json").write_text("{"),
        lambda path: (path / "index.json").write_text("{}"),
    ],
)
def test_a_damaged_one_does_not_count_and_is_written_anew(damage, tmp_path):
    given = fields()
    path = build_archive(tmp_path, {}, given).path
    damage(path)
    assert open_archive(path) is None
    archive = build_archive(tmp_path, {}, given)
    assert archive.path == path
    np.testing.assert_array_equal(archive.fields["state"].array, values(given["state"]))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def stopping(monkeypatch, error, after=0):
    """Stop the writer after some blocks."""
    real, count = store._block, []

    def stop(dataset, *arguments):
        count.append(dataset)
        if len(count) > after:
            raise error
        return real(dataset, *arguments)

    monkeypatch.setattr(store, "_block", stop)


@pytest.mark.parametrize("after", [0, 1])
def test_nothing_is_left_of_input_that_cannot_be_read(after, tmp_path, monkeypatch):
    stopping(monkeypatch, InputError("torn"), after)
    with pytest.raises(InputError, match="torn"):
        build_archive(tmp_path, {}, fields())
    assert list(tmp_path.iterdir()) == []


def blocks_of_two(monkeypatch):
    monkeypatch.setattr(store, "_CHUNK_BYTES", 2 * values(gridded(1))[0].nbytes)


def written(path):
    return {p.name: p.read_bytes() for p in path.iterdir()}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RunError("gone")])
def test_a_stopped_writer_is_resumed(error, tmp_path, monkeypatch):
    blocks_of_two(monkeypatch)
    whole = written(build_archive(tmp_path / "a", {}, fields(11)).path)
    with monkeypatch.context() as patch:
        stopping(patch, error, after=4)
        with pytest.raises(type(error)):
            build_archive(tmp_path / "b", {}, fields(11))
    (draft,) = (tmp_path / "b").iterdir()
    assert open_archive(draft) is None
    real, count = store._block, []
    monkeypatch.setattr(store, "_block", lambda *a: count.append(1) or real(*a))
    archive = build_archive(tmp_path / "b", {}, fields(11))
    assert len(count) == 8  # of twelve
    assert written(archive.path) == whole
    assert list((tmp_path / "b").iterdir()) == [archive.path]


def flip_block(draft):
    file = draft / "state.npy"
    data = bytearray(file.read_bytes())
    data[-values(gridded(1))[0].nbytes] ^= 1  # in the second of its two blocks
    file.write_bytes(bytes(data))


def tear_journal(draft):
    file = draft / "journal.jsonl"
    file.write_bytes(file.read_bytes()[:-5])


def cut_file(draft):
    file = draft / "state.npy"
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (flip_block, 11),
        (tear_journal, 11),
        (cut_file, 11),
        (lambda draft: (draft / "journal.jsonl").write_text("[]"), 12),
        (lambda draft: (draft / "state.npy").write_bytes(b"text"), 12),
        (lambda draft: (draft / "state.npy").unlink(), 12),
    ],
)
def test_what_is_damaged_of_a_draft_is_written_again(damage, again, tmp_path, monkeypatch):
    blocks_of_two(monkeypatch)
    whole = written(build_archive(tmp_path / "a", {}, fields(11)).path)
    with monkeypatch.context() as patch:
        stopping(patch, KeyboardInterrupt(), after=2)
        with pytest.raises(KeyboardInterrupt):
            build_archive(tmp_path / "b", {}, fields(11))
    damage(next((tmp_path / "b").iterdir()))
    real, count = store._block, []
    monkeypatch.setattr(store, "_block", lambda *a: count.append(1) or real(*a))
    archive = build_archive(tmp_path / "b", {}, fields(11))
    assert len(count) == again
    assert written(archive.path) == whole


def test_drafts_of_other_archives_are_kept_for_a_week(tmp_path, monkeypatch):
    old, new, alive = (
        tmp_path / f".{socket.gethostname()}-{pid}-{name}.abcd1234.part"
        for pid, name in ((2**22 + 1, "a"), (2**22 + 1, "b"), (1, "c"))
    )
    for path in (old, new, alive):
        path.mkdir()
        (path / "state.npy").write_bytes(b"some")
    for path in (old, alive):
        for part in (path / "state.npy", path):
            os.utime(part, (0, 0))
    build_archive(tmp_path, {}, fields())
    assert not old.exists()
    assert new.exists()
    assert alive.exists()


SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from support.data_samples import fields, gridded, values
from slams_jax.data import build_archive, store
real = store._block
def slow(*arguments):
    time.sleep(0.1)
    return real(*arguments)
store._block = slow
store._CHUNK_BYTES = 2 * values(gridded(1))[0].nbytes
build_archive({root!r}, {{}}, fields(40))
"""


@pytest.mark.slow
def test_a_writer_that_is_killed_is_resumed(tmp_path, monkeypatch):
    blocks_of_two(monkeypatch)
    whole = written(build_archive(tmp_path / "a", {}, fields(40)).path)
    script = SLOW.format(tests=str(Path(__file__).parents[1]), root=str(tmp_path / "b"))
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        lines = [len(p.read_bytes().splitlines()) for p in tmp_path.glob("b/.*.part/*.jsonl")]
        if lines and max(lines) >= 17:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.02)
    assert process.wait() == -signal.SIGKILL
    (draft,) = (tmp_path / "b").iterdir()
    assert len((draft / "journal.jsonl").read_bytes().splitlines()) >= 17
    real, count = store._block, []
    monkeypatch.setattr(store, "_block", lambda *a: count.append(1) or real(*a))
    archive = build_archive(tmp_path / "b", {}, fields(40))
    assert len(count) <= 40 - 17
    assert written(archive.path) == whole
    assert list((tmp_path / "b").iterdir()) == [archive.path]


def test_the_faster_of_two_writers_is_taken(tmp_path, monkeypatch):
    given = fields()
    real, calls = store._sync_directory, []

    def overtaken(path):
        if not calls:
            calls.append(path)
            build_archive(tmp_path, {}, given)
        real(path)

    monkeypatch.setattr(store, "_sync_directory", overtaken)
    archive = build_archive(tmp_path, {}, given)
    assert calls
    np.testing.assert_array_equal(archive.fields["state"].array, values(given["state"]))
    assert list(tmp_path.iterdir()) == [archive.path]


def test_tells_its_progress(tmp_path, monkeypatch, caplog):
    clock = iter(range(0, 100000, 11))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(store, "_CHUNK_BYTES", 1)
    with caplog.at_level(logging.INFO):
        build_archive(tmp_path, {}, {"state": gridded(4)})
    assert "state 50 %, 22 s left" in caplog.text


def test_a_full_disk_gives_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: type("U", (), {"free": 10}))
    with pytest.raises(InputError, match="not enough free space"):
        build_archive(tmp_path, {}, fields())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        build_archive(tmp_path / "file" / "deeper", {}, fields())


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({"background": gridded()}, {}, "needs the field 'state'"),
        ({"state": gridded(), "b": gridded(latitude=(0.0, 1.0))}, {}, "'b' is on a different grid"),
        (
            {"state": gridded(), "b": gridded(longitude=np.arange(6) * 60.0 + 1)},
            {},
            "'b' is on a different grid",
        ),
        ({"state": gridded(), "b": gridded(start="1990-01-01")}, {}, "'b' shares no time"),
        ({"state": gridded(), "stations": records()}, {}, "grid_points"),
        ({"state": gridded(), "../b": gridded()}, {}, "may have letters"),
        ({"state": gridded()}, {"state": channels_of(["wind"], [500.0])}, "no variable 'wind'"),
        ({"state": gridded()}, {"state": channels_of(["temperature"], [10.0])}, "is on the levels"),
        ({"state": gridded()}, {"state": (Channel("temperature"),)}, "is on the levels"),
        (
            {"state": gridded().rename(level="sounding_channel")},
            {"state": (Channel("temperature"),)},
            "has 3 channels",
        ),
        ({"state": gridded().expand_dims("member")}, {}, "at most one more"),
        (
            {"state": gridded().rename(level="number")},
            {},
            r"unknown dimension 'number' of size 3: select one position with isel\(number=0\)",
        ),
        ({"state": gridded().sel(level=850)}, {}, r"keep the dimension with sel\(level=\[850\]\)"),
    ],
)
def test_bad_input_gives_one_line(given, options, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        build_archive(tmp_path, {}, given, options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_not_json(tmp_path):
    with pytest.raises(InputError, match="plain JSON"):
        build_archive(tmp_path, {"when": object()}, fields())


def test_index_is_readable(tmp_path):
    archive = build_archive(tmp_path, {"run": 1}, fields())
    index = json.loads((archive.path / "index.json").read_text())
    assert index["key"] == {"run": 1}
    assert index["fields"]["state"]["channels"][0] == ["temperature", 500.0]


def test_periods_are_inclusive_and_disjoint():
    when = times(40, "2001-12-10", hours=12)
    split = split_periods(
        when, {"test": ("2001-12-20", "2001-12-25"), "train": ("2001", "2001-12-15")}
    )
    assert split == {"test": slice(20, 32), "train": slice(0, 12)}
    assert str(when[split["train"]][-1])[:13] == "2001-12-15T12"


def test_instants_are_inclusive_too():
    when = times(10)
    assert split_periods(when, {"all": (when[2], when[5])}) == {"all": slice(2, 6)}


@pytest.mark.parametrize(
    ("periods", "message"),
    [
        (
            {"train": ("2001-12-10", "2001-12-15"), "test": ("2001-12-15", "2001-12-18")},
            "'train' .to 2001-12-15. and 'test' .from 2001-12-15. overlap",
        ),
        (
            {"test": ("2001-12-15", "2001-12-18"), "train": ("2001", "2001")},
            "'train' .to 2001. and 'test' .from 2001-12-15. overlap",
        ),
        ({"train": ("1990", "1995")}, "holds none of the times, which go from 2001-12-10"),
        ({"train": ("2001-12-15", "2001-12-10")}, "'train' ends .2001-12-10. before it starts"),
        ({"train": ("2001-12-15", "soon")}, "'train' .* is not two dates"),
        ({"train": ("2001-12-15",)}, "must be .start, end."),
    ],
)
def test_bad_periods_give_one_line(periods, message):
    with pytest.raises(InputError, match=message) as caught:
        split_periods(times(40, "2001-12-10"), periods)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_iberia(real_data, tmp_path):
    path = real_data / "iberia" / "ncep_daily_1961_1995.nc"
    with open_dataset(path, variables=["T", "t2m"]) as state:
        archive = build_archive(tmp_path, {}, {"state": state})
        assert archive.fields["state"].array.shape == (12783, 6, 9, 5)
        reference = state.temperature[5000].values
    np.testing.assert_array_equal(
        np.moveaxis(archive.fields["state"].array[5000, ..., :4], -1, 0), reference
    )
    periods = {"train": ("1961", "1988"), "validation": ("1989", "1991"), "test": ("1992", "1995")}
    sizes = {n: s.stop - s.start for n, s in split_periods(archive.times, periods).items()}
    assert sizes == {"train": 10227, "validation": 1095, "test": 1461}
