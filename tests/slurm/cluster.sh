#!/usr/bin/env bash
# A real SLURM of two nodes on this machine: munge, MariaDB, slurmdbd, slurmctld and two slurmd from Debian's packages.
#
#   eval "$(cluster.sh start [folder])"   bring up what does not run, and make it the cluster of this shell
#   cluster.sh stop [folder]              end its jobs and daemons; the folder and its logs stay
#
# It needs root, but neither systemd nor cgroups, and touches nothing outside the folder but to install packages.
set -euo pipefail

COMMAND=${1:-}
FOLDER=$(realpath --canonicalize-missing "${2:-/tmp/lmshape-slurm}")

NODES=(node1 node2)
ACCOUNT=lab
CPUS=4         # of a node; they may be more than there are, so that jobs overlap on a small machine
MEMORY=32000   # of a node, in MB, likewise
GPU=/dev/null  # counted, not used: SLURM wants a device file behind each, and any will do

export SLURM_CONF=$FOLDER/slurm.conf
CONF_MARK="# lmshape's cluster for tests"
SOCKET=$FOLDER/munge/socket

die() {
    echo "cluster.sh: $1" >&2
    if [[ -s ${2:-} ]]; then
        echo "The last lines of $2:" >&2
        tail -n 20 "$2" >&2
    fi
    exit 1
}

# Wait for a command to succeed: wait_for SECONDS WHAT LOG COMMAND...
wait_for() {
    local end=$((SECONDS + $1)) what=$2 log=$3
    shift 3
    until timeout 10 "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || die "$what did not come up" "$log"
        sleep 0.1
    done
}

pid_file() { echo "$FOLDER/run/$1.pid"; }

# Whether a daemon of this folder runs. A pid may have been given to another process since it was written.
alive() {
    local pid
    pid=$(cat "$(pid_file "$1")" 2>/dev/null) && [[ -n $pid ]] || return 1
    grep --quiet --null-data --line-regexp --fixed-strings "SLURM_CONF=$SLURM_CONF" "/proc/$pid/environ" 2>/dev/null &&
        [[ $(ps --no-headers --format state "$pid") != Z* ]]
}

# ---- Packages ----------------------------------------------------------------------------------------------------------

is_installed() { dpkg-query --show --showformat='${Status}' "$1" 2>/dev/null | grep --quiet ' ok installed$'; }

install_packages() {
    local missing=() package log=$FOLDER/log/apt.log policy=/usr/sbin/policy-rc.d made=
    for package in munge slurm-client slurmctld slurmd slurmdbd mariadb-server; do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || die "${missing[*]} are missing, and there is no apt-get to install them"
    # Installing must start no daemon: 101 forbids it to the packages' scripts.
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=$policy
    fi
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install --option DPkg::Lock::Timeout=300
        --yes --no-install-recommends "${missing[@]}")
    local status=0
    { "${install[@]}" || { apt-get update && "${install[@]}"; }; } >"$log" 2>&1 || status=$?
    [[ -z $made ]] || rm -f "$made"
    ((status == 0)) || die "apt-get could not install ${missing[*]}" "$log"
}

# ---- Configuration -----------------------------------------------------------------------------------------------------

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The first of five ports in a row that nobody listens on, below those that the kernel gives to connections.
choose_ports() {
    local base offset
    for _ in {1..50}; do
        base=$((12000 + RANDOM % 2000 * 10))
        for offset in 0 1 2 3 4; do
            is_free $((base + offset)) || continue 2
        done
        echo "$base"
        return
    done
    die "no five free ports in a row"
}

# Snakemake's executor plugin takes SLURM_CONF, like all that begins with SLURM_, from the `srun` within a job.
wrap_srun() {
    install --directory "$FOLDER/bin"
    printf '#!/bin/sh\nSLURM_CONF=%q exec %q "$@"\n' "$SLURM_CONF" "$(type -P srun)" >"$FOLDER/bin/srun"
    chmod 755 "$FOLDER/bin/srun"
}

