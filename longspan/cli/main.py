"""The entry point: the verbs, and what an error becomes."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence as Seq
from typing import Annotated, Any

import typer

from longspan import __version__
from longspan.cli import say
from longspan.cli.bench import app as bench
from longspan.cli.chat import chat
from longspan.cli.compare import compare
from longspan.cli.demo import demo
from longspan.cli.doctor import doctor
from longspan.cli.evaluate import app as evaluate
from longspan.cli.lm_eval import lm_eval
from longspan.cli.model import model
from longspan.cli.plan import plan
from longspan.cli.report import report
from longspan.cli.run import run
from longspan.errors import LongspanError

INTERRUPTED = 130

app = typer.Typer(
    name="longspan",
    help="Run any open-weight decoder far past the context it was trained on, inside the memory you have.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command(short_help="Continue a text of any length, or answer questions about it.")(run)
app.command(short_help="Talk with a model.")(chat)
app.command(short_help="See a text read far past the trained length, in a minute.")(demo)
evaluate.command(short_help="Compare plans on the same samples.")(compare)
evaluate.command(short_help="Draw evaluations as a page.")(report)
evaluate.command("lm-eval", short_help="Run tasks of EleutherAI's harness.")(lm_eval)
app.add_typer(evaluate)
app.add_typer(bench)
app.command(short_help="Say what this machine has, and whether longspan works.")(doctor)
app.command(short_help="Say what a model is and what its cache costs.")(model)
app.command(short_help="Say beforehand whether a context fits, how long it takes, and whether it is wise.")(plan)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"longspan {__version__}")
        raise typer.Exit


@app.callback()
def _longspan(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which this is.")
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command of this process and end it with the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows "?"
    code = call(sys.argv[1:])
    with contextlib.suppress(BrokenPipeError):
        sys.exit(code)


def call(args: Seq[str]) -> int:
    """Run one command; the exit code. Here, and only here, an error becomes a message and a code."""
    as_json = "--json" in args
    try:
        if not args:
            with contextlib.redirect_stdout(sys.stderr):
                _invoke(["--help"])
            return 2
        code = _invoke(list(args))
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # who reads our output has left; point it elsewhere, or Python complains of it when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("LONGSPAN_DEBUG"):
            traceback.print_exc()
        kind, message, code = _told(error)
        return _fail(kind, message, code, as_json)
    if code == INTERRUPTED:
        if as_json:
            say.dump(_failure("Interrupted", "interrupted", code))
        say.note("\ninterrupted" if sys.stderr.isatty() else "interrupted")
    return code


def _invoke(args: list[str]) -> int:
    notes = say.Notes()
    with notes.collecting():
        code = app(args, prog_name="longspan", standalone_mode=False, obj=notes)
    return code if isinstance(code, int) else 0


def _told(error: Exception) -> tuple[str, str, int]:
    """An error's kind, message and exit code."""
    if isinstance(error, LongspanError):
        return type(error).__name__, str(error), error.exit_code
    if isinstance(error, typer.TyperException):
        return "UsageError", _usage(error), 2
    lines = str(error).strip().splitlines()
    what = f"unexpected {type(error).__name__}" + (f": {lines[0][:200]}" if lines else "")
    return type(error).__name__, f"{what} (set LONGSPAN_DEBUG=1 to see where)", 1


def _usage(error: typer.TyperException) -> str:
    """The command line's own complaint, with what would be legal."""
    message = error.format_message().strip().rstrip(".")
    context: Any = getattr(error, "ctx", None)
    if context is None:
        return message
    command = context.command
    if hasattr(command, "list_commands") and "command" in message:
        legal = f"commands: {', '.join(command.list_commands(context))}"
    elif message.startswith("No such option"):
        flags = [flag for option in command.params for flag in option.opts if flag.startswith("--")]
        legal = f"options: {', '.join(flags)}"
    else:
        legal = f"see {context.command_path} --help"
    return f"{message} {legal.capitalize()}" if message.endswith("?") else f"{message}; {legal}"


def _fail(kind: str, message: str, code: int, as_json: bool) -> int:
    if as_json:
        say.dump(_failure(kind, message, code))
    say.note(f"longspan: error: {message}")
    return code


def _failure(kind: str, message: str, code: int) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message, "exit_code": code}}
