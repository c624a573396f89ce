"""The flags of the command `gax`, each declared once; `gax_batch.runner.settings` has the same names."""

from typing import Annotated

import typer

Bundle = Annotated[
    str | None, typer.Option(help="Model bundle's folder or URI.", show_default="the shipped bundle")
]
Models = Annotated[
    str | None,
    typer.Option(help="Networks to run and blend: bayesian, svr, classic.", show_default="bayesian,svr"),
]
Draws = Annotated[
    int | None,
    typer.Option(help="Weight draws from the posterior, shared by all galaxies.", show_default="32"),
]
TargetError = Annotated[
    float | None,
    typer.Option(
        help="Draw only until each fraction's Monte Carlo error is so small.", show_default="all draws"
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16 or auto (the catalog's, else the faster).", show_default="auto"),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Bands of FITS files to colors: sdss-gri, legacy-grz, hsc-gri, panstarrs-gri or single.",
        show_default="sdss-gri",
    ),
]
ConfigFile = Annotated[
    str | None, typer.Option("--config", help="YAML file of the same settings; flags win over it.")
]
Input = Annotated[
    str | None,
    typer.Option(help="Folder, prefix or glob of JPEG, PNG, TIFF or FITS cutouts, or of Parquet shards."),
]
Catalog = Annotated[str | None, typer.Option(help="Catalog to write or to bring up to date.")]
Positions = Annotated[
    str | None, typer.Option(help="Table of galaxy_id, ra, dec (deg): CSV, Parquet, FITS or VOTable.")
]
UnitSize = Annotated[int | None, typer.Option(help="Cutouts per unit of work.", show_default="4096")]
Workers = Annotated[
    str | None,
    typer.Option(help="Actors that hold the models; auto: one per GPU, else one.", show_default="auto"),
]
EngineCpus = Annotated[
    float | None,
    typer.Option(help="CPUs that each engine asks of a Ray cluster that grows.", show_default="a share"),
]
EngineGpus = Annotated[
    float | None, typer.Option(help="GPUs that each engine asks of it.", show_default="a share")
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to join: HOST:PORT of its head, or auto.", show_default="RAY_ADDRESS, or none"
    ),
]
Cpus = Annotated[str | None, typer.Option(help="Logical CPUs of a local Ray.", show_default="auto")]
PopulationOrder = Annotated[
    int | None, typer.Option(help="Order of the HEALPix cells of `gax population`.", show_default="2")
]
PopulationBins = Annotated[
    str | None, typer.Option(help="Bins of `gax population`: 'COLUMN=EDGE,EDGE,...;COLUMN=...'.")
]
KeepDraws = Annotated[
    bool | None, typer.Option("--keep-draws", help="Store every galaxy's draws too, as float16.")
]
RedoCompanions = Annotated[
    bool | None,
    typer.Option("--redo-companions", help="Process units again that lack the sums or draws asked for."),
]
Limit = Annotated[int | None, typer.Option(help="Only the first N cutouts.", show_default="all")]
Full = Annotated[
    bool | None, typer.Option("--full", help="Process every unit again; if interrupted, from the start.")
]
Prune = Annotated[bool | None, typer.Option("--prune", help="Take out cutouts that the input has no more.")]
MaxRemoved = Annotated[
    str | None, typer.Option(help="Cutouts that --prune may remove at most.", show_default="5%")
]
MaxAttempts = Annotated[
    int | None, typer.Option(help="Runs that try a cutout which the storage did not give.", show_default="5")
]
UnitSeconds = Annotated[
    str | None,
    typer.Option(help="Seconds that one step of a unit may take.", show_default="300, and 1 per cutout"),
]
StallMinutes = Annotated[
    float | None, typer.Option(help="Without progress for so long, say where it stalls.", show_default="15")
]
GiveUpMinutes = Annotated[
    float | None,
    typer.Option(help="End the run after this many minutes without progress.", show_default="120"),
]
MaxRejects = Annotated[
    str | None,
    typer.Option(help="Stop a run, before its commit, if more cutouts are rejected.", show_default="5%"),
]
Crop = Annotated[
    float | None, typer.Option(help="Central part of the shorter side to use.", show_default="256/424")
]
Frames = Annotated[
    bool | None,
    typer.Option("--frames", help="The input is FITS frames: cut out at --positions."),
]
FrameIndex = Annotated[
    str | None,
    typer.Option(help="Folder for the index of the frames.", show_default="in the catalog"),
]
BandFiles = Annotated[
    bool | None,
    typer.Option("--band-files", help="FITS cutouts of one file per band: id-g.fits, id-r.fits, ..."),
]
DefaultRadius = Annotated[
    float | None, typer.Option(help="Petrosian R90, arcsec, where the table has none.", show_default="7")
]
MaxImageBytes = Annotated[
    int | None, typer.Option(help="Larger objects are rejected.", show_default="64 MiB")
]
MaxImagePixels = Annotated[
    int | None, typer.Option(help="Larger images are rejected.", show_default="64 million")
]
MaxImageExpansion = Annotated[
    int | None, typer.Option(help="How many times its bytes an image may unpack to.", show_default="200")
]
MaxImageHeaderBytes = Annotated[
    int | None, typer.Option(help="FITS files with larger headers are rejected.", show_default="4 MiB")
]
MaxImageMemoryMib = Annotated[
    int | None, typer.Option(help="Memory that reading a unit may take, MiB.", show_default="4096")
]
MaxIdCharacters = Annotated[
    int | None, typer.Option(help="Galaxies with a longer id are rejected.", show_default="256")
]
MaxShardMembers = Annotated[int | None, typer.Option(help="Cutouts in one shard.", show_default="10 million")]
ObjectStoreMib = Annotated[
    str | None, typer.Option(help="Memory of a local Ray's object store, MiB.", show_default="auto")
]
Grace = Annotated[
    float | None,
    typer.Option(
        help="Seconds that units in flight have to end after Ctrl-C or SIGTERM.", show_default="600"
    ),
]
Webhook = Annotated[
    str | None,
    typer.Option(
        help="Environment variable with the URL that is told how a run ended.", show_default="nobody is told"
    ),
]
LogFormat = Annotated[
    str | None,
    typer.Option(help="text (live on a terminal) or json (one object a line).", show_default="text"),
]
Sources = Annotated[
    str | None,
    typer.Option(
        help="Folder or prefix that the survey's files are below now; files of the same size count as those "
        "that were cataloged.",
        show_default="their old places, unchanged",
    ),
]
Calibrate = Annotated[bool, typer.Option(help="Read and classify a few cutouts, to predict the time.")]
Hours = Annotated[float, typer.Option(help="Hours that a run may take on a cluster.", min=0.01)]
CorePrice = Annotated[
    float | None, typer.Option(help="Your price of a core for an hour; adds the cost.", min=0)
]
GpuPrice = Annotated[
    float | None, typer.Option(help="Your price of a GPU for an hour; adds the cost.", min=0)
]