configure() {
    local host base port node nodes=
    host=$(hostname -s)
    base=$(choose_ports)
    port=$((base + 3))
    : >"$FOLDER/gres.conf"
    for node in "${NODES[@]}"; do
        nodes+="NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$port CPUs=$CPUS SocketsPerBoard=1"
        nodes+=" CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEMORY Gres=gpu:1 State=UNKNOWN"$'\n'
        echo "NodeName=$node Name=gpu File=$GPU" >>"$FOLDER/gres.conf"
        port=$((port + 1))
    done
    cat >"$FOLDER/slurmdbd.conf" <<CONF
$CONF_MARK
AuthType=auth/munge
AuthInfo=socket=$SOCKET
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=$((base + 1))
SlurmUser=root
PidFile=$(pid_file slurmdbd)
LogFile=$FOLDER/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((base + 2))
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
CONF
    chmod 600 "$FOLDER/slurmdbd.conf"
    cat >"$SLURM_CONF" <<CONF
$CONF_MARK
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$base
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$SOCKET
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPidFile=$(pid_file slurmctld)
SlurmdPidFile=$(pid_file %n)
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool/%n
SlurmctldLogFile=$FOLDER/log/slurmctld.log
SlurmdLogFile=$FOLDER/log/%n.log
# Neither systemd nor cgroups: memory is looked at every second, and a job over its limit is killed.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
MpiDefault=none
SwitchType=switch/none
# A dead node is noticed soon, and one that is back is used again.
SlurmdTimeout=10
SlurmctldTimeout=30
ReturnToService=2
KillWait=2
CompleteWait=0
# A job that can never start is refused; SLURM's default keeps it waiting for ever.
EnforcePartLimits=ALL
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MinJobAge=300
# Connections to slurmdbd do not heed AuthInfo; for them the socket is the password.
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((base + 1))
AccountingStoragePass=$SOCKET
AccountingStorageEnforce=associations
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
# Lets a node say that it has more than the machine.
SlurmdParameters=config_overrides
GresTypes=gpu
${nodes}PartitionName=cpu Nodes=ALL Default=YES DefaultTime=10 MaxTime=1-0 DefMemPerCPU=500 State=UP
PartitionName=gpu Nodes=ALL DefaultTime=10 MaxTime=1-0 DefMemPerCPU=500 State=UP
CONF
}

# ---- Daemons -----------------------------------------------------------------------------------------------------------

start_munge() {
    alive munged && return
    [[ -s $FOLDER/munge/key ]] || (umask 077 && head --bytes 1024 /dev/urandom >"$FOLDER/munge/key")
    # Root may not own munge's files unless it is forced to accept that.
    munged --force --key-file="$FOLDER/munge/key" --socket="$SOCKET" --seed-file="$FOLDER/munge/seed" \
        --pid-file="$(pid_file munged)" --log-file="$FOLDER/log/munged.log" 2>"$FOLDER/log/munged.err" ||
        die "munged ended" "$FOLDER/log/munged.err"
    wait_for 10 munged "$FOLDER/log/munged.log" munge --socket "$SOCKET" --no-input
}

start_database() {
    local log=$FOLDER/log/mariadb.log data=$FOLDER/database
    local sql=(mariadb --no-defaults --socket="$data/socket" --user=root)
    alive mariadbd && return
    if [[ ! -d $data/mysql ]]; then
        mariadb-install-db --no-defaults --user=root --datadir="$data" --skip-test-db \
            --auth-root-authentication-method=socket >"$log" 2>&1 || die "the database could not be made" "$log"
    fi
    # As root, since the folder may be closed to others.
    setsid mariadbd --no-defaults --user=root --datadir="$data" --socket="$data/socket" --pid-file="$data/pid" \
        --bind-address=127.0.0.1 --port="$(sed -n 's/^StoragePort=//p' "$FOLDER/slurmdbd.conf")" \
        --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 --skip-log-bin >"$log" 2>&1 </dev/null &
    echo $! >"$(pid_file mariadbd)"
    wait_for 60 MariaDB "$log" "${sql[@]}" --execute 'select 1'
    "${sql[@]}" <<'SQL'
CREATE DATABASE IF NOT EXISTS slurm;
CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'slurm';
CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED BY 'slurm';
GRANT ALL ON slurm.* TO slurm@'127.0.0.1';
GRANT ALL ON slurm.* TO slurm@localhost;
SQL
}

