"""Command line: ``pwm VERB ...``. Heavy modules load only for the verb that needs them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any, get_args, get_origin, get_type_hints

from pwm.errors import UserError, nearest

VERBS: dict[str, str] = {
    "tasks": "list the tasks: id, suite, dims, episode length, installed or not",
    "collect": "act in an environment and store the episodes as a data set",
    "data": "look at data sets (pwm data info DIR)",
    "convert": "TD-MPC2's checkpoints and data files into run folders and data sets",
    "pretrain": "train a world model on data sets",
    "extract": "train a policy per task through a frozen world model",
    "tdmpc2": "train TD-MPC2's planning agent of one task online",
    "evaluate": "run policies in the real environment",
    "report": "one HTML page from finished runs",
    "demo": "the whole road on three small tasks, within 10 minutes",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code (2 for bad input, with one line on stderr)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Threads that never spin wake up too slowly for small kernels (1.7 times slower), threads that
    # spin for ever starve each other on a busy machine; a short spin is as fast as either at its
    # best (benchmarks/README.md). Must be set before torch loads.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_overview())
            return 0
        if arguments[0] == "--version":
            from pwm import __version__

            print(f"pwm {__version__}")
            return 0
        verb, *rest = arguments
        if verb not in VERBS:
            raise UserError(f"unknown command '{verb}'.{nearest(verb, VERBS)} See pwm --help")
        return _COMMANDS[verb](rest) or 0
    except UserError as error:
        print(f"pwm: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pwm: interrupted; continue with --resume", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _overview() -> str:
    lines = ["usage: pwm VERB ...", "", "Policy learning with multi-task world models.", ""]
    lines += [f"  {verb:<10}{text}" for verb, text in VERBS.items()]
    lines += ["", "pwm VERB --help shows a command's options; start with: pwm demo"]
    return "\n".join(lines)


class _Parser(argparse.ArgumentParser):
    """argparse whose errors take the same road as all others: one line, exit code 2."""

    def error(self, message: str) -> Any:
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help")


def _parser(verb: str, description: str | None = None) -> _Parser:
    return _Parser(
        prog=f"pwm {verb}",
        description=description or VERBS[verb],
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def add_fields(parser: argparse.ArgumentParser, config: Any, skip: Sequence[str] = ()) -> None:
    """One flag a field of the dataclass ``config``: ``batch_size`` becomes ``--batch-size``.

    Tuples take several values (or one comma-separated), booleans also ``--no-...``.
    """
    hints = get_type_hints(config if isinstance(config, type) else type(config))
    for field in fields(config):
        if field.name in skip:
            continue
        flag, kind = "--" + field.name.replace("_", "-"), hints[field.name]
        default = field.default if field.default is not MISSING else None
        shown: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        shown["help"] = f"default: {default}"
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **shown)
        elif get_origin(kind) is tuple:
            parser.add_argument(flag, nargs="+", type=_list_of(get_args(kind)[0]), **shown)
        else:
            parser.add_argument(flag, type=_plain_type(kind), **shown)


def _plain_type(kind: Any) -> Callable[[str], Any]:
    """The type of an optional field is the type that is not None."""
    options = [option for option in get_args(kind) if option is not type(None)]
    return options[0] if options else kind


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def split(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",") if part]

    split.__name__ = getattr(kind, "__name__", "value")
    return split


def parsed(config: Any, namespace: argparse.Namespace) -> Any:
    """``config`` with the fields that were given on the command line."""
    names = {field.name for field in fields(config)}
    values = {}
    for name, value in vars(namespace).items():
        if name in names:
            is_list = isinstance(value, list)
            values[name] = tuple(x for part in value for x in part) if is_list else value
    return replace(config, **values)


def _print_json(value: Any) -> None:
    print(json.dumps(value, allow_nan=False))


def _tasks(arguments: Sequence[str]) -> int:
    parser = _parser("tasks")
    parser.add_argument("--suite", default=None, help="only this suite, for example mt30")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(arguments)
    from pwm.envs import list_tasks
    from pwm.stages.listing import print_tasks, tasks_as_json

    tasks = list_tasks(options.suite)
    if options.json:
        _print_json(tasks_as_json(tasks))
    else:
        print_tasks(tasks)
    return 0


def _data(arguments: Sequence[str]) -> int:
    parser = _parser("data")
    parser.add_argument("action", choices=["info"])
    parser.add_argument("path", metavar="DIR")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--png", default=None, help="also draw the return distributions here")
    options = parser.parse_args(arguments)
    from pwm.data import info

    if options.png:
        info.save_histogram(options.path, options.png)
    if options.json:
        _print_json(info.describe(options.path))
    else:
        info.print_table(options.path)
    return 0


def _collect(arguments: Sequence[str]) -> int:
    from pwm.stages import collect

    parser = _parser("collect")
    parser.add_argument("--task", dest="task", required=True)
    add_fields(parser, collect.CollectConfig, skip=("task",))
    collect.run(parsed(collect.CollectConfig(), parser.parse_args(arguments)))
    return 0


def _convert(arguments: Sequence[str]) -> int:
    kinds = {"tdmpc2-checkpoint": _convert_checkpoint, "tdmpc2-data": _convert_data}
    kind, *rest = [*arguments] or ["--help"]
    if kind in ("-h", "--help"):
        lines = [f"  pwm convert {name} --help" for name in kinds]
        print("\n".join([f"usage: pwm convert KIND ...: {VERBS['convert']}", "", *lines]))
        return 0
    if kind not in kinds:
        raise UserError(
            f"pwm convert takes {' or '.join(kinds)}, not '{kind}'.{nearest(kind, kinds)}"
        )
    return kinds[kind](rest)


def _convert_checkpoint(arguments: Sequence[str]) -> int:
    from pwm.stages import convert_checkpoint as stage

    parser = _parser("convert tdmpc2-checkpoint", "a TD-MPC2 or PWM checkpoint into a run folder")
    parser.add_argument("file", metavar="FILE", help="checkpoint; with --back a run folder")
    add_fields(parser, stage.ConvertCheckpointConfig, skip=("file",))
    stage.run(parsed(stage.ConvertCheckpointConfig(), parser.parse_args(arguments)))
    return 0


def _convert_data(arguments: Sequence[str]) -> int:
    from pwm.stages import convert_data as stage

    parser = _parser("convert tdmpc2-data", "TD-MPC2's chunk_*.pt files into a data set")
    parser.add_argument("files", metavar="FILE", nargs="+", type=lambda text: [text],
                        help="data files, or folders of them")  # fmt: skip
    parser.add_argument("--task", dest="tasks", nargs="+", type=_list_of(str),
                        default=argparse.SUPPRESS, help="same as --tasks")  # fmt: skip
    add_fields(parser, stage.ConvertDataConfig, skip=("files",))
    stage.run(parsed(stage.ConvertDataConfig((), ""), parser.parse_args(arguments)))
    return 0


def _pretrain(arguments: Sequence[str]) -> int:
    from pwm.presets import PRETRAIN, pretrain_preset
    from pwm.stages import pretrain

    parser = _parser("pretrain")
    parser.add_argument("preset", metavar="PRESET", help=", ".join(PRETRAIN))
    parser.add_argument("--task", dest="tasks", nargs="+", type=_list_of(str),
                        default=argparse.SUPPRESS, help="same as --tasks")  # fmt: skip
    add_fields(parser, pretrain.PretrainConfig)
    options = parser.parse_args(arguments)
    pretrain.run(parsed(pretrain_preset(options.preset), options))
    return 0


def _extract(arguments: Sequence[str]) -> int:
    from pwm.stages import extract

    parser = _parser("extract")
    parser.add_argument("--task", dest="tasks", nargs="+", type=_list_of(str),
                        default=argparse.SUPPRESS, help="same as --tasks")  # fmt: skip
    add_fields(parser, extract.ExtractConfig)
    extract.run(parsed(extract.ExtractConfig(), parser.parse_args(arguments)))
    return 0


def _tdmpc2(arguments: Sequence[str]) -> int:
    from pwm.stages import tdmpc2

    parser = _parser("tdmpc2")
    add_fields(parser, tdmpc2.TDMPC2Config)
    tdmpc2.run(parsed(tdmpc2.TDMPC2Config(), parser.parse_args(arguments)))
    return 0


def _evaluate(arguments: Sequence[str]) -> int:
    from pwm.stages import evaluate

    parser = _parser("evaluate")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--task", dest="tasks", nargs="+", type=_list_of(str),
                        default=argparse.SUPPRESS, help="same as --tasks")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--workers", type=int, default=0,
                        help="processes; 0: one a core, 1: this process only")  # fmt: skip
    add_fields(parser, evaluate.EvaluateConfig, skip=("run", "workers"))
    options = parser.parse_args(arguments)
    results = evaluate.run(parsed(evaluate.EvaluateConfig(), options))
    if options.json:
        _print_json(results)
    return 0


def _report(arguments: Sequence[str]) -> int:
    from pwm.stages import report

    parser = _parser("report")
    parser.add_argument("runs", metavar="RUN", nargs="+", type=lambda text: [text])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_fields(parser, report.ReportConfig, skip=("runs",))
    options = parser.parse_args(arguments)
    result = report.run(parsed(report.ReportConfig((), ""), options))
    if options.json:
        _print_json(result)
    return 0


def _demo(arguments: Sequence[str]) -> int:
    from pwm import demo

    parser = _parser("demo")
    add_fields(parser, demo.DemoConfig)
    demo.run(parsed(demo.DemoConfig(), parser.parse_args(arguments)))
    return 0


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "tasks": _tasks,
    "collect": _collect,
    "data": _data,
    "convert": _convert,
    "pretrain": _pretrain,
    "extract": _extract,
    "tdmpc2": _tdmpc2,
    "evaluate": _evaluate,
    "report": _report,
    "demo": _demo,
}

if __name__ == "__main__":
    sys.exit(main())
