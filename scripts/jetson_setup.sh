#!/usr/bin/env bash
# Prepares a Jetson for edgeres: an environment that sees JetPack's TensorRT, with edgeres and a
# pycuda built for the board's CUDA. No torch: a board builds and evaluates engines without it.
#     scripts/jetson_setup.sh           does what is missing; run it again at any time
#     scripts/jetson_setup.sh --check   lists what is missing and the commands for it; exit 1 then
# EDGERES_VENV names another folder for the environment than .venv-jetson; CUDA_HOME another
# toolkit than /usr/local/cuda.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${EDGERES_VENV:-$root/.venv-jetson}
[[ $venv == /* ]] || venv=$PWD/$venv
cuda=${CUDA_HOME:-/usr/local/cuda}
board=${EDGERES_BOARD_ROOT:-}
marker=$venv/.edgeres-jetson
numpy_limit=
check_only=
missing=0

# pip turns Ctrl-C into an ordinary failure, after which bash would go on with the next step.
trap 'exit 130' INT

say() { echo "$*" >&2; }

die() {
  say "Error: $*"
  exit 1
}

main() {
  read_options "$@"
  read_board
  step "Python 3.10 or newer that makes environments" python_is_ready \
    as_root apt-get install -y python3-venv python3-dev
  step "TensorRT's Python module" tensorrt_is_ready as_root apt-get install -y python3-libnvinfer
  step "the CUDA toolkit in $cuda" cuda_is_ready as_root apt-get install -y nvidia-jetpack
  step "a compiler for pycuda" compiler_is_ready as_root apt-get install -y build-essential
  step "the environment $venv" venv_is_ready make_venv
  step "edgeres in it" edgeres_is_ready install_edgeres
  step "numpy that TensorRT's module was made for (${numpy_limit:-any})" numpy_is_ready \
    pip_install "numpy$numpy_limit"
  step "pycuda built with $cuda" pycuda_is_ready build_pycuda
  finish
}

read_options() {
  case ${1:-} in
    "") ;;
    --check) check_only=1 ;;
    -h | --help)
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) die "unknown option $1: scripts/jetson_setup.sh [--check | --help]" ;;
  esac
}

# Sets the limit on numpy: what JetPack 6 brings was compiled with NumPy 1 and may crash with 2.
read_board() {
  local file=$board/etc/nv_tegra_release release
  [[ -r $file ]] || die "$file is not there: this is no Jetson with Jetson Linux. On a desktop: pip install '.[tensorrt]' in $root."
  release=$(sed -nE '1s/^# R([0-9]+) ?\(release\).*/\1/p' "$file")
  [[ -n $release ]] || die "$file names no release: $(head -n 1 "$file")"
  if ((release < 36)); then
    die "Jetson Linux $release has Python 3.8 or older, and edgeres needs 3.10. Flash JetPack 6 or newer."
  fi
  if ((release == 36)); then
    numpy_limit='<2'
  fi
}

# Runs a step unless it is done already, and looks again afterwards.
#     step WHAT IS_READY COMMAND...
step() {
  local what=$1 is_ready=$2
  shift 2
  if "$is_ready"; then
    say "ok       $what"
  elif [[ -n $check_only ]]; then
    say "missing  $what: $(command_text "$@")"
    missing=$((missing + 1))
  else
    say "doing    $what: $(command_text "$@")"
    "$@" || die "$what: $(command_text "$@") failed. The reason is in its output above; run this script again afterwards."
    "$is_ready" || die "$what is still missing after: $(command_text "$@")"
  fi
}

# Prints a step's command as one would type it.
command_text() {
  case $1 in
    as_root) shift && echo "sudo $*" ;;
    make_venv) echo "python3 -m venv --system-site-packages $venv" ;;
    install_edgeres) echo "pip install $root" ;;
    build_pycuda) echo "CUDA_ROOT=$cuda pip install pycuda" ;;
    pip_install) shift && echo "pip install $*" ;;
    *) echo "$*" ;;
  esac
}

finish() {
  if ((missing)); then
    say "$missing of the steps are missing. scripts/jetson_setup.sh does them."
    exit 1
  fi
  say "Ready: $venv/bin/edgeres doctor"
}

as_root() {
  if ((EUID)); then
    sudo "$@"
  else
    "$@"
  fi
}

python_is_ready() {
  python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

tensorrt_is_ready() { has_module python3 tensorrt; }

cuda_is_ready() { [[ -x $cuda/bin/nvcc ]]; }

compiler_is_ready() { command -v g++ >/dev/null; }

venv_is_ready() {
  [[ -x $venv/bin/python ]] && has_module "$venv/bin/python" tensorrt && "$venv/bin/python" -m pip --version >/dev/null 2>&1
}

edgeres_is_ready() { has_module "$venv/bin/python" edgeres; }

pycuda_is_ready() { has_module "$venv/bin/python" pycuda; }

numpy_is_ready() {
  has_module "$venv/bin/python" numpy && { [[ -z $numpy_limit ]] || numpy_is_1; }
}

numpy_is_1() {
  "$venv/bin/python" -c 'import importlib.metadata as m, sys; sys.exit(m.version("numpy")[:2] != "1.")'
}

# Looks from / for a module: in the repository its own folder would be found.
has_module() {
  local look="import importlib.util, sys; sys.exit(importlib.util.find_spec('$2') is None)"
  [[ -x $(command -v "$1") ]] && (cd / && "$1" -c "$look" 2>/dev/null)
}

# Makes the environment, anew where one that this script made is broken; clears no other folder.
make_venv() {
  if [[ -e $venv && ! -e $marker ]] && ! rmdir "$venv" 2>/dev/null; then
    die "$venv was not made by this script. Remove it, or set EDGERES_VENV to a new folder."
  fi
  mkdir -p "$venv"
  touch "$marker"
  python3 -m venv --clear --system-site-packages "$venv"
  touch "$marker"
}

install_edgeres() { pip_install "$root"; }

build_pycuda() {
  CUDA_ROOT=$cuda PATH=$cuda/bin:$PATH CPATH=$cuda/include${CPATH:+:$CPATH} \
    LIBRARY_PATH=$cuda/lib64${LIBRARY_PATH:+:$LIBRARY_PATH} pip_install pycuda
}

# Installs with the limit on numpy, so that no dependency lifts it.
pip_install() {
  echo "numpy$numpy_limit" >"$venv/constraints.txt"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$venv/constraints.txt" "$@"
}

main "$@"
