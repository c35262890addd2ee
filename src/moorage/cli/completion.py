"""`moorage completion`: verbs, options and names of runs at the Tab key."""

from __future__ import annotations

import click

PROGRAM = "moorage"
VARIABLE = "_MOORAGE_COMPLETE"
"""How the printed script asks the command for completions (click reads it)."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    Names of runs are completed too, while a server answers.

    \b
    Examples:
      moorage completion bash > ~/.local/share/bash-completion/completions/moorage
      moorage completion zsh > ~/.zfunc/_moorage
      moorage completion fish > ~/.config/fish/completions/moorage.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    script = kind(root, {}, PROGRAM, VARIABLE)
    # The class would first run the shell to check its version; the script is the same for all.
    click.echo(script.source_template % script.source_vars())
