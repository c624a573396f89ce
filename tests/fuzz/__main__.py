"""Coverage-guided fuzzing (libFuzzer, by way of Atheris): `python -m fuzz READER... --seconds N`.

The corpus is made by code and grows in `build/fuzz/READER`; an input that is a finding is written to
`build/fuzz/READER-*`, and given again by `python -m fuzz READER --replay FILE`. With several readers, the
first byte of an input says whose it is.
"""

import argparse
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "astropy.io.fits", "tarfile", "gax_batch"]):
    import tarfile  # noqa: F401  (instrumented)

    import astropy.io.fits  # noqa: F401
    import PIL.JpegImagePlugin
    import PIL.PngImagePlugin
    import PIL.TiffImagePlugin  # noqa: F401
    from fuzz.corpus import SEEDS
    from fuzz.targets import MEMORY_MIB, SECONDS, check

FOLDER = Path("build/fuzz")
MAX_BYTES = 65_536
TOKENS = (
    "SIMPLE  =", "BITPIX  =", "NAXIS   =", "NAXIS1  =", "NAXIS2  =", "NAXIS3  =", "PCOUNT  =", "GCOUNT  =",
    "XTENSION=", "'BINTABLE'", "'IMAGE   '", "TFIELDS =", "TFORM1  =", "ZIMAGE  =", "ZCMPTYPE=", "'RICE_1  '",
    "'HCOMPRESS_1'", "ZNAXIS1 =", "ZTILE1  =", "ZVAL1   =", "BSCALE  =", "BZERO   =", "BLANK   =",
    "IHDR", "IDAT", "IEND", "PLTE", "tRNS", "iCCP", "zTXt", "acTL", "PAR1", "ustar", "GNU.sparse.map",
)  # fmt: skip
JPEG_MARKERS = (
    "\\xff\\xd8",
    "\\xff\\xc0",
    "\\xff\\xc2",
    "\\xff\\xc4",
    "\\xff\\xda",
    "\\xff\\xdb",
    "\\xff\\xdd",
)


def main() -> None:
    """Fuzz until the time is up or there is a finding."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("readers", nargs="+", choices=sorted(SEEDS))
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0 is another one each time")
    parser.add_argument("--replay", help="give this one input instead")
    asked = parser.parse_args()
    readers: list[str] = asked.readers
    if asked.replay:
        check(*_chosen(readers, Path(asked.replay).read_bytes()))
        return
    name = "-".join(readers)
    corpus = FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, reader in enumerate(readers):
        for index, seed in enumerate(SEEDS[reader]()):
            (corpus / f"{reader}-{index:03}").write_bytes(_selected(readers, number) + seed)
    dictionary = FOLDER / "tokens.dict"
    dictionary.write_text("".join(f'"{token}"\n' for token in TOKENS + JPEG_MARKERS))
    options = {
        "max_total_time": asked.seconds,
        "seed": asked.seed,
        "max_len": MAX_BYTES,
        "timeout": round(3 * SECONDS),  # of a machine that does other things too
        # What one input may take is bounded by the target; allocators keep some of it for the next.
        "rss_limit_mb": 4 * MEMORY_MIB,
        "artifact_prefix": f"{FOLDER / name}-",
        "dict": dictionary,
        "print_final_stats": 1,
    }
    arguments = [f"-{key}={value}" for key, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], lambda data: check(*_chosen(readers, data)))
    atheris.Fuzz()


def _selected(readers: list[str], number: int) -> bytes:
    return bytes([number]) if len(readers) > 1 else b""


def _chosen(readers: list[str], data: bytes) -> tuple[str, bytes]:
    """Whose input it is, and the input."""
    if len(readers) == 1:
        return readers[0], data
    return readers[data[0] % len(readers) if data else 0], data[1:]


if __name__ == "__main__":
    main()
