"""The command ``penchant``: one command for every operation of the table, and ``serve``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import penchant
from penchant.core import leads
from penchant.core.errors import BrokenRows, InputError, Interrupted, PenchantError

if TYPE_CHECKING:
    from penchant.engine import Engine, Operation

__all__ = ["main"]

_SHARED = {"train", "evaluate", "compare"}  # what several processes do together
_SECTIONS = {"manage": "Manage", "serve": "Ask and tell", "govern": "Govern"}
_SHOP = click.Option(
    ["--shop"],
    envvar="PENCHANT_SHOP",
    default=".",
    metavar="DIR",
    help="the shop's folder [env PENCHANT_SHOP; default: .]",
)
_URL = click.Option(
    ["--url"],
    envvar="PENCHANT_URL",
    metavar="URL",
    help="a server that has the shop, instead of --shop [env PENCHANT_URL; its key: env PENCHANT_KEY]",
)
_JSON = click.Option(["--json", "as_json"], is_flag=True, help="print the answer as JSON")
_PROGRESS = click.Option(
    ["--progress/--no-progress", "progress"], default=None, help="progress bars in any case, or none at all"
)


class _Commands(click.Group):
    """Commands made from the operation table when they are looked at."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from penchant.engine import OPERATIONS

        return [name.replace("_", "-") for name in OPERATIONS] + ["serve"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "serve":
            return _serve
        from penchant.engine import OPERATIONS

        operation = OPERATIONS.get(cmd_name.replace("-", "_"))
        return None if operation is None else _command(operation)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from penchant.engine import OPERATIONS, QUICK

        for scope, title in _SECTIONS.items():
            rows = [
                (o.name.replace("_", "-"), o.summary)
                for o in OPERATIONS.values()
                if ("serve" if o.scope in QUICK else o.scope) == scope
            ]
            if scope == "serve":
                rows.append(("serve", _serve.help or ""))
            with formatter.section(title):
                formatter.write_dl(rows)


class _OperationCommand(click.Command):
    """A command that also explains its arguments."""

    arguments: list[tuple[str, str]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(self.arguments)
        super().format_options(ctx, formatter)


def _command(operation: Operation) -> click.Command:
    from penchant.surfaces._options import argument_help, parameters

    own = parameters(operation.request)
    where: list[click.Parameter] = [_SHOP, _URL]
    arguments = argument_help(operation.request)
    if operation.creates_shop:
        where = [click.Argument(["shop"], metavar="[DIR]", default=".", required=False), _URL]
        arguments.insert(0, ("[DIR]", "the folder to make into a shop [default: .]"))
    command = _OperationCommand(
        operation.name.replace("_", "-"),
        params=[*own, *where, _JSON, _PROGRESS],
        help=f"{operation.summary}\n\n{operation.description}".strip().replace("``", "`"),
        short_help=operation.summary,
        callback=click.pass_context(lambda context, **_: _run(operation, context)),
    )
    command.arguments = arguments
    return command


def _run(operation: Operation, context: click.Context) -> None:
    """Run an operation and print its answer; of several processes under ``torchrun`` the first one does."""
    from penchant.surfaces._console import ConsoleProgress
    from penchant.surfaces._options import request_fields

    if not leads() and operation.name not in _SHARED:
        return
    request = operation.build(**request_fields(operation.request, context))
    wanted = context.params["progress"] if leads() else False
    with ConsoleProgress(wanted) as progress, _engine(context, progress) as engine:
        response = getattr(engine, operation.name)(request)
    if not leads():
        return
    _print(operation, response, as_json=context.params["as_json"])
    _tell_broken(response)


def _tell_broken(response: Any) -> None:
    """End with a code of its own, after the answer, when rows of the files read cannot be believed.

    Raises:
        BrokenRows: There are such rows; everything else was stored.
    """
    from penchant.engine import IngestReport

    if not isinstance(response, IngestReport) or not response.broken:
        return
    where = ", ".join(file.quarantine or file.file for file in response.files if file.broken)
    raise BrokenRows(
        f"{response.broken:,} of {response.rows:,} rows could not be used, or not be believed; they are in {where}",
        hint="the reasons stand above and in `penchant doctor`; mend the export and ingest it again",
    )


def _engine(context: click.Context, progress: Any) -> Engine:
    from penchant.engine import Engine

    url = context.params["url"]
    if not url:
        return Engine.open(context.params["shop"], progress=progress, readonly=not leads())
    typed = context.get_parameter_source("shop") is click.core.ParameterSource.COMMANDLINE
    if typed and context.get_parameter_source("url") is click.core.ParameterSource.COMMANDLINE:
        raise InputError("give --shop or --url, not both", hint="--url reaches a shop that a server has")
    if typed:
        return Engine.open(context.params["shop"], progress=progress)
    return Engine.connect(url, key=os.environ.get("PENCHANT_KEY"), progress=progress)


def _print(operation: Operation, response: Any, *, as_json: bool) -> None:
    import msgspec

    from penchant.surfaces._console import write_out

    if as_json:
        content = msgspec.json.encode(response)
        write_out((msgspec.json.format(content) if sys.stdout.isatty() else content) + b"\n")
        return
    from penchant.surfaces._render import render

    write_out(render(response).encode())


@click.command("serve", help="Serve the shop over HTTP, with OpenAPI and a reference page.")
@click.option(
    "--shop",
    multiple=True,
    type=click.Path(),
    envvar="PENCHANT_SHOP",
    metavar="DIR",
    help="a shop's folder; may be repeated, then the key of a request chooses [env PENCHANT_SHOP; default: .]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen at; others need keys")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 for any free one"
)
@click.option(
    "--max-upload",
    default=4000,
    show_default=True,
    type=click.IntRange(1),
    help="megabytes of a request with files",
)
@click.option(
    "--log",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="text: warnings; json: every request too, a JSON object a line, with its id",
)
@click.option(
    "--tls-cert", type=click.Path(), metavar="FILE", help="certificate chain (PEM), to answer by HTTPS"
)
@click.option("--tls-key", type=click.Path(), metavar="FILE", help="the certificate's private key (PEM)")
def _serve(**given: Any) -> None:
    from penchant.surfaces.http import Limits, pin_threads, serve

    pin_threads()
    from penchant.engine import Engine

    serve(
        [Engine.open(path) for path in given["shop"] or (".",)],
        host=given["host"],
        port=given["port"],
        limits=Limits(upload=given["max_upload"] * 1_000_000),
        logs=given["log"],
        tls=_tls(given["tls_cert"], given["tls_key"]),
        say=click.echo,
    )


def _tls(certificate: str | None, key: str | None) -> tuple[str, str] | None:
    """Both files, or none.

    Raises:
        InputError: One is missing, or cannot be read.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InputError("HTTPS needs a certificate and its key", hint="give both --tls-cert and --tls-key")
    for path in (certificate, key):
        if not os.access(path, os.R_OK):
            raise InputError("this file cannot be read", value=path, hint="give a PEM file")
    return certificate, key


_main = _Commands(
    "penchant",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=lambda ctx, _, wanted: _version(ctx) if wanted else None,
            help="show the version and exit",
        )
    ],
    help="The interest engine for online shops: from an event log to interests and recommendations.\n\n"
    "`penchant COMMAND --help` explains a command. Start with `penchant init DIR`.",
    no_args_is_help=True,
)


def _version(context: click.Context) -> NoReturn:
    click.echo(f"penchant {penchant.__version__}")
    context.exit()


def _shop_of(arguments: list[str]) -> Path:
    """The shop a command line is about, as well as can be told after it failed."""
    for place, word in enumerate(arguments):
        if word == "--shop" and place + 1 < len(arguments):
            return Path(arguments[place + 1])
        if word.startswith("--shop="):
            return Path(word.partition("=")[2])
    return Path(os.environ.get("PENCHANT_SHOP", "."))


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command line and exit with its code: 0, or that of the error tree; 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    code = _guarded(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _nobody_reads()
    sys.exit(code)


def _guarded(arguments: list[str]) -> int:
    from penchant.surfaces import _console

    try:
        result = _main.main(arguments, prog_name="penchant", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        _console.say(f"error: {error.format_message()}")
        _console.say(f"hint: see `{context.command_path if context else 'penchant'} --help`")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        stopped = Interrupted("stopped", hint="nothing is half done; give the same command again to go on")
        _console.show_error(stopped)
        return stopped.exit_code
    except PenchantError as error:
        _console.show_error(error)
        return error.exit_code
    except BrokenPipeError:
        return _nobody_reads()
    except Exception as error:
        from penchant.engine import trace_of

        _console.show_unexpected(error, _shop_of(arguments), trace_of)
        return 1
    return result if isinstance(result, int) else 0


def _nobody_reads() -> int:
    """Whoever read our output is gone: be quiet, also when Python flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE
