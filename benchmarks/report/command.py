"""What `gfnem report` does: a run's folder in, a page and its Markdown out."""

from pathlib import Path

from benchmarks.report.html import to_html
from benchmarks.report.markdown import to_markdown
from benchmarks.report.reference import dump_summary, find_reference
from benchmarks.run_folder import RunFolder
from benchmarks.runner import open_run
from gfn_envs.errors import UserError

PICTURES = "report-files"


def write_report(
    path: Path, out: Path | None = None, against: str | None = None, summary_out: Path | None = None
) -> list[Path]:
    """Reports a run, finished or not.

    Args:
        path: The run's folder, which need not be at rest.
        out: Where to write; the run's folder by default.
        against: What to compare with; see `find_reference`.
        summary_out: A file for the run's summary, to compare later runs with.

    Returns:
        The files to look at.

    Raises:
        UserError: If there is nothing to report, or it cannot be read or written.
    """
    name = task_of(path)
    folder, task = open_run(name, path)
    reference = None if against is None else find_reference(against, name, task)
    document = task.document(folder, reference)
    text, pictures = to_markdown(document, PICTURES)
    target = RunFolder(path if out is None else out)
    try:
        (target.path / PICTURES).mkdir(parents=True, exist_ok=True)
        for file, content in pictures.items():
            RunFolder(target.path / PICTURES).write_bytes(file, content)
        target.write_text("report.md", text)
        target.write_text("report.html", to_html(document))
        files = [target.path / "report.html", target.path / "report.md"]
        if summary_out is not None:
            summary_out.parent.mkdir(parents=True, exist_ok=True)
            summary = dump_summary(task.summary(folder))
            RunFolder(summary_out.parent).write_text(summary_out.name, summary)
            files.append(summary_out)
    except OSError as error:
        where, reason = error.filename or target.path, error.strerror or error
        raise UserError(
            f"Cannot write the report ({where}): {reason}; name another place with --out."
        ) from error
    return files


def task_of(path: Path) -> str:
    """Reads which task a run is of.

    Raises:
        UserError: If there is no run of a task.
    """
    config = RunFolder.open(path).read_json("config.json")
    if config.get("suite") == "throughput":
        raise UserError(
            f"{path} holds a throughput run, whose report is there already: table.md and pictures."
        )
    if config.get("suite") == "em-data":
        raise UserError(f"{path} holds a run for each of its tasks; name the folder of one.")
    name = config.get("task")
    if not isinstance(name, str) or "options" not in config:
        raise UserError(f"{path} is not a run's folder; name the one that cells/ is in.")
    return name
