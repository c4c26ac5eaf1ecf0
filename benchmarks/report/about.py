"""How a run was made: its settings, the versions of what it used, and its machine."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report.document import Entry, Section, Table


def about(config: Mapping[str, Any], more: Mapping[str, str] | None = None) -> Section:
    """Describes how a run was made.

    Args:
        config: What its `config.json` holds.
        more: Further settings, that cannot be chosen.

    Returns:
        A section of tables.
    """
    settings = {name.replace("_", " "): _show(value) for name, value in config["options"].items()}
    source = {
        "task": config["task"],
        "git commit": config.get("git_commit") or "unknown (not run from a git clone)",
        "SHA-256 of the data": config.get("data_sha256", "unknown"),
    }
    versions = {name: _show(value) for name, value in config.get("versions", {}).items()}
    machine = {name.replace("_", " "): _show(v) for name, v in config.get("machine", {}).items()}
    return Section(
        "How it was made",
        [
            Section("Settings", [_table("setting", {**settings, **(more or {})})]),
            Section("Source", [_table("what", source)]),
            Section("Versions", [_table("package", versions)]),
            Section("Machine", [_table("what", machine)]),
        ],
    )


def left_out(reasons: Mapping[tuple[str, ...], str]) -> list[str]:
    """Says what does not fit together and why, a line for each reason.

    Args:
        reasons: The reason by what does not fit together.
    """
    lines = []
    for reason in dict.fromkeys(reasons.values()):
        names = [", ".join(key) for key, why in reasons.items() if why == reason]
        lines.append(f"{'; '.join(names)}: {reason}")
    return lines


def _table(header: str, rows: Mapping[str, str]) -> Table:
    """Lists names and values."""
    return Table((header, "value"), [(Entry(name), Entry(text)) for name, text in rows.items()])


def _show(value: Any) -> str:
    """Shows a JSON value."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value in ("", None) else str(value)
