"""Command line: `fovea serve`, `fovea classify`, `fovea compare`, `fovea rollout` and `fovea key`."""

from __future__ import annotations

import argparse
import os
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_settings import CliSettingsSource, SettingsError

from service.errors import StartError
from service.settings import Settings

if TYPE_CHECKING:
    from service.client import Server


SWITCH_INTERVAL_S = 5e-4
"""An instance whose batch is done needs the interpreter for the next; by default it might wait 5 ms for the loop."""


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["serve"]:
        return _serve(arguments[1:])
    parser = argparse.ArgumentParser(prog="fovea", description="Serve image classifiers, and call a running service.")
    parser.add_argument("--version", action="version", version=version("fovea"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("serve", help="serve a model repository (fovea serve --help)", add_help=False)
    classify = commands.add_parser("classify", help="classify image files with a running service")
    classify.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="image file, or folder of them")
    classify.add_argument("--server", default="127.0.0.1:8001", help="gRPC address, default: %(default)s")
    classify.add_argument("--model", default="", help="default: the service's default model")
    classify.add_argument("--version", default="", help="default: the current one (docs/rollouts.md)")
    classify.add_argument("--top-k", type=_top_k, default=1, help="predictions for each image, default: %(default)s")
    classify.add_argument("--json", action="store_true", help="one JSON object a line")
    _add_credentials(classify)
    classify.set_defaults(run_command=_classify)
    compare = commands.add_parser("compare", help="ask every model of a running service about the same image files")
    compare.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="image file, or folder of them; the folder it is in is its label",
    )
    compare.add_argument("--server", default="127.0.0.1:8001", help="gRPC address, default: %(default)s")
    compare.add_argument(
        "--json", action="store_true", help="one JSON object a line, the last one of all files together"
    )
    _add_credentials(compare)
    compare.set_defaults(run_command=_compare)
    rollout = commands.add_parser(
        "rollout", help="show which versions of a model answer, or change it in its config.pbtxt"
    )
    rollout.add_argument("model", type=Path, metavar="REPOSITORY/MODEL", help="the model's folder")
    rollout.add_argument(
        "step",
        nargs="?",
        choices=("canary", "shadow", "promote", "rollback", "pin"),
        help="canary: a version answers a share of the requests that name none; shadow: it is asked the same and "
        "compared; promote: the canary becomes current; rollback: the trial ends, or the previous version is current "
        "again; pin: this version is current. Without: what there is",
    )
    rollout.add_argument("version", nargs="?", help="for canary, shadow and pin")
    rollout.add_argument("--share", help="for canary and shadow, from 0 to 1; default: 0.1")
    rollout.set_defaults(run_command=_rollout)
    key = commands.add_parser("key", help="make an API key, and its line for the file FOVEA_API_KEYS")
    key.add_argument("name", metavar="NAME", help="whose it is, as errors and the file name it")
    key.add_argument("--rights", default="infer", help="infer, control, or both with a comma; default: %(default)s")
    key.set_defaults(run_command=_key)
    options = parser.parse_args(arguments)

    try:
        return options.run_command(options)  # type: ignore[no-any-return]
    except BrokenPipeError:
        # Whoever read the answers has seen enough; what Python flushes at its end must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _add_credentials(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key-file",
        dest="key",
        type=_key_of,
        metavar="FILE",
        help="file with an API key; default: the one in the environment variable FOVEA_API_KEY, if any",
    )
    parser.add_argument(
        "--ca", type=_content, metavar="FILE", help="PEM certificates, one of which has signed the service's: use TLS"
    )


def _key(options: argparse.Namespace) -> int:
    from service.key_command import make_key

    return make_key(options.name, options.rights)


def _classify(options: argparse.Namespace) -> int:
    from service.client import classify_paths

    return classify_paths(
        options.paths,
        server=_server(options),
        model=options.model,
        version=options.version,
        top_k=options.top_k,
        as_json=options.json,
    )


def _compare(options: argparse.Namespace) -> int:
    from service.compare import compare_paths

    return compare_paths(options.paths, server=_server(options), as_json=options.json)


def _server(options: argparse.Namespace) -> Server:
    from service.client import Server

    key = options.key or os.environ.get("FOVEA_API_KEY", "").strip()
    return Server(options.server, key, options.ca)


def _key_of(file: str) -> str:
    return _content(file).decode(errors="replace").strip()


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{file}: cannot be read ({error.strerror})") from None


def _rollout(options: argparse.Namespace) -> int:
    from service.rollout_command import roll_out

    return roll_out(options.model, options.step, options.version, options.share)


def _top_k(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, at least 1")
    return int(text)


def _serve(arguments: list[str]) -> int:
    try:
        settings = _settings(arguments)
    except (ValidationError, SettingsError) as error:
        print(f"error: {_explain(error)}", file=sys.stderr)
        return 2

    # Every connection is an open file, and what a process begins with is few.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    # Imported late: `--help` and a wrong setting should not wait for the engine.
    import uvloop

    from service.announcement import announcement
    from service.app import Running, run

    def announce(running: Running) -> None:
        print(announcement(running, settings), flush=True)

    try:
        uvloop.run(run(settings, announce))
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _settings(arguments: list[str]) -> Settings:
    source = CliSettingsSource[argparse.ArgumentParser](
        Settings, cli_prog_name="fovea serve", cli_parse_args=arguments, formatter_class=_SettingsHelp
    )
    return Settings(_cli_settings_source=source)  # type: ignore[call-arg]


class _SettingsHelp(argparse.ArgumentDefaultsHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)

    def start_section(self, heading: str | None) -> None:
        super().start_section("settings (each also as an environment variable, FOVEA_HTTP_PORT for --http-port)")


def _explain(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    sentences = []
    for problem in error.errors():
        name = str(problem["loc"][0])
        default = Settings.model_fields[name].default
        sentences.append(f"FOVEA_{name.upper()}={problem['input']}: {problem['msg']} (default: {default})")
    return "\n       ".join(sentences)


if __name__ == "__main__":
    sys.exit(main())
