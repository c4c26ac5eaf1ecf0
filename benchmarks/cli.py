"""The command line: `gfnem list`, `run`, `check`, `bench`, `report` and `merge`."""

import argparse
import difflib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from benchmarks.listing import EM_DATA, print_everything, suites_by_name
from benchmarks.run_arguments import add_run_arguments, take_run_arguments
from gfn_envs.errors import UserError, unknown_name

if TYPE_CHECKING:
    from benchmarks.task import TaskSpec

USER_ERROR = 2


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest known option."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings
        )

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0].split("=")[0]
        near = difflib.get_close_matches(unknown, self._option_string_actions, n=1, cutoff=0.7)
        advice = f"Did you mean {near[0]}?" if near else f"See {self.prog} --help."
        self.exit(USER_ERROR, f"{self.prog}: error: {message}. {advice}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: What was typed after `gfnem`; `sys.argv` by default.

    Returns:
        The exit status: 0, 1 where a check found faults, 2 where the user has something to mend.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        status = _dispatch(list(arguments))
        sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:  # whoever read our output has seen enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted.")
    except OSError as error:
        return _fail(_reason(error))
    except (MemoryError, RuntimeError) as error:
        # torch says it in these words, on the CPU and on a GPU
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        return _fail("not enough memory for this size; choose smaller sizes.")


def _dispatch(arguments: list[str]) -> int:
    """Parses the command and carries it out."""
    parser = _Parser(
        prog="gfnem",
        description="GFlowNet-EM: environments, models and benchmarks.",
        epilog="examples:\n"
        "  gfnem list\n"
        "  gfnem run hierarchical-mixture\n"
        "  gfnem run hierarchical-mixture --help\n"
        "  gfnem run discrete-vae\n"
        "  gfnem run grammar\n"
        "  gfnem run grammar --preset treebank-10 --data FOLDER\n"
        "  gfnem check gfn_envs/FactoredCategorical-v0\n"
        "  gfnem bench throughput --quick\n"
        "  gfnem bench posterior --workers 2\n"
        "  gfnem bench em --workers 2\n"
        "  gfnem bench em-data --workers 2\n"
        "  gfnem bench tree-posterior --preset quick\n"
        "  gfnem report runs/FOLDER\n"
        "  gfnem merge runs/ONE runs/OTHER --out runs/BOTH",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser(
        "list",
        help="show tasks, environments and parts",
        description="Show tasks, environments and every registered part.",
    )
    run = commands.add_parser("run", help="carry out a task", add_help=False)
    run.add_argument("task", nargs="?")
    check = commands.add_parser(
        "check",
        help="check a latent environment against its contract",
        description="Run the conformance check on a registered latent environment.",
    )
    check.add_argument("env_id", metavar="ENV_ID", help="a registered id, or module:id")
    bench = commands.add_parser("bench", help="carry out a benchmark suite", add_help=False)
    bench.add_argument("suite", nargs="?")
    report = commands.add_parser(
        "report",
        help="write a page about a run",
        description="Write report.html, which opens without a network, and report.md of a run. "
        "The run need not be finished.",
    )
    report.add_argument("run", type=Path, metavar="RUN_FOLDER", help="the run's folder")
    report.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where to write (default: there)"
    )
    report.add_argument(
        "--against", metavar="WHAT",
        help="show what differs from earlier results: 'reference' for the stored ones, a file "
        "written by --summary-out, or another run's folder",
    )  # fmt: skip
    report.add_argument(
        "--summary-out", type=Path, metavar="FILE", help="write results to compare others with"
    )
    merge = commands.add_parser(
        "merge",
        help="make one run of several",
        description="Make one run of several that differ in methods, their time or seeds alone, "
        "such as one of a new method and one of the methods it is compared with.",
    )
    merge.add_argument("runs", type=Path, nargs="+", metavar="RUN_FOLDER", help="the runs' folders")
    merge.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder of the new run"
    )
    if arguments[:1] == ["run"]:
        return _run(arguments[1:])
    if arguments[:1] == ["bench"]:
        return _bench(arguments[1:])
    command = parser.parse_args(arguments)
    if command.command == "report":
        return _report(command)
    if command.command == "merge":
        return _merge(command)
    if command.command == "list":
        print_everything()
        return 0
    return _check(command.env_id)


