#!/usr/bin/env bash
# A worker: worker.sh CAPABILITY PROGRAM [ARGUMENT...]. The program is run for each task, with the
# task's parameters on standard input; what it writes, one JSON document, is the result. Needs
# bash 5.1, curl 7.82 and jq 1.6. Settings: MAOS_URL, and WORKER_ID to keep its agent.
(($# > 1)) && capability=$1 home=$PWD work='' && shift || { sed '1d;4q' "$0" >&2; exit 2; }
agents=${MAOS_URL:-http://127.0.0.1:8000}/api/v1/agents
id=${WORKER_ID:-$(cat /proc/sys/kernel/random/uuid)} incarnation=$(date +%s%3N)
folder=$(mktemp -d) && cd "$folder" && touch held outcome || exit 1
trap '[[ $BASHPID != $$ ]] || { kill $(jobs -p); rm -rf "$folder"; } 2>/dev/null' EXIT
trap 'exit 0' TERM INT
register() { # what is refused for good ends this
    jq -n --arg id "$id" --arg capability "$capability" '{agent_type: "shell", runtime: "worker",
        id: $id, capabilities: [$capability]}' | curl -s -o registered --json @- "$agents"
    case $(jq -r .error_code registered) in null) ;; QUEUE_FULL | S* | N*) sleep "1.$RANDOM" ;;
    *) jq -r .error registered >&2 && exit 1 || sleep "1.$RANDOM" ;; esac
}
poll() { # MAX_TASKS: what is held and what has ended go with every poll
    jq -n --argjson incarnation "$incarnation" --argjson max_tasks "$1" --argjson wait_ms 30000 \
        --slurpfile holding held --slurpfile outcomes outcome '$ARGS.named' >body
    exec curl -s -m 60 -o answer --json @body "$agents/$id/poll"
}
for (( ; ; )); do : >answer
    poll "$([[ $work ]] && echo 0 || echo 1)" & beat=$!
    wait -n $work "$beat"
    if [[ $work ]] && ! kill -0 "$work" 2>/dev/null; then # its exit code says how it went
        wait "$work" && code=0 || code=$?; kill "$beat" 2>/dev/null
        jq -c --argjson code $code --slurpfile result result --rawfile error error '. + if $code > 0
            then {status: "failed", $error} else {status: "completed", result: $result[0]} end' \
            held >outcome || jq -c '. + {status: "failed", error: "no JSON"}' held >outcome
        : >held && work='' && continue
    fi
    case $(jq -r 'if .tasks[0] then "RUN" else .error_code // "\(.cancel[0])" end' answer) in
    RUN) : >outcome && jq -c '.tasks[0] | {task_id, attempt}' answer >held
        jq -c '.tasks[0].parameters' answer >given
        (cd "$home" && exec "$@") <given >result 2>error & work=$! ;;
    null) : >outcome ;; {*) : >outcome && [[ -z $work ]] || kill "$work" ;; # told to stop
    AGENT_LOST | AGENT_NOT_FOUND) register ;; AGENT_ENDED | STALE_INCARNATION) exit 0 ;;
    *) sleep "1.$RANDOM" ;; # the server is away
    esac
done
