"""The commands: their names, arguments and help.

Law of this room: it turns words into calls, no more. What a command does is in the module of that matter, imported when
the command runs; how its errors are told is in ``endings``. Main thread only.
"""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from urllib.parse import quote

import click

import durable_log
from durable_log._cli import directory, follow, upkeep
from durable_log._cli import dump as dumping
from durable_log._cli import repair as repairing
from durable_log._cli import verify as verification
from durable_log._cli.endings import PORT_DEFAULT, TERMINATED, Commands, looking
from durable_log._cli.options import chosen, data_option, directory_argument, json_option, place, served_option


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(durable_log.__version__, prog_name="durable-log")
def commands() -> None:
    """Durable append-only streams: a server, a demonstration, and tools for the store's directory."""


@commands.command()
@served_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0 for all.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT_DEFAULT, show_default=True, help="0 picks a free one."
)
@click.option(
    "--long-poll-timeout",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    default=20.0,
    show_default=True,
    help="How long a long-poll waits for news.",
)
@click.option(
    "--client-timeout",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    default=45.0,
    show_default=True,
    help="Cut off a client that sends the rest of a request, or takes a response, no further for so long.",
)
@click.option(
    "--local-webhooks/--no-local-webhooks",
    default=None,
    help="Whether webhooks may be on this machine, as http://localhost. Default: if --host is of this machine only.",
)
@click.option("--backups", metavar="DIR", callback=place, help="At SIGUSR1, make a backup in a new directory in DIR.")
@click.option("--tokens", metavar="FILE", help="Ask for a token; FILE has one a line, with what it is good for.")
@click.option("--jwks", metavar="FILE|URL", help="Ask for a JSON Web Token, signed by a key of this set.")
@click.option("--jwt-algorithm", metavar="NAME", multiple=True, help="With --jwks: how, e.g. RS256; any number.")
@click.option("--jwt-audience", metavar="AUD", multiple=True, help="With --jwks: whom a token is for; any number.")
@click.option("--jwt-issuer", metavar="ISS", help="With --jwks: who made it.")
@click.option("--url-secrets", metavar="FILE", help="Allow to read by URLs signed with a secret of FILE, one a line.")
@click.option("--cors-origin", metavar="ORIGIN", multiple=True, help="Whose pages may use it; any number, or none.")
@click.option("--metrics", is_flag=True, help="Figures for Prometheus at /metrics.")
@click.option("--access-log", type=click.Choice(["json"]), help="Write a line for each request to stdout.")
@click.option("--page", type=click.Path(exists=True, dir_okay=False), hidden=True)
def serve(
    data: str, host: str, port: int, long_poll_timeout: float, client_timeout: float, local_webhooks: bool | None,
    backups: str | None, tokens: str | None, jwks: str | None, jwt_algorithm: tuple[str, ...],
    jwt_audience: tuple[str, ...], jwt_issuer: str | None, url_secrets: str | None, cors_origin: tuple[str, ...],
    metrics: bool, access_log: str | None, page: str | None,
) -> None:  # fmt: skip
    """Serve a store over HTTP.

    Streams are at /v1/stream/NAME, in the Durable Streams protocol. /healthz answers 503 once only a restart helps,
    /readyz once requests had better go elsewhere. Prints one line when it is ready. SIGTERM and SIGINT end it in order,
    a second one at once.

    Without --tokens, --jwks or --url-secrets, whoever reaches it may do everything. With several, what any of them
    allows is allowed. With a proxy on this machine in front of it, give --no-local-webhooks.
    """
    from durable_log._cli import guard  # noqa: PLC0415 - the other commands need no server
    from durable_log._cli import serve as server  # noqa: PLC0415 - as above

    logging.basicConfig(format="durable-log: %(levelname)s: %(message)s", level=logging.WARNING)
    settings = server.Settings(
        long_poll_seconds=long_poll_timeout,
        backups=backups,
        pages={} if page is None else {"/": server.Page("text/html; charset=utf-8", Path(page).read_bytes())},
        authorize=guard.guard(tokens, jwks, jwt_algorithm, jwt_audience, jwt_issuer, url_secrets),
        cors=guard.origins(cors_origin),
        metrics=metrics,
        access_log=access_log is not None,
        local_webhooks=local_webhooks,
        client_seconds=client_timeout,
    )
    server.serve(data, host, port, settings)


