"""`lmshape` and `python -m lmshape`: the command line, or what it lacks to run."""

from __future__ import annotations

import sys

# Modules of the extra `models`, and of `workflow`, by the names under which they are imported.
EXTRAS = {
    "models": "h5py huggingface_hub matplotlib pandas pyarrow seaborn threadpoolctl torch tqdm transformers typer",
    "workflow": "accelerate docutils gguf httpx2 jinja2 jsonschema plotly psutil snakemake yaml",
    "skdim": "skdim",
}


def main() -> None:
    """Run the command line; a part that is not installed ends in a sentence that names its extra."""
    try:
        from lmshape.cli import main as run

        run()
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        for extra, modules in EXTRAS.items():
            if name in modules.split():
                print(
                    f"error: `{name}` is not installed, and `{' '.join(['lmshape', *sys.argv[1:2]])}` needs it: "
                    f"pip install 'lmshape[{extra}]'",
                    file=sys.stderr,
                )
                sys.exit(2)
        raise


if __name__ == "__main__":
    main()
