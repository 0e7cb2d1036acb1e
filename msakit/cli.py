"""The command line: ``msakit …``. Each command is a thin door to one function of the package."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from msakit.strict import from_yaml

app = typer.Typer(
    help="Reproduce papers on multimodal sentiment analysis: corpora, encoders, notebooks, results.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

data = typer.Typer(
    help="Published corpora and checkpoints: what is here, and what a corpus is like.", no_args_is_help=True
)
app.add_typer(data, name="data")

Options = Annotated[
    list[str] | None, typer.Option("-o", "--option", help="name=value, the value in YAML; may be repeated")
]
Results = Annotated[
    list[Path] | None, typer.Argument(help="results folders, each of one profile; default: all under results/")
]


@app.callback()
def _logging(quiet: Annotated[bool, typer.Option(help="only warnings and errors")] = False) -> None:
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )


@app.command()
def corpus(
    name: Annotated[str, typer.Argument(help="mini-mosi, mini-posts, mini-memes, mini-pool-mosi or mini-pool-posts")],
    cache: Annotated[Path, typer.Argument(help="folder that holds the generated corpora")],
) -> None:
    """Generate a mini corpus (if it is not there) and say what is in it; a folder is read and checked."""
    from msakit.data import open_corpus

    opened = open_corpus(name, cache)
    counts = ", ".join(f"{split} {len(rows)}" for split, rows in opened.splits.items())
    typer.echo(f"{opened.folder}: {counts}")


@app.command()
def pretrain(
    name: Annotated[str, typer.Argument(help="which mini encoder, for example bert or wavlm")],
    encoders: Annotated[Path, typer.Argument(help="folder that holds the mini encoders")],
    cache: Annotated[Path, typer.Argument(help="folder that holds the generated corpora")],
) -> None:
    """Pre-train one mini encoder on the unlabelled pool."""
    from msakit.data import open_corpus
    from msakit.encoders.pretrain import check_name
    from msakit.encoders.pretrain import pretrain as train
    from msakit.process import configure

    check_name(name)  # before the pools are generated
    configure()
    pools = {pool: open_corpus(f"mini-pool-{pool}", cache).folder for pool in ("mosi", "posts")}
    train(name, encoders / name, pools=pools)


def _published(results: list[Path] | None) -> list[Path]:
    """The given results folders, or all under results/."""
    folders = results or sorted(path.parent for path in Path("results").glob("*/manifest.json"))
    if not folders:
        raise ValueError("there is no results/*/manifest.json: run `make reproduce` first")
    return folders


def _named(items: list[str] | None, flag: str) -> dict[str, Any]:
    """`name=value` items, the values read as YAML."""
    given = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not equals:
            raise typer.BadParameter(f"write {flag} name=value, not {item!r}")
        given[name] = from_yaml(value, f"{flag} {name}")
    return given


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="format: mmsa, mult, mag, csd, ando, mosi-raw, mosei-raw, meld, …")],
    source: Annotated[Path, typer.Argument(help="the published file or folder")],
    out: Annotated[Path, typer.Argument(help="corpus folder to write")],
    option: Options = None,
) -> None:
    """Turn a public corpus format into a corpus folder, with a manifest of what was kept and dropped."""
    from msakit.data.importers import import_corpus

    manifest = import_corpus(name, source, out, **_named(option, "-o"))
    kept = ", ".join(f"{split} {count}" for split, count in manifest["kept"].items())
    typer.echo(f"{out}: {kept}; {manifest['dropped']['total']} dropped, see {out / 'manifest.json'}")
    for warning in manifest["warnings"]:
        typer.secho(f"warning: {warning}", fg="yellow", err=True)


@app.command()
def extract(
    corpus: Annotated[str, typer.Argument(help="a corpus folder, or the name of a generated corpus")],
    encoder: Annotated[str, typer.Argument(help="KIND or KIND:PATH, for example audio:microsoft/wavlm-large")],
    option: Options = None,
    root: Annotated[Path, typer.Option(help="folder of the feature stores")] = Path("build/features"),
    cache: Annotated[Path, typer.Option(help="folder that holds the generated corpora")] = Path("build/corpora"),
    max_failed: Annotated[float, typer.Option(help="share of segments that may fail before it is an error")] = 0.05,
) -> None:
    """Extract all layers of an encoder for every segment of a corpus; a killed run goes on where it stopped."""
    from msakit.data import open_corpus
    from msakit.encoders import load_encoder
    from msakit.features import extract as extract_features
    from msakit.features import extraction_report
    from msakit.process import configure, wide

    kind, _, path = encoder.partition(":")
    spec = {"kind": kind, **({"path": path} if path else {}), **_named(option, "-o")}
    opened, loaded = open_corpus(corpus, cache), load_encoder(spec)
    model = getattr(loaded, "model", None)
    configure(matmul="onednn" if model is not None and wide(model) else "default")
    store = extract_features(opened, loaded, root, max_failed=max_failed)
    typer.echo(str(store.folder))
    for name, value in extraction_report([store]).iloc[0].items():
        typer.echo(f"{name}: {value}")


@data.command("list")
def list_data() -> None:
    """Show the published corpora and checkpoints: their state, their terms, what to fetch and where to put it."""
    from msakit.data.catalogue import CATALOGUE

    for item in CATALOGUE.values():
        found = item.found()
        typer.secho(f"{item.name} ({item.kind}): {'present' if found else 'absent'}", fg="green" if found else "yellow")
        typer.echo(f"  {item.what}\n  terms: {item.terms}")
        if found:
            typer.echo(f"  in {found}")
        else:
            places = " or ".join(map(str, item.folders()))
            typer.echo(f"  looked for in {places}\n  fetch {item.fetch}\n  then {item.put}")


@data.command("require")
def require_data(
    profile: Annotated[str, typer.Argument(help="a profile of workflow/profiles by name, such as paper, or a file")],
) -> None:
    """Check that all corpora and checkpoints of a profile are here, before any work starts."""
    from msakit.data.catalogue import require
    from msakit.profiles import load_profile

    names = load_profile(profile).needs()
    require(names)
    typer.echo(f"{profile}: {len(names)} corpora and checkpoints are here")


@data.command("audit")
def audit_data(
    folder: Annotated[Path, typer.Argument(help="a corpus folder")],
    near: Annotated[float, typer.Option(help="cosine of character n-grams from which two texts are the same")] = 0.9,
    media: Annotated[bool, typer.Option(help="probe sound and video by the conventional sets too")] = False,
    strict: Annotated[bool, typer.Option(help="exit with code 1 if there is a warning")] = False,
) -> None:
    """Audit a corpus: overlap of splits, labels, features, lengths, and linear probes that show leaks."""
    from msakit.audit import audit
    from msakit.data.corpus import load_corpus

    found = audit(load_corpus(folder), near=near, media=media)
    typer.echo(found.text())
    if strict and found.warnings:
        raise typer.Exit(1)


@app.command()
def predict(
    video: Annotated[Path | None, typer.Argument(help="the clip; leave it out for sound or text alone")] = None,
    text: Annotated[str | None, typer.Option(help="its transcript")] = None,
    audio: Annotated[Path | None, typer.Option(help="its sound, if that is not in the clip")] = None,
    head: Annotated[
        Path | None, typer.Option(help="folder of a saved head; default: one under results/ or build/")
    ] = None,
) -> None:
    """Score a clip with a trained head, or give its classes' probabilities, and the gate of each modality, as JSON."""
    import json
    from dataclasses import asdict

    from msakit.predictor import Predictor, find_head

    predictor = Predictor.from_pretrained(head or find_head(Path.cwd()))
    typer.echo(json.dumps(asdict(predictor.predict(video, audio, text)), indent=1))
    if predictor.about.get("generated"):
        typer.secho("this head was trained on generated data: real clips are foreign to it", fg="yellow", err=True)


