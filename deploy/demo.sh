#!/usr/bin/env bash
# The main job, end to end, on one machine: kubectl → pod and twin at the edge → status back. `make demo` calls this.
#
#   deploy/demo.sh            five steps, each confirmed from outside; then stays up until Ctrl-C
#   ONCE=1 deploy/demo.sh     stops after the steps: exit 0 when all were seen, 1 with the reason when one was not
#   deploy/demo.sh --clean    stops what a killed demo left and removes .skep/demo
#
# Everything lives in .skep/demo, which each run makes anew. SKEP_… variables reach both daemons, so that ports can be
# moved: SKEP_MQTT__INTERNAL_SERVER=tcp://127.0.0.1:2884 make demo. DEMO_DEADLINE_SECS is the time a step has (30).
# shellcheck disable=SC2317 # checks and the end are called through until_seen and trap
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
readonly state=$top/.skep/demo
readonly logs=$state/logs
readonly node=demo-edge pod=thermometer device=thermometer-01 image=skep/thermometer:demo
readonly deadline=${DEMO_DEADLINE_SECS:-30}
# DEMO_PROFILE=dev shows what `cargo build` makes; only of use while changing Skep.
readonly profile=${DEMO_PROFILE:-release}
readonly bin=${CARGO_TARGET_DIR:-$top/target}/${profile/#dev/debug}
once=${ONCE:-}
[ "$once" != 0 ] || once=

# Where things listen: the defaults, or what the environment tells the daemons.
readonly hub_port=${SKEP_CLOUDHUB__PORT:-10000}
readonly join_port=${SKEP_CLOUDHUB__HTTPS__PORT:-10002}
readonly api_port=${SKEP_EMBEDDED__PORT:-10443}
readonly broker=${SKEP_MQTT__INTERNAL_SERVER:-tcp://127.0.0.1:1884}
readonly broker_port=${broker##*:}
readonly pods_port=${SKEP_EDGED__READ_ONLY_PORT:-10255}
readonly edge_admin_port=10360 cloud_admin_port=10361

# ---- words -----------------------------------------------------------------------------------------------------------

began_ms=$(date +%s%3N)
elapsed() { local ms=$(($(date +%s%3N) - began_ms)); printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100)); }
say()  { printf '[%6s s] %s\n' "$(elapsed)" "$*"; }
fact() { printf '             · %s\n' "$*"; }
step=""
step() { step="step $1 of 5"; printf '\n'; say "$step: $2"; }
refuse() { printf 'demo: %s\n' "$*" >&2; exit 1; } # before anything was started
last_words() { # the last errors of a log, or its last lines
    [ -s "$1" ] || return 0
    echo "        last of ${1#"$top"/}:"
    { grep -E 'ERROR|WARN|panicked' "$1" | tail -n 4 || true; } | cut -c1-240 | sed 's/^/          /'
    tail -n 2 "$1" | cut -c1-240 | sed 's/^/          /'
}
failed() {
    printf '\n'
    say "FAILED at $step: $*"
    last_words "$logs/edge.log"
    last_words "$logs/cloud.log"
    echo "        state and logs stay in ${state#"$top"/}"
    exit 1
} >&2

# ---- processes -------------------------------------------------------------------------------------------------------

# As in the edge's unit: glibc gives each thread a heap of its own otherwise.
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-8}"
cloud_pid="" edge_pid="" listener_pid="" farewell_pid="" clean_exit=yes
# In a session of its own, so that Ctrl-C reaches this script alone and the order of stopping is ours;
# and never longer than this script, even if that is killed.
start() { # start NAME PROGRAM…: sets started_pid
    local name=$1
    shift
    setsid setpriv --pdeathsig TERM "$@" >>"$logs/$name.log" 2>&1 </dev/null &
    started_pid=$!
    echo "$started_pid" >"$state/$name.pid"
}
alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }
stop() { # stop NAME PID: SIGTERM, 15 s, then SIGKILL
    alive "$2" || return 0
    kill -TERM "$2" 2>/dev/null || true
    local tick
    for ((tick = 0; tick < 150; tick++)); do
        alive "$2" || { say "$1 stopped"; return 0; }
        sleep 0.1
    done
    say "$1 did not stop within 15 s and is killed"
    kill -KILL "$2" 2>/dev/null || true
    clean_exit=no
}
containers() { docker ps --all --quiet --no-trunc --filter "label=io.skep.node=$node" "$@"; }
kube() { kubectl --kubeconfig "$state/kubeconfig" --cache-dir "$state/kube-cache" --request-timeout 10s "$@"; }

