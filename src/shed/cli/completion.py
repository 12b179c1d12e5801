"""`shed completion`: scripts for bash, zsh and fish, which ask `shed __complete` what can stand where the cursor is."""

from __future__ import annotations

import contextlib
import os

from shed.cli.options import Options
from shed.cli.parsing import Parser
from shed.terminal.output import say

BASH = """\
# Completion of shed for bash.  In ~/.bashrc:  source <(shed completion bash)
_shed() {
    local line=${COMP_LINE:0:COMP_POINT} current=${COMP_WORDS[COMP_CWORD]} whole kind prefix word
    local -a answer
    mapfile -t answer < <(command shed __complete bash "$line" 2>/dev/null)
    kind=${answer[0]} whole=${line##*[[:space:]]}
    # bash takes '=' and ':' for ends of words, and wants what is behind them alone.
    [[ $current == [=:] ]] && current=
    prefix=${whole%"$current"}
    COMPREPLY=()
    for word in "${answer[@]:1}"; do
        word=${word%%$'\\t'*}
        COMPREPLY+=("${word#"$prefix"}")
    done
    [[ $kind == words || ${#COMPREPLY[@]} -gt 0 ]] || compopt -o filenames # it would put a backslash before a colon
    case $kind in
        files) mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current") ;;
        folders) mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -d -- "$current") ;;
    esac
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=:] ]] && compopt -o nospace
}
complete -F _shed shed
"""
ZSH = """\
#compdef shed
# Completion of shed for zsh.  In ~/.zshrc, behind compinit:  source <(shed completion zsh)
_shed() {
    local line name
    local -a answer names shown open
    answer=("${(@f)$(command shed __complete zsh "${(@Q)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    for line in "${(@)answer[2,-1]}"; do
        name=${line%%$'\\t'*}
        if [[ $name == *[=:] ]]; then open+=("$name"); continue; fi
        names+=("$name")
        shown+=("${line/$'\\t'/  -- }")
    done
    (( $#names )) && compadd -l -d shown -a names
    (( $#open )) && compadd -S '' -a open
    case $answer[1] in
        files) _files ;;
        folders) _files -/ ;;
    esac
}
if [[ $funcstack[1] == _shed ]]; then _shed "$@"; else compdef _shed shed; fi
"""
FISH = """\
# Completion of shed for fish.  Once:  shed completion fish > ~/.config/fish/completions/shed.fish
function __shed_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l answer (command shed __complete fish $words[2..-1] "$current" 2>/dev/null)
    for line in $answer[2..-1]
        echo $line
    end
    switch "$answer[1]"
        case files
            __fish_complete_path "$current"
        case folders
            __fish_complete_directories "$current"
    end
end
complete -c shed -f -a '(__shed_complete)'
"""
_SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion(words: list[str], options: Options) -> int:
    """Print the script of a shell."""
    parser = Parser(
        "completion",
        "Print the script by which a shell completes commands, options, and the names of sheds and images.  Its first "
        "lines say where to\n"
        "put it.  Names come from a server that runs; none is started for them.",
        examples=["source <(shed completion bash)", "shed completion fish > ~/.config/fish/completions/shed.fish"],
    )
    parser.add_argument("shell", choices=sorted(_SCRIPTS), help="bash, zsh or fish")
    args = parser.parse(words, options)
    say(_SCRIPTS[args.shell], end="")
    return 0


def answer(words: list[str]) -> int:
    """Answer a script: on the first line ``files``, ``folders`` or ``words``, then a word per line, with a tab and a description.

    The arguments are the shell, and the words up to the cursor, the last one unfinished; from bash they come as one
    line.  Says nothing else, whatever happens: the user is in the middle of typing.
    """
    with contextlib.suppress(Exception):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        from shed.cli.complete import complete, split  # noqa: PLC0415

        *before, current = split(words[1]) if words[0] == "bash" else words[1:]
        found = complete(before, current)
        lines = [found.kind, *("\t".join(filter(None, word)) for word in found.words)]
        say("".join(f"{line}\n" for line in lines), end="")
    return 0