start_accounting() {
    local log=$FOLDER/log/slurmdbd.log
    alive slurmdbd && return
    slurmdbd || die "slurmdbd ended" "$log"
    wait_for 60 slurmdbd "$log" sacctmgr --noheader show cluster
    # slurmctld enforces associations, so they come before it; to add one again is an error that does not matter.
    sacctmgr --immediate --quiet add cluster tests >/dev/null 2>&1 || true
    sacctmgr --immediate --quiet add account "$ACCOUNT" cluster=tests >/dev/null 2>&1 || true
    sacctmgr --immediate --quiet add user root account="$ACCOUNT" >/dev/null 2>&1 || true
}

start_controller() {
    alive slurmctld && return
    slurmctld || die "slurmctld ended" "$FOLDER/log/slurmctld.log"
    wait_for 60 slurmctld "$FOLDER/log/slurmctld.log" bash -c 'scontrol ping | grep --quiet "is UP"'
}

start_nodes() {
    local node
    for node in "${NODES[@]}"; do
        alive "$node" || slurmd -N "$node" || die "slurmd of $node ended" "$FOLDER/log/$node.log"
    done
    for node in "${NODES[@]}"; do
        # ReturnToService takes back nodes that are down, and none that was drained.
        ! sinfo --noheader --nodes "$node" --format %t | grep --quiet '^drain\|^drng' ||
            scontrol update NodeName="$node" State=RESUME
        wait_for 60 "$node" "$FOLDER/log/$node.log" \
            bash -c "sinfo --noheader --nodes $node --format %t | grep --quiet --extended-regexp '^(idle|mix|alloc|comp)$'"
    done
}

# That a job runs and is accounted for is the proof that all of them work together.
prove() {
    local job
    [[ ! -e $FOLDER/proven ]] || return 0
    job=$(sbatch --parsable --wait --time 1 --mem 50 --output "$FOLDER/log/proof.log" --wrap 'hostname') ||
        die "a first job failed" "$FOLDER/log/slurmctld.log"
    wait_for 30 "accounting of job $job" "$FOLDER/log/slurmdbd.log" \
        bash -c "sacct --allocations --noheader --jobs $job --format State | grep --quiet COMPLETED"
    touch "$FOLDER/proven"
}

start() {
    ((EUID == 0)) || die "SLURM's daemons need root"
    install --directory "$FOLDER"
    [[ ! -e $SLURM_CONF ]] || grep --quiet --fixed-strings "$CONF_MARK" "$SLURM_CONF" ||
        die "$SLURM_CONF is of another cluster"
    install --directory "$FOLDER"/{log,run,state,spool}
    install --directory --mode 711 "$FOLDER/munge"
    install_packages
    if [[ ! -e $SLURM_CONF ]]; then
        wrap_srun
        configure
    fi
    start_munge
    start_database
    start_accounting
    start_controller
    start_nodes
    prove
    printf 'export SLURM_CONF=%q PATH=%q:"$PATH"\n' "$SLURM_CONF" "$FOLDER/bin"
}

stop_daemon() {
    local pid
    if alive "$1"; then
        pid=$(cat "$(pid_file "$1")")
        kill -TERM "$pid"
        for _ in {1..100}; do
            alive "$1" || break
            sleep 0.1
        done
        ! alive "$1" || kill -KILL "$pid"
    fi
    rm -f "$(pid_file "$1")"
}

stop() {
    local name
    if alive slurmctld; then
        timeout 10 scancel --user root || true
        for _ in {1..100}; do
            [[ -n $(timeout 10 squeue --noheader 2>/dev/null) ]] || break
            sleep 0.1
        done
    fi
    for name in "${NODES[@]}" slurmctld slurmdbd mariadbd munged; do
        stop_daemon "$name"
    done
}

case $COMMAND in
start | stop) "$COMMAND" ;;
*) die "usage: cluster.sh start|stop [folder]" ;;
esac
