# Read by every bash of a job, as BASH_ENV: its `python -m …` is a fork of the process that warm_python.py starts.
python() {
    if [[ ${1:-} == -m ]]; then
        $WARM_PYTHON_CLIENT "$@"
    else
        command python "$@"
    fi
}
