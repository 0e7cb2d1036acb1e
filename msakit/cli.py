"""The command line: ``msakit …``. Each command is a thin door to one function of the package."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

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

Folder = Annotated[Path, typer.Argument(help="folder to write; an existing one is kept")]


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
    typer.echo(f"{opened.folder}: {counts}; {len(opened.left_out)} left out")


@app.command()
def pretrain(
    name: Annotated[str, typer.Argument(help="which mini encoder, for example bert or wavlm")],
    encoders: Annotated[Path, typer.Argument(help="folder that holds the mini encoders")],
    cache: Annotated[Path, typer.Argument(help="folder that holds the generated corpora")],
) -> None:
    """Pre-train one mini encoder on the unlabelled pool."""
    from msakit.data import open_corpus
    from msakit.encoders.pretrain import NEEDS, check_name
    from msakit.encoders.pretrain import pretrain as train

    check_name(name)  # before the pools are made
    pools = {pool: open_corpus(f"mini-pool-{pool}", cache).folder for pool in ("mosi", "posts")}
    teacher = {NEEDS[name]: encoders / NEEDS[name]} if name in NEEDS else {}
    train(name, encoders / name, pools=pools, **teacher)


def _parsed(text: str, where: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not readable as YAML: {' '.join(str(error).split())}") from error


def _named(items: list[str] | None, flag: str) -> dict[str, Any]:
    """`name=value` items, the values read as YAML."""
    given = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not equals:
            raise typer.BadParameter(f"write {flag} name=value, not {item!r}")
        given[name] = _parsed(value, f"{flag} {name}")
    return given


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="format: mmsa, mult, mag, csd, ando, mosi-raw, mosei-raw, meld, …")],
    source: Annotated[Path, typer.Argument(help="the published file or folder")],
    out: Annotated[Path, typer.Argument(help="corpus folder to write")],
    option: Annotated[
        list[str] | None, typer.Option("-o", "--option", help="name=value, the value in YAML; may be repeated")
    ] = None,
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
    option: Annotated[
        list[str] | None, typer.Option("-o", "--option", help="name=value of the encoder, e.g. dtype=bfloat16")
    ] = None,
    root: Annotated[Path, typer.Option(help="folder of the feature stores")] = Path("build/features"),
    cache: Annotated[Path, typer.Option(help="folder that holds the generated corpora")] = Path("build/corpora"),
    max_failed: Annotated[float, typer.Option(help="share of segments that may fail before it is an error")] = 0.05,
) -> None:
    """Extract all layers of an encoder for every segment of a corpus; a killed run goes on where it stopped."""
    from msakit.data import open_corpus
    from msakit.encoders import load_encoder
    from msakit.features import extract as extract_features
    from msakit.features import extraction_report

    kind, _, path = encoder.partition(":")
    spec = {"kind": kind, **({"path": path} if path else {}), **_named(option, "-o")}
    opened = open_corpus(corpus, cache)
    store = extract_features(opened, load_encoder(spec), root, max_failed=max_failed)
    typer.echo(str(store.folder))
    for name, value in extraction_report([store]).iloc[0].items():
        typer.echo(f"{name}: {value}")


@data.command("list")
def list_data() -> None:
    """Show the published corpora and checkpoints: their state, their terms, what to fetch and where to put it."""
    from msakit.data.catalogue import states

    for row in states():
        here = row["state"] == "present"
        typer.secho(f"{row['name']} ({row['kind']}): {row['state']}", fg="green" if here else "yellow")
        typer.echo(f"  {row['what']}")
        typer.echo(f"  terms: {row['terms']}")
        typer.echo(f"  {'in' if here else 'looked for in'} {row['where']}")
        if not here:
            typer.echo(f"  fetch {row['fetch']}")
            typer.echo(f"  then {row['put']}")


@data.command("require")
def require_data(
    profile: Annotated[Path, typer.Argument(help="a profile, such as workflow/profiles/paper.yaml")],
) -> None:
    """Check that all corpora and checkpoints of a profile are here, before any work starts."""
    from msakit.data.catalogue import needs, require

    if not profile.is_file():
        raise ValueError(f"there is no profile at {profile}: see workflow/profiles")
    content = _parsed(profile.read_text(), str(profile))
    if not isinstance(content, dict):
        raise ValueError(f"{profile} is no profile: it should name its notebooks")
    named = needs(content)
    require(named)
    typer.echo(f"{profile}: {len(named)} corpora and checkpoints are here")


@data.command("audit")
def audit_data(
    folder: Annotated[Path, typer.Argument(help="a corpus folder")],
    near: Annotated[float, typer.Option(help="cosine of character n-grams from which two texts are the same")] = 0.9,
    media: Annotated[bool, typer.Option(help="probe sound and video by the conventional sets too")] = False,
    json_: Annotated[Path | None, typer.Option("--json", help="write it as JSON, too")] = None,
    strict: Annotated[bool, typer.Option(help="exit with code 1 if there is a warning")] = False,
) -> None:
    """Look a corpus over: overlap of splits, labels, features, lengths, and linear probes that tell of leaks."""
    import json
    from dataclasses import asdict

    from msakit.audit import audit
    from msakit.data.corpus import load_corpus

    found = audit(load_corpus(folder), near=near, media=media)
    typer.echo(found.text())
    if json_ is not None:
        json_.write_text(json.dumps(asdict(found), indent=1, default=float) + "\n", encoding="utf-8")
    if strict and found.warnings:
        raise typer.Exit(1)


@app.command()
def predict(
    video: Annotated[Path | None, typer.Argument(help="the clip; leave it out to judge sound or text alone")] = None,
    text: Annotated[str | None, typer.Option(help="what is said in it")] = None,
    audio: Annotated[Path | None, typer.Option(help="its sound, if that is not in the clip")] = None,
    head: Annotated[
        Path | None, typer.Option(help="folder of a saved head; default: one under results/ or build/")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """Score a clip with a trained head, and say how much each modality had to say."""
    import json
    from dataclasses import asdict

    from msakit.predictor import Predictor, find_head

    predictor = Predictor.from_pretrained(head or find_head(Path.cwd()))
    judged = predictor.predict(video, audio, text)
    if json_:
        typer.echo(json.dumps(asdict(judged)))
        return
    typer.echo(f"score {judged.score:+.3f}")
    for name, gate in judged.gates.items():
        typer.echo(f"gate {name} {gate:.3f}")
    for name, reason in judged.absent.items():
        typer.secho(f"{name}: {reason}", fg="yellow", err=True)
    if predictor.about.get("generated"):
        typer.secho("this head was trained on generated data: it knows nothing of real clips", fg="yellow", err=True)


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

    given = _parsed(file.read_text(), str(file)) or {} if file else {}
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
    from msakit.reporting.publish import publish as publish_results

    publish_results(built, results, profile)


@app.command("check-results")
def check_results(
    results: Annotated[
        list[Path] | None, typer.Argument(help="results folders, each of one profile; default: all under results/")
    ] = None,
) -> None:
    """Rebuild every table from the recorded runs and compare it, byte for byte, with the one that is there."""
    from msakit.reporting.rebuild import check

    folders = results or sorted(path.parent for path in Path("results").glob("*/manifest.json"))
    if not folders:
        raise ValueError("there is no results/*/manifest.json to check: run `make reproduce` first")
    for folder in folders:
        typer.echo(f"{folder}: {check(folder)}")
    if not results:
        from msakit.reporting import readme

        typer.echo(f"README.md: {readme.check(Path('README.md'))}")


@app.command()
def report(
    results: Annotated[
        list[Path] | None, typer.Argument(help="results folders, each of one profile; default: all under results/")
    ] = None,
    notebooks: Annotated[
        Path | None, typer.Option(help="folder of executed notebooks; default: build/<profile>/notebooks, if there")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="only say whether the pages there are of these results")
    ] = False,
) -> None:
    """Make the report page of each results folder: report/index.html, one file that opens from disk."""
    from msakit.reporting.site import build

    folders = results or sorted(path.parent for path in Path("results").glob("*/manifest.json"))
    if not folders:
        raise ValueError("there is no results/*/manifest.json to report on: run `make reproduce` first")
    if notebooks and len(folders) > 1:
        raise typer.BadParameter("--notebooks goes with one results folder: name it")
    for folder in folders:
        if check:
            typer.echo(f"{folder}: {build.check(folder)}")
        else:
            there = Path("build") / folder.resolve().name / "notebooks"
            typer.echo(build.build(folder, notebooks or (there if there.is_dir() else None)))


@app.command()
def claims(
    results: Annotated[
        list[Path] | None, typer.Argument(help="results folders, each of one profile; default: all under results/")
    ] = None,
) -> None:
    """Test each paper's claims on the recorded runs; print them, and write claims.json and claims.md."""
    from msakit.reporting.claims_text import tell

    folders = results or sorted(path.parent for path in Path("results").glob("*/manifest.json"))
    if not folders:
        raise ValueError("there is no results/*/manifest.json to read: run `make reproduce` first")
    for folder in folders:
        typer.echo("\n".join(tell(folder)) + "\n")


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="a results folder, such as the committed results/mini")],
    after: Annotated[Path, typer.Argument(help="another one of the same profile, such as build/mini/results")],
    everything: Annotated[bool, typer.Option("--all", help="list the numbers that did not move too")] = False,
) -> None:
    """Say which numbers moved between two results folders, and whether beyond seed noise (then exit code 3)."""
    from msakit.reporting.compare import compare as compare_results

    found = compare_results(before, after)
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
    from msakit.notebook import ParameterError

    try:
        app()
    except (ParameterError, ValueError, OSError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