@commands.command("ls")
@data_option
@click.option("-l", "--long", is_flag=True, help="Before each name: tail in bytes, open or closed, content type.")
@json_option
@click.argument("prefix", default="")
def list_streams(data: str, prefix: str, long: bool, as_json: bool) -> None:
    """List the streams whose names start with PREFIX, one a line."""
    directory.list_streams(data, prefix, long=long, as_json=as_json)


@commands.command()
@data_option
@click.option("--offset", type=click.IntRange(0), default=0, help="The byte to start at.")
@click.argument("name")
def cat(data: str, name: str, offset: int) -> None:
    """Write what stream NAME holds to stdout.

    JSON streams come out as one message a line. NAME may be the URL of a stream: then a running server is asked, with
    the token in DURABLE_LOG_TOKEN, if there is one.
    """
    if follow.is_url(name):
        follow.show(name, offset)
    else:
        directory.show(data, name, offset)


@commands.command()
@data_option
@click.option("-n", "--bytes", "count", type=click.IntRange(0), default=4096, show_default=True, help="How much.")
@click.option("-f", "--follow", "live", is_flag=True, help="Go on until the stream is closed; NAME is a URL.")
@click.argument("name")
def tail(data: str, name: str, count: int, live: bool) -> None:
    """Write the last bytes of stream NAME to stdout.

    Starts at a whole character, or message of a JSON stream. NAME may be the URL of a stream: then a running server is
    asked, with the token in DURABLE_LOG_TOKEN, if there is one.

    --follow needs that: one process at a time has a store open, so while this one had it nobody could append.
    """
    if follow.is_url(name):
        follow.show_end(name, count, follow=live)
    elif live:
        raise click.UsageError(
            "--follow needs a stream's URL, e.g.: durable-log tail -f "
            f"http://127.0.0.1:{PORT_DEFAULT}/v1/stream/{quote(name)}"
        )
    else:
        directory.show_end(data, name, count)


@commands.command()
@data_option
@click.option("--create", is_flag=True, help="Create the stream, and the store, if they are not there.")
@click.option("--content-type", metavar="TYPE", help="With --create: the stream's type.  [default: text/plain]")
@click.option("--close", is_flag=True, help="End the stream.")
@click.argument("name")
@click.argument("text", required=False)
def append(data: str, name: str, text: str | None, create: bool, content_type: str | None, close: bool) -> None:
    """Append TEXT to stream NAME.

    Prints the offset after it, once it is on disk. TEXT is taken as it is, without a line end. With - as TEXT, stdin is
    appended as it arrives (all at once to JSON streams). Without TEXT, stdin is read as well, unless there is something
    else to do: --create or --close.
    """
    if content_type is not None and not create:
        raise click.UsageError("--content-type goes with --create; what exists has its type already")
    if text is None and not (create or close):
        text = "-"
    directory.append(data, name, text, create=create, content_type=content_type, close=close)


@commands.command()
@data_option
@json_option
@click.argument("name")
def stat(data: str, name: str, as_json: bool) -> None:
    """Show what is known of stream NAME."""
    directory.describe(data, name, as_json=as_json)


@commands.command("rm")
@data_option
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def remove(data: str, names: tuple[str, ...]) -> None:
    """Delete streams, and their data with them."""
    if not directory.remove(data, names):
        sys.exit(1)


@commands.command()
@data_option
@json_option
def stats(data: str, as_json: bool) -> None:
    """Show how large the store is, and what it is made of.

    Live are stream bytes that are needed, dead ones those that compact would give back. The log's segments are counted
    by their sizes, however full they are; on disk is what all files take, spare segments included.
    """
    upkeep.show_stats(data, as_json=as_json)


@commands.command()
@data_option
@json_option
def compact(data: str, as_json: bool) -> None:
    """Give back all the space that can be given back, now.

    That of deleted and expired streams, of trimmed bytes, of what the log holds twice, and of spare segments. Takes as
    long as rewriting what is left, and at most the room of one segment more while it runs.
    """
    upkeep.compact(data, as_json=as_json)


@commands.command()
@data_option
@click.option("--no-verify", is_flag=True, help="Do not read the backup again.")
@json_option
@click.argument("target", callback=place)
def backup(data: str, target: str, no_verify: bool, as_json: bool) -> None:
    """Copy the store into TARGET, a new or an empty directory.

    The copy is a store like any other: name it with --data, or move it to where the old one was. Files that never
    change again are hard links if TARGET is on the same file system: that takes no space and little time, and survives
    mistakes, but not the disk; copy it elsewhere for that. Everything is read again before the command returns.

    A store that a server holds is backed up by the server: start it with --backups.
    """
    upkeep.backup(data, target, verify=not no_verify, as_json=as_json)


