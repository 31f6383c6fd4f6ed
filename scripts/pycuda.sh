# Sourced by scripts/test: puts pycuda into the test environment, built against the pretend driver of
# tests/cuda. Nobody's CUDA is needed: the headers come as packages, the compiler is the machine's.
# Such a pycuda is for tests alone; on a board, scripts/jetson_setup.sh builds one against real CUDA.

pycuda=pycuda==2026.1
cuda_headers=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-profiler-api==13.0.85)
# Where the wheel is built, and the process that does it; both empty where nothing is to be built.
pycuda_work=
pycuda_build=

# Begins to build pycuda's wheel where the environment lacks it, beside what installs the environment.
start_pycuda() {
  if pycuda_is_installed; then
    return
  fi
  if [[ -e /dev/nvidiactl || -e /dev/nvhost-gpu ]]; then
    say "This machine has a GPU: pycuda for the pretend driver is left out."
  elif ! command -v cc >/dev/null || ! command -v c++ >/dev/null; then
    say "No C++ compiler: pycuda is left out (Debian, Ubuntu: apt install g++)."
  else
    say "Building $pycuda for the pretend driver (one to three minutes)"
    pycuda_work=$(mktemp -d)
    # A process group of its own, so that the compiler is ended with it.
    set -m
    build_pycuda "$pycuda_work" >"$pycuda_work/log" 2>&1 </dev/null &
    pycuda_build=$!
    set +m
  fi
}

# Installs what start_pycuda built; where that failed, its log is shown and the tests of it are skipped.
finish_pycuda() {
  [[ $pycuda_build ]] || return 0
  local built=0
  wait "$pycuda_build" || built=$?
  pycuda_build=''
  if [[ $built != 0 ]] || ! install_pycuda >>"$pycuda_work/log" 2>&1; then
    tail -n 20 "$pycuda_work/log" >&2
    say "pycuda could not be built: the tests that need it are skipped."
  fi
  discard_pycuda
}

# Ends a build that still runs, and removes its folder.
discard_pycuda() {
  if [[ $pycuda_build ]]; then
    kill -- -"$pycuda_build" 2>/dev/null || true
    wait "$pycuda_build" 2>/dev/null || true
  fi
  [[ ! $pycuda_work ]] || rm -rf "$pycuda_work"
  pycuda_build='' pycuda_work=''
}

install_pycuda() {
  (
    trap 'exit 130' INT
    wait_for_other_runs
    pip_install "$pycuda_work"/pycuda-*.whl && pycuda_fingerprint >"$venv/.edgeres-pycuda"
  ) 9<"$root/pyproject.toml"
}

pycuda_is_installed() {
  [[ -f $venv/.edgeres-pycuda && $(<"$venv/.edgeres-pycuda") == $(pycuda_fingerprint) ]]
}

# Prints a checksum of all that the installation depends on.
pycuda_fingerprint() {
  cat "$root"/scripts/pycuda.sh "$root"/tests/cuda/* "$venv/pyvenv.cfg" | cksum
}

# Makes a wheel in the folder $1. pycuda's setup reads its options from the home folder. pip's cache is
# left out: what is built here must not be taken for a pycuda of the machine's own CUDA later.
build_pycuda() {
  local include config=${XDG_CONFIG_HOME:-$HOME/.config} python=$venv/bin/python
  # The environment itself is being made meanwhile.
  "$python" -c '' 2>/dev/null || python=$(find_python)
  cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$1/libcuda.so" "$root/tests/cuda/pretend_cuda.c" &&
    "$python" -m venv "$1/venv" &&
    venv=$1/venv pip_install --no-deps --target "$1/headers" "${cuda_headers[@]}" &&
    include=$(dirname "$(find "$1/headers" -name cuda.h | head -n 1)") &&
    mkdir "$1/home" &&
    echo 'CUDA_ENABLE_CURAND = False' >"$1/home/.aksetup-defaults.py" &&
    HOME=$1/home XDG_CONFIG_HOME=$config CPATH=$include LIBRARY_PATH=$1 CFLAGS='-O0 -g0' \
      "$1/venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-cache-dir \
      --no-deps --no-binary pycuda --wheel-dir "$1" "$pycuda"
}
