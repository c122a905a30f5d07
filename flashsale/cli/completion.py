"""`flashsale completion`: shell completion."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash   eval "$(flashsale completion bash)"           in ~/.bashrc
    zsh    eval "$(flashsale completion zsh)"            in ~/.zshrc
    fish   flashsale completion fish | source            in ~/.config/fish/config.fish
    """
    complete = get_completion_class(shell)
    assert complete is not None  # noqa: S101 - click supports each of the choices
    click.echo(complete(ctx.find_root().command, {}, "flashsale", "_FLASHSALE_COMPLETE").source())
