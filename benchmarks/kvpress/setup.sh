#!/bin/sh
# Makes kvpress's own environment, apart from longspan's; what is there already stays as it is.
#
#     sh setup.sh ENVIRONMENT
#
# PYTHON: the interpreter that makes it; without it, `python` on the PATH. About 2 GB.
set -eu
[ $# -eq 1 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
[ -x "$1/bin/python" ] || "${PYTHON:-python}" -m venv "$1"
"$1/bin/pip" install --quiet torch==2.13.0 kvpress==0.5.5 optimum-quanto hqq
