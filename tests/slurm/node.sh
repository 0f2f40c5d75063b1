# Read by every bash of a job, as BASH_ENV, and by no other: what a compute node of the tests is like. Snakemake runs
# each command of a rule with a bash.
#
# SLURM_TESTS   a folder; while it has a file `hold-extract`, jobs of `lmshape extract` wait before they begin, and
#               say so with a file `extract-JOB`
# SLURM_TESTS_CUT   an address, `host/port`: nodes are without a network; whether the address can be reached from within
#                   a job is noted in `network`, beside whether it can be reached from outside
if [[ -n ${SLURM_JOB_ID:-} ]]; then
    reaches() { (exec 3<>"/dev/tcp/$1") 2>/dev/null && echo reached || echo cut; }
    export -f reaches

    python() {
        if [[ ${1:-} != -m || ${2:-} != lmshape ]]; then
            command python "$@"
            return
        fi
        if [[ -e $SLURM_TESTS/hold-$3 ]]; then
            touch "$SLURM_TESTS/$3-$SLURM_JOB_ID"
            while [[ -e $SLURM_TESTS/hold-$3 ]]; do sleep 0.2; done
        fi
        if [[ -z ${SLURM_TESTS_CUT:-} ]]; then
            command python "$@"
            return
        fi
        echo "$SLURM_JOB_ID outside $(reaches "$SLURM_TESTS_CUT")" >>"$SLURM_TESTS/network"
        unshare --net bash -c 'echo "$SLURM_JOB_ID inside $(reaches "$SLURM_TESTS_CUT")" >>"$SLURM_TESTS/network"
            exec python "$@"' bash "$@"
    }
fi
