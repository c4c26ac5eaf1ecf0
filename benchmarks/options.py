"""Turns a task's options, a dataclass, into command-line arguments."""

import argparse
import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gfn_envs.catalogue import Catalogue
from gfn_envs.errors import UserError, unknown_name


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """Makes an option: a dataclass field that the command line can explain."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def add_arguments(parser: argparse._ActionsContainer, options_type: type) -> None:
    """Adds one argument for each field, with its help, choices and default.

    Arguments that are not given stay out of the parsed namespace, so that presets can tell.

    Args:
        parser: Where to add them.
        options_type: A dataclass whose fields have metadata `help` and `choices`.
    """
    types = typing.get_type_hints(options_type)
    for field in dataclasses.fields(options_type):
        flag = f"--{field.name.replace('_', '-')}"
        default: Any = field.default
        choices = field.metadata["choices"]
        settings: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        kind = types[field.name]
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
            shown = "on" if default else "off"
        elif typing.get_origin(kind) is tuple:
            settings.update(nargs="+", type=typing.get_args(kind)[0], choices=choices)
            shown = " ".join(map(str, default)) or "none"
        else:
            settings.update(type=kind, choices=choices)
            shown = "none" if default == "" else str(default)
        if choices is None and kind is not bool:
            settings["metavar"] = field.name.rpartition("_")[2].upper()
        parser.add_argument(flag, help=f"{field.metadata['help']} (default: {shown})", **settings)


def make_options(
    options_type: type, presets: Mapping[str, Mapping[str, Any]], preset: str | None,
    given: Mapping[str, Any],
) -> Any:  # fmt: skip
    """Makes the options: what was given, over the preset, over the defaults.

    Args:
        options_type: The dataclass.
        presets: Option values by preset name.
        preset: The chosen preset's name, if any.
        given: The parsed arguments; names that are no options are passed over.

    Returns:
        An instance of `options_type`.

    Raises:
        UserError: If there is no such preset.
    """
    if preset is not None and preset not in presets:
        raise unknown_name("preset", preset, presets)
    names = {field.name for field in dataclasses.fields(options_type)}
    chosen = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in names}
    return options_type(**{**(presets[preset] if preset else {}), **chosen})


def saved_options(options_type: type, config: Mapping[str, Any], name: str, path: Path) -> Any:
    """Makes the options that a run was started with.

    Args:
        options_type: The dataclass.
        config: What the run's `config.json` holds.
        name: What carried it out.
        path: Its folder.

    Returns:
        An instance of `options_type`.

    Raises:
        UserError: If the run had other options.
    """
    saved = config.get("options")
    known = {field.name for field in dataclasses.fields(options_type)}
    if not isinstance(saved, dict) or set(saved) != known:
        raise UserError(f"{path} was made by another version of {name}; start the run anew.")
    return make_options(options_type, {}, None, saved)  # JSON has lists for tuples, as typed words


def require_names(option: str, names: Sequence[str], known: Catalogue) -> None:
    """Raises a UserError if a name is not registered or is there twice."""
    for name in names:
        known[name]
    if len(set(names)) < len(names):
        raise UserError(f"--{option} names {max(names, key=names.count)} twice.")


def require_at_least(least: int, options: Any, names: Sequence[str]) -> None:
    """Raises a UserError if one of the named options is a smaller number."""
    for name in names:
        if getattr(options, name) < least:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} must be at least {least}; got {getattr(options, name)}.")