def _check(env_id: str) -> int:
    """Prints what the conformance check finds."""
    import gfn_envs
    from gfn_envs.testing import check_latent_env

    sys.path.append(os.getcwd())  # where the module of `module:id` is most likely to lie
    report = check_latent_env(gfn_envs.make(env_id), raise_on_failure=False)
    print(report)
    return 0 if report.ok else 1


def _run(arguments: list[str]) -> int:
    """Carries out a task."""
    from benchmarks.task import find_task, tasks_of

    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: gfnem run TASK [options]\n\ntasks:")
        print("\n".join(f"  {spec.name}: {spec.description}" for spec in tasks_of("run").values()))
        print("\n'gfnem run TASK --help' shows a task's options.")
        return 0 if arguments else USER_ERROR
    return _run_task(find_task(arguments[0], "run"), arguments[1:])


def _run_task(spec: "TaskSpec", arguments: list[str]) -> int:
    """Parses a task's options and carries it out in a new or a resumed folder."""
    from benchmarks.options import add_arguments, make_options

    name, command = spec.name, f"gfnem {spec.command} {spec.name}"
    task_type = spec.load()
    parser = _Parser(prog=command, description=spec.description + ".")
    add_run_arguments(parser)
    if task_type.presets:
        parser.add_argument(
            "--preset", metavar="NAME",
            help=f"settings to start from: {', '.join(task_type.presets)}",
        )  # fmt: skip
    add_arguments(parser.add_argument_group("options"), task_type.options_type)
    given = vars(parser.parse_args(arguments))
    where = take_run_arguments(given)
    preset = given.pop("preset", None)

    from benchmarks.runner import open_run, run_task, start_run

    where.prepare()
    if where.resume is not None:
        folder, task = open_run(name, where.resume)
    else:
        options = make_options(task_type.options_type, task_type.presets, preset, given)
        task = task_type(options)
        folder = start_run(name, task, where.out_or(name))

    def carry_out() -> tuple[Sequence[Path], bool]:
        table, files = run_task(task, folder, *where.workers_and_engine)
        print(f"\n{table}")
        return files, folder.read_json("summary.json")["status"] == "finished"

    return _carry_out(carry_out, folder.path, where.resumption(command, folder.path))


def _bench_em_data(arguments: list[str]) -> int:
    """Parses the options of the EM suite's tasks from data and carries them out."""
    import functools

    from benchmarks.em_data import suite
    from benchmarks.options import add_arguments, make_options

    command = f"gfnem bench {suite.SUITE}"
    parser = _Parser(prog=command, description=EM_DATA + ".")
    add_run_arguments(parser)
    add_arguments(parser.add_argument_group("options"), suite.Options)
    given = vars(parser.parse_args(arguments))
    where = take_run_arguments(given)
    where.prepare()
    if where.resume is not None:
        folder, options = suite.resume(where.resume)
    else:
        options = make_options(suite.Options, {}, None, given)
        folder = suite.start(options, where.out_or(suite.SUITE))
    carry_out = functools.partial(
        suite.carry_out, folder, options, lambda text: print(f"\n{text}"),
        *where.workers_and_engine,
    )  # fmt: skip
    return _carry_out(carry_out, folder.path, where.resumption(command, folder.path))