@app.command()
def run(
    notebook: Annotated[Path, typer.Argument(help="an experiment notebook")],
    output: Annotated[Path, typer.Argument(help="where the executed copy goes")],
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="name=value, the value in YAML; may be repeated")
    ] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="YAML file of parameters")] = None,
) -> None:
    """Execute a notebook with papermill, its parameters checked before anything starts."""
    from msakit import notebook as notebooks

    given = from_yaml(file.read_text(), str(file)) or {} if file else {}
    if not isinstance(given, dict):
        raise ValueError(f"{file} holds a {type(given).__name__}: write one `name: value` a line")
    given |= _named(parameter, "-p")
    notebooks.run(notebook, output, given)


@app.command()
def publish(
    built: Annotated[Path, typer.Argument(help="the built results of a profile")],
    results: Annotated[Path, typer.Argument(help="the results folder to replace")],
    profile: Annotated[str, typer.Option(help="name of the profile")],
) -> None:
    """Replace a results folder by freshly built results, with a manifest."""
    from msakit.papers import load_all
    from msakit.reporting.publish import publish as publish_results

    publish_results(built, results, profile, load_all())


@app.command("check-results")
def check_results(results: Results = None) -> None:
    """Rebuild every table from the recorded runs and compare it, byte for byte, with the one that is there."""
    from msakit.papers import load_all
    from msakit.reporting import readme, rebuild

    papers = load_all()
    for folder in _published(results):
        typer.echo(f"{folder}: {rebuild.check(folder, papers)}")
    if not results:
        typer.echo(f"README.md: {readme.check(Path('README.md'))}")


