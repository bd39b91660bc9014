"""durward completion bash|zsh|fish: a script that never changes; names come from `durward __complete services ACTION`.

Those are the services that the asker may do ACTION to; `targets` are these, their groups as group:NAME, and all.
Nothing is said when nobody answers: it is a key press. What the api sends and is no name is not said either, and no
script lets its shell expand what is said.
"""

from __future__ import annotations

import sys
from typing import Any

from userapi.cli.failure import OK, Failure
from userapi.cli.quick import ALL, GROUP
from userapi.cli.render import Screen
from userapi.cli.spelled import is_name

WORDS = (
    "login logout whoami status start stop restart signal scale enable disable logs events operations cancel approve"
    " describe reload why revoke shutdown upgrade version audit policy token doctor completion"
)
ACTIONS = "view logs clear start stop restart signal scale enable reload policy audit approve revoke shutdown"
SIGNALS = "HUP INT QUIT USR1 USR2 TERM CONT STOP WINCH KILL ALRM"
COMMON = "--help --url --cacert --token-file --root --json --color"
OPTIONS = {
    "login": "--user --password-stdin",
    "start": "--no-wait --reason",
    "stop": "--no-wait --reason --with-dependants",
    "restart": "--no-wait --reason --hard",
    "signal": "--no-wait --reason",
    "enable": "--no-wait --reason --now",
    "disable": "--no-wait --reason --now",
    "scale": "--no-wait --reason",
    "logs": "--follow --lines --stream --since --grep --raw --clear --reopen --reason",
    "events": "--operation --after",
    "operations": "--all",
    "cancel": "--reason",
    "approve": "--withdraw --reason",
    "reload": "--dry-run --no-wait --reason",
    "revoke": "--all --reason",
    "shutdown": "--no-wait --reason",
    "upgrade": "--no-wait --reason",
    "audit": "--key --anchors --from --to --user --action --target --outcome --kind --token --request --grep --csv"
    " --follow --lines",
    "policy": "--dir --groups --local-groups --at --from --reason --csv --exit-code --to --quiet --fail-on --prefix",
    "token": "--may --on --expires",
    "doctor": "--config --strict",
}
VALUED = (
    "--url --cacert --token-file --color --user -u --lines -n --stream --since --grep --operation"
    " --after --config --key --anchors --from --to --action --target --outcome --kind --request --reason"
    " --token --may --on --expires --dir --groups --at --fail-on --prefix"  # take a word
)
FILES = "--cacert --token-file --config --dir --key --anchors"  # of these, a path
PATHS = "policy check test lint diff simulate", "audit verify search"  # commands, and which of theirs take paths
STREAMS, COLOURS = "stdout stderr both", "auto always never"
AUDIT, TOKEN = "verify search tail", "create list revoke"
SCHEMAS = "durward services policy keys"
POLICY = "show why who-can what-can matrix diff simulate check test lint schema"
_VALUED, _FILES = VALUED.replace(" ", "|"), FILES.replace(" ", "|")
_PATHS = "|".join(f"{verb},{one}" for verb, *ones in map(str.split, PATHS) for one in ones)
_BASH = "".join(f'            {verb}) names="{options} {COMMON}" ;;\n' for verb, options in OPTIONS.items())
_ZSH = "".join(f"            {verb}) names=({options} {COMMON}) ;;\n" for verb, options in OPTIONS.items())
_FISH = "".join(
    f'complete -c durward -n "__fish_seen_subcommand_from {verb}" -l {option.removeprefix("--")}'
    f"{' -r -F' if option in FILES.split() else ' -x' if option in VALUED.split() else ''}\n"
    for verb, options in OPTIONS.items()
    for option in options.split()
) + "".join(
    f'complete -c durward -F -n "__fish_seen_subcommand_from {verb}; and __fish_seen_subcommand_from {ones}"\n'
    for verb, _, ones in (row.partition(" ") for row in PATHS)
)

