"""durward completion bash|zsh|fish: a script that never changes; names come from `durward __complete services ACTION`.

Those are the services that the asker may do ACTION to; `targets` are these, their groups as group:NAME, and all.
Nothing is said when nobody answers: it is a key press.
"""

from __future__ import annotations

import sys
from typing import Any

from userapi.cli.failure import OK, Failure
from userapi.cli.parser import ALL, GROUP
from userapi.cli.render import Screen

WORDS = (
    "login logout whoami status start stop restart signal logs events describe reload why revoke shutdown completion"
)
ACTIONS = "view logs start stop restart signal scale enable reload policy audit approve revoke shutdown"
SIGNALS = "HUP INT QUIT USR1 USR2 TERM CONT STOP WINCH KILL ALRM"

BASH = f"""# bash completion for durward: eval "$(durward completion bash)"
_durward() {{
    local cur verb= word names= i
    local -a words=() before=()
    for ((i = 1; i <= COMP_CWORD; i++)); do  # bash splits group:web at its colon
        word=${{COMP_WORDS[i]}}
        if ((i > 1)) && [[ $word == : || ${{COMP_WORDS[i-1]}} == : ]]; then
            words[${{#words[@]}}-1]+=$word
        else
            words+=("$word")
        fi
    done
    cur=${{words[-1]}}
    for ((i = 0; i < ${{#words[@]}} - 1; i++)); do
        word=${{words[i]}}
        case $word in
            --url|--cacert|--color) ((i++)) ;;
            -*) ;;
            *) before+=("$word") ;;
        esac
    done
    verb=${{before[0]}}
    case $verb,${{#before[@]}} in
        ,0) names="{WORDS}" ;;
        describe,1|events,1) names=$(durward __complete services view 2>/dev/null) ;;
        logs,1) names=$(durward __complete services logs 2>/dev/null) ;;
        status,*) names=$(durward __complete targets view 2>/dev/null) ;;
        start,*|stop,*|restart,*|signal,1) names=$(durward __complete targets "$verb" 2>/dev/null) ;;
        signal,*) names="{SIGNALS} $(durward __complete targets signal 2>/dev/null)" ;;
        why,1) names="{ACTIONS}" ;;
        why,2) names=$(durward __complete services view 2>/dev/null) ;;
        completion,1) names="bash zsh fish" ;;
    esac
    COMPREPLY=($(compgen -W "$names" -- "$cur"))
    [[ $cur != *:* ]] || COMPREPLY=("${{COMPREPLY[@]#"${{cur%:*}}:"}}")
}}
complete -F _durward durward
"""

ZSH = f"""#compdef durward
# zsh completion for durward: durward completion zsh > "${{fpath[1]}}/_durward"
_durward() {{
    local -a names before
    local word
    for word in ${{words[2,CURRENT-1]}}; do
        [[ $word == -* ]] || before+=($word)
    done
    case ${{before[1]}},${{#before}} in
        ,0) names=({WORDS}) ;;
        describe,1|events,1) names=(${{(f)"$(durward __complete services view 2>/dev/null)"}}) ;;
        logs,1) names=(${{(f)"$(durward __complete services logs 2>/dev/null)"}}) ;;
        status,*) names=(${{(f)"$(durward __complete targets view 2>/dev/null)"}}) ;;
        start,*|stop,*|restart,*|signal,1)
            names=(${{(f)"$(durward __complete targets ${{before[1]}} 2>/dev/null)"}}) ;;
        signal,*) names=({SIGNALS} ${{(f)"$(durward __complete targets signal 2>/dev/null)"}}) ;;
        why,1) names=({ACTIONS}) ;;
        why,2) names=(${{(f)"$(durward __complete services view 2>/dev/null)"}}) ;;
        completion,1) names=(bash zsh fish) ;;
    esac
    compadd -a names
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _durward "$@"; else compdef _durward durward; fi
"""

FISH = f"""# fish completion for durward: durward completion fish > ~/.config/fish/completions/durward.fish
complete -c durward -f
complete -c durward -n __fish_use_subcommand -a "{WORDS}"
complete -c durward -n "__fish_seen_subcommand_from describe events" -a "(durward __complete services view)"
complete -c durward -n "__fish_seen_subcommand_from logs" -a "(durward __complete services logs)"
complete -c durward -n "__fish_seen_subcommand_from status" -a "(durward __complete targets view)"
for verb in start stop restart signal
    complete -c durward -n "__fish_seen_subcommand_from $verb" -a "(durward __complete targets $verb)"
end
complete -c durward -n "__fish_seen_subcommand_from signal" -a "{SIGNALS}"
complete -c durward -n "__fish_seen_subcommand_from why" -a "{ACTIONS} (durward __complete services view)"
complete -c durward -n "__fish_seen_subcommand_from completion" -a "bash zsh fish"
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion(ask: Any, screen: Screen, args: Any) -> int:
    sys.stdout.write(SCRIPTS[args.shell])
    return OK


def names(ask: Any, screen: Screen, args: Any) -> int:
    try:
        rights = ask.whoami()["rights"]
        services = ask.status(None) if args.what == "targets" else []
    except Failure:
        return OK
    may = [right["service"] for right in rights if right["service"] and args.action in right["actions"]]
    groups = {group for service in services if service["name"] in may for group in service.get("groups", [])}
    every = [ALL] if may and args.what == "targets" else []
    for name in [*may, *(GROUP + group for group in sorted(groups)), *every]:
        screen.say(name)
    return OK