cleanup() {
    local code=$?
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "$cloud_pid$edge_pid" ]; then
        printf '\n'
        say "stopping everything in order"
        [ -z "$listener_pid" ] || kill "$listener_pid" 2>/dev/null || true
        [ -z "$farewell_pid" ] || kill "$farewell_pid" 2>/dev/null || true
        if alive "$cloud_pid" && alive "$edge_pid" && [ -n "$(containers)" ]; then
            kube delete pod --all --timeout=20s >"$logs/stop.log" 2>&1 || true
            # The object goes when the program has ended; its container a moment later.
            local tick
            for ((tick = 0; tick < 50; tick++)); do [ -n "$(containers)" ] || break; sleep 0.1; done
        fi
        stop skep-edge "$edge_pid"
        stop skep-cloud "$cloud_pid"
        wait 2>/dev/null || true
        local left
        left=$(containers 2>/dev/null || true)
        if [ -n "$left" ]; then
            say "removing $(wc -w <<<"$left") container(s) that were left"
            # shellcheck disable=SC2086 # one argument each
            docker rm --force $left >/dev/null 2>&1 || true
            clean_exit=no
        fi
        rm -f "$state"/*.pid
        [ "$clean_exit" = no ] || say "stopped; no container is left"
        [ "$clean_exit" = yes ] || [ "$code" -ne 0 ] || code=1
    fi
    exit "$code"
}
only_one() { # of all in this clone, for as long as it lives; the file names it
    exec 9>>"$top/.skep/demo.lock"
    flock --nonblock 9 || refuse "a demo runs in this clone (process $(cat "$top/.skep/demo.lock")): stop it with Ctrl-C, or kill that process, first"
    echo $$ >"$top/.skep/demo.lock"
}
left_from_before() { # stops daemons and containers of a demo that was killed
    local file pid left
    for file in "$state"/*.pid; do
        [ -e "$file" ] || continue
        pid=$(cat "$file")
        case $(readlink "/proc/$pid/exe" 2>/dev/null || true) in
            */skep-edge | */skep-edge\ \(deleted\) | */skep-cloud | */skep-cloud\ \(deleted\))
                say "stopping $(basename "$file" .pid) (pid $pid) of an earlier demo"
                kill -TERM "$pid" 2>/dev/null || true
                local tick
                for ((tick = 0; tick < 100; tick++)); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
                kill -KILL "$pid" 2>/dev/null || true ;;
        esac
    done
    left=$(containers)
    if [ -n "$left" ]; then
        say "removing $(wc -w <<<"$left") container(s) of an earlier demo"
        # shellcheck disable=SC2086 # one argument each
        docker rm --force $left >/dev/null
    fi
}

# ---- waiting for what must become true -------------------------------------------------------------------------------

# until_seen WHAT CHECK…: polls CHECK, which leaves in `seen` what it saw. Ends the demo when the deadline passes or a daemon dies.
seen=""
until_seen() {
    local what=$1 end=$(($(date +%s%3N) + deadline * 1000)) told=0
    shift
    seen=""
    until "$@"; do
        alive "$cloud_pid" || failed "skep-cloud ended while waiting for: $what"
        [ -z "$edge_pid" ] || alive "$edge_pid" || failed "skep-edge ended while waiting for: $what"
        [ "$(date +%s%3N)" -lt "$end" ] || failed "not within $deadline s: $what (last seen: ${seen:-nothing})"
        told=$((told + 1))
        [ $((told % 25)) -ne 0 ] || fact "waiting for: $what (so far: ${seen:-nothing})"
        sleep 0.1
    done
}