BASH = f"""# bash completion for durward: eval "$(durward completion bash)"
_durward() {{
    local cur prev= verb= word names= paths= root= i
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
    ((${{#words[@]}} < 2)) || prev=${{words[-2]}}
    for ((i = 0; i < ${{#words[@]}} - 1; i++)); do
        word=${{words[i]}}
        case $word in
            {_VALUED}) ((i++)) ;;
            --root|--root=*) root=--root ;;
            -*) ;;
            *) before+=("$word") ;;
        esac
    done
    verb=${{before[0]}}
    case $prev in
        {_FILES}) paths=yes ;;
        {_VALUED}) ;;
        *) [[ $cur == -* ]] || case $verb,${{before[1]}} in {_PATHS}) paths=yes ;; esac ;;
    esac
    if [[ -n $paths ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        compopt -o filenames 2>/dev/null
        return
    elif [[ $prev == --stream ]]; then
        names="{STREAMS}"
    elif [[ $prev == --color ]]; then
        names="{COLOURS}"
    elif [[ $cur == -* ]]; then
        case $verb in
{_BASH}            "") names="--version {COMMON}" ;;
            *) names="{COMMON}" ;;
        esac
    else
        case $verb,${{#before[@]}} in
            ,0) names="{WORDS}" ;;
            describe,1|events,1|operations,1) names=$(durward $root __complete services view 2>/dev/null) ;;
            logs,*) names=$(durward $root __complete targets logs 2>/dev/null) ;;
            scale,*) names=$(durward $root __complete services scale 2>/dev/null) ;;
            status,*) names=$(durward $root __complete targets view 2>/dev/null) ;;
            start,*|stop,*|restart,*|signal,1) names=$(durward $root __complete targets "$verb" 2>/dev/null) ;;
            enable,*|disable,*) names=$(durward $root __complete targets enable 2>/dev/null) ;;
            signal,*) names="{SIGNALS} $(durward $root __complete targets signal 2>/dev/null)" ;;
            why,1) names="{ACTIONS}" ;;
            why,2) names=$(durward $root __complete services view 2>/dev/null) ;;
            audit,1) names="{AUDIT}" ;;
            token,1) names="{TOKEN}" ;;
            policy,1) names="{POLICY}" ;;
            policy,2) case ${{before[1]}} in who-can) names="{ACTIONS}" ;; schema) names="{SCHEMAS}" ;; esac ;;
            policy,3) [[ ${{before[1]}} != why ]] || names="{ACTIONS}" ;;
            completion,1) names="bash zsh fish" ;;
        esac
    fi
    COMPREPLY=($(compgen -W '$names' -- "$cur"))
    [[ $cur != *:* ]] || COMPREPLY=("${{COMPREPLY[@]#"${{cur%:*}}:"}}")
}}
complete -F _durward durward
"""

