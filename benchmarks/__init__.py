"""What measures the toolkit itself, on real networks and images; no part of what it installs.

`quantization` (accuracy, cost and memory of calibration and INT8, also beside other quantizers),
`results` (the README's table), `evaluation` (throughput of taking accuracy) and `timing` (bench's
latency beside a plain loop). Each is run from the repository: `python -m benchmarks.results --help`.
"""
