# Sourced by scripts/test and scripts/demo: makes the environment that they run in.
# Sets `root`, the repository, and `venv`, the environment: $EDGERES_VENV, or .venv in the repository.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${EDGERES_VENV:-$root/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
constraints=$root/scripts/constraints.txt

# pip turns Ctrl-C into an ordinary failure, after which bash would go on with the next step.
trap 'exit 130' INT

say() { echo "$*" >&2; }

die() {
  say "Error: $*"
  exit 1
}

# Prints the extras that can be installed on this machine.
available_extras() {
  if [[ $(uname -sm) == "Linux x86_64" ]]; then
    echo export,rtx
  else
    say "TensorRT for RTX is left out on $(uname -sm): its wheels are tried on x86_64 Linux only."
    echo export
  fi
}

# Makes the environment hold `edgeres[extras]`; does nothing where it already does.
prepare_environment() {
  (
    trap 'exit 130' INT
    wait_for_other_runs
    discard_unfinished
    install_extras "$1"
  ) 9<"$root/pyproject.toml"
}

# Two runs must not write to one environment; the lock falls with file descriptor 9.
wait_for_other_runs() {
  if command -v flock >/dev/null && ! flock -n 9; then
    say "Waiting for another run that is installing"
    flock 9
  fi
}

# Removes an environment that an interrupted run left or that lost its Python; no other folder.
discard_unfinished() {
  if [[ ! -e $venv ]] || rmdir "$venv" 2>/dev/null; then
    return
  fi
  if ! compgen -G "$venv/.edgeres-*" >/dev/null; then
    die "$venv was not made by this script. Remove it, or set EDGERES_VENV to a new folder."
  fi
  if [[ -e $venv/.edgeres-unfinished ]] || ! "$venv/bin/python" -c '' 2>/dev/null; then
    say "$venv is unfinished or lost its Python: making it anew"
    rm -rf "$venv"
  fi
}

install_extras() {
  local stamp=$venv/.edgeres-$1 unfinished=$venv/.edgeres-unfinished wanted
  wanted=$(fingerprint)
  if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    return
  fi
  [[ -d $venv ]] || make_venv
  touch "$unfinished"
  say "Installing edgeres[$1] into $venv"
  install_torch
  pip_install --constraint "$constraints" --editable "$root[$1]"
  echo "$wanted" >"$stamp"
  rm "$unfinished"
}

# Prints a checksum of all that an installation depends on, the place of the checkout included.
fingerprint() {
  cd "$root"
  { pwd && cat pyproject.toml edgeres/version.py scripts/constraints.txt scripts/environment.sh; } | cksum
}

make_venv() {
  local python
  python=$(find_python)
  say "Making $venv with $("$python" --version)"
  mkdir -p "$venv"
  touch "$venv/.edgeres-unfinished"
  "$python" -m venv "$venv"
}

# Prints the first Python on the PATH that is new enough and can make an environment.
find_python() {
  local python incomplete=
  while read -r python; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$python"
        return
      fi
      incomplete=$python
    fi
  done < <(type -aP python3 python3.13 python3.12 python3.11 python3.10)
  if [[ $incomplete ]]; then
    die "$incomplete has no venv module. Install it (Debian, Ubuntu: apt install python3-venv)."
  fi
  die "No Python 3.10 or newer on the PATH. Install one (Debian, Ubuntu: apt install python3 python3-venv)."
}

# Installs the CPU build of torch: on Linux the default one brings gigabytes of CUDA libraries.
install_torch() {
  local torch
  torch=$(grep '^torch==' "$constraints")
  if [[ $(uname -s) != Linux ]]; then
    pip_install "$torch"
  elif ! pip_install "$torch+cpu" 2>/dev/null && ! install_torch_with_uv "$torch"; then
    say "No CPU build of $torch can be reached: taking pip's default one, several GB with CUDA."
    say "To avoid that, press Ctrl-C and set PIP_FIND_LINKS to a folder with the CPU wheel."
    pip_install "$torch"
  fi
}

# pip knows PyTorch's own indexes only where it is told of them; uv knows them by itself.
install_torch_with_uv() {
  say "pip finds no CPU build of $1: asking PyTorch's own index with uv"
  pip_install uv &&
    "$venv/bin/python" -m uv pip install -q --python "$venv/bin/python" --torch-backend cpu "$1"
}

# Python compiles what is imported; all that is installed would take half a minute.
pip_install() {
  "$venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check "$@"
}
