r"""ERA5, gauge precipitation and OLR as SLAMS has them, from their producers' own files.

    python -m experiments.prepare --config=configs/prepare_era5.py --config.data.root=FOLDER
    python -m experiments.train   --config=configs/prepare_era5.py --config.data.root=FOLDER
    python -m experiments.assimilate --config=configs/prepare_era5.py --config.data.root=FOLDER \
        --output=runs/prepare_era5/analysis.nc

FOLDER holds `era5/` (ChaosBench: one Zarr store a day, 1.5 degrees), `cpc/precip.YYYY.nc` (CPC
global gauge analysis, half a degree) and `olr/olr.2xdaily.1979-2022.nc` (NOAA interpolated OLR, 2.5
degrees), both of NOAA PSL; each may be a URL instead. All comes onto 120 x 240 points and the days
of the state at 00 UTC. `prepare` writes 21 GB and a summary (docs/data.md); training starts from
there, and prepares by itself what is not prepared. For a GPU: the networks have the widths and
depths of those of `latent.py`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.workdir = "runs/prepare_era5"
    config.data.root = "data"
    # WeatherBench 2 lacks 10 hPa; with hours=(0,) its state is "gs://weatherbench2/datasets/era5/"
    # "1959-2023_01_10-6h-240x121_equiangular_with_poles_conservative.zarr".
    config.data.state = base.field("era5/era5_full_1.5deg_*.zarr")
    config.data.background = base.field("previous")
    config.data.levels = (10.0, 50.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0, 1000.0)
    config.data.grid = (120, 240)
    config.data.period = ("2000-01-01", "2022-12-31")
    config.data.hours = (0,)
    config.data.modalities = {
        "cpc": base.field(
            "cpc/precip.*.nc",
            variable="total_precipitation",
            method="conservative",
            transform="log1p+wet",
            scale=1e-3,  # m
        ),
        "olr": base.field(
            "olr/olr.2xdaily.1979-2022.nc",
            variable="outgoing_longwave_radiation",
            method="conservative",
            matching="mean",
            hours=24.0,
        ),
    }
    config.data.periods = {
        "train": ("2000-01-01", "2015-12-31"),
        "validation": ("2016-01-01", "2020-12-31"),
        "test": ("2021-01-01", "2022-12-31"),
    }
    config.data.harmonics = 1
    config.autoencoder = base.autoencoder(12, compression=2, width=96, blocks=3)
    config.autoencoder_training = base.training(
        steps=10000, warmup_steps=500, weight_decay=1e-4, log_every=200, checkpoint_every=2000
    )
    config.score.widths = (96, 192)
    config.score_training.update(
        steps=60000,
        warmup_steps=500,
        weight_decay=1e-4,
        ema_decay=0.9995,
        log_every=200,
        checkpoint_every=5000,
    )
    config.assimilation.update(frames=29, member_batch=4, latent_inputs=("cpc", "olr"))
    config.assimilation.streams = {"coarse": base.stream("coarse", factor=4, error=1.0)}
    return config
