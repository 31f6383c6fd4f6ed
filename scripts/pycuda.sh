# Sourced by scripts/test: puts pycuda into the test environment, built against the pretend driver of
# tests/cuda. Nobody's CUDA is needed: the headers come as packages, the compiler is the machine's.
# Such a pycuda is for tests alone; on a board, scripts/jetson_setup.sh builds one against real CUDA.

pycuda=pycuda==2026.1
cuda_headers=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-profiler-api==13.0.85)

# Installs pycuda where it is missing; where that is impossible, a message is printed and its tests are skipped.
prepare_pycuda() {
  (
    trap 'exit 130' INT
    wait_for_other_runs
    install_pycuda
  ) 9<"$root/pyproject.toml"
}

install_pycuda() {
  local stamp=$venv/.edgeres-pycuda wanted
  wanted=$(cat "$root"/scripts/pycuda.sh "$root"/tests/cuda/* "$venv/pyvenv.cfg" | cksum)
  if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    return
  fi
  if [[ -e /dev/nvidiactl || -e /dev/nvhost-gpu ]]; then
    say "This machine has a GPU: pycuda for the pretend driver is left out."
  elif ! command -v cc >/dev/null || ! command -v c++ >/dev/null; then
    say "No C++ compiler: pycuda is left out (Debian, Ubuntu: apt install g++)."
  elif (build_pycuda); then
    echo "$wanted" >"$stamp"
  else
    say "pycuda could not be built: the tests that need it are skipped."
  fi
}

build_pycuda() {
  # Not local: the trap runs when the function has ended, with the subshell that it was called in.
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  local log=$work/log
  say "Building $pycuda for the pretend driver (one to three minutes)"
  link_pretend_driver "$work" &&
    pip_install --no-deps --target "$work/headers" "${cuda_headers[@]}" &&
    compile_pycuda "$work" >"$log" 2>&1 && return
  [[ ! -f $log ]] || tail -n 20 "$log" >&2
  return 1
}

link_pretend_driver() {
  cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$1/libcuda.so" "$root/tests/cuda/pretend_cuda.c"
}

# pycuda's setup reads its options from the home folder. pip's cache is left out: what is built here
# must not be taken for a pycuda of the machine's own CUDA later.
compile_pycuda() {
  local include config=${XDG_CONFIG_HOME:-$HOME/.config}
  include=$(dirname "$(find "$1/headers" -name cuda.h | head -n 1)")
  mkdir "$1/home"
  echo 'CUDA_ENABLE_CURAND = False' >"$1/home/.aksetup-defaults.py"
  HOME=$1/home XDG_CONFIG_HOME=$config CPATH=$include LIBRARY_PATH=$1 CFLAGS='-O0 -g0' \
    pip_install --no-cache-dir --no-binary pycuda "$pycuda"
}