@app.command()
def report(
    results: Results = None,
    notebooks: Annotated[
        Path | None, typer.Option(help="folder of executed notebooks; default: build/<profile>/notebooks, if there")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="only check whether the pages there are of these results")
    ] = False,
) -> None:
    """Make the report page of each results folder: report/index.html, one file that opens from disk."""
    from msakit.papers import load_all
    from msakit.reporting.site import build

    folders = _published(results)
    if notebooks and len(folders) > 1:
        raise typer.BadParameter("--notebooks goes with one results folder: name it")
    for folder in folders:
        if check:
            typer.echo(f"{folder}: {build.check(folder)}")
        else:
            executed = notebooks or Path("build") / folder.resolve().name / "notebooks"
            typer.echo(build.build(folder, load_all(), executed if executed.is_dir() else None))


@app.command()
def claims(results: Results = None) -> None:
    """Test each paper's claims on the recorded runs; print them, and write claims.json and claims.md."""
    from msakit.papers import load_all
    from msakit.reporting.claims_text import update

    for folder in _published(results):
        typer.echo("\n".join(update(folder, load_all())) + "\n")


@app.command()
def latex(
    results: Annotated[Path, typer.Argument(help="a results folder")],
    out: Annotated[Path, typer.Argument(help="folder to write <paper>/<table>.tex into")],
) -> None:
    """Write every table of a results folder for LaTeX."""
    from msakit.papers import load_all
    from msakit.reporting.latex import write_all

    for path in write_all(results, out, load_all()):
        typer.echo(path)


@app.command("check-model")
def check_model(
    reference: Annotated[str, typer.Argument(help="a model by name, module:Class, or file.py:Class")],
) -> None:
    """Run the contract of models on a class: shapes, gradients, padding, order, saving; exit code 1 if one fails."""
    from msakit.models.check import check_model as checked

    results = checked(reference)
    for result in results:
        typer.secho(str(result), fg="green" if result.passed else "red")
    if not all(result.passed for result in results):
        raise typer.Exit(1)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="a results folder, such as the committed results/mini")],
    after: Annotated[Path, typer.Argument(help="another one of the same profile, such as build/mini/results")],
    everything: Annotated[bool, typer.Option("--all", help="list the numbers that did not move too")] = False,
) -> None:
    """List the numbers that moved between two results folders; exit code 3 if one did beyond seed noise."""
    from msakit.papers import load_all
    from msakit.reporting.compare import compare as compare_results

    found = compare_results(before, after, load_all())
    typer.echo("\n".join(found.lines(everything)))
    if found.beyond:
        raise typer.Exit(3)


@app.command("refresh-readme")
def refresh_readme(path: Annotated[Path, typer.Argument(help="the README")] = Path("README.md")) -> None:
    """Fill the README's tables from the published results."""
    from msakit.reporting.readme import refresh

    refresh(path)


@app.command()
def walkthrough(
    notebooks: Annotated[list[Path], typer.Argument(help="walkthroughs to execute in place, outputs kept")],
) -> None:
    """Execute walkthroughs and keep their outputs in them."""
    from msakit import notebook

    for path in notebooks:
        notebook.refresh(path)
        typer.echo(f"{path}: executed")


def main() -> None:
    """Run the command line; a mistake of the user's gets its message on one line and exit code 1, no traceback."""
    try:
        app()
    except (ValueError, OSError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