ZSH = f"""#compdef durward
# zsh completion for durward: durward completion zsh > "${{fpath[1]}}/_durward"
_durward() {{
    local -a names before
    local word skip= root=
    for word in ${{words[2,CURRENT-1]}}; do
        if [[ -n $skip ]]; then
            skip=
            continue
        fi
        case $word in
            {_VALUED}) skip=yes ;;
            --root|--root=*) root=--root ;;
            -*) ;;
            *) before+=($word) ;;
        esac
    done
    case ${{words[CURRENT-1]}} in
        {_FILES}) skip=paths ;;
        {_VALUED}) ;;
        *) [[ ${{words[CURRENT]}} == -* ]] || case ${{before[1]}},${{before[2]}} in {_PATHS}) skip=paths ;; esac ;;
    esac
    if [[ $skip == paths ]]; then
        _files
        return
    fi
    if [[ ${{words[CURRENT-1]}} == --stream ]]; then
        names=({STREAMS})
    elif [[ ${{words[CURRENT-1]}} == --color ]]; then
        names=({COLOURS})
    elif [[ ${{words[CURRENT]}} == -* ]]; then
        case ${{before[1]}} in
{_ZSH}            "") names=(--version {COMMON}) ;;
            *) names=({COMMON}) ;;
        esac
    else
        case ${{before[1]}},${{#before}} in
            ,0) names=({WORDS}) ;;
            describe,1|events,1|operations,1) names=(${{(f)"$(durward $root __complete services view 2>/dev/null)"}}) ;;
            logs,*) names=(${{(f)"$(durward $root __complete targets logs 2>/dev/null)"}}) ;;
            scale,*) names=(${{(f)"$(durward $root __complete services scale 2>/dev/null)"}}) ;;
            status,*) names=(${{(f)"$(durward $root __complete targets view 2>/dev/null)"}}) ;;
            start,*|stop,*|restart,*|signal,1)
                names=(${{(f)"$(durward $root __complete targets ${{before[1]}} 2>/dev/null)"}}) ;;
            enable,*|disable,*) names=(${{(f)"$(durward $root __complete targets enable 2>/dev/null)"}}) ;;
            signal,*) names=({SIGNALS} ${{(f)"$(durward $root __complete targets signal 2>/dev/null)"}}) ;;
            why,1) names=({ACTIONS}) ;;
            why,2) names=(${{(f)"$(durward $root __complete services view 2>/dev/null)"}}) ;;
            audit,1) names=({AUDIT}) ;;
            token,1) names=({TOKEN}) ;;
            policy,1) names=({POLICY}) ;;
            policy,2) case ${{before[2]}} in who-can) names=({ACTIONS}) ;; schema) names=({SCHEMAS}) ;; esac ;;
            policy,3) [[ ${{before[2]}} != why ]] || names=({ACTIONS}) ;;
            completion,1) names=(bash zsh fish) ;;
        esac
    fi
    compadd -a names
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _durward "$@"; else compdef _durward durward; fi
"""

FISH = f"""# fish completion for durward: durward completion fish > ~/.config/fish/completions/durward.fish
function __durward_complete
    durward (string match -- --root (commandline -opc)) __complete $argv
end
complete -c durward -f
complete -c durward -n __fish_use_subcommand -a "{WORDS}"
complete -c durward -n "__fish_seen_subcommand_from describe events operations" -a "(__durward_complete services view)"
complete -c durward -n "__fish_seen_subcommand_from logs" -a "(__durward_complete targets logs)"
complete -c durward -n "__fish_seen_subcommand_from scale" -a "(__durward_complete services scale)"
complete -c durward -n "__fish_seen_subcommand_from status" -a "(__durward_complete targets view)"
for verb in start stop restart signal
    complete -c durward -n "__fish_seen_subcommand_from $verb" -a "(__durward_complete targets $verb)"
end
complete -c durward -n "__fish_seen_subcommand_from enable disable" -a "(__durward_complete targets enable)"
complete -c durward -n "__fish_seen_subcommand_from signal" -a "{SIGNALS}"
complete -c durward -n "__fish_seen_subcommand_from why" -a "{ACTIONS} (__durward_complete services view)"
complete -c durward -n "__fish_seen_subcommand_from audit" -a "{AUDIT}"
complete -c durward -n "__fish_seen_subcommand_from token" -a "{TOKEN}"
complete -c durward -n "__fish_seen_subcommand_from policy" -a "{POLICY}"
complete -c durward -n "__fish_seen_subcommand_from who-can why" -a "{ACTIONS}"
complete -c durward -n "__fish_seen_subcommand_from schema" -a "{SCHEMAS}"
complete -c durward -n "__fish_seen_subcommand_from completion" -a "bash zsh fish"
complete -c durward -n __fish_use_subcommand -l version
complete -c durward -l help
complete -c durward -l json
complete -c durward -l root
complete -c durward -l url -x
complete -c durward -l cacert -r -F
complete -c durward -l token-file -r -F
complete -c durward -l color -x -a "{COLOURS}"
complete -c durward -n "__fish_seen_subcommand_from logs" -l stream -x -a "{STREAMS}"
{_FISH}"""
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
    may = [right["service"] for right in rights if is_name(right["service"]) and args.action in right["actions"]]
    groups = {group for service in services if service["name"] in may for group in service.get("groups", [])}
    groups = {group for group in groups if is_name(group)}
    every = [ALL] if may and args.what == "targets" else []
    for name in [*may, *(GROUP + group for group in sorted(groups)), *every]:
        screen.say(name)
    return OK