def _carry_out(
    carry_out: Callable[[], tuple[Sequence[Path], bool]], path: Path, resumption: str
) -> int:
    """Carries a run out and says where it is, or how it goes on if it was stopped.

    Args:
        carry_out: Does so, prints tables, and returns the files to look at and whether all cells
            have finished.
        path: The run's folder.
        resumption: The command that continues it.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        files, finished = carry_out()
    except KeyboardInterrupt:
        return _fail(f"interrupted. Continue with: {resumption}")
    except OSError as error:
        return _fail(f"{_reason(error)} Once that is mended, continue with: {resumption}")
    print(f"\nWritten to {path}:")
    print("\n".join(f"  {file.relative_to(path)}" for file in files))
    for page in dict.fromkeys(file.parent for file in files if file.name == "table.md"):
        if (page / "cells").is_dir():
            print(f"A page to look at: gfnem report {shlex.quote(str(page))}")
    if not finished:
        return _fail(f"some cells failed; once that is mended, try them again with: {resumption}")
    return 0


def _bench(arguments: list[str]) -> int:
    """Carries out a benchmark suite."""
    from benchmarks.task import find_task
    from gfn_envs.registration import load_plugins

    suites = suites_by_name()
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: gfnem bench SUITE [options]\n\nsuites:")
        print("\n".join(f"  {name}: {description}" for name, description in suites.items()))
        print("\n'gfnem bench SUITE --help' shows a suite's options.")
        return 0 if arguments else USER_ERROR
    if arguments[0] == "throughput":
        return _bench_throughput(arguments[1:])
    if arguments[0] == "em-data":
        return _bench_em_data(arguments[1:])
    if arguments[0] not in suites:
        load_plugins()
        suites = suites_by_name()
    if arguments[0] not in suites:
        raise unknown_name("suite", arguments[0], suites)
    return _run_task(find_task(arguments[0], "bench"), arguments[1:])


def _bench_throughput(arguments: list[str]) -> int:
    """Parses the throughput suite's options and carries it out in a new folder."""
    import dataclasses

    from benchmarks.throughput import suite

    parser = _Parser(
        prog="gfnem bench throughput",
        description="Measure rollouts and training steps beside torchgfn's and beside bare loops.",
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the new run (default: runs/throughput-TIME)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, about two minutes")
    parser.add_argument(
        "--sections", nargs="+", choices=suite.SECTIONS, metavar="SECTION",
        help=f"what to measure: {' '.join(suite.SECTIONS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=int, help="repeats of each comparison (default: as many as time allows)"
    )
    parser.add_argument(
        "--seconds", type=float, help="time for each comparison (default: 2; --quick: 0.2)"
    )
    parser.add_argument("--seed", type=int, help="seed of policies and observations (default: 0)")
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items()
             if value is not None}  # fmt: skip
    out, quick = given.pop("out", None), given.pop("quick")
    if "sections" in given:
        given["sections"] = tuple(given["sections"])
    if given.get("repeats", 1) < 1:
        raise UserError("--repeats must be at least 1.")
    options = dataclasses.replace(suite.QUICK if quick else suite.Options(), **given)
    out = out or Path("runs") / f"throughput-{datetime.now():%Y%m%d-%H%M%S}"

    import torch

    torch.set_num_threads(1)  # as everywhere here: two threads on small tensors are slower
    table, files = suite.run(options, out)
    print(f"{table}\n\nWritten to {out}:")
    print("\n".join(f"  {file.relative_to(out)}" for file in files))
    return 0


def _report(given: argparse.Namespace) -> int:
    """Writes a report of a run."""
    import torch

    from benchmarks.report.command import write_report

    torch.set_num_threads(1)
    files = write_report(given.run, given.out, given.against, given.summary_out)
    print("Written:")
    print("\n".join(f"  {file}" for file in files))
    return 0


def _merge(given: argparse.Namespace) -> int:
    """Makes one run of several."""
    import torch

    from benchmarks.merge import merge_runs
    from benchmarks.runner import run_task

    torch.set_num_threads(1)
    folder, task, unfinished = merge_runs(given.runs, given.out)
    name, path = folder.read_json("config.json")["task"], shlex.quote(str(folder.path))
    if unfinished:
        print(f"{unfinished} of {len(task.cells)} cells are not finished.")
        print(f"Finish them: gfnem run {name} --resume {path}")
    else:
        table, _ = run_task(task, folder)
        print(f"\n{table}\n")
    print(f"Written to {folder.path}. A page to look at: gfnem report {path}")
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Treats a request to terminate like Ctrl-C."""
    raise KeyboardInterrupt


def _reason(error: OSError) -> str:
    """Says in one sentence what the operating system refused."""
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}."


def _fail(message: str) -> int:
    """Prints one line about what went wrong and returns the exit status."""
    print(f"gfnem: error: {message}", file=sys.stderr)
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
