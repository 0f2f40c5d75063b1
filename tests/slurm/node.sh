# Read by every bash of a job, as BASH_ENV, and by no other: what a compute node of the tests is like. Snakemake runs
# each command of a rule with a bash.
#
# NODE_FOLDER   a folder; while it has a file `hold-extract`, jobs of the rule `extract` wait before they begin,
#               and say so with a file `extract-JOB`
# NODE_CUT_FROM   an address, `host/port`: nodes are without a network; whether the address can be reached from within
#                   a job is noted in `network`, beside whether it can be reached from outside
# WARM_PYTHON_CLIENT   runs the commands as forks, which no end of a job reaches: for jobs that end by themselves
if [[ -n ${SLURM_JOB_ID:-} ]]; then
    reaches() { (exec 3<>"/dev/tcp/$1") 2>/dev/null && echo reached || echo cut; }
    export -f reaches

    python() {
        if [[ ${1:-} != -m || ${2:-} != lmshape || ${3:-} != run ]]; then
            command python "$@"
            return
        fi
        if [[ -e $NODE_FOLDER/hold-$4 ]]; then
            touch "$NODE_FOLDER/$4-$SLURM_JOB_ID"
            while [[ -e $NODE_FOLDER/hold-$4 ]]; do sleep 0.2; done
        fi
        if [[ -z ${NODE_CUT_FROM:-} ]]; then
            ${WARM_PYTHON_CLIENT:-command python} "$@"
            return
        fi
        echo "$SLURM_JOB_ID outside $(reaches "$NODE_CUT_FROM")" >>"$NODE_FOLDER/network"
        unshare --net bash -c 'echo "$SLURM_JOB_ID inside $(reaches "$NODE_CUT_FROM")" >>"$NODE_FOLDER/network"
            exec python "$@"' bash "$@"
    }
fi
