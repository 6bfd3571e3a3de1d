# shellcheck shell=bash disable=SC2034 # used by those that source it
# Sourced by install and with: sets `python`, the private environment of the packages in python.txt, in whose folder `servers` are
# the programs that tests start. Another version of a package is another environment.
python="${CONTRAFLOW_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/contraflow-tests}"
python="$python/python-$(cksum <"$(dirname "${BASH_SOURCE[0]}")/python.txt" | cut -d ' ' -f 1)"