api_answers() { [ -s "$state/kubeconfig" ] && seen="a kubeconfig" && kube get --raw /version >/dev/null 2>&1; }
join_port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$join_port") 2>/dev/null; }
node_is_ready() {
    seen=$(kube get node "$node" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>&1) && [ "$seen" = True ]
}
pod_runs() {
    seen=$(kube get pod "$pod" -o 'jsonpath={.status.phase} Ready={.status.conditions[?(@.type=="Ready")].status} podIP={.status.podIP} hostIP={.status.hostIP}' 2>&1) &&
        [[ $seen =~ ^Running\ Ready=True\ podIP=[0-9a-f.:]+\ hostIP=[0-9a-f.:]+$ ]]
}
container_runs() {
    container=$(containers --filter status=running --filter "label=io.kubernetes.pod.name=$pod" --filter "label=io.kubernetes.container.name=thermometer" | head -n 1)
    seen=${container:-"docker ps: no such container"}
    [ -n "$container" ]
}
config_is_mounted() {
    local source
    source=$(docker inspect --format '{{range .Mounts}}{{if eq .Destination "/etc/thermometer"}}{{.Source}}{{end}}{{end}}' "$container")
    seen=$(tr '\n' ' ' <"$source/thermometer.yaml" 2>&1)
    [[ $seen == *"value: \"$value\""* ]]
}
heard() { # heard SUFFIX TEXT: mosquitto_sub got a message on …/twin/SUFFIX that has TEXT
    seen=$(grep -F "/twin/$1 " "$logs/mqtt.log" | tail -n 1 | cut -c1-160 || true)
    grep -F "/twin/$1 " "$logs/mqtt.log" | grep -F -- "$2" >/dev/null
}
twin_row() { # twin_row COLUMN VALUE: the edge's database has it, read by sqlite3
    seen=$(sqlite3 -readonly "$state/edge/edge.db" "SELECT $1 FROM device_twin WHERE deviceid = '$device' AND name = 'temperature'" 2>&1)
    [ "$seen" = "$2" ]
}
reported_is() {
    seen=$(kube get devicestatus "$device" -o 'jsonpath={.status.twins[?(@.propertyName=="temperature")].reported.value}' 2>&1) && [ "$seen" = "$1" ]
}
pod_is_gone() { seen=$(kube get pod "$pod" -o 'jsonpath={.metadata.name}{.metadata.deletionTimestamp}' 2>&1) && return 1; [[ $seen == *NotFound* ]]; }
no_container() { seen=$(containers --filter "label=io.kubernetes.pod.name=$pod"); [ -z "$seen" ]; }

# ---- before anything is built ----------------------------------------------------------------------------------------

case "${1:-}" in
    "") ;;
    --clean)
        mkdir -p "$top/.skep"
        only_one
        left_from_before
        rm -rf "$state"
        docker image rm "$image" >/dev/null 2>&1 || true
        say "nothing of a demo is left"
        exit 0 ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 64 ;;
esac

for tool in cargo docker kubectl sqlite3 mosquitto_sub setsid setpriv flock; do
    command -v "$tool" >/dev/null || refuse "$tool is not on the PATH: run deploy/setup.sh"
done
docker_says=$(timeout 15 docker version --format '{{.Server.Version}}' 2>&1) ||
    refuse "the Docker engine does not answer (${docker_says##*$'\n'}): start it or run deploy/setup.sh; pods need it"
mkdir -p "$top/.skep" || refuse "cannot write $top/.skep: the demo keeps its state there"
only_one
left_from_before

