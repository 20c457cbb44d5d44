"""Command lines that are wrong, with the pattern of the one line that each must end with."""

STATION = "--config.assimilation.streams.stations"
LONGWAVE = "--config.assimilation.streams.olr"
OUTPUT = "--output={place}/out/analysis.nc"
HALF_DAYS = "--config.data.state.path=half_days.nc --config.data.background.path=half_days.nc"

TRAIN = {
    "missing file": (
        "--config.data.state.path=absent.nc",
        r"absent\.nc: no such file.*check the path",
    ),
    "missing folder": ("--config.data.root={place}/none", "none is not a folder"),
    "torn file": ("--config.data.state.path=torn.nc", r"torn\.nc: cannot be read.*damaged"),
    "no data at all": ("--config.data.state.path=text.nc", r"text\.nc: neither NetCDF nor Zarr"),
    "missing modality": ("--config.data.modalities.olr.path=gone.nc", r"gone\.nc: no such file"),
    "missing stations": (
        "--config.data.modalities.stations.path=gone.nc",
        r"gone\.nc: no such file",
    ),
    "wrong variable": ("--config.data.variables=('wind',)", "no variable 'wind'.*temperature"),
    "wrong variable of a modality": (
        "--config.data.modalities.olr.variable=ozone",
        "olr.nc.*'ozone'",
    ),
    "unknown units": ("--config.data.state.path=furlongs.nc", "furlongs.nc.*'furlong'.*'K'"),
    "Celsius called Kelvin": ("--config.data.state.path=celsius.nc", r"celsius\.nc.*K, outside"),
    "levels in metres": (
        "--config.data.state.path=metres.nc",
        "metres.nc.*level.*'m'.*not a pressure",
    ),
    "missing level": ("--config.data.levels=(20.0,777.0)", "no level 777 hPa: it has 20, 300"),
    "impossible level": ("--config.data.levels=(-5.0,)", r"levels.*\(-5.0,\)"),
    "overlapping periods": (
        "--config.data.periods.validation=('2001-02-01','2001-03-04')",
        "periods 'train' .*2001-02-19.* and 'validation' .*2001-02-01.* overlap",
    ),
    "period without data": (
        "--config.data.periods.test=('2011-02-01','2011-03-04')",
        "'test' 2011-02-01 .*none",
    ),
    "no date": ("--config.data.periods.test=('soon','later')", "'test'.*soon.*two dates"),
    "station outside the domain": (
        "--config.data.state.path=region.nc --config.data.background.path=region.nc",
        "station S.* lies outside the domain",
    ),
    "station off the globe": (
        "--config.data.modalities.stations.path=off_the_globe.nc",
        "S00 has latitude 95",
    ),
    "modality of other times": (
        "--config.data.modalities.stations.path=late.nc",
        "2010-12-30.*share no time with",
    ),
    "background on another grid": (
        "--config.data.background.path=region.nc",
        "'background' is on a different grid",
    ),
    "checkpoint of another autoencoder": (
        "--config.autoencoder.width=9",
        "autoencoder is of another run.*width.*choose another",
    ),
    "checkpoint of another seed": ("--config.seed=9", "autoencoder is of another run.*seed"),
    "unknown field": ("--config.workdri=x", "workdri"),
    "unknown field below": ("--config.autoencoder.wdith=3", "wdith.*[Dd]id you mean.*width"),
    "unknown field in the file": ("--config={place}/typo.py", "no field 'workdri'.*'workdir'"),
    "a word for a number": ("--config.score_training.steps=many", "many"),
    "a value out of range": (
        "--config.score.window=4",
        "score window must be odd and positive, got 4",
    ),
    "a width of nothing": (
        "--config.autoencoder.width=0",
        r"autoencoder width.* must be .*got \(0, 1\)",
    ),
    "a field of a group that the file leaves out": (
        "--config.nature.days=5",
        "its group 'nature' is None, write it in the file",
    ),
    "no such configuration": ("--config={place}/absent.py", r"absent\.py"),
    "broken configuration": ("--config={place}/broken.py", "configuration cannot be read"),
    "unknown flag": ("--confog=3", "confog"),
    "flag of another command": ("--output=x.nc", "flag .output."),
    "loose word": ("loose", "unexpected argument 'loose'"),
    "folder that cannot be made": (
        "--config.workdir={place}/afile/run",
        "cannot write to .*afile/run",
    ),
    "cache that cannot be made": ("--config.data.cache={place}/afile/c", "afile/c.*cannot be writ"),
    "unknown latent input": (
        "--config.assimilation.latent_inputs=('sonde',)",
        "latent_inputs names 'sonde'.*choose",
    ),
}
ASSIMILATE = {
    "no output": ("", "--output is missing: give the .nc or .zarr"),
    "unknown format": ("--output={place}/out/analysis.csv", r"must end in \.nc or \.zarr"),
    "output under a file": ("--output={place}/afile/out/a.nc", "cannot be written: .*afile"),
    "no model": (f"{OUTPUT} --config.workdir={{place}}/empty", "no trained model in .*empty"),
    "no saved model": (f"{OUTPUT} --model={{place}}/afile", "afile: no saved model, or a damaged"),
    "saved model of another grid": (
        f"{OUTPUT} --model={{place}}/demo.safetensors",
        r"demo\.safetensors is of another configuration: it has another grid.*set --model to",
    ),
    "model of another time step": (
        f"{OUTPUT} {HALF_DAYS}",
        r"it has another time step \(24 h, not 12 h\)",
    ),
    "model of other networks": (
        f"{OUTPUT} --config.score.embedding=9",
        r"model in .*run is of another configuration: it has another score\.embedding \(8, not 9\)",
    ),
    "model of another autoencoder": (
        f"{OUTPUT} --config.autoencoder.width=9",
        r"has another autoencoder\.width \(8, not 9\)",
    ),
    "model of other levels": (
        f"{OUTPUT} --config.data.levels=(20.0,300.0)",
        "another configuration.* another channels",
    ),
    "missing observations": (f"{OUTPUT} {STATION}.path=gone.nc", r"gone\.nc: no such file"),
    "missing satellite": (f"{OUTPUT} {LONGWAVE}.path=gone.nc", r"gone\.nc: no such file"),
    "observation outside the levels": (
        f"{OUTPUT} {STATION}.path=high.nc",
        "observation 0 at 5 hPa lies outside the levels 20 to 1000 hPa: remove it",
    ),
    "observation off the globe": (
        f"{OUTPUT} {STATION}.path=off_the_globe.nc",
        "station S00 has latitude 95",
    ),
    "observations of other times": (
        f"{OUTPUT} {STATION}.path=late.nc",
        "stream 'stations' has times 2010-12-30T00:00 to .*none of which is among the analysis",
    ),
    "negative error": (
        f"{OUTPUT} {STATION}.error=-0.5",
        r"streams\.stations.* must be positive, got -0\.5",
    ),
    "negative error in the file": (
        f"{OUTPUT} {STATION}.path=negative.nc {STATION}.error=0.0",
        r"negative\.nc: an error is neg",
    ),
    "error zero in the file": (
        f"{OUTPUT} {LONGWAVE}.path=exact.nc",
        "outgoing_longwave_radiation: its attribute error is 0.0",
    ),
    "no error anywhere": (
        f"{OUTPUT} {LONGWAVE}.path=unknown.nc",
        r"stream 'olr' has no errors: unknown\.nc has none",
    ),
    "no error of stations": (
        f"{OUTPUT} {STATION}.error=0.0",
        "stream 'stations' has no errors: set its error, or esti",
    ),
    "error zero of a simulation": (
        f"{OUTPUT} {LONGWAVE}.path= {LONGWAVE}.kind=coarse",
        "olr.* must be positive, got 0.0",
    ),
    "stations without a file": (
        f"{OUTPUT} {STATION}.path=",
        "stream 'stations' of kind 'points' .*give it a path",
    ),
    "unknown kind": (f"{OUTPUT} {LONGWAVE}.kind=lidar", "kind 'lidar' is unknown: choose"),
    "unknown station": (
        f"{OUTPUT} {STATION}.withhold=1.5",
        r"must be a share in \[0, 1\), got 1\.5",
    ),
    "unknown period": (
        f"{OUTPUT} --config.assimilation.period=tset",
        "assimilation.period 'tset' is unknown",
    ),
    "more times than there are": (
        f"{OUTPUT} --config.assimilation.frames=99",
        "frames is 99, but the period 'test' has 17",
    ),
    "no background": (
        f"{OUTPUT} --config.data.background.path=",
        "another autoencoder.inputs|has no background",
    ),
    "unknown preset": (f"{OUTPUT} --preset=slow", "preset=slow: value should be one of <fast|"),
    "a preset and what it replaces": (
        f"{OUTPUT} --preset=exact --config.refinement.moves=4",
        "preset=exact replaces config.refinement.moves: leave one",
    ),
    "weighted paths in batches": (
        f"{OUTPUT} --preset=exact --config.assimilation.member_batch=2",
        "cannot be drawn 2 at a time",
    ),
    "no inflation": (
        f"{OUTPUT} --config.assimilation.inflation=-1.0",
        "inflation must be positive and finite, got -1.0",
    ),
    "no members": (f"{OUTPUT} --config.assimilation.members=0", "members must be at least 1"),
    "an encoder without these errors": (
        f"{OUTPUT} --config.assimilation.latent_inputs=('background',) "
        "--config.assimilation.background=False",
        "no latent observations",
    ),
    "observations on another grid of the same size": (
        f"{OUTPUT} {LONGWAVE}.kind=grid {LONGWAVE}.path=elsewhere.nc "
        f"{LONGWAVE}.variable=temperature",
        "stream 'olr' is on another grid .* than the model's",
    ),
    "a background that enters twice": (
        f"{OUTPUT} --config.assimilation.latent_inputs=('background',)",
        "names 'background', which assimilation.background uses too",
    ),
    "observations that enter twice": (
        f"{OUTPUT} --config.assimilation.latent_inputs=('stations',)",
        "names 'stations', which assimilation.streams.stations observes too",
    ),
    "one file as two streams": (
        f"{OUTPUT} {LONGWAVE}.path=stations.nc {LONGWAVE}.variable=temperature",
        "are both of 'temperature' in stations.nc",
    ),
    "inflation without bounds": (
        f"{OUTPUT} --config.assimilation.inflation=inf",
        "inflation must be positive and finite, got inf",
    ),
}
EVALUATE = {
    "no analysis": ("", "--analysis is missing: give the file"),
    "missing analysis": ("--analysis={place}/gone.nc", r"cannot read the analysis .*gone\.nc"),
    "no saved model": (
        "--analysis={place}/gone.nc --model={place}/afile",
        "afile: no saved model, or a damaged",
    ),
    "missing store": ("--analysis={place}/gone.zarr", r"cannot read the analysis .*gone\.zarr"),
    "torn analysis": ("--analysis={place}/world/torn.nc", r"cannot read the analysis .*torn\.nc"),
    "a report that is no page": (
        "--analysis={place}/gone.nc --report={place}/report.pdf",
        r"report\.pdf must end in \.html",
    ),
    "a report where a folder is": (
        "--analysis={place}/gone.nc --report={place}/folder.html",
        r"folder\.html is a folder",
    ),
    "a report below a file": (
        "--analysis={place}/gone.nc --report={place}/config.py/report.html",
        r"is in a folder that cannot be written: .*config\.py",
    ),
    "no analysis at all": (
        "--analysis={place}/world/background.nc",
        "background.nc is no analysis, it lacks 'member'",
    ),
}
COMMANDS = {"train": TRAIN, "assimilate": ASSIMILATE, "evaluate": EVALUATE}