@commands.command()
@data_option
@click.option("--deep", is_flag=True, help="Read everything, and compare what the store says in several places.")
@json_option
@directory_argument
def verify(data: str, deep: bool, as_json: bool, directory: str | None) -> None:
    """Look for damage in the store in DIR, and report it.

    Without --deep, everything is read but the bytes that are clustered by stream, so it takes little longer than
    opening the store. With --deep, every byte of every file is. Each damaged place in a file and each damaged range of
    a stream comes on a line of its own: the stream, its offsets, the file and the position.

    Nothing is changed, whatever the state of the store. Exits with 1 if anything is damaged, with 2 if it could not be
    looked at, or told: another process has it, or it is no store. Ranges that a repair has found lost are told, and no
    damage.
    """
    with looking():
        sound = verification.verify(chosen(data, directory), deep=deep, as_json=as_json)
    if not sound:
        sys.exit(1)


@commands.command()
@data_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@json_option
@directory_argument
def repair(data: str, dry_run: bool, as_json: bool, directory: str | None) -> None:
    """Mend the store in DIR, as far as it can be mended.

    What verifies is kept, at its offsets. What is damaged is put into a folder of its own, quarantine/0001 and so on in
    DIR, with a report of what was lost, by stream and offsets. Reading what is lost raises an error for ever; all else
    works again. Running it again does nothing; if it was interrupted, it goes on.

    Exits with 1 if bytes of streams are lost, or the state of streams is, or may be; with 2 if nothing could be
    repaired, or not be told: then the error says so, and the report is written all the same.
    """
    with looking():
        complete = repairing.repair_store(chosen(data, directory), dry_run=dry_run, as_json=as_json)
    if not complete:
        sys.exit(1)


@commands.command()
@json_option
@click.option("--payload", is_flag=True, help="Show the bytes of streams, too.")
@click.argument("path", metavar="PATH", callback=place)
def dump(path: str, as_json: bool, payload: bool) -> None:
    """Show what is in the files of a store, as text.

    PATH is one file or the store's directory. Each thing in it has a line, damaged or not.

    Works on a copy of a single file, whatever is left of it, and on a store that is in use.
    """
    with looking(may_be_cut_off=True):
        dumping.dump(path, payload=payload, as_json=as_json)


@commands.command()
@click.option("--seconds", type=click.FloatRange(1), default=20.0, show_default=True, help="How long it should take.")
@click.option("--words-per-second", type=click.FloatRange(0.1), help="The pace of the words instead.")
@click.option("--openai-url", metavar="URL", help="A chat-completions endpoint to take the answer from instead.")
@click.option("--model", help="With --openai-url: the model to ask.")
@click.option("--prompt", help="With --openai-url: what to ask.")
@click.option("--open", "browser", is_flag=True, help="Serve a page to watch it on, and go on until Ctrl-C.")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def demo(
    file: Path | None, seconds: float, words_per_second: float | None, openai_url: str | None, model: str | None,
    prompt: str | None, browser: bool,
) -> None:  # fmt: skip
    """Show what all this is for, in this terminal, in under a minute.

    A producer streams an answer word by word into a server: the words of FILE, of a text that comes with the package,
    or of a model. One viewer reads from the start, one joins late, one drops its connection every second. Half-way the
    server is killed with SIGKILL and started again. At the end the texts of all viewers are compared, byte by byte:
    exits with 1 if any differs.

    The key of a model's endpoint is taken from OPENAI_API_KEY.
    """
    from durable_log._cli import demo as demonstration  # noqa: PLC0415 - the other commands need none of it

    if openai_url is None:
        if model or prompt:
            raise click.UsageError("--model and --prompt go with --openai-url")
        source = demonstration.source_of_file(file or demonstration.ANSWER_FILE, seconds, words_per_second)
    else:
        if not follow.is_url(openai_url) or not model or file:
            raise click.UsageError("--openai-url takes an http(s) URL, needs --model, and excludes FILE")
        source = demonstration.source_of_model(openai_url, model, prompt or demonstration.PROMPT)
    # Whoever ends the demonstration from outside ends what it started as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    if not (demonstration.run_for_browser if browser else demonstration.run_once)(source):
        sys.exit(1)