busy=()
for entry in "$hub_port CloudHub" "$join_port certificates" "$api_port Kubernetes-API" "$broker_port MQTT" "$pods_port pods" \
    "$edge_admin_port edge-page" "$cloud_admin_port cloud-page"; do
    port=${entry%% *}
    who=$(ss --no-header --listening --tcp --numeric --processes "sport = :$port" 2>/dev/null | head -n 1)
    [ -z "$who" ] || busy+=("port $port (${entry##* }) is taken by $(sed -nE 's/.*users:\(\("([^"]+)",pid=([0-9]+).*/\1, pid \2/p' <<<"$who" | grep . || echo 'a process of another user')")
done
if [ ${#busy[@]} -gt 0 ]; then
    printf 'demo: %s\n' "${busy[@]}" >&2
    refuse "stop what holds the port, or move ours with the SKEP_… variables (deploy/demo.sh says how)"
fi

free_mib() { df --output=avail --block-size=1M "$1" 2>/dev/null | tail -n 1 | tr -d ' '; }
need_mib=512
[ -x "$bin/skep-edge" ] && [ -x "$bin/skep-cloud" ] || need_mib=4096
[ "$(free_mib "$top")" -ge $need_mib ] || refuse "only $(free_mib "$top") MiB free at $top, and building and running needs $need_mib: make room"
docker_root=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null || echo /)
[ ! -d "$docker_root" ] || [ "$(free_mib "$docker_root")" -ge 256 ] || refuse "only $(free_mib "$docker_root") MiB free at $docker_root (Docker): make room"

# ---- building and starting -------------------------------------------------------------------------------------------

say "building skep-cloud, skep-edge and the thermometer (the first time takes minutes)"
cargo build --profile "$profile" --locked -p skep-edge -p skep-cloud --bins --example thermometer 9>&- || refuse "the build failed (reason above)"
say "$(deploy/examples/build-image.sh "$bin/examples/thermometer" "$image" 9>&-)"

trap cleanup EXIT
trap 'printf "\n"; exit 130' INT
trap 'exit 143' TERM HUP

[ ! -e "$state" ] || say "removing the state of the earlier demo in ${state#"$top"/}"
rm -rf "$state"
(umask 077 && mkdir -p "$state" "$logs" "$state/cloud" "$state/edge")
: >"$logs/mqtt.log"

cat >"$state/cloud.yaml" <<YAML
data-dir: $state/cloud
embedded:
  enabled: true
  kubeconfig: $state/kubeconfig
YAML
cat >"$state/edge.yaml" <<YAML
data-dir: $state/edge
edgehub:
  websocket:
    url: wss://127.0.0.1:$hub_port
  controller:
    node-id: $node
YAML

random_tenth() { printf '%d.%d' $((RANDOM % 15 + $1)) $((RANDOM % 10)); }
value=$(random_tenth 10)
wanted=$(random_tenth 30)

step=start
say "starting skep-cloud with its embedded API"
start cloud "$bin/skep-cloud" run --config "$state/cloud.yaml" 9>&-
cloud_pid=$started_pid
until_seen "skep-cloud answers on its certificate port" join_port_answers
until_seen "the Kubernetes API answers" api_answers

step 1 "an edge machine joins, and its node becomes Ready"
token=$("$bin/skep-cloud" token --config "$state/cloud.yaml" 2>>"$logs/cloud.log") || failed "skep-cloud token gave none"
"$bin/skep-edge" join --cloud "https://127.0.0.1:$join_port" --token "$token" --node "$node" --data-dir "$state/edge" \
    >>"$logs/edge.log" 2>&1 </dev/null || failed "skep-edge join was refused"
fact "skep-edge has a certificate of its own: $(openssl x509 -in "$state/edge/pki/edge.crt" -noout -subject 2>/dev/null || echo "$state/edge/pki/edge.crt")"
start edge "$bin/skep-edge" run --config "$state/edge.yaml" 9>&-
edge_pid=$started_pid
until_seen "kubectl get node $node says Ready" node_is_ready
fact "kubectl get nodes: $(kube get nodes --no-headers | head -n 1 | tr -s ' ')"

step 2 "a ConfigMap and a Pod reach the edge, and the pod's status comes back"
sed -e "s|tcp://127.0.0.1:1884|$broker|" -e "s|value: \"21.5\"|value: \"$value\"|" deploy/examples/thermometer.yaml >"$state/thermometer.yaml"
kube apply -f "$state/thermometer.yaml" >"$logs/kubectl.log" 2>&1 || failed "kubectl apply: $(tail -n 1 "$logs/kubectl.log")"
fact "kubectl apply -f deploy/examples/thermometer.yaml, with the random value $value in the ConfigMap"
until_seen "docker ps shows the container" container_runs
fact "docker: container ${container:0:12} runs $(docker inspect --format '{{.Config.Image}}' "$container")"
until_seen "the ConfigMap is mounted in it" config_is_mounted
fact "docker inspect: /etc/thermometer is mounted and its file says $value"
until_seen "kubectl get pod $pod says Running, Ready, podIP and hostIP" pod_runs
fact "kubectl get pod $pod: $seen"

step 3 "the thermometer reports; the value is stored at the edge and shown by kubectl"
setpriv --pdeathsig TERM mosquitto_sub -h 127.0.0.1 -p "$broker_port" -v -t "\$hw/events/device/$device/#" >>"$logs/mqtt.log" 2>>"$logs/mosquitto_sub.log" </dev/null 9>&- &
listener_pid=$!
kube apply -f deploy/examples/device.yaml >"$logs/kubectl.log" 2>&1 || failed "kubectl apply: $(tail -n 1 "$logs/kubectl.log")"
fact "kubectl apply -f deploy/examples/device.yaml"
until_seen "mosquitto_sub hears $device/twin/update with $value" heard update "\"$value\""
until_seen "mosquitto_sub hears twin/update/result with $value" heard update/result "\"$value\""
until_seen "mosquitto_sub hears twin/update/document with $value" heard update/document "\"$value\""
fact "mosquitto_sub: twin/update, its result and its document, with $value"
until_seen "the edge's SQLite has $value" twin_row actual "$value"
fact "sqlite3 edge.db: device_twin.actual is $value"
until_seen "kubectl get devicestatus $device says $value" reported_is "$value"
fact "kubectl get devicestatus $device: reported $value"

step 4 "kubectl sets a desired value, and the thermometer follows"
kube patch device "$device" --type=merge -p "{\"spec\":{\"properties\":[{\"name\":\"temperature\",\"desired\":{\"value\":\"$wanted\"}}]}}" \
    >"$logs/kubectl.log" 2>&1 || failed "kubectl patch: $(tail -n 1 "$logs/kubectl.log")"
fact "kubectl patch device $device: desired $wanted"
until_seen "mosquitto_sub hears twin/update/delta with $wanted" heard update/delta "\"delta\":{\"temperature\":\"$wanted\"}"
fact "mosquitto_sub: twin/update/delta asks for $wanted"
until_seen "the edge's SQLite has $wanted as expected and actual" twin_row "expected || '=' || actual" "$wanted=$wanted"
fact "sqlite3 edge.db: expected and actual are $wanted"
until_seen "kubectl get devicestatus $device says $wanted" reported_is "$wanted"
fact "kubectl get devicestatus $device: reported $wanted, as desired"

step 5 "kubectl deletes the pod: the container stops gracefully and the object goes"
docker wait "$container" >"$state/container.exit" 2>/dev/null </dev/null 9>&- &
farewell_pid=$!
kube delete pod "$pod" --wait=false >"$logs/kubectl.log" 2>&1 || failed "kubectl delete: $(tail -n 1 "$logs/kubectl.log")"
until_seen "kubectl get pod $pod says NotFound" pod_is_gone
until_seen "docker ps has no container of the pod" no_container
wait "$farewell_pid" || true
exit_code=$(cat "$state/container.exit")
[ "$exit_code" = 0 ] || failed "the container ended with code ${exit_code:-unknown}, not with 0 on SIGTERM"
farewell_pid=""
fact "docker: the program left on SIGTERM with code 0, and its container is removed"
fact "kubectl get pod $pod: NotFound"

# ---- what runs where -------------------------------------------------------------------------------------------------

resident() { awk '/^VmRSS:/ {printf "%.1f MB", $2 / 1024}' "/proc/$1/status" 2>/dev/null; }
printf '\n'
say "all five steps were seen"
cat <<TABLE

  skep-cloud        pid $cloud_pid, $(resident "$cloud_pid")    edges  wss://127.0.0.1:$hub_port, certificates https://127.0.0.1:$join_port
  Kubernetes API    in skep-cloud           https://127.0.0.1:$api_port
  skep-edge         pid $edge_pid, $(resident "$edge_pid")    MQTT  $broker, pods http://127.0.0.1:$pods_port/pods
  admin pages       edge http://127.0.0.1:$edge_admin_port    cloud http://127.0.0.1:$cloud_admin_port
  kubeconfig        .skep/demo/kubeconfig   logs .skep/demo/logs
TABLE
[ -z "$once" ] || exit 0

kube apply -f "$state/thermometer.yaml" >/dev/null 2>&1 || true
cat <<TRY

  The thermometer was applied once more, so that there is something to watch:

    mosquitto_sub -p $broker_port -v -t '\$hw/events/device/$device/#'
    export KUBECONFIG=$state/kubeconfig
    kubectl get nodes,pods,devices,devicestatuses
    kubectl patch device $device --type=merge -p '{"spec":{"properties":[{"name":"temperature","desired":{"value":"25.0"}}]}}'

  Ctrl-C stops everything.
TRY
trap 'printf "\n"; exit 0' INT
step="after the steps"
ended=0
wait -n "$cloud_pid" "$edge_pid" || ended=$?
alive "$cloud_pid" || failed "skep-cloud ended by itself with code $ended"
failed "skep-edge ended by itself with code $ended"
