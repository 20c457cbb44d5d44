"""ERA5, gauge precipitation and OLR as SLAMS has them, from their producers' own files.

    python -m experiments.prepare --config=configs/prepare_era5.py --config.data.root=FOLDER
    python -m experiments.train   --config=configs/prepare_era5.py --config.data.root=FOLDER
    python -m experiments.assimilate --config=configs/prepare_era5.py --config.data.root=FOLDER \
        --output=runs/prepare_era5/analysis.nc

FOLDER holds `era5/` (ChaosBench: one Zarr store a day, 1.5 degrees), `cpc/precip.YYYY.nc` (CPC
global gauge analysis, half a degree) and `olr/olr.2xdaily.1979-2022.nc` (NOAA interpolated OLR, 2.5
degrees), both of NOAA PSL; each may be a URL instead. All comes onto 120 x 240 points and the days
of the state at 00 UTC. `prepare` writes 21 GB and a summary (docs/data.md); training starts from
there, and prepares by itself what is not prepared. For a GPU: the networks are those of
`latent.py`.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.workdir = "runs/prepare_era5"
    config.nature = None
    config.data = {
        "root": "data",
        # Of WeatherBench 2, which has no 10 hPa: "gs://weatherbench2/datasets/era5/1959-2023_01_10-"
        # "6h-240x121_equiangular_with_poles_conservative.zarr", with "hours": (0,).
        "state": {"path": "era5/era5_full_1.5deg_*.zarr"},
        "background": "previous",
        "variables": ("temperature",),
        "levels": (10.0, 50.0, 100.0, 200.0, 300.0, 500.0, 700.0, 850.0, 925.0, 1000.0),
        "grid": (120, 240),
        "period": ("2000-01-01", "2022-12-31"),
        "hours": (0,),
        "modalities": {
            "cpc": {
                "path": "cpc/precip.*.nc",
                "variable": "total_precipitation",
                "method": "conservative",
                "known": 0.5,
                "transform": "log1p",
                "scale": 1e-3,  # m
            },
            "olr": {
                "path": "olr/olr.2xdaily.1979-2022.nc",
                "variable": "outgoing_longwave_radiation",
                "method": "conservative",
                "matching": "mean",
                "hours": 24.0,
            },
        },
        "periods": {
            "train": ("2000-01-01", "2015-12-31"),
            "validation": ("2016-01-01", "2020-12-31"),
            "test": ("2021-01-01", "2022-12-31"),
        },
        "harmonics": 1,
        "per_point": True,
        "cache": "cache",
    }
    config.schedule = {"eta": 1e-3}
    config.autoencoder = {"latent_channels": 12, "compression": 2, "width": 96, "blocks": 3}
    config.autoencoder_training = {
        "steps": 10000,
        "batch_size": 64,
        "accumulate": 1,
        "shard_state": False,
        "learning_rate": 1e-3,
        "warmup_steps": 500,
        "decay": "cosine",
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
        "ema_decay": 0.999,
        "log_every": 200,
        "checkpoint_every": 2000,
    }
    config.score = {"window": 5, "widths": (96, 192), "blocks": 3, "prediction": "v"}
    config.score_training = {
        "steps": 60000,
        "batch_size": 64,
        "accumulate": 1,
        "shard_state": False,
        "learning_rate": 1e-3,
        "warmup_steps": 500,
        "decay": "cosine",
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
        "ema_decay": 0.9995,
        "log_every": 200,
        "checkpoint_every": 5000,
    }
    config.sampler = {"solver": "dpmpp_2m", "steps": 32, "grid": "log_snr"}
    config.guidance = {"rule": "gaussian", "gamma": 1e-2, "iterations": 30}
    config.assimilation = {
        "period": "test",
        "frames": 29,
        "members": 16,
        "background": True,
        "latent_inputs": ("cpc", "olr"),
        "window_chunk": 0,
        "member_batch": 4,
        "window_devices": 1,
        "space_devices": 1,
        "inflation": 1.0,
        "rank": 200,
        "streams": {
            "coarse": {"kind": "coarse", "factor": 4, "error": 1.0},
        },
    }
    return config
