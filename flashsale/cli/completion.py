"""`flashsale completion`: what a shell needs to complete commands and options."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash   eval "$(flashsale completion bash)"           in ~/.bashrc
    zsh    eval "$(flashsale completion zsh)"            in ~/.zshrc
    fish   flashsale completion fish | source            in ~/.config/fish/config.fish
    """
    made = get_completion_class(shell)
    assert made is not None, "click knows each of the choices"  # noqa: S101
    click.echo(made(ctx.find_root().command, {}, "flashsale", "_FLASHSALE_COMPLETE").source())
