"""What the commands of the project share: flag spelling, one-line errors, exit codes, options."""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from asr_runtime.errors import AsrError, DependencyError, OutputError
from asr_runtime.media.opencv_wheels import check_opencv
from asr_runtime.redact import redact

__all__ = [
    "EXIT_GIVEN_UP",
    "EXIT_INPUT_FAILED",
    "FILE",
    "FOLDER",
    "Command",
    "command",
    "model_option",
    "model_options",
    "require_extra",
    "trust_anchors_option",
]

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)

_UNHEARD = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
"""As `asr_runtime` sets them: nobody has asked for what OpenCV says."""

EXIT_INPUT_FAILED = 1
EXIT_GIVEN_UP = 4


class Command(click.Command):
    """A click command that turns the project's errors into one line on stderr and their exit code."""

    refusals: tuple[type[Exception], ...] = ()
    silences_libraries = False

    def main(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:
        """Run the command line, that of the process if none is given, and report output that cannot be written."""
        _open_closed_streams()
        if self.silences_libraries and args is None:
            _silence_libraries()
        try:
            return super().main(args, *more, **options)
        except OSError as error:  # of --help and --version, which are printed before the command begins
            self._end_unwritten(error)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; end the program with the exit code of its error."""
        try:
            check_opencv()
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except KeyboardInterrupt:  # of a command that has nothing to finish; the others wait for the signal themselves
            _end(f"{self.name}: stopped by SIGINT", 128 + signal.SIGINT)
        except BrokenPipeError:
            # The reader of our output has ended (`asr-screen ... | head`), so nothing more can be written to stdout.
            sys.stdout = None
            _end(f"{self.name}: the reader of the output closed it", OutputError.exit_code)
        except ImportError as error:
            if "shared object file" not in str(error):
                raise
            # OpenCV's wheel expects two libraries that slim images lack.
            advice = "a system library is missing; on Debian: apt-get install libgl1 libglib2.0-0"
            _end(f"{self.name}: {error}: {advice}", DependencyError.exit_code)
        except AsrError as error:
            _end(f"{self.name}: {error}", error.exit_code)
        except self.refusals as error:
            _end(f"{self.name}: {error}", 2)
        except OSError as error:
            self._end_unwritten(error)

    def _end_unwritten(self, error: OSError) -> NoReturn:
        """End the program if it is standard output that failed: then it fails again."""
        try:
            if sys.stdout is not None:
                sys.stdout.write("\n")
                sys.stdout.flush()
        except OSError:
            sys.stdout = None  # or Python would try once more, and end with another exit code
            _end(f"{self.name}: standard output: cannot be written ({error.strerror})", OutputError.exit_code)
        raise error


def require_extra(extra: str, *modules: str) -> None:
    """End the program with one line (exit code 2) if a command's extra is not installed.

    Stands above the imports of a command module whose extra a device does not have.
    """
    if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
        name = Path(sys.argv[0]).name
        _end(f"{name}: {missing[0]} is not installed; pip install 'asrnet-edge[{extra}]'", DependencyError.exit_code)


def _open_closed_streams() -> None:
    """Open the standard streams that the caller closed (`>&-`), or the next file that is opened would be one of them.

    Reading such an input and writing such an output fails, and is reported. Messages go nowhere.
    """
    for number, (name, mode, access) in enumerate(
        (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))
    ):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, access), True)  # takes the lowest number that is free
            if getattr(sys, name) is None:
                setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _silence_libraries() -> None:
    """Keep standard error for our own messages: what libraries in C print on descriptor 2 goes nowhere from here on.

    OpenCV's decoders print lines of their own for damaged pictures ("Corrupt JPEG data: ..."), beside ours and into
    progress bars, and have no setting against it. Where the process crashes, Python's stacks are printed instead of
    what the library says. Who sets one of OpenCV's variables for its messages hears all of them.
    """
    if any(os.environ.get(name) != value for name, value in _UNHEARD.items()):
        return
    own = os.dup(2)
    sys.stderr = os.fdopen(own, "w", 1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    faulthandler.enable(sys.stderr)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _end(message: str, code: int) -> NoReturn:
    click.echo(redact(" ".join(message.split())), err=True)
    raise SystemExit(code)


def command(
    name: str,
    *,
    refusals: tuple[type[Exception], ...] = (),
    kind: type[Command] = Command,
    silences_libraries: bool = False,
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a click command named `name`.

    Flags and choices take `-` and `_` alike (`--batch-size`, `--batch_size`). An `AsrError`, or one of `refusals`
    (the errors of packages below the runtime, exit code 2), ends the command with one line and no traceback. `kind`: a
    subclass with its own help. `silences_libraries`: of commands that decode whatever they are given, in processes that
    need no standard error.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        made = click.command(
            name,
            cls=kind,
            context_settings={
                "token_normalize_func": lambda token: token.replace("_", "-"),
                "help_option_names": ["-h", "--help"],
                "max_content_width": 110,
                "show_default": True,
            },
        )(click.version_option(package_name="asrnet-edge")(function))
        made.refusals = refusals
        made.silences_libraries = silences_libraries
        return made

    return decorate


model_option = click.option(
    "--model", metavar="X.onnx", help="Exported model file, or a built-in name.  [default: asrnet-lite]"
)
trust_anchors_option = click.option(
    "--trust-anchors", metavar="FILE", help="PEM file of the signers of Content Credentials to trust."
)


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose a model and how it runs: `--model`, `--sha256`, `--device`, `--precision`."""
    options = (
        model_option,
        click.option("--sha256", metavar="HEX", help="SHA-256 of the model file; any other file is refused."),
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
            default="auto",
            help="Where inference runs; auto is CUDA where a session starts on it, otherwise the CPU.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["file", "bf16", "auto"]),
            default="file",
            help="file: as the model file says; bf16: by OpenVINO, if the file passed the gate for it; auto: the "
            "fastest engine on this machine, timed once.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function
